//! Reading safetensors: a length, a JSON header, then the bytes of every tensor.
//!
//! The checks are those of the official reader: the header is whole and names no tensor twice,
//! every tensor has exactly the bytes its shape asks for, and together they cover the rest of the
//! file without gap or overlap.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use tch::Kind;

use super::entry::{Entries, Entry, Layout, TensorInfo, checked_bytes};
use super::json::{Seen, UniqueMap};
use super::mapped::Mapped;

/// The official reader's limit on the header.
pub(super) const MAX_HEADER: u64 = 100_000_000;

/// Names of the number types in the header, in the order by which the official writer sorts.
const DTYPES: [(&str, Kind); 10] = [
    ("BOOL", Kind::Bool),
    ("U8", Kind::Uint8),
    ("I8", Kind::Int8),
    ("I16", Kind::Int16),
    ("F16", Kind::Half),
    ("BF16", Kind::BFloat16),
    ("I32", Kind::Int),
    ("F32", Kind::Float),
    ("F64", Kind::Double),
    ("I64", Kind::Int64),
];

/// The name safetensors gives to a number type.
pub(super) fn dtype_name(kind: Kind) -> Option<&'static str> {
    Some(DTYPES[dtype_rank(kind)?].0)
}

/// The place of a number type in the order of the official writer.
pub(super) fn dtype_rank(kind: Kind) -> Option<usize> {
    DTYPES.iter().position(|&(_, known)| known == kind)
}

/// The tensors of one file in the header's order, and its `__metadata__`.
pub(super) fn open(path: &Path) -> Result<(Entries, BTreeMap<String, String>)> {
    let file = Mapped::open(path)?;
    read(&file).with_context(|| format!("{path:?}"))
}

fn read(file: &Rc<Mapped>) -> Result<(Entries, BTreeMap<String, String>)> {
    let bytes = file.bytes();
    let (json, data) = split(bytes)?;
    let header: Header = serde_json::from_slice(json)
        .map_err(|error| anyhow!("the safetensors header is not valid: {error}"))?;
    let mut end = 0;
    let mut entries = Vec::with_capacity(header.tensors.len());
    let mut places = Vec::with_capacity(header.tensors.len());
    for (name, raw) in header.tensors {
        let (info, range) = check(&raw).with_context(|| format!("tensor {name:?}"))?;
        end = end.max(range.end);
        places.push((range.start, range.end, entries.len()));
        let range = shift(&range, data.start).with_context(|| format!("tensor {name:?}"))?;
        let layout = Layout::Dense(vec![range]);
        entries.push((name, Entry { info, file: file.clone(), layout, permute: Vec::new() }));
    }
    check_cover(&mut places, &entries)?;
    let have = data.len();
    ensure!(
        end <= have,
        "the file is truncated: {} bytes are missing at its end (the header promises {end} bytes \
         of tensors, {have} are there)",
        end - have
    );
    ensure!(end == have, "{} bytes after the last tensor belong to none", have - end);
    Ok((entries, header.metadata))
}

/// The JSON header and the place of the data after it.
fn split(bytes: &[u8]) -> Result<(&[u8], Range<usize>)> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        bail!("not a safetensors file: it has {} bytes, a header takes at least 8", bytes.len());
    };
    let length = u64::from_le_bytes(*length);
    ensure!(
        length <= MAX_HEADER,
        "not a safetensors file: its header would have {length} bytes, at most {MAX_HEADER} are \
         allowed"
    );
    let length = length as usize;
    let json = rest.get(..length).ok_or_else(|| {
        anyhow!(
            "the file is truncated: {} bytes of the safetensors header are missing",
            length - rest.len()
        )
    })?;
    ensure!(json.first() == Some(&b'{'), "not a safetensors file: its header is no JSON object");
    Ok((json, 8 + length..bytes.len()))
}

/// Shape, kind and place (relative to the data) of one tensor.
fn check(raw: &RawInfo) -> Result<(TensorInfo, Range<usize>)> {
    let kind = DTYPES.iter().find(|(name, _)| *name == raw.dtype).map(|(_, kind)| *kind);
    let kind = kind.ok_or_else(|| {
        let known: Vec<&str> = DTYPES.iter().map(|(name, _)| *name).collect();
        anyhow!("its dtype {:?} is not supported (known: {})", raw.dtype, known.join(" "))
    })?;
    let shape: Option<Vec<i64>> = raw.shape.iter().map(|&size| i64::try_from(size).ok()).collect();
    let shape = shape.ok_or_else(|| anyhow!("its shape {:?} is impossible", raw.shape))?;
    let expected = checked_bytes(&shape, kind)?;
    let [start, end] = raw.data_offsets;
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    let (start, end) = range.context("its data_offsets are impossible")?;
    ensure!(start <= end, "its data_offsets [{start}, {end}] are the wrong way round");
    ensure!(
        end - start == expected,
        "its data_offsets [{start}, {end}] hold {} bytes, its shape {shape:?} needs {expected}",
        end - start
    );
    Ok((TensorInfo { shape, kind }, start..end))
}

