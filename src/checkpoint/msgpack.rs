//! Reading MessagePack as far as Flax uses it. Numbers are big endian; binary data stay where
//! they lie in the file.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

/// Maps within maps beyond this depth are refused.
const MAX_DEPTH: usize = 64;
/// Values a file may hold; a model has a few thousand.
const MAX_NODES: usize = 1_000_000;

/// A value, with places counted from the start of the bytes that were read.
#[derive(Debug, PartialEq)]
pub(super) enum Node<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Float,
    Str(&'a str),
    /// Binary data, or a string that is not UTF-8.
    Bin(Range<usize>),
    Array(Vec<Node<'a>>),
    Map(Vec<(&'a str, Node<'a>)>),
    Ext(i8, Range<usize>),
}

/// The value that `bytes[range]` holds, all of it.
pub(super) fn read(bytes: &[u8], range: Range<usize>) -> Result<Node<'_>> {
    let mut reader = Reader { bytes: &bytes[..range.end], at: range.start, nodes: 0 };
    let node = reader.node(0)?;
    let rest = range.end - reader.at;
    ensure!(rest == 0, "{rest} bytes follow the end of the MessagePack data");
    Ok(node)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn node(&mut self, depth: usize) -> Result<Node<'a>> {
        self.nodes += 1;
        ensure!(self.nodes <= MAX_NODES, "more than {MAX_NODES} values are no model");
        ensure!(depth <= MAX_DEPTH, "maps are nested more than {MAX_DEPTH} deep");
        let [tag] = self.array()?;
        Ok(match tag {
            0xc0 => Node::Nil,
            0xc2 | 0xc3 => Node::Bool(tag == 0xc3),
            0x00..=0x7f => Node::Int(i64::from(tag)),
            0xe0..=0xff => Node::Int(i64::from(tag as i8)),
            0xcc..=0xd3 => self.int(tag)?,
            0xca => self.float(4)?,
            0xcb => self.float(8)?,
            0xa0..=0xbf => self.string(u64::from(tag & 0x1f))?,
            0xd9..=0xdb => {
                let length = self.length(tag - 0xd9)?;
                self.string(length)?
            }
            0xc4..=0xc6 => {
                let length = self.length(tag - 0xc4)?;
                Node::Bin(self.take(length)?)
            }
            0x90..=0x9f => self.list(u64::from(tag & 0x0f), depth)?,
            0xdc | 0xdd => {
                let length = self.length(tag - 0xdc + 1)?;
                self.list(length, depth)?
            }
            0x80..=0x8f => self.map(u64::from(tag & 0x0f), depth)?,
            0xde | 0xdf => {
                let length = self.length(tag - 0xde + 1)?;
                self.map(length, depth)?
            }
            0xd4..=0xd8 => self.ext(1 << (tag - 0xd4))?,
            0xc7..=0xc9 => {
                let length = self.length(tag - 0xc7)?;
                self.ext(length)?
            }
            0xc1 => bail!("byte {} is no MessagePack", self.at - 1),
        })
    }

    fn int(&mut self, tag: u8) -> Result<Node<'a>> {
        let value = match tag {
            0xcc => i64::from(self.array::<1>()?[0]),
            0xcd => i64::from(u16::from_be_bytes(self.array()?)),
            0xce => i64::from(u32::from_be_bytes(self.array()?)),
            0xcf => i64::try_from(u64::from_be_bytes(self.array()?))?,
            0xd0 => i64::from(i8::from_be_bytes(self.array()?)),
            0xd1 => i64::from(i16::from_be_bytes(self.array()?)),
            0xd2 => i64::from(i32::from_be_bytes(self.array()?)),
            _ => i64::from_be_bytes(self.array()?),
        };
        Ok(Node::Int(value))
    }

    fn float(&mut self, bytes: u64) -> Result<Node<'a>> {
        self.take(bytes)?;
        Ok(Node::Float)
    }

    fn string(&mut self, length: u64) -> Result<Node<'a>> {
        let range = self.take(length)?;
        Ok(match std::str::from_utf8(&self.bytes[range.clone()]) {
            Ok(text) => Node::Str(text),
            Err(_) => Node::Bin(range),
        })
    }

    fn list(&mut self, length: u64, depth: usize) -> Result<Node<'a>> {
        // Grows as members are read: the length may lie.
        let mut members = Vec::new();
        for _ in 0..length {
            members.push(self.node(depth + 1)?);
        }
        Ok(Node::Array(members))
    }

    fn map(&mut self, length: u64, depth: usize) -> Result<Node<'a>> {
        let mut members = Vec::new();
        for _ in 0..length {
            let Node::Str(key) = self.node(depth + 1)? else {
                bail!("a map has a key that is no string");
            };
            members.push((key, self.node(depth + 1)?));
        }
        Ok(Node::Map(members))
    }

    fn ext(&mut self, length: u64) -> Result<Node<'a>> {
        let [kind] = self.array()?;
        Ok(Node::Ext(kind as i8, self.take(length)?))
    }

    /// A length of 1, 2 or 4 bytes.
    fn length(&mut self, size: u8) -> Result<u64> {
        Ok(match size {
            0 => u64::from(self.array::<1>()?[0]),
            1 => u64::from(u16::from_be_bytes(self.array()?)),
            _ => u64::from(u32::from_be_bytes(self.array()?)),
        })
    }

    fn take(&mut self, length: u64) -> Result<Range<usize>> {
        let left = self.bytes.len() - self.at;
        let fits = usize::try_from(length).ok().filter(|&length| length <= left);
        let length = fits.with_context(|| {
            format!("the file is truncated: {length} bytes are promised, {left} are left")
        })?;
        self.at += length;
        Ok(self.at - length..self.at)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let range = self.take(N as u64)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[range]);
        Ok(array)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_read() {
        let check = |bytes: &[u8], expected: Node| {
            assert_eq!(read(bytes, 0..bytes.len()).unwrap(), expected, "{bytes:02x?}");
        };
        check(b"\xc0", Node::Nil);
        check(b"\xc3", Node::Bool(true));
        check(b"\x7f", Node::Int(127));
        check(b"\xff", Node::Int(-1));
        check(b"\xcc\xff", Node::Int(255));
        check(b"\xcd\x01\x00", Node::Int(256));
        check(b"\xce\x00\x01\x00\x00", Node::Int(65536));
        check(b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00", Node::Int(1 << 32));
        check(b"\xd0\x80", Node::Int(-128));
        check(b"\xd1\xff\x00", Node::Int(-256));
        check(b"\xd2\xff\xff\x00\x00", Node::Int(-65536));
        check(b"\xd3\xff\xff\xff\xff\x00\x00\x00\x00", Node::Int(-(1 << 32)));
        check(b"\xca\0\0\0\0", Node::Float);
        check(b"\xcb\0\0\0\0\0\0\0\0", Node::Float);
        check(b"\xa2ab", Node::Str("ab"));
        check(b"\xd9\x02ab", Node::Str("ab"));
        check(b"\xda\x00\x02ab", Node::Str("ab"));
        check(b"\xdb\0\0\0\x02ab", Node::Str("ab"));
        check(b"\xa1\xff", Node::Bin(1..2));
        check(b"\xc4\x02ab", Node::Bin(2..4));
        check(b"\xc5\x00\x02ab", Node::Bin(3..5));
        check(b"\xc6\0\0\0\x02ab", Node::Bin(5..7));
        check(b"\x92\x01\x02", Node::Array(vec![Node::Int(1), Node::Int(2)]));
        check(b"\xdc\x00\x01\x01", Node::Array(vec![Node::Int(1)]));
        check(b"\xdd\0\0\0\x00", Node::Array(vec![]));
        check(b"\x81\xa1a\x01", Node::Map(vec![("a", Node::Int(1))]));
        check(b"\xde\x00\x01\xa1a\x01", Node::Map(vec![("a", Node::Int(1))]));
        check(b"\xdf\0\0\0\x00", Node::Map(vec![]));
        check(b"\xd4\x01a", Node::Ext(1, 2..3));
        check(b"\xd8\xffabcdefghijklmnop", Node::Ext(-1, 2..18));
        check(b"\xc7\x02\x01ab", Node::Ext(1, 3..5));
        check(b"\xc8\x00\x02\x01ab", Node::Ext(1, 4..6));
        check(b"\xc9\0\0\0\x02\x01ab", Node::Ext(1, 6..8));
    }

    #[test]
    fn damaged_data_are_refused() {
        let check = |bytes: &[u8], expected: &str| {
            let error = read(bytes, 0..bytes.len()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\nexpected {expected}");
        };
        check(b"", "1 bytes are promised, 0 are left");
        check(b"\xc6\xff\xff\xff\xffab", "4294967295 bytes are promised, 2 are left");
        check(b"\xdd\xff\xff\xff\xff\x01", "1 bytes are promised, 0 are left");
        check(b"\xdf\xff\xff\xff\xff\xa1a\x01", "1 bytes are promised, 0 are left");
        check(b"\x01\x01", "1 bytes follow the end");
        check(b"\xc1", "byte 0 is no MessagePack");
        check(b"\x81\x01\x01", "a key that is no string");
        check(&[0x91; 100], "nested more than 64 deep");
        let flood = [&b"\xdd\x00\xff\xff\xff"[..], &vec![0; 1 << 20]].concat();
        check(&flood, "more than 1000000 values are no model");
    }
}
