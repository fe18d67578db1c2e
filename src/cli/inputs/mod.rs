//! What the user names as images becomes a stream of inputs: files, directories, archives, lists.
//!
//! Nothing is listed before it is needed, so a list of any length takes no memory; only the names of
//! one directory are held at a time, to sort them.

mod expand;
mod list;
mod shard;
mod walk;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use self::expand::Expand;
use self::list::List;
use super::args::InputArgs;
use crate::image;
use crate::pipeline::{Input, Source};

pub(super) use list::{hex, name_bytes};
pub(super) use shard::Shard;

type Stream = Box<dyn Iterator<Item = Input> + Send>;

/// All that the command line names as images.
pub(super) struct Inputs {
    images: Vec<PathBuf>,
    list: Option<PathBuf>,
    null: bool,
    recursive: bool,
    shard: Option<Shard>,
}

/// A name to be looked at.
pub(super) struct Named {
    path: PathBuf,
    /// This page alone.
    page: Option<usize>,
    /// What is wrong with the name itself: it is told, and nothing is looked for.
    fault: Option<String>,
}

impl Inputs {
    /// Fails where the names contradict each other.
    pub(super) fn new(images: &[PathBuf], args: &InputArgs) -> Result<Self> {
        let dashes = images.iter().filter(|path| is_dash(path)).count();
        if dashes > 1 {
            bail!("- (standard input) is named twice");
        }
        if args.null && args.files_from.is_none() {
            bail!("--null goes with --files-from");
        }
        if dashes == 1 && args.files_from.as_deref().is_some_and(is_dash) {
            bail!("standard input can't be an image (-) and the list of --files-from");
        }
        Ok(Inputs {
            images: images.to_vec(),
            list: args.files_from.clone(),
            null: args.null,
            recursive: args.recursive,
            shard: args.shard,
        })
    }

    /// The inputs in their order. Where standard input is named it can be read by one stream only.
    ///
    /// Fails if the list can't be opened or is empty, or if the one name of the command line leads nowhere
    /// and no shard is asked for.
    pub(super) fn stream(&self) -> Result<Stream> {
        let mut inputs = self.all()?;
        let Some(first) = inputs.next() else { bail!("no images to read: the list is empty") };
        // Of a list no second name is waited for: whoever writes it may wait for an answer.
        if self.list.is_some() || !matches!(first.source, Source::Nothing(_)) {
            return Ok(self.sharded(Box::new(std::iter::once(first).chain(inputs))));
        }
        let Some(second) = inputs.next() else {
            // A single name, and nothing to be read there.
            if let Source::Nothing(reason) = first.source {
                bail!("{:?}: {reason}", first.name);
            }
            return Ok(Box::new(std::iter::empty()));
        };
        Ok(self.sharded(Box::new([first, second].into_iter().chain(inputs))))
    }

    /// True if the names can be gone through more than once: none comes by a pipe.
    pub(super) fn can_be_listed(&self) -> bool {
        self.list.as_deref().is_none_or(Path::is_file)
    }

    /// How many inputs there are, where that can be told without reading them: archives and standard
    /// input have to be read. A file of several pages counts once.
    pub(super) fn total(&self) -> Option<u64> {
        let list_is_stream = self.list.as_deref().is_some_and(|list| !list.is_file());
        if list_is_stream {
            return None;
        }
        let named = self.named().ok()?;
        // Archives come up in lists too, where each name would have to be opened.
        let mut total = 0;
        for one in named {
            if Expand::is_archive(&one.path) {
                return None;
            }
            let inputs = Expand::new(std::iter::once(one), self.recursive);
            total += self.sharded(Box::new(inputs)).count() as u64;
        }
        Some(total)
    }

    fn sharded(&self, inputs: Stream) -> Stream {
        match self.shard {
            Some(shard) => Box::new(inputs.filter(move |input| shard.holds(input))),
            None => inputs,
        }
    }

    fn all(&self) -> Result<Stream> {
        Ok(Box::new(Expand::new(self.named()?, self.recursive)))
    }

    /// What the command line names, then what the list names.
    fn named(&self) -> Result<impl Iterator<Item = Named> + Send + use<>> {
        let list = self.list.as_deref().map(|list| List::open(list, self.null)).transpose()?;
        let images: Vec<PathBuf> = self.images.clone();
        let images = images.into_iter().map(|path| Named { path, page: None, fault: None });
        Ok(images.chain(list.into_iter().flatten()))
    }
}

/// The first `length` bytes of a file; none if it can't be read.
pub(super) fn head(path: &Path, length: u64) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(length).read_to_end(&mut head).ok()?;
    Some(head)
}

fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// By its name, so that a damaged picture is told and not passed over; else by its first bytes.
fn is_image(name: &str, head: &[u8]) -> bool {
    has_image_name(name) || image::is_picture(head)
}

fn has_image_name(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "tif", "tiff", "bmp", "dib",
        "pnm", "pbm", "pgm", "ppm", "pam", "ico", "avif", "heic", "heif", "jxl", "jp2",
    ];
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|e| NAMES.contains(&e.to_ascii_lowercase().as_str()))
}
