//! What the user names: one file, URL or member of an archive, and how its bytes are had.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};

use super::End;
use super::prepare::Unit;
use crate::archive::{self, Member};
use crate::fetch;

/// The largest file that is read, in bytes.
pub const MAX_FILE: u64 = 1 << 30;

/// How long a pipe may keep silent.
const PATIENCE: Duration = Duration::from_secs(20);

/// One file to read; it holds one image, or several pages.
#[derive(Clone)]
pub struct Input {
    /// As the user gave it; `archive.tar/member.png` for a member of an archive.
    pub name: String,
    pub source: Source,
    /// The file that sidecars are named after; none for standard input and URLs, and for members
    /// whose name leads out of their archive.
    pub origin: Option<PathBuf>,
    /// This page alone, counted from 1, whatever pages are asked for in general.
    pub page: Option<usize>,
}

/// Where an input's bytes are.
#[derive(Clone)]
pub enum Source {
    File(PathBuf),
    /// One image on standard input.
    Stdin,
    Url(String),
    Member(Member),
    /// Wherever this finds them.
    Other(Arc<dyn Fn() -> Result<Vec<u8>> + Send + Sync>),
    /// Nowhere; the sentence says why.
    Nothing(String),
}

impl Input {
    pub fn file(path: PathBuf) -> Self {
        let (name, origin) = (path.display().to_string(), Some(path.clone()));
        Input { name, source: Source::File(path), origin, page: None }
    }

    /// One image on standard input.
    pub fn stdin() -> Self {
        Input { name: "-".to_string(), source: Source::Stdin, origin: None, page: None }
    }

    pub fn url(url: String) -> Self {
        Input { name: url.clone(), source: Source::Url(url), origin: None, page: None }
    }

    /// A member of the archive at `path`.
    pub fn member(path: &Path, member: Member) -> Self {
        let inside = Path::new(&member.name);
        let is_plain = inside.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        Input {
            name: format!("{}/{}", path.display(), member.name),
            origin: is_plain.then(|| path.join(inside)),
            source: Source::Member(member),
            page: None,
        }
    }

    /// Something that was named and can't be read; `reason` is a sentence.
    pub fn failed(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Input {
            name: name.into(),
            source: Source::Nothing(reason.into()),
            origin: None,
            page: None,
        }
    }

    /// A picture of this input, not read yet.
    pub(super) fn unit(&self, page: Option<usize>) -> Unit {
        Unit {
            image: self.name.clone(),
            origin: self.origin.clone(),
            page,
            region: None,
            end: End::Input,
            outcome: Err(anyhow!("not read")),
        }
    }

    /// How many bytes a file says it has; 0 for what has to be read to know.
    pub(super) fn size(&self) -> u64 {
        match &self.source {
            Source::File(path) => {
                std::fs::metadata(path).map_or(0, |data| data.len().min(MAX_FILE))
            }
            _ => 0,
        }
    }

    /// All bytes; no path in the sentence of an error: whoever reports it puts the name before.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        match &self.source {
            Source::File(path) => file_bytes(path),
            Source::Stdin => {
                let mut bytes = Vec::new();
                let read = std::io::stdin().take(MAX_FILE + 1).read_to_end(&mut bytes);
                read.context("standard input can't be read")?;
                ensure!(bytes.len() as u64 <= MAX_FILE, archive::too_large(MAX_FILE));
                Ok(bytes)
            }
            Source::Url(url) => fetch::fetch(url, fetch::LIMIT, fetch::TIMEOUT),
            Source::Member(member) => member.read(MAX_FILE),
            Source::Other(read) => read(),
            Source::Nothing(reason) => bail!("{reason}"),
        }
    }
}

fn file_bytes(path: &Path) -> Result<Vec<u8>> {
    let kind = std::fs::metadata(path).map_err(explain)?.file_type();
    ensure!(!kind.is_dir(), "is a directory");
    if !kind.is_file() {
        return special_bytes(path, kind);
    }
    let file = File::open(path).map_err(explain)?;
    let size = file.metadata().map_err(explain)?.len();
    ensure!(size <= MAX_FILE, archive::too_large(MAX_FILE));
    let mut bytes = Vec::with_capacity(usize::try_from(size)?);
    // Files of /proc say that they are empty, others may grow while they are read.
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(explain)?;
    ensure!(bytes.len() as u64 <= MAX_FILE, archive::too_large(MAX_FILE));
    Ok(bytes)
}

fn explain(error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => anyhow!("no such file"),
        ErrorKind::PermissionDenied => anyhow!("can't be read: permission denied"),
        _ => anyhow!("can't be read: {error}"),
    }
}

/// A pipe, as shells make them for `<(command)`. It must not hold up the run for ever.
#[cfg(unix)]
fn special_bytes(path: &Path, kind: std::fs::FileType) -> Result<Vec<u8>> {
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

    ensure!(kind.is_fifo(), "is a device or a socket, not a file");
    // Opened without waiting for a writer, read without waiting for data.
    let options = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).clone();
    let mut pipe = options.open(path).map_err(explain)?.take(MAX_FILE + 1);
    let (mut bytes, mut part) = (Vec::new(), vec![0; 1 << 16]);
    let mut last = Instant::now();
    loop {
        match pipe.read(&mut part) {
            Ok(0) if bytes.is_empty() => bail!("a pipe that nobody writes to"),
            Ok(0) => break,
            Ok(read) => {
                bytes.extend_from_slice(&part[..read]);
                last = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let silent = last.elapsed() > PATIENCE;
                ensure!(!silent, "a pipe that was silent for {} s", PATIENCE.as_secs());
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(explain(error)),
        }
    }
    ensure!(bytes.len() as u64 <= MAX_FILE, archive::too_large(MAX_FILE));
    Ok(bytes)
}

#[cfg(not(unix))]
fn special_bytes(_: &Path, _: std::fs::FileType) -> Result<Vec<u8>> {
    let _ = (PATIENCE, Instant::now());
    bail!("is not a regular file")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_told_and_does_not_hang() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = vec![(folder.path().to_path_buf(), "is a directory")];
        table.push((folder.path().join("missing"), "no such file"));
        #[cfg(unix)]
        {
            table.push((PathBuf::from("/dev/zero"), "is a device or a socket, not a file"));
            let pipe = folder.path().join("pipe");
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            table.push((pipe, "a pipe that nobody writes to"));
        }
        for (path, expected) in table {
            let error = Input::file(path.clone()).bytes().unwrap_err().to_string();
            assert_eq!(error, expected, "{path:?}");
        }
    }

    #[test]
    fn a_file_beyond_the_limit_is_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // No bytes on the disk: a hole.
        file.as_file().set_len(MAX_FILE + 1).unwrap();
        let input = Input::file(file.path().to_path_buf());
        let error = input.bytes().unwrap_err().to_string();
        assert_eq!(error, "larger than 1024 MiB, the limit for one file");
        // Nor does it ask for more room than it could take.
        assert_eq!(input.size(), MAX_FILE);
    }
}
