//! The bytes of a file as a decoder reads them: some are replaced, and time is limited.

use std::cell::Cell;
use std::io::{BufRead, Error, Read, Result, Seek, SeekFrom};
use std::time::{Duration, Instant};

use anyhow::anyhow;

/// How long the decoding of one picture may take. Shared by all who read for it.
pub(super) struct Clock {
    limit: Duration,
    end: Cell<Instant>,
}

impl Clock {
    pub(super) fn start(limit: Duration) -> Self {
        Clock { limit, end: Cell::new(Instant::now() + limit) }
    }

    /// Another picture of the file begins.
    pub(super) fn restart(&self) {
        self.end.set(Instant::now() + self.limit);
    }

    /// The sentence that says so, once time is up.
    pub(super) fn over(&self) -> Option<anyhow::Error> {
        let over = Instant::now() > self.end.get();
        over.then(|| anyhow!("takes more than {} s to decode", self.limit.as_secs()))
    }
}

/// Bytes that stand in the place of a file's own, and where.
pub(super) type Patch = (usize, Vec<u8>);

/// A file with patches, none of it copied. Reading fails once the clock's time is up: a decoder can't be
/// stopped but by its reader.
pub(super) struct Bytes<'a> {
    /// What follows one another; none is empty.
    pieces: Vec<&'a [u8]>,
    len: u64,
    at: u64,
    clock: &'a Clock,
    /// Reads since the clock was looked at.
    reads: u8,
}

impl<'a> Bytes<'a> {
    /// `patches` are in order, lie within the file and do not overlap.
    pub(super) fn new(bytes: &'a [u8], patches: &'a [Patch], clock: &'a Clock) -> Self {
        let mut pieces = Vec::with_capacity(2 * patches.len() + 1);
        let mut done = 0;
        for (start, patch) in patches {
            pieces.push(&bytes[done..*start]);
            pieces.push(patch);
            done = start + patch.len();
        }
        pieces.push(&bytes[done..]);
        pieces.retain(|piece| !piece.is_empty());
        Bytes { pieces, len: bytes.len() as u64, at: 0, clock, reads: 0 }
    }
}

impl BufRead for Bytes<'_> {
    fn fill_buf(&mut self) -> Result<&[u8]> {
        self.reads = self.reads.wrapping_add(1);
        if self.reads.is_multiple_of(64)
            && let Some(sentence) = self.clock.over()
        {
            return Err(Error::other(sentence));
        }
        let mut start = 0;
        for piece in &self.pieces {
            let inside = self.at.saturating_sub(start);
            start += piece.len() as u64;
            if self.at < start {
                return Ok(&piece[inside as usize..]);
            }
        }
        Ok(&[])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount as u64;
    }
}

impl Read for Bytes<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let read = self.fill_buf()?.read(buf)?;
        self.consume(read);
        Ok(read)
    }
}

impl Seek for Bytes<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| Error::other("a place before the start of the file"))?;
        Ok(self.at)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_read_in_place() {
        let clock = Clock::start(Duration::from_secs(60));
        let patches = [(0, b"AB".to_vec()), (4, b"E".to_vec()), (8, b"IJ".to_vec())];
        let mut bytes = Bytes::new(b"abcdefghij", &patches, &clock);
        let mut text = String::new();
        bytes.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ABcdEfghIJ");
        for at in 0..12 {
            bytes.seek(SeekFrom::Start(at as u64)).unwrap();
            let mut rest = String::new();
            bytes.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, text.get(at..).unwrap_or_default());
        }
        assert_eq!(bytes.seek(SeekFrom::End(-3)).unwrap(), 7);
        assert_eq!(bytes.seek(SeekFrom::Current(-2)).unwrap(), 5);
        assert!(bytes.seek(SeekFrom::Current(-6)).is_err());
    }

    #[test]
    fn nothing_is_read_once_the_time_is_up() {
        let clock = Clock { limit: Duration::from_secs(3), end: Cell::new(Instant::now()) };
        let mut bytes = Bytes::new(&[7; 1000], &[], &clock);
        let error = bytes.by_ref().bytes().find_map(Result::err).unwrap();
        assert_eq!(error.to_string(), "takes more than 3 s to decode");
        clock.restart();
        assert!(clock.over().is_none());
    }
}
