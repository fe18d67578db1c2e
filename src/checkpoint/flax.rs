//! Reading `flax_model.msgpack`: nested maps of arrays, written by `flax.serialization`.
//!
//! Names and layouts become those of PyTorch as `load_flax_weights_in_pytorch_model` of
//! transformers changes them.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use tch::Kind;

use super::entry::{Entries, Entry, Layout, TensorInfo, checked_bytes};
use super::mapped::Mapped;
use super::msgpack::{self, Node};

/// Bytes of all names together; those of a model take some thousand.
const MAX_NAMES: usize = 16 << 20;
const CHUNKED: &str = "__msgpack_chunked_array__";

/// The tensors of a file in its order under their PyTorch names, and the names of what is none.
pub(super) fn open(path: &Path) -> Result<(Entries, Vec<String>)> {
    let file = Mapped::open(path)?;
    read(&file).with_context(|| format!("{path:?}"))
}

fn read(file: &Rc<Mapped>) -> Result<(Entries, Vec<String>)> {
    let bytes = file.bytes();
    let Node::Map(members) = msgpack::read(bytes, 0..bytes.len())? else {
        bail!("not a file of Flax: it holds no map of parameters");
    };
    let batch_stats = members.iter().any(|(key, _)| *key == "batch_stats");
    let mut walk = Walk { file, batch_stats, names: 0, entries: Vec::new(), skipped: Vec::new() };
    walk.members(&mut Vec::new(), &members)?;
    ensure!(!walk.entries.is_empty(), "the file holds no arrays");
    Ok((walk.entries, walk.skipped))
}

struct Walk<'f> {
    file: &'f Rc<Mapped>,
    batch_stats: bool,
    names: usize,
    entries: Entries,
    skipped: Vec<String>,
}

impl<'a> Walk<'_> {
    fn members(&mut self, path: &mut Vec<&'a str>, members: &[(&'a str, Node<'a>)]) -> Result<()> {
        let mut seen = HashSet::new();
        for (key, node) in members {
            ensure!(seen.insert(*key), "the name {key:?} occurs twice in a map");
            path.push(key);
            self.node(path, node)?;
            path.pop();
        }
        Ok(())
    }

    fn node(&mut self, path: &mut Vec<&'a str>, node: &Node<'a>) -> Result<()> {
        let array = match node {
            Node::Map(members) if !members.iter().any(|(key, _)| *key == CHUNKED) => {
                return self.members(path, members);
            }
            Node::Map(members) => chunked(self.file.bytes(), members),
            Node::Ext(1 | 3, range) => array(self.file.bytes(), range),
            _ => {
                let name = self.name(path)?;
                self.skipped.push(name);
                return Ok(());
            }
        };
        let name = self.name(path)?;
        let array = array.with_context(|| format!("array {name:?}"))?;
        let has_header = self.batch_stats && path.len() > 1;
        let path = if has_header { &path[1..] } else { &path[..] };
        let (info, layout) = (array.info, Layout::Dense(array.pieces));
        let entry = Entry { info, file: self.file.clone(), layout, permute: Vec::new() };
        self.entries.push(to_pytorch(path, entry));
        Ok(())
    }

    fn name(&mut self, path: &[&str]) -> Result<String> {
        let name = path.join("/");
        self.names += name.len();
        ensure!(
            self.names <= MAX_NAMES,
            "the names of the arrays take more than {MAX_NAMES} bytes"
        );
        Ok(name)
    }
}

/// The key and the layout PyTorch has for a parameter of this path.
pub(super) fn to_pytorch(path: &[&str], entry: Entry) -> (String, Entry) {
    let mut path = path.to_vec();
    let mut order = Vec::new();
    if let Some(last) = path.last_mut() {
        match *last {
            "kernel" => {
                *last = "weight";
                order = match entry.info.shape.len() {
                    4 => vec![3, 2, 0, 1],
                    rank => (0..rank as i64).rev().collect(),
                };
            }
            "scale" | "embedding" => *last = "weight",
            name if name.contains("mean") => *last = "running_mean",
            name if name.contains("var") => *last = "running_var",
            _ => {}
        }
    }
    (path.join("."), entry.permuted(order))
}

/// An array and where its bytes lie.
struct Array {
    info: TensorInfo,
    pieces: Vec<Range<usize>>,
}

/// An array of ext type 1: a MessagePack array of shape, name of the dtype, and bytes.
fn array(bytes: &[u8], range: &Range<usize>) -> Result<Array> {
    let Node::Array(parts) = msgpack::read(bytes, range.clone())? else {
        bail!("it is not made of shape, dtype and data");
    };
    let [Node::Array(shape), dtype, data] = &parts[..] else {
        bail!("it is not made of shape, dtype and data");
    };
    let shape = shape.iter().map(int).collect::<Result<Vec<i64>>>()?;
    let kind = match dtype {
        Node::Str(name) => dtype_kind(name)?,
        _ => bail!("its dtype is no string"),
    };
    let data = match data {
        Node::Bin(range) => range.clone(),
        _ => bail!("its data are no bytes"),
    };
    let expected = checked_bytes(&shape, kind)?;
    ensure!(
        data.len() == expected,
        "its shape {shape:?} needs {expected} bytes, it has {}",
        data.len()
    );
    Ok(Array { info: TensorInfo { shape, kind }, pieces: vec![data] })
}

