//! The members of a group: a symbol table of the old style, or link messages of the new one.

use anyhow::{Context, Result, bail, ensure};

use super::super::bytes::{array_at, u8_at, u16_at, u32_at, u64_at};
use super::object::{LINK, LINK_INFO, Message, SYMBOL_TABLE};
use super::{File, UNDEFINED, after, place};

/// Longest name of a member.
const MAX_NAME: usize = 1024;

/// Names and addresses of the members.
pub(super) fn links<'a>(file: &mut File<'a>, messages: &[Message]) -> Result<Vec<(&'a str, u64)>> {
    let mut links = Vec::new();
    for message in messages {
        let at = message.range.start;
        match message.kind {
            SYMBOL_TABLE => {
                let tree = u64_at(file.bytes, at)?;
                let heap = heap(file.bytes, u64_at(file.bytes, at + 8)?)?;
                symbols(file, tree, heap, None, &mut links)?;
            }
            LINK => links.push(link(&file.bytes[message.range.clone()])?),
            LINK_INFO => {
                // Version, flags, and where flagged the highest creation order.
                let flags = u8_at(file.bytes, at + 1)?;
                let fractal = at + if flags & 1 == 0 { 2 } else { 10 };
                ensure!(
                    u64_at(file.bytes, fractal)? == UNDEFINED,
                    "it keeps its members in a fractal heap, which is not supported: write the \
                     file with h5py's default libver"
                );
            }
            _ => {}
        }
    }
    Ok(links)
}

/// The names of a local heap, each ended by a zero byte.
fn heap(bytes: &[u8], address: u64) -> Result<&[u8]> {
    let at = place(address)?;
    let signed = bytes.get(at..).is_some_and(|rest| rest.starts_with(b"HEAP"));
    ensure!(signed, "the heap of its names is not where it should be");
    let size = usize::try_from(u64_at(bytes, at + 8)?)?;
    let start = place(u64_at(bytes, at + 24)?)?;
    bytes.get(start..after(start, size)?).context("the heap of its names is truncated")
}

/// Collects the symbols under a node of the B-tree, whose leaves are at level 0.
fn symbols<'a>(
    file: &mut File<'a>,
    address: u64,
    heap: &'a [u8],
    parent: Option<u8>,
    links: &mut Vec<(&'a str, u64)>,
) -> Result<()> {
    file.step()?;
    let bytes = file.bytes;
    let at = place(address)?;
    let signed = bytes.get(at..).is_some_and(|rest| rest.starts_with(b"TREE"));
    ensure!(signed, "the tree of its members is not where it should be");
    let (kind, level) = (u8_at(bytes, at + 4)?, u8_at(bytes, at + 5)?);
    ensure!(kind == 0, "the tree of its members is one of chunks");
    ensure!(parent.is_none_or(|above| level + 1 == above), "the tree of its members is damaged");
    let count = usize::from(u16_at(bytes, at + 6)?);
    for entry in 0..count {
        // Signature, kind, level, count, two siblings; then key, child, key, child, …
        let child = u64_at(bytes, at + 24 + 16 * entry + 8)?;
        match level {
            0 => symbol_node(file, child, heap, links)?,
            _ => symbols(file, child, heap, Some(level), links)?,
        }
    }
    Ok(())
}

fn symbol_node<'a>(
    file: &mut File<'a>,
    address: u64,
    heap: &'a [u8],
    links: &mut Vec<(&'a str, u64)>,
) -> Result<()> {
    let bytes = file.bytes;
    let at = place(address)?;
    let signed = bytes.get(at..).is_some_and(|rest| rest.starts_with(b"SNOD"));
    ensure!(signed, "a table of its members is not where it should be");
    for entry in 0..usize::from(u16_at(bytes, at + 6)?) {
        file.step()?;
        let at = at + 8 + 40 * entry;
        let name =
            heap.get(place(u64_at(bytes, at)?)?..).context("a name lies outside its heap")?;
        let length = name.iter().take(MAX_NAME).position(|&byte| byte == 0);
        let name = &name[..length.context("a name of a member has no end")?];
        let name = std::str::from_utf8(name).context("a name of a member is not UTF-8")?;
        ensure!(u32_at(bytes, at + 16)? != 2, "its member {name:?} is a symbolic link");
        links.push((name, u64_at(bytes, at + 8)?));
    }
    Ok(())
}

/// A link message.
fn link(bytes: &[u8]) -> Result<(&str, u64)> {
    let version = u8_at(bytes, 0)?;
    ensure!(version == 1, "version {version} of link messages is not supported");
    let flags = u8_at(bytes, 1)?;
    let mut at = 2;
    let mut kind = 0;
    if flags & 0x08 != 0 {
        kind = u8_at(bytes, at)?;
        at += 1;
    }
    // The order of creation, and the character set of the name.
    at += if flags & 0x04 != 0 { 8 } else { 0 };
    at += if flags & 0x10 != 0 { 1 } else { 0 };
    let (width, length) = match flags & 3 {
        0 => (1, u64::from(u8_at(bytes, at)?)),
        1 => (2, u64::from(u16_at(bytes, at)?)),
        2 => (4, u64::from(u32_at(bytes, at)?)),
        _ => (8, u64_at(bytes, at)?),
    };
    at += width;
    let length = usize::try_from(length)?;
    ensure!(length <= MAX_NAME, "a name of a member has {length} bytes");
    let name = bytes.get(at..at + length).context("a link message is truncated")?;
    let name = std::str::from_utf8(name).context("a name of a member is not UTF-8")?;
    if kind != 0 {
        bail!("its member {name:?} is a symbolic link");
    }
    Ok((name, u64::from_le_bytes(array_at(bytes, at + length)?)))
}
