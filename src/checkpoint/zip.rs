//! Reading the central directory of a zip archive whose entries are stored as they are, which is
//! how PyTorch writes checkpoints. Numbers are little endian; sizes may be those of zip64.

use std::collections::HashSet;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

use super::bytes::{u16_at, u32_at, u64_at};

/// More entries than any checkpoint has.
const MAX_ENTRIES: u64 = 100_000;
const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x06";
const LOCATOR64: &[u8] = b"PK\x06\x07";
const CENTRAL: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";
/// A 32-bit field with this value has its real value in a zip64 record.
const IN_ZIP64: u64 = 0xffff_ffff;

/// An entry and the place of its bytes in the archive.
pub(super) struct ZipEntry {
    pub(super) name: String,
    pub(super) range: Range<usize>,
    /// Whether the bytes are packed, which those of weights never are.
    pub(super) packed: bool,
    /// Where its own header begins.
    local: usize,
}

/// The entries in the order of the central directory; no two share a name or a byte.
pub(super) fn entries(bytes: &[u8]) -> Result<Vec<ZipEntry>> {
    let directory = Directory::find(bytes)?;
    let mut at = directory.start;
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..directory.count {
        let entry = entry(bytes, &mut at)?;
        ensure!(
            names.insert(entry.name.clone()),
            "the zip archive has two entries {:?}",
            entry.name
        );
        entries.push(entry);
    }
    check_overlap(&entries, directory.start)?;
    Ok(entries)
}

/// Where the central directory begins and how many entries it has.
struct Directory {
    start: usize,
    count: u64,
}

impl Directory {
    fn find(bytes: &[u8]) -> Result<Directory> {
        let end = find_end(bytes)?;
        let mut count = u64::from(u16_at(bytes, end + 10)?);
        let mut start = u64::from(u32_at(bytes, end + 16)?);
        ensure!(u16_at(bytes, end + 4)? == 0, "the zip archive is split over several files");
        let locator = end.checked_sub(20);
        if let Some(locator) = locator.filter(|&at| bytes[at..].starts_with(LOCATOR64)) {
            let end64 = usize::try_from(u64_at(bytes, locator + 8)?)?;
            let found = bytes.get(end64..).is_some_and(|rest| rest.starts_with(END64));
            ensure!(found, "the zip64 end record of the zip archive is not where it should be");
            count = u64_at(bytes, add(end64, 32)?)?;
            start = u64_at(bytes, add(end64, 48)?)?;
        }
        ensure!(count <= MAX_ENTRIES, "a zip archive of {count} entries is no checkpoint");
        let start = usize::try_from(start)?;
        ensure!(start <= end, "the directory of the zip archive is not where it should be");
        Ok(Directory { start, count })
    }
}

/// The place of the end record: the last one whose comment ends where the file does.
fn find_end(bytes: &[u8]) -> Result<usize> {
    let earliest = bytes.len().saturating_sub(22 + usize::from(u16::MAX));
    for at in (earliest..=bytes.len().saturating_sub(22)).rev() {
        if bytes[at..].starts_with(END) {
            let comment = usize::from(u16_at(bytes, at + 20)?);
            if at + 22 + comment == bytes.len() {
                return Ok(at);
            }
        }
    }
    bail!("the zip archive has no end record: the file is truncated or damaged")
}

