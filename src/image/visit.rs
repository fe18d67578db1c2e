//! All the pages of a file that are asked for, one after the other.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::image::codecs::gif::GifDecoder;
use ::image::codecs::png::PngDecoder;
use ::image::codecs::webp::WebPDecoder;
use ::image::{
    AnimationDecoder, DynamicImage, Frames, ImageDecoder, ImageFormat, ImageReader, ImageResult,
};
use anyhow::{Result, anyhow, bail};

use super::bytes::{Bytes, Clock};
use super::color::to_rgb8;
use super::decode::{check_size, decode, decode_tiff, explain, gave_up, limits, page_count};
use super::frames::has_separate_first;
use super::sniff::{name, sniff};
use super::{DecodeOptions, Decoded, MAX_PAGES, Pages, tiff};

/// Gets a page and its number, which is none where the file has one page only. False ends the visit.
pub(super) type Visit<'a> = &'a mut dyn FnMut(Option<usize>, Result<Decoded>) -> bool;

/// Decodes the pages that `pages` names, in the order of the file; a page that fails is visited with
/// its error. None stands for all pages of a TIFF, and for the first frame of an animation.
///
/// A file that can't be read at all, or that has none of these pages, is visited once, with an error. So is
/// what comes after [`MAX_PAGES`] pages.
pub fn visit_pages(bytes: &[u8], pages: Option<&Pages>, options: &DecodeOptions, visit: Visit) {
    let (format, count) = match sniff(bytes).and_then(|f| Ok((f, page_count(bytes)?))) {
        Ok(known) => known,
        Err(error) => {
            visit(None, Err(error));
            return;
        }
    };
    let is_wanted = |page: usize| match pages {
        Some(pages) => pages.contains(page),
        None => format == ImageFormat::Tiff || page == 1,
    };
    let number = |page: usize| (count > 1).then_some(page);
    let Some(first) = (1..=count).find(|page| is_wanted(*page)) else {
        let asked = pages.map(ToString::to_string).unwrap_or_default();
        visit(None, Err(anyhow!("has no page among {asked}: it has {count}")));
        return;
    };
    let last = count.min(MAX_PAGES);
    let goes_on = match pages {
        _ if format == ImageFormat::Tiff => {
            let places = tiff::pages(bytes, MAX_PAGES);
            (first..=last)
                .filter(|page| is_wanted(*page))
                .all(|page| visit(number(page), decode_tiff(bytes, &places, page - 1, options)))
        }
        Some(pages) if count > 1 && (first > 1 || pages.go_beyond(first)) => {
            visit_frames(bytes, format, options, pages, last, visit)
        }
        // Without the decoder's animation: it keeps a second picture in memory.
        _ => visit(number(1), decode(bytes, options)),
    };
    if goes_on && count > MAX_PAGES && is_wanted(MAX_PAGES + 1) {
        let error = anyhow!("has more than {MAX_PAGES} pages, and no more of one file are read");
        visit(number(MAX_PAGES + 1), Err(error));
    }
}

/// The frames of an animation, the first `count` of which are there. Each is seen over what earlier ones
/// left, so all up to the last that is wanted are decoded, once. False if the visitor has had enough, or
/// nothing more can be read.
fn visit_frames(
    bytes: &[u8],
    format: ImageFormat,
    options: &DecodeOptions,
    wanted: &Pages,
    count: usize,
    visit: Visit,
) -> bool {
    let mut page = 0;
    if has_separate_first(bytes, format) {
        page += 1;
        if wanted.contains(page) && !visit(Some(page), decode(bytes, options)) {
            return false;
        }
    }
    let clock = Clock::start(options.max_time);
    let opened = catch_unwind(AssertUnwindSafe(|| frames(bytes, format, options, &clock)));
    let mut frames = match opened.unwrap_or_else(|_| Err(gave_up(format))) {
        Ok(frames) => frames,
        Err(error) => {
            visit(Some(page + 1), Err(error));
            return false;
        }
    };
    while page < count && wanted.go_beyond(page) {
        let frame = match catch_unwind(AssertUnwindSafe(|| frames.next())) {
            Ok(Some(Ok(frame))) => Ok(frame),
            Ok(Some(Err(error))) => Err(explain(error, format, options)),
            Ok(None) => Err(anyhow!("truncated {} file (it ends too early)", name(format))),
            Err(_) => Err(gave_up(format)),
        };
        let frame = frame.and_then(|frame| clock.over().map_or(Ok(frame), Err));
        page += 1;
        let failed = frame.is_err();
        if !failed && !wanted.contains(page) {
            continue;
        }
        let decoded = frame.map(|frame| {
            let image = to_rgb8(DynamicImage::ImageRgba8(frame.into_buffer()), options.background);
            let (width, height) = (image.width, image.height);
            Decoded { image, orientation: 1, width, height }
        });
        // What comes after a damaged frame can't be told from damage.
        if !visit(Some(page), decoded) || failed {
            return false;
        }
        clock.restart();
    }
    true
}

