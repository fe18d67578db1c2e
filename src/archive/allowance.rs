//! So many bytes may be read, and no more: what archives say about their members is held in memory.

use std::io::{Error, Read, Result, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A reader with an allowance, which its clones share.
#[derive(Clone)]
pub(super) struct Allowance<R> {
    inner: R,
    left: Left,
}

/// How many bytes an [`Allowance`] still has.
#[derive(Clone)]
pub(super) struct Left(Arc<AtomicU64>);

impl Left {
    pub(super) fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

impl<R> Allowance<R> {
    pub(super) fn new(inner: R, bytes: u64) -> (Self, Left) {
        let left = Left(Arc::new(AtomicU64::new(bytes)));
        (Allowance { inner, left: left.clone() }, left)
    }
}

impl<R: Read> Read for Allowance<R> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let left = self.left.0.load(Ordering::Relaxed);
        let wanted = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 && !buf.is_empty() {
            return Err(Error::other("names and headers without end"));
        }
        let read = self.inner.read(&mut buf[..wanted])?;
        if left != u64::MAX {
            self.left.set(left - read as u64);
        }
        Ok(read)
    }
}

impl<R: Seek> Seek for Allowance<R> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.inner.seek(to)
    }
}
