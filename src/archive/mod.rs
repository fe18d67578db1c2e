//! Archives read in place: tar, tar.gz and zip. Members come one by one, nothing is unpacked to disk.
//!
//! A member of a tar or zip knows where it lies, and is read by whoever needs it, in any order and on
//! any thread. A tar.gz can only be read from its start: its members bring their bytes along.

mod allowance;
mod at;
mod tar;
mod zip;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use anyhow::{Context, Result, bail, ensure};

use self::at::At;

/// What an archive is, by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tar,
    TarGz,
    Zip,
}

/// A file inside an archive.
#[derive(Clone)]
pub struct Member {
    /// As the archive has it, without `./` in front; not a path to write to.
    pub name: String,
    data: Data,
}

#[derive(Clone)]
enum Data {
    At(At),
    Zip(zip::Entry),
    Bytes(Arc<[u8]>),
    /// Why it can't be read.
    Nothing(String),
}

/// The members of an archive that are wanted, in its order. A failure ends them.
pub struct Members(Receiver<Result<Member>>);

/// Whether a member is wanted, by its name and first bytes.
pub type Wanted = fn(&str, &[u8]) -> bool;

/// How many bytes of a member [`Wanted`] gets to see.
pub const HEAD: usize = 64;

/// What the first 512 bytes of a file say.
pub fn kind(head: &[u8]) -> Option<Kind> {
    // Local file header, end of an empty archive.
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        Some(Kind::Zip)
    } else if tar::is_header(head) {
        Some(Kind::Tar)
    } else if head.starts_with(b"\x1F\x8B") && tar::is_header(&tar::unzipped(head)) {
        Some(Kind::TarGz)
    } else {
        None
    }
}

/// What a name promises; names beside `.tar`, `.tar.gz`, `.tgz`, `.zip` and `.cbz` promise nothing.
pub fn kind_by_name(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if ends(&[".tar"]) {
        Some(Kind::Tar)
    } else if ends(&[".tar.gz", ".tgz"]) {
        Some(Kind::TarGz)
    } else if ends(&[".zip", ".cbz"]) {
        Some(Kind::Zip)
    } else {
        None
    }
}

/// The archive at `path`. Its members are looked for as they are asked for. With `limit` no member of
/// a tar.gz takes more memory than so many bytes.
///
/// Fails if the file can't be opened, or a zip has no directory.
pub fn open(path: &Path, kind: Kind, wanted: Wanted, limit: u64) -> Result<Members> {
    let file = Arc::new(File::open(path).context("can't be opened")?);
    match kind {
        Kind::Tar => tar::members(file, wanted),
        Kind::TarGz => tar::zipped_members(file, wanted, limit),
        Kind::Zip => zip::members(file, wanted),
    }
}

impl Iterator for Members {
    type Item = Result<Member>;

    fn next(&mut self) -> Option<Result<Member>> {
        self.0.recv().ok()
    }
}

impl Member {
    /// The content, of at most `limit` bytes, whatever the archive says its size is.
    pub fn read(&self, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match &self.data {
            Data::At(at) => {
                ensure!(at.len() <= limit, too_large(limit));
                at.clone().read_to_end(&mut bytes).context("can't be read")?;
                ensure!(bytes.len() as u64 == at.len(), "the archive ends inside of it");
            }
            Data::Zip(entry) => {
                entry.read(limit.saturating_add(1), &mut bytes)?;
                ensure!(bytes.len() as u64 <= limit, too_large(limit));
            }
            Data::Bytes(held) => bytes.extend_from_slice(held),
            Data::Nothing(reason) => bail!("{reason}"),
        }
        Ok(bytes)
    }
}

/// The sentence for a file or member of more than `limit` bytes.
pub fn too_large(limit: u64) -> String {
    format!("larger than {} MiB, the limit for one file", limit >> 20)
}

/// A member's name without `./`.
fn plain_name(name: &str) -> String {
    let parts = name.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.collect::<Vec<_>>().join("/")
}

/// Names that are none, `.name`, and what macOS puts aside.
fn is_hidden(name: &str) -> bool {
    let hidden = |part: &str| (part.starts_with('.') && part != "..") || part == "__MACOSX";
    name.is_empty() || name.split('/').any(hidden)
}

#[cfg(test)]
mod tests;