/// A large array, cut into one-dimensional pieces: a map of `shape` and `chunks` by number.
fn chunked(bytes: &[u8], members: &[(&str, Node)]) -> Result<Array> {
    let numbered = |name: &str| {
        let found = members.iter().find(|(key, _)| *key == name);
        let Some((_, Node::Map(members))) = found else {
            bail!("it is in chunks and lacks {name:?}");
        };
        let mut sorted = Vec::new();
        for (key, node) in members {
            let at: usize = key.parse().context("a chunk has no number")?;
            sorted.push((at, node));
        }
        sorted.sort_by_key(|&(at, _)| at);
        let in_order = sorted.iter().enumerate().all(|(expected, &(at, _))| at == expected);
        ensure!(in_order, "the numbers of its {name:?} have a gap");
        Ok(sorted.into_iter().map(|(_, node)| node).collect::<Vec<&Node>>())
    };
    let shape = numbered("shape")?.into_iter().map(int).collect::<Result<Vec<i64>>>()?;
    let mut kind = None;
    let mut pieces = Vec::new();
    for chunk in numbered("chunks")? {
        let Node::Ext(1, range) = chunk else { bail!("one of its chunks is no array") };
        let chunk = array(bytes, range)?;
        let first = *kind.get_or_insert(chunk.info.kind);
        ensure!(first == chunk.info.kind, "its chunks have different dtypes");
        pieces.extend(chunk.pieces);
    }
    let kind = kind.context("it has no chunks")?;
    let (expected, found) =
        (checked_bytes(&shape, kind)?, pieces.iter().map(|piece| piece.len()).sum::<usize>());
    ensure!(
        found == expected,
        "its shape {shape:?} needs {expected} bytes, its chunks have {found}"
    );
    Ok(Array { info: TensorInfo { shape, kind }, pieces })
}

fn int(node: &Node) -> Result<i64> {
    match node {
        Node::Int(value) => Ok(*value),
        _ => bail!("its shape is not made of integers"),
    }
}

/// The names NumPy has for the number types.
fn dtype_kind(name: &str) -> Result<Kind> {
    Ok(match name {
        "float32" => Kind::Float,
        "bfloat16" => Kind::BFloat16,
        "float16" => Kind::Half,
        "float64" => Kind::Double,
        "int64" => Kind::Int64,
        "int32" => Kind::Int,
        "int16" => Kind::Int16,
        "int8" => Kind::Int8,
        "uint8" => Kind::Uint8,
        "bool" => Kind::Bool,
        _ => bail!("its dtype {name:?} is not supported"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Format;
    use super::super::tests::{check_expected, refusal};

    #[test]
    fn files_of_flax_are_read() {
        let found = check_expected("flax");
        assert_eq!(found.format(), Format::Flax);
        assert!(found.skipped().is_empty());
        let found = check_expected("flax-statistics");
        assert_eq!(found.skipped(), ["params/step", "params/list"]);
    }

    /// A map `{"a": array}` of these parts: shape, dtype and data as they lie in the file.
    fn one(shape: &[u8], dtype: &str, data: &[u8]) -> Vec<u8> {
        let mut array = vec![0x93, 0x90 | shape.len() as u8];
        array.extend_from_slice(shape);
        array.push(0xa0 | dtype.len() as u8);
        array.extend_from_slice(dtype.as_bytes());
        array.extend_from_slice(&[0xc4, data.len() as u8]);
        array.extend_from_slice(data);
        ext(&array)
    }

    fn ext(array: &[u8]) -> Vec<u8> {
        [b"\x81\xa1a\xc7", &[array.len() as u8, 1][..], array].concat()
    }

    #[test]
    fn damaged_arrays_are_refused() {
        let check = |bytes: &[u8], expected: &str| {
            let error = refusal("flax_model.msgpack", bytes);
            assert!(error.contains(expected), "{error}\nexpected {expected}");
        };
        check(&one(&[2], "float32", &[0; 7]), "its shape [2] needs 8 bytes, it has 7");
        check(&one(&[2], "uint32", &[0; 8]), "array \"a\": its dtype \"uint32\" is not supported");
        check(&one(&[0xff], "float32", &[0; 4]), "its shape [-1] is impossible");
        check(&ext(b"\x90"), "it is not made of shape, dtype and data");
        check(&ext(b"\xc0"), "it is not made of shape, dtype and data");
        check(&ext(b"\x93\x91\xc0\xa1x\xc4\x00"), "its shape is not made of integers");
        check(&ext(b"\x93\x90\x01\xc4\x00"), "its dtype is no string");
        check(&ext(b"\x93\x90\xa7float32\x01"), "its data are no bytes");
        check(&ext(b"\x93\x90\xa7float32\xc4\x04"), "4 bytes are promised, 0 are left");
        check(b"\x90", "it holds no map of parameters");
        check(b"\x80", "the file holds no arrays");
        let twice = [&b"\x82"[..], &one(&[], "int8", &[1])[1..], &one(&[], "int8", &[1])[1..]];
        check(&twice.concat(), "the name \"a\" occurs twice in a map");
        let name = "__msgpack_chunked_array__";
        let chunked =
            |rest: &[u8]| [b"\x81\xa1a\x83\xb9", name.as_bytes(), b"\xc3\xa5shape", rest].concat();
        check(&chunked(b"\x80\xa1x\xc0"), "it is in chunks and lacks \"chunks\"");
        check(&chunked(b"\x80\xa6chunks\x80"), "it has no chunks");
        check(&chunked(b"\x81\xa11\x01\xa6chunks\x80"), "the numbers of its \"shape\" have a gap");
        check(&chunked(b"\x80\xa6chunks\x81\xa1x\xc0"), "a chunk has no number");
        check(&chunked(b"\x80\xa6chunks\x81\xa10\xc0"), "one of its chunks is no array");
    }
}