/// Reads the directory's record at `at` and moves to the next one.
fn entry(bytes: &[u8], at: &mut usize) -> Result<ZipEntry> {
    let start = *at;
    let is_record = bytes.get(start..).is_some_and(|rest| rest.starts_with(CENTRAL));
    ensure!(is_record, "the directory of the zip archive is damaged");
    let flags = u16_at(bytes, add(start, 8)?)?;
    let method = u16_at(bytes, add(start, 10)?)?;
    let packed = u64::from(u32_at(bytes, add(start, 20)?)?);
    let size = u64::from(u32_at(bytes, add(start, 24)?)?);
    let name_length = usize::from(u16_at(bytes, add(start, 28)?)?);
    let extra_length = usize::from(u16_at(bytes, add(start, 30)?)?);
    let comment_length = usize::from(u16_at(bytes, add(start, 32)?)?);
    let local = u64::from(u32_at(bytes, add(start, 42)?)?);
    let name_at = add(start, 46)?;
    let name = bytes.get(name_at..add(name_at, name_length)?);
    let name = name.context("the directory of the zip archive is truncated")?;
    let extra = bytes.get(name_at + name_length..add(name_at, name_length + extra_length)?);
    let extra = extra.context("the directory of the zip archive is truncated")?;
    *at = add(name_at, name_length + extra_length + comment_length)?;

    let name = std::str::from_utf8(name).context("a name in the zip archive is not UTF-8")?;
    let escapes = name.split(['/', '\\']).any(|part| part == "..") || name.starts_with('/');
    ensure!(!escapes, "the zip archive has an entry {name:?} that points outside of it");
    ensure!(flags & 1 == 0, "the entry {name:?} of the zip archive is encrypted");
    let [size, packed, local] = with_zip64([size, packed, local], extra)
        .with_context(|| format!("the entry {name:?} of the zip archive"))?;
    ensure!(
        size == packed || method != 0,
        "the entry {name:?} of the zip archive has two different sizes"
    );
    let local = usize::try_from(local)?;
    let range = place(bytes, name, local, usize::try_from(packed)?)?;
    Ok(ZipEntry { name: name.to_owned(), range, packed: method != 0, local })
}

/// Size, packed size and place of an entry, each taken from the zip64 field if it says so.
fn with_zip64(fields: [u64; 3], extra: &[u8]) -> Result<[u64; 3]> {
    if !fields.contains(&IN_ZIP64) {
        return Ok(fields);
    }
    let mut at = 0;
    while at + 4 <= extra.len() {
        let length = usize::from(u16_at(extra, at + 2)?);
        let end = at + 4 + length;
        let field = extra.get(at + 4..end).context("has a damaged extra field")?;
        if u16_at(extra, at)? == 1 {
            let mut wide = fields;
            let mut next = 0;
            for value in wide.iter_mut().filter(|value| **value == IN_ZIP64) {
                *value = u64_at(field, next).context("has a damaged zip64 field")?;
                next += 8;
            }
            return Ok(wide);
        }
        at = end;
    }
    bail!("lacks its zip64 field")
}

/// The bytes of the entry whose local header is at `local`.
fn place(bytes: &[u8], name: &str, local: usize, size: usize) -> Result<Range<usize>> {
    let is_header = bytes.get(local..).is_some_and(|rest| rest.starts_with(LOCAL));
    ensure!(is_header, "the entry {name:?} of the zip archive is not where it should be");
    let name_length = usize::from(u16_at(bytes, add(local, 26)?)?);
    let extra_length = usize::from(u16_at(bytes, add(local, 28)?)?);
    let name_at = add(local, 30)?;
    let own = bytes.get(name_at..add(name_at, name_length)?);
    ensure!(
        own == Some(name.as_bytes()),
        "the entry {name:?} of the zip archive has another name in its own header"
    );
    let start = add(name_at, name_length + extra_length)?;
    let end = add(start, size)?;
    ensure!(
        end <= bytes.len(),
        "the file is truncated: {} bytes of the entry {name:?} are missing",
        end - bytes.len()
    );
    Ok(start..end)
}

fn check_overlap(entries: &[ZipEntry], directory: usize) -> Result<()> {
    let mut sorted: Vec<&ZipEntry> = entries.iter().collect();
    sorted.sort_by_key(|entry| entry.local);
    let limits = sorted.iter().skip(1).map(|next| next.local).chain([directory]);
    for (entry, limit) in sorted.iter().zip(limits) {
        ensure!(
            entry.range.end <= limit,
            "the entry {:?} of the zip archive overlaps another part of it",
            entry.name
        );
    }
    Ok(())
}

