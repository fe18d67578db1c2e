//! Writing a zip archive of stored entries, aligned as PyTorch aligns them.

use std::io::Write;

use anyhow::{Context, Result, ensure};

use super::atomic::Atomic;

/// PyTorch maps storages into memory at this alignment.
const ALIGNMENT: u64 = 64;
const CRC_TABLES: [[u32; 256]; 8] = crc_tables();

/// A zip archive being written to a file from its beginning.
pub(super) struct ZipWriter<'f> {
    out: &'f mut Atomic,
    at: u64,
    records: Vec<Record>,
    /// Sizes and places from here on go into zip64 fields.
    wide_from: u64,
}

struct Record {
    name: String,
    crc: u32,
    size: u64,
    local: u64,
}

impl<'f> ZipWriter<'f> {
    pub(super) fn new(out: &'f mut Atomic) -> ZipWriter<'f> {
        ZipWriter { out, at: 0, records: Vec::new(), wide_from: u64::from(u32::MAX) }
    }

    /// Adds an entry of `size` bytes, which `fill` writes.
    pub(super) fn entry(
        &mut self,
        name: &str,
        size: u64,
        fill: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let local = self.at;
        let wide = size >= self.wide_from;
        let mut extra = Vec::new();
        if wide {
            push_extra(&mut extra, 1, &[size.to_le_bytes(), size.to_le_bytes()].concat())?;
        }
        let data = local + 30 + (name.len() + extra.len() + 4) as u64;
        let padding = data.next_multiple_of(ALIGNMENT) - data;
        push_extra(&mut extra, u16::from_le_bytes(*b"FB"), &vec![b'Z'; padding as usize])?;
        let mut header = b"PK\x03\x04".to_vec();
        push_common(&mut header, 0, if wide { u32::MAX } else { size as u32 }, name, &extra)?;
        header.extend_from_slice(name.as_bytes());
        header.extend_from_slice(&extra);
        self.out.write_all(&header)?;
        let mut body = Body { out: self.out, crc: !0, size: 0 };
        fill(&mut body)?;
        let (crc, written) = (!body.crc, body.size);
        ensure!(written == size, "the entry {name:?} has {written} bytes instead of {size}");
        self.out.write_at(local + 14, &crc.to_le_bytes())?;
        self.at = local + header.len() as u64 + size;
        self.records.push(Record { name: name.to_owned(), crc, size, local });
        Ok(())
    }

    /// Writes the central directory, which ends the archive.
    pub(super) fn finish(self) -> Result<()> {
        let mut directory = Vec::new();
        for record in &self.records {
            self.push_record(&mut directory, record)?;
        }
        let (count, size, start) = (self.records.len() as u64, directory.len() as u64, self.at);
        if start >= self.wide_from || count >= u64::from(u16::MAX) {
            let end64 = start + size;
            directory.extend_from_slice(b"PK\x06\x06");
            directory.extend_from_slice(&44_u64.to_le_bytes());
            directory.extend_from_slice(&[45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            for value in [count, count, size, start] {
                directory.extend_from_slice(&value.to_le_bytes());
            }
            directory.extend_from_slice(b"PK\x06\x07\0\0\0\0");
            directory.extend_from_slice(&end64.to_le_bytes());
            directory.extend_from_slice(&1_u32.to_le_bytes());
        }
        let count = count.min(u64::from(u16::MAX)) as u16;
        directory.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        directory.extend_from_slice(&[count.to_le_bytes(), count.to_le_bytes()].concat());
        directory.extend_from_slice(&u32::try_from(size)?.to_le_bytes());
        let start = if start >= self.wide_from { u32::MAX } else { start as u32 };
        directory.extend_from_slice(&start.to_le_bytes());
        directory.extend_from_slice(&[0, 0]);
        self.out.write_all(&directory)?;
        Ok(())
    }

    fn push_record(&self, directory: &mut Vec<u8>, record: &Record) -> Result<()> {
        let narrow = |value| if value >= self.wide_from { u32::MAX } else { value as u32 };
        let mut wide = Vec::new();
        if narrow(record.size) == u32::MAX {
            wide.extend_from_slice(&[record.size.to_le_bytes(); 2].concat());
        }
        if narrow(record.local) == u32::MAX {
            wide.extend_from_slice(&record.local.to_le_bytes());
        }
        let mut extra = Vec::new();
        if !wide.is_empty() {
            push_extra(&mut extra, 1, &wide)?;
        }
        directory.extend_from_slice(b"PK\x01\x02\x2d\0");
        push_common(directory, record.crc, narrow(record.size), &record.name, &extra)?;
        // No comment, first disk, no attributes.
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&narrow(record.local).to_le_bytes());
        directory.extend_from_slice(record.name.as_bytes());
        directory.extend_from_slice(&extra);
        Ok(())
    }
}

/// The fields that the local header and the directory have in common.
fn push_common(out: &mut Vec<u8>, crc: u32, size: u32, name: &str, extra: &[u8]) -> Result<()> {
    // Version 4.5 to read; names are UTF-8; stored; midnight of 1 January 1980.
    out.extend_from_slice(&[45, 0, 0, 8, 0, 0, 0, 0, 0x21, 0]);
    for value in [crc, size, size] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    let name = u16::try_from(name.len()).context("the name of an entry is too long")?;
    out.extend_from_slice(&name.to_le_bytes());
    out.extend_from_slice(&u16::try_from(extra.len())?.to_le_bytes());
    Ok(())
}

fn push_extra(out: &mut Vec<u8>, id: u16, field: &[u8]) -> Result<()> {
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&u16::try_from(field.len())?.to_le_bytes());
    out.extend_from_slice(field);
    Ok(())
}

/// The bytes of an entry on their way to the file.
struct Body<'f> {
    out: &'f mut Atomic,
    crc: u32,
    size: u64,
}

