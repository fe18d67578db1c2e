//! Object headers: the messages that say what an object is.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

use super::super::bytes::{u8_at, u16_at, u32_at, u64_at};
use super::{File, after, place};

pub(super) const DATASPACE: u16 = 0x01;
pub(super) const LINK_INFO: u16 = 0x02;
pub(super) const DATATYPE: u16 = 0x03;
pub(super) const LINK: u16 = 0x06;
pub(super) const LAYOUT: u16 = 0x08;
pub(super) const FILTERS: u16 = 0x0b;
const CONTINUATION: u16 = 0x10;
pub(super) const SYMBOL_TABLE: u16 = 0x11;

/// A message of an object header and the place of its content.
pub(super) struct Message {
    pub(super) kind: u16,
    /// The content is elsewhere, shared with other objects.
    pub(super) shared: bool,
    pub(super) range: Range<usize>,
}

/// How messages are laid out in a header.
#[derive(Clone, Copy)]
enum Version {
    One,
    /// Whether messages tell the order of their creation.
    Two {
        ordered: bool,
    },
}

/// All messages of the object header at an address, continuations included.
pub(super) fn messages(file: &mut File, address: u64) -> Result<Vec<Message>> {
    let at = place(address)?;
    let (version, first) = match file.bytes.get(at..).is_some_and(|b| b.starts_with(b"OHDR")) {
        true => header_two(file.bytes, at)?,
        false => header_one(file.bytes, at)?,
    };
    let mut messages = Vec::new();
    // A continuation costs a step, so that a ring of them ends.
    let mut blocks = vec![first];
    while let Some(block) = blocks.pop() {
        file.step()?;
        read_block(file, version, block, &mut messages, &mut blocks)?;
    }
    Ok(messages)
}

fn header_one(bytes: &[u8], at: usize) -> Result<(Version, Range<usize>)> {
    let version = u8_at(bytes, at)?;
    ensure!(version == 1, "there is no object header at byte {at}");
    let size = u32_at(bytes, after(at, 8)?)? as usize;
    let start = after(at, 16)?;
    Ok((Version::One, start..after(start, size)?))
}

fn header_two(bytes: &[u8], at: usize) -> Result<(Version, Range<usize>)> {
    let version = u8_at(bytes, at + 4)?;
    ensure!(version == 2, "version {version} of object headers is not supported");
    let flags = u8_at(bytes, at + 5)?;
    let times = if flags & 0x20 == 0 { 0 } else { 16 };
    let limits = if flags & 0x10 == 0 { 0 } else { 4 };
    let size_at = at + 6 + times + limits;
    let (width, size) = match flags & 3 {
        0 => (1, u64::from(u8_at(bytes, size_at)?)),
        1 => (2, u64::from(u16_at(bytes, size_at)?)),
        2 => (4, u64::from(u32_at(bytes, size_at)?)),
        _ => (8, u64_at(bytes, size_at)?),
    };
    let start = size_at + width;
    let ordered = flags & 0x04 != 0;
    Ok((Version::Two { ordered }, start..after(start, usize::try_from(size)?)?))
}

fn read_block(
    file: &mut File,
    version: Version,
    block: Range<usize>,
    messages: &mut Vec<Message>,
    blocks: &mut Vec<Range<usize>>,
) -> Result<()> {
    let bytes = file.bytes;
    ensure!(block.end <= bytes.len(), "an object header reaches beyond the end of the file");
    let mut at = block.start;
    let head = match version {
        Version::One => 8,
        Version::Two { ordered: false } => 4,
        Version::Two { ordered: true } => 6,
    };
    while at + head <= block.end {
        file.step()?;
        let (kind, size, flags) = match version {
            Version::One => (u16_at(bytes, at)?, u16_at(bytes, at + 2)?, u8_at(bytes, at + 4)?),
            Version::Two { .. } => {
                (u16::from(u8_at(bytes, at)?), u16_at(bytes, at + 1)?, u8_at(bytes, at + 3)?)
            }
        };
        let range = at + head..at + head + usize::from(size);
        ensure!(range.end <= block.end, "a message reaches beyond its object header");
        at = range.end;
        if kind == CONTINUATION {
            blocks.push(continuation(bytes, version, &range)?);
        } else {
            messages.push(Message { kind, shared: flags & 2 != 0, range });
        }
    }
    Ok(())
}

/// The messages of the block that a continuation message points to.
fn continuation(bytes: &[u8], version: Version, range: &Range<usize>) -> Result<Range<usize>> {
    let start = place(u64_at(bytes, range.start)?)?;
    let length = usize::try_from(u64_at(bytes, range.start + 8)?)?;
    let end = after(start, length)?;
    match version {
        Version::One => Ok(start..end),
        Version::Two { .. } => {
            let signed = bytes.get(start..).is_some_and(|rest| rest.starts_with(b"OCHK"));
            ensure!(signed, "the continuation of an object header is not where it should be");
            // Signature before, checksum after.
            let end = end.checked_sub(4).filter(|&end| end >= start + 4);
            Ok(start + 4..end.context("the continuation of an object header is too short")?)
        }
    }
}

/// The only message of a kind.
pub(super) fn only<'m>(messages: &'m [Message], kind: u16, name: &str) -> Result<&'m Message> {
    let mut found = messages.iter().filter(|message| message.kind == kind);
    let message = found.next().with_context(|| format!("it has no {name}"))?;
    ensure!(found.next().is_none(), "it has more than one {name}");
    if message.shared {
        bail!("its {name} is shared with other objects, which is not supported");
    }
    Ok(message)
}