fn add(a: usize, b: usize) -> Result<usize> {
    a.checked_add(b).context("an offset in the zip archive is impossible")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::zip_write::tests::archive;
    use super::*;

    const NARROW: u64 = u32::MAX as u64;

    fn refusal(bytes: &[u8]) -> String {
        format!("{:#}", entries(bytes).err().unwrap())
    }

    /// The archive with the bytes of `from` replaced by `to` wherever they occur.
    fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for at in 0..bytes.len() - from.len() {
            if bytes[at..].starts_with(from) {
                bytes[at..at + to.len()].copy_from_slice(to);
            }
        }
        bytes
    }

    #[test]
    fn damaged_archives_are_refused() {
        let whole = archive(&[("a/data.pkl", b"0123456789"), ("a/data/0", b"abcdefgh")], NARROW);
        let end = whole.len() - 22;
        let directory = u32_at(&whole, end + 16).unwrap() as usize;
        // A field of the first record of the directory, or of the end record.
        let with = |at: usize, value: &[u8]| {
            let mut bytes = whole.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            bytes
        };
        let check = |bytes: &[u8], expected: &str| {
            let error = refusal(bytes);
            assert!(error.contains(expected), "{error}\nexpected {expected}");
        };
        check(b"", "no end record");
        check(&whole[..whole.len() - 1], "no end record");
        check(&with(end + 4, &[1]), "split over several files");
        check(&with(end + 10, &[3]), "the directory of the zip archive is damaged");
        check(&with(end + 16, &[255; 4]), "directory of the zip archive is not where it should be");
        check(&with(directory + 8, &[1]), "\"a/data.pkl\" of the zip archive is encrypted");
        check(&with(directory + 20, &[11]), "has two different sizes");
        check(&with(directory + 20, &[11, 0, 0, 0, 11]), "overlaps another part");
        check(
            &with(directory + 20, &[0, 0, 0, 9, 0, 0, 0, 9]),
            "bytes of the entry \"a/data.pkl\" are missing",
        );
        check(&with(directory + 20, &[255; 8]), "lacks its zip64 field");
        check(&with(directory + 28, &[255, 255]), "directory of the zip archive is truncated");
        check(&with(directory + 42, &[7]), "is not where it should be");
        check(&with(30, b"b"), "another name in its own header");
        check(&replaced(&whole, b"a/data.pkl", b"a/../a.pkl"), "points outside of it");
        check(&replaced(&whole, b"a/data.pkl", b"/a/dat.pkl"), "points outside of it");
        check(&replaced(&whole, b"a/data/0", b"a/d\xff\xff/0"), "is not UTF-8");
        let twice = archive(&[("a/x", b""), ("a/x", b"")], NARROW);
        check(&twice, "has two entries \"a/x\"");
    }

    #[test]
    fn damaged_zip64_records_are_refused() {
        let whole = archive(&[("a/data.pkl", b"0123456789")], 0);
        let locator = whole.len() - 42;
        let end64 = locator - 56;
        let with = |at: usize, value: &[u8]| {
            let mut bytes = whole.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            refusal(&bytes)
        };
        assert!(with(locator + 8, &[255; 8]).contains("zip64 end record"));
        assert!(with(end64 + 32, &[255; 8]).contains("of 18446744073709551615 entries"));
        assert!(with(end64 + 48, &[255; 8]).contains("not where it should be"));
        let directory = u64_at(&whole, end64 + 48).unwrap() as usize;
        let extra = directory + 46 + 10;
        assert!(with(extra + 4, &[255; 8]).contains("two different sizes"));
        assert!(with(extra + 4, &[255; 16]).contains("an offset in the zip archive is impossible"));
        assert!(with(extra + 2, &[8, 0]).contains("damaged"));
    }
}