impl Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.crc = crc(self.crc, &bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// CRC-32 of zip, eight bytes at a time; the state starts as all ones and ends inverted.
fn crc(mut state: u32, bytes: &[u8]) -> u32 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        let both = u64::from_le_bytes(*chunk) ^ u64::from(state);
        state = both
            .to_le_bytes()
            .iter()
            .zip(CRC_TABLES.iter().rev())
            .fold(0, |state, (at, by)| state ^ by[usize::from(*at)]);
    }
    for &byte in rest {
        state = CRC_TABLES[0][((state ^ u32::from(byte)) & 0xff) as usize] ^ (state >> 8);
    }
    state
}

const fn crc_tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut state = byte as u32;
        let mut table = 0;
        while table < 8 {
            let mut bit = 0;
            while bit < 8 {
                let carry = state & 1;
                state >>= 1;
                if carry == 1 {
                    state ^= 0xedb8_8320;
                }
                bit += 1;
            }
            tables[table][byte] = state;
            table += 1;
        }
        byte += 1;
    }
    tables
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::super::zip;
    use super::*;

    /// An archive of these entries, with zip64 fields from the size or place `wide_from` on.
    pub(in super::super) fn archive(entries: &[(&str, &[u8])], wide_from: u64) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("archive");
        let mut file = Atomic::create(&path).unwrap();
        let mut zip = ZipWriter { wide_from, ..ZipWriter::new(&mut file) };
        for (name, bytes) in entries {
            zip.entry(name, bytes.len() as u64, |out| Ok(out.write_all(bytes)?)).unwrap();
        }
        zip.finish().unwrap();
        file.finish().unwrap().publish().unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn checksums_are_those_of_zip() {
        // zlib.crc32 of the same bytes.
        let check = |bytes: &[u8], expected: u32| assert_eq!(!crc(!0, bytes), expected);
        check(b"", 0);
        check(b"123456789", 0xcbf4_3926);
        check(b"The quick brown fox jumps over the lazy dog", 0x414f_a339);
        check(&[0; 32], 0x190a_55ad);
        let split = crc(crc(!0, b"The quick br"), b"own fox jumps over the lazy dog");
        assert_eq!(!split, 0x414f_a339);
    }

    #[test]
    fn small_and_wide_archives_read_back() {
        let entries: [(&str, &[u8]); 3] =
            [("archive/data.pkl", b"abc"), ("archive/data/0", &[7; 100]), ("archive/é", b"")];
        for wide_from in [0, 50, 128, u64::from(u32::MAX)] {
            let bytes = archive(&entries, wide_from);
            let read = zip::entries(&bytes).unwrap();
            assert_eq!(read.len(), 3);
            for (entry, (name, content)) in read.iter().zip(&entries) {
                assert_eq!(entry.name, *name);
                assert_eq!(&bytes[entry.range.clone()], *content);
                assert_eq!(entry.range.start % 64, 0);
            }
        }
    }

    #[test]
    fn a_size_that_was_promised_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = Atomic::create(&dir.path().join("x")).unwrap();
        let mut zip = ZipWriter::new(&mut file);
        let error = zip.entry("x", 3, |out| Ok(out.write_all(b"ab")?)).unwrap_err();
        assert_eq!(error.to_string(), "the entry \"x\" has 2 bytes instead of 3");
    }
}
