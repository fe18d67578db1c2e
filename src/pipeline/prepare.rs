//! One input becomes pictures for the model: its pages, and of a page the parts that are cut out.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use super::explain;
use super::gate::Room;
use super::input::Input;
use super::{End, Region};
use crate::image::{self, Blank, DecodeOptions, Decoded, ImageProcessor, Pages, Pixels, Rgb8};
use crate::lines;

/// Finds the parts of an upright page that are read one by one, such as its text lines.
pub type Cut = Arc<dyn Fn(&Rgb8) -> Result<Vec<(Region, Rgb8)>> + Send + Sync>;

/// A picture with so many lines of text, one below the other, is a page. Two may be a line and what is left
/// of its neighbour.
const PAGE: usize = 3;

/// How inputs are read. Shared by the workers.
pub(super) struct Preparer {
    pub(super) processor: ImageProcessor,
    pub(super) decode: DecodeOptions,
    /// None is all pages of a TIFF and the first frame of an animation.
    pub(super) pages: Option<Pages>,
    /// None reads pages as a whole.
    pub(super) cut: Option<Cut>,
    /// What counts as empty; none looks at no picture.
    pub(super) blank: Option<Blank>,
    /// Look whether pictures that are read as one line are pages.
    pub(super) one_line: bool,
    /// Keep the pictures themselves.
    pub(super) explain: bool,
}

/// A picture ready for the model, or why there is none.
pub(super) struct Unit {
    pub(super) image: String,
    pub(super) origin: Option<PathBuf>,
    pub(super) page: Option<usize>,
    pub(super) region: Option<Region>,
    pub(super) end: End,
    pub(super) outcome: Result<Prepared>,
}

pub(super) struct Prepared {
    pub(super) pixels: Pixels,
    /// There is nothing in the picture.
    pub(super) blank: bool,
    /// Width by height of what is read, before it takes the model's shape.
    pub(super) aspect: f32,
    /// Of the page in the file.
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) orientation: u8,
    /// The lines of text in it, where it is a page and should have been a line.
    pub(super) rows: Option<usize>,
    /// The picture itself, perhaps reduced, if it is to be shown.
    pub(super) given: Option<Rgb8>,
}

impl Unit {
    /// What it takes of the memory.
    pub(super) fn bytes(&self) -> u64 {
        self.outcome.as_ref().map_or(0, |prepared| {
            let given = prepared.given.as_ref().map_or(0, |given| given.data.len());
            prepared.pixels.data.len() as u64 * 4 + given as u64
        })
    }
}

impl Preparer {
    /// Sends the pictures of `input`, in order, until `send` says that nobody wants more. `room` waits
    /// for memory.
    pub(super) fn prepare<'a>(
        &self,
        input: &Input,
        room: &mut dyn FnMut(u64) -> Room<'a>,
        send: &mut dyn FnMut(Unit) -> bool,
    ) {
        // Held until the pictures are made, like what is decoded.
        let size = input.size();
        let _reading = room(size);
        let bytes = match input.bytes() {
            Ok(bytes) => bytes,
            Err(error) => {
                send(Unit { outcome: Err(error), ..input.unit(input.page) });
                return;
            }
        };
        let one = input.page.map(Pages::one);
        let pages = one.as_ref().or(self.pages.as_ref());
        let more = (bytes.len() as u64).saturating_sub(size);
        let room = room(image::memory(&bytes).saturating_add(more));
        image::visit_pages(&bytes, pages, &self.decode, &mut |page, decoded| {
            let whole = input.unit(page.or(input.page));
            match decoded {
                Ok(decoded) => self.page(whole, decoded, send),
                Err(error) => send(Unit { outcome: Err(error), ..whole }),
            }
        });
        drop(room);
    }

    /// The pictures of one page.
    fn page(&self, whole: Unit, page: Decoded, send: &mut dyn FnMut(Unit) -> bool) -> bool {
        let Decoded { image, orientation, width, height } = page;
        let process = |image: &Rgb8| {
            let pixels = self.processor.process(image)?;
            let blank = self.blank.is_some_and(|blank| blank.holds(image));
            let aspect = image.width as f32 / image.height.max(1) as f32;
            let given = self.explain.then(|| explain::kept(image)).transpose()?;
            let rows = self.one_line.then(|| lines::rows(image)).filter(|rows| *rows >= PAGE);
            Ok(Prepared { pixels, blank, aspect, width, height, orientation, rows, given })
        };
        let Some(cut) = &self.cut else {
            return send(Unit { outcome: process(&image), ..whole });
        };
        match cut(&image) {
            // Nothing to read is no failure: the page is told as an empty one.
            Ok(parts) if parts.is_empty() => {
                let blank = process(&image).map(|prepared| Prepared { blank: true, ..prepared });
                send(Unit { outcome: blank, ..whole })
            }
            Ok(parts) => parts.into_iter().all(|(region, image)| {
                send(Unit {
                    image: whole.image.clone(),
                    origin: whole.origin.clone(),
                    page: whole.page,
                    region: Some(region),
                    end: whole.end,
                    outcome: process(&image),
                })
            }),
            Err(error) => send(Unit { outcome: Err(error), ..whole }),
        }
    }
}
