//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use super::leftover;

/// A file being written under a temporary name in the folder where it will appear. Dropped before
/// `publish`, it leaves nothing behind.
pub(super) struct Atomic {
    path: PathBuf,
    out: BufWriter<NamedTempFile>,
}

impl Atomic {
    pub(super) fn create(path: &Path) -> Result<Atomic> {
        let folder = folder_of(path);
        leftover::sweep(folder);
        let prefix = leftover::prefix();
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        // A temporary file is private by default; this one becomes an ordinary file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder
            .tempfile_in(folder)
            .with_context(|| format!("cannot create a file in {folder:?}"))?;
        Ok(Atomic { path: path.to_owned(), out: BufWriter::with_capacity(1 << 20, file) })
    }

    /// Overwrites bytes written before, and goes on at the end.
    pub(super) fn write_at(&mut self, at: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.out.seek(SeekFrom::Start(at))?;
        self.out.write_all(bytes)?;
        self.out.seek(SeekFrom::End(0)).map(drop)
    }

    /// Waits until every byte is on the disk: a full disk is noticed here at the latest.
    pub(super) fn finish(self) -> Result<Finished> {
        let failed = || format!("cannot write {:?}", self.path);
        let file =
            self.out.into_inner().map_err(|error| error.into_error()).with_context(failed)?;
        file.as_file().sync_all().with_context(failed)?;
        Ok(Finished { path: self.path, file })
    }
}

impl Write for Atomic {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// A whole file that still has its temporary name.
pub(super) struct Finished {
    path: PathBuf,
    file: NamedTempFile,
}

impl Finished {
    /// Gives the file its name, in place of any that had it.
    pub(super) fn publish(self) -> Result<()> {
        let path = self.path;
        self.file.persist(&path).with_context(|| format!("cannot write {path:?}"))?;
        // Without this the name itself may be lost in a power cut.
        #[cfg(unix)]
        File::open(folder_of(&path)).and_then(|folder| folder.sync_all()).ok();
        Ok(())
    }
}

/// Writes a small file that appears whole or not at all.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = Atomic::create(path)?;
    file.write_all(bytes).with_context(|| format!("cannot write {path:?}"))?;
    file.finish()?.publish()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_an_unfinished_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, b"old").unwrap();
        let mut file = Atomic::create(&path).unwrap();
        file.write_all(&[7; 3 << 20]).unwrap();
        drop(file);
        let finished = {
            let mut file = Atomic::create(&path).unwrap();
            file.write_all(b"whole").unwrap();
            file.finish().unwrap()
        };
        drop(finished);
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        write_file(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write_file(Path::new("/nonexistent-folder/x"), b"").unwrap_err();
        assert_eq!(error.to_string(), "cannot create a file in \"/nonexistent-folder\"");
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_not_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let [ours, plain] = ["ours", "plain"].map(|name| dir.path().join(name));
        write_file(&ours, b"x").unwrap();
        std::fs::write(&plain, b"x").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