fn frames<'a>(
    bytes: &'a [u8],
    format: ImageFormat,
    options: &DecodeOptions,
    clock: &'a Clock,
) -> Result<Frames<'a>> {
    let open = || -> ImageResult<(u32, u32, Frames<'a>)> {
        let reader = Bytes::new(bytes, &[], clock);
        Ok(match format {
            ImageFormat::Gif => {
                let mut decoder = GifDecoder::new(reader)?;
                decoder.set_limits(limits(options))?;
                let (width, height) = decoder.dimensions();
                (width, height, decoder.into_frames())
            }
            ImageFormat::WebP => {
                let mut decoder = WebPDecoder::new(reader)?;
                decoder.set_limits(limits(options))?;
                let (width, height) = decoder.dimensions();
                (width, height, decoder.into_frames())
            }
            _ => {
                let decoder = PngDecoder::with_limits(reader, limits(options))?;
                let (width, height) = decoder.dimensions();
                (width, height, decoder.apng()?.into_frames())
            }
        })
    };
    // The size is looked at before the decoder takes memory for a frame.
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let told = reader.into_dimensions().map_err(|error| explain(error, format, options))?;
    check_size(told.0, told.1, options.max_mpixels)?;
    match open() {
        Ok((width, height, frames)) if (width, height) == told => Ok(frames),
        Ok(_) => bail!("damaged {} file (it has two sizes)", name(format)),
        Err(error) => Err(explain(error, format, options)),
    }
}

/// Roughly the memory that decoding a page takes, by the size that the file says it has: what the decoder
/// gives, and RGB of it twice. 0 where it says nothing; such a file fails before memory is taken.
pub fn memory(bytes: &[u8]) -> u64 {
    let measure = || {
        let format = sniff(bytes).ok()?;
        let decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().ok()?;
        let (width, height) = decoder.dimensions();
        let first = u64::from(width) * u64::from(height);
        let sample = decoder.total_bytes().div_ceil(first.max(1));
        // Of later pages only the sizes are looked at.
        let pixels = match format {
            ImageFormat::Tiff => first.max(tiff::largest(bytes, MAX_PAGES)),
            _ => first,
        };
        Some(pixels.saturating_mul(sample + 6))
    };
    catch_unwind(AssertUnwindSafe(measure)).ok().flatten().unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::decode_page;
    use super::*;

    fn file(name: &str) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        std::fs::read(folder.join("src/image/testdata/images").join(name)).unwrap()
    }

    /// The numbers of the pages that are visited without an error, and the last error.
    fn visited(bytes: &[u8], pages: Option<&str>) -> (Vec<Option<usize>>, Option<String>) {
        let pages: Option<Pages> = pages.map(|pages| pages.parse().unwrap());
        let (mut good, mut error) = (Vec::new(), None);
        visit_pages(bytes, pages.as_ref(), &DecodeOptions::default(), &mut |page, decoded| {
            match decoded {
                Ok(_) => good.push(page),
                Err(reason) => error = Some(reason.to_string()),
            }
            true
        });
        (good, error)
    }

    #[test]
    fn pages_are_those_asked_for() {
        let none_of = |text: &str| Some(text.to_string());
        let table = [
            ("pages.tif", None, vec![Some(1), Some(2), Some(3)], None),
            ("pages.tif", Some("3,1"), vec![Some(1), Some(3)], None),
            ("pages.tif", Some("4-"), vec![], none_of("has no page among 4-: it has 3")),
            ("frames.gif", None, vec![Some(1)], None),
            ("frames.gif", Some("1-"), vec![Some(1), Some(2)], None),
            ("frames.gif", Some("2"), vec![Some(2)], None),
            ("colour.jpg", Some("1,2"), vec![None], None),
            ("colour.jpg", Some("2"), vec![], none_of("has no page among 2: it has 1")),
        ];
        for (name, pages, good, error) in table {
            assert_eq!(visited(&file(name), pages), (good, error), "{name} {pages:?}");
        }
    }

    #[test]
    fn frames_are_those_of_decode_page() {
        let bytes = file("frames.gif");
        let options = DecodeOptions::default();
        let pages = "1-".parse().unwrap();
        let mut found = Vec::new();
        visit_pages(&bytes, Some(&pages), &options, &mut |_, decoded| {
            found.push(decoded.unwrap().image);
            true
        });
        let expected: Vec<_> =
            (0..2).map(|page| decode_page(&bytes, page, &options).unwrap().image).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn memory_is_told_by_the_header() {
        // 12x8 pixels, RGBA: 4 bytes a pixel, and twice 3.
        assert_eq!(memory(&file("alpha.png")), 12 * 8 * 10);
        assert_eq!(memory(b"no picture"), 0);
    }
}