fn shift(range: &Range<usize>, by: usize) -> Result<Range<usize>> {
    let end = range.end.checked_add(by).context("its data_offsets are impossible")?;
    Ok(range.start + by..end)
}

/// The tensors follow one another from 0 without gap or overlap.
fn check_cover(places: &mut [(usize, usize, usize)], entries: &[(String, Entry)]) -> Result<()> {
    places.sort_unstable();
    let mut at = 0;
    for &(start, end, index) in places.iter() {
        let name = &entries[index].0;
        ensure!(start >= at, "tensor {name:?} overlaps another: it starts at {start}, not {at}");
        ensure!(
            start == at,
            "there is a gap before tensor {name:?}: it starts at {start}, not {at}"
        );
        at = end;
    }
    Ok(())
}

#[derive(serde::Deserialize)]
struct RawInfo {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

struct Header {
    tensors: Vec<(String, RawInfo)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header { tensors: Vec::new(), metadata: BTreeMap::new() };
        let mut seen = Seen::default();
        while let Some(name) = map.next_key::<String>()? {
            seen.first(&name).map_err(A::Error::custom)?;
            if name == "__metadata__" {
                let metadata: Option<UniqueMap<String>> = map.next_value()?;
                header.metadata = metadata.into_iter().flat_map(|map| map.0).collect();
            } else {
                header.tensors.push((name, map.next_value()?));
            }
        }
        Ok(header)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Checkpoint;
    use super::super::tests::refusal;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn lying_headers_are_refused() {
        let check = |header: &str, length: usize, expected: &str| {
            let error = refusal("model.safetensors", &file(header, &vec![0; length]));
            assert!(error.contains(expected), "{header}\nsays {error}\nexpected {expected}");
        };
        let tensor = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"x":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        check(&tensor("F32", "[2]", "[0,8]"), 5, "truncated: 3 bytes are missing at its end");
        check(&tensor("F32", "[2]", "[0,8]"), 9, "1 bytes after the last tensor");
        check(&tensor("F32", "[2]", "[4,12]"), 12, "gap before tensor \"x\"");
        check(&tensor("F32", "[2]", "[0,4]"), 4, "hold 4 bytes, its shape [2] needs 8");
        check(&tensor("F32", "[1]", "[8,4]"), 8, "the wrong way round");
        check(&tensor("F8_E4M3", "[4]", "[0,4]"), 4, "its dtype \"F8_E4M3\" is not supported");
        check(&tensor("F32", "[4294967296,4294967296]", "[0,0]"), 0, "is impossible");
        check(&tensor("F32", "[18446744073709551615]", "[0,0]"), 0, "is impossible");
        check(
            &tensor("F32", "[0]", "[18446744073709551615,18446744073709551615]"),
            0,
            "impossible",
        );
        check(&tensor("F32", "[-1]", "[0,4]"), 4, "not valid: invalid value: integer `-1`");
        check(&tensor("F32", &format!("[{}1]", "1,".repeat(64)), "[0,4]"), 4, "65 dimensions");
        let x = r#""x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#;
        let y = r#""y":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}"#;
        check(&format!("{{{x},{x}}}"), 4, "the name \"x\" occurs twice");
        check(&format!("{{{x},{y}}}"), 4, "tensor \"y\" overlaps another: it starts at 2, not 4");
        check("[]", 0, "its header is no JSON object");
        check(r#"{"x":3}"#, 0, "not valid: invalid type: integer `3`");
        check(r#"{"x":{"dtype":"U8","shape":[1]}}"#, 1, "missing field `data_offsets`");
        check(r#"{"__metadata__":{"a":1}}"#, 0, "expected a string");
        check(r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0, "the name \"a\" occurs twice");
        check(&"{\"a\":".repeat(100_000), 0, "not valid");
    }

    #[test]
    fn lying_lengths_are_refused() {
        let check = |bytes: &[u8], expected: &str| {
            let error = refusal("model.safetensors", bytes);
            assert!(error.contains(expected), "{error}");
        };
        check(b"version", "not a safetensors file: it has 7 bytes");
        check(&[255; 64], "header would have 18446744073709551615 bytes");
        let whole = file(r#"{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, &[0; 4]);
        check(&whole[..20], "truncated: 41 bytes of the safetensors header are missing");
    }

    #[test]
    fn a_boolean_is_zero_or_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let header = r#"{"x":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}"#;
        std::fs::write(&path, file(header, &[1, 2])).unwrap();
        let error = Checkpoint::open_file(&path).unwrap().tensor("x").unwrap_err();
        let expected = "tensor \"x\": a tensor of booleans holds a byte that is neither 0 nor 1";
        assert_eq!(format!("{error:#}"), format!("{path:?}: {expected}"));
    }
}
