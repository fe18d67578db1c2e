//! A part of an open file, read without moving the file's own cursor: parts can be read side by side.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::sync::Arc;

#[derive(Clone)]
pub(super) struct At {
    file: Arc<File>,
    start: u64,
    len: u64,
    at: u64,
}

impl At {
    pub(super) fn new(file: Arc<File>, start: u64, len: u64) -> Self {
        At { file, start, len, at: 0 }
    }

    /// The whole file.
    pub(super) fn whole(file: Arc<File>) -> Result<Self> {
        let len = file.metadata()?.len();
        Ok(At::new(file, 0, len))
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }
}

impl Read for At {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let left = self.len.saturating_sub(self.at);
        let wanted = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let start = self.start.checked_add(self.at).ok_or(ErrorKind::InvalidData)?;
        let read = read_at(&self.file, &mut buf[..wanted], start)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for At {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(unix)]
fn read_at(file: &File, buf: &mut [u8], start: u64) -> Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, start)
}

#[cfg(windows)]
fn read_at(file: &File, buf: &mut [u8], start: u64) -> Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, start)
}
