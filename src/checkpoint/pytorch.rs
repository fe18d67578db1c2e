//! Reading what `torch.save` writes: the zip archive of torch 1.6 and later, and the row of
//! pickles before it.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};

use super::mapped::Mapped;
use super::pickle::{self, Object, Pickle};
use super::state_dict::{self, StateDict, Storages};
use super::zip::{self, ZipEntry};

/// The number 0x1950a86a20f9469cfc6c, whose pickle begins the legacy format.
const LEGACY_MAGIC: &[u8] = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
/// Version of the legacy format, its second pickle.
const LEGACY_PROTOCOL: i64 = 1001;

/// Whether a file that begins so is one of `torch.save`: a zip archive, a pickle of the magic
/// number, or the tar archive of torch 0.1.
pub(super) fn is_torch(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || is_legacy(head) || is_tar(head)
}

fn is_legacy(head: &[u8]) -> bool {
    let start = head.get(..32).unwrap_or(head);
    start.first() == Some(&0x80) && start.windows(10).any(|window| window == LEGACY_MAGIC)
}

fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

/// Reads the state dict of a file, in either format.
pub(super) fn open(path: &Path) -> Result<StateDict> {
    let file = Mapped::open(path)?;
    read(&file).with_context(|| format!("{path:?}"))
}

fn read(file: &Rc<Mapped>) -> Result<StateDict> {
    let bytes = file.bytes();
    if bytes.starts_with(b"PK\x03\x04") {
        return read_zip(file);
    }
    if is_legacy(bytes) {
        return read_legacy(file);
    }
    ensure!(
        !is_tar(bytes),
        "a tar file of torch 0.1 is not supported: save it again with a newer torch"
    );
    bail!("not a file of torch.save: neither a zip archive nor its older format")
}

fn read_zip(file: &Rc<Mapped>) -> Result<StateDict> {
    let entries = zip::entries(file.bytes())?;
    let mut pickles = entries.iter().filter(|entry| entry.name.ends_with("/data.pkl"));
    let pickle = pickles.next().context("the zip archive has no data.pkl: not a checkpoint")?;
    ensure!(pickles.next().is_none(), "the zip archive has more than one data.pkl");
    let top = pickle.name.strip_suffix("data.pkl").unwrap_or_default();
    check_not_script(top, &entries)?;
    if let Some(packed) = entries.iter().find(|entry| entry.packed) {
        bail!("the entry {:?} of the zip archive is compressed, as torch never does", packed.name);
    }
    let text = |name: &str| {
        let entry = entries.iter().find(|entry| entry.name.strip_prefix(top) == Some(name))?;
        Some(String::from_utf8_lossy(&file.bytes()[entry.range.clone()]))
    };
    let big_endian = match text("byteorder").as_deref() {
        None | Some("little") => false,
        Some("big") => true,
        Some(other) => bail!("the byte order {other:?} is neither \"little\" nor \"big\""),
    };
    let ranges = entries
        .iter()
        .filter_map(|entry| {
            Some((entry.name.strip_prefix(top)?.strip_prefix("data/")?, entry.range.clone()))
        })
        .collect();
    let pickle = pickle::load(&file.bytes()[pickle.range.clone()])?;
    state_dict::read(&pickle, &Storages { file, ranges, big_endian })
}

fn check_not_script(top: &str, entries: &[ZipEntry]) -> Result<()> {
    let is_script = |name: &str| name == "constants.pkl" || name.starts_with("code/");
    let script = entries.iter().filter_map(|entry| entry.name.strip_prefix(top)).any(is_script);
    ensure!(
        !script,
        "a TorchScript archive holds a program, not a state dict: save model.state_dict() instead"
    );
    Ok(())
}

/// Magic number, version, system, object, keys: five pickles; then the storages in the keys'
/// order, each with its number of elements before it.
fn read_legacy(file: &Rc<Mapped>) -> Result<StateDict> {
    let bytes = file.bytes();
    let mut at = 0;
    let mut next = || -> Result<Pickle> {
        let pickle = pickle::load(&bytes[at..])?;
        at += pickle.length;
        Ok(pickle)
    };
    let magic = next()?;
    let is_magic = matches!(magic.root(), Some(&Object::Long(LEGACY_MAGIC)));
    ensure!(is_magic, "not a file of torch.save: its magic number is wrong");
    let version = next()?.root_int();
    ensure!(
        version == Some(LEGACY_PROTOCOL),
        "the legacy format has version {version:?}, only {LEGACY_PROTOCOL} is known"
    );
    // Tells the byte order of the writer, who nevertheless wrote little endian.
    next()?;
    let object = next()?;
    let keys = next()?;
    let Some(Object::List(keys_list)) = keys.root() else {
        bail!("the list of storages is missing");
    };
    let kinds = storage_sizes(&object)?;
    let mut ranges = HashMap::new();
    for &key in keys_list {
        let key = keys.text(key).context("the key of a storage is no string")?;
        let size = kinds.get(key).with_context(|| format!("no tensor uses the storage {key:?}"))?;
        let range = legacy_storage(bytes, at, *size).with_context(|| format!("storage {key:?}"))?;
        at = range.end;
        ensure!(ranges.insert(key, range).is_none(), "the storage {key:?} occurs twice");
    }
    state_dict::read(&object, &Storages { file, ranges, big_endian: false })
}

/// Bytes of an element for every storage that the pickle names.
fn storage_sizes<'a>(pickle: &Pickle<'a>) -> Result<HashMap<&'a str, usize>> {
    let mut sizes = HashMap::new();
    for storage in pickle.storages() {
        let size = storage.kind.map_or(1, |kind| kind.elt_size_in_bytes());
        let first = *sizes.entry(storage.key).or_insert(size);
        ensure!(first == size, "the storage {:?} has two number types", storage.key);
    }
    Ok(sizes)
}

fn legacy_storage(bytes: &[u8], at: usize, size: usize) -> Result<Range<usize>> {
    let count = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    let count = u64::from_le_bytes(*count.context("the file is truncated before it")?);
    let start = at + 8;
    let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
    let end = length.and_then(|length| start.checked_add(length));
    let end = end.with_context(|| format!("its length of {count} elements is impossible"))?;
    ensure!(
        end <= bytes.len(),
        "the file is truncated: {} bytes of it are missing",
        end - bytes.len()
    );
    Ok(start..end)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{check_expected, fixture, refusal};
    use super::super::zip_write::tests::archive;
    use super::super::{Checkpoint, Format};

    #[test]
    fn every_way_of_saving_is_read() {
        let ways = ["dict", "ordered", "legacy", "protocol-4", "legacy-protocol-4"];
        for way in ways {
            let found = check_expected(&format!("bin-{way}"));
            assert_eq!(found.format(), Format::Pytorch);
            let keys: Vec<&str> = found.keys().collect();
            assert_eq!(keys[..3], ["f32", "f16", "bf16"], "{way}");
            assert!(found.skipped().is_empty(), "{way}");
            let place = |name: &str| keys.iter().position(|key| *key == name).unwrap();
            let mut expected: Vec<usize> = (0..keys.len()).collect();
            expected[place("tied")] = place("base");
            assert_eq!(found.first_of_shared(), expected, "{way}");
        }
    }

    #[test]
    fn shards_are_read() {
        let found = Checkpoint::open(&fixture("bin-sharded")).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        let a: Vec<f32> = found.tensor("a").unwrap().try_into().unwrap();
        assert_eq!(a, [0.0, 0.25, 0.5]);
    }

    #[test]
    fn what_is_no_tensor_is_skipped() {
        let found = check_expected("bin-extra");
        assert_eq!(found.skipped(), ["epoch", "rate", "name", "big", "shape", "sub"]);
    }

    #[test]
    fn files_that_are_no_state_dict_are_refused() {
        let check = |name: &str, expected: &str| {
            let path = fixture("refused").join(name);
            let error = format!("{:#}", Checkpoint::open_file(&path).err().unwrap());
            assert!(error.starts_with(&format!("{path:?}: ")), "{error}");
            assert!(error.contains(expected), "{error}");
        };
        check("script.bin", "a TorchScript archive holds a program");
        check("training.bin", "only dicts (\"model\", \"optimizer\")");
        check("module.bin", "the pickle asks for \"torch.nn.modules.linear.Linear\"");
        check("complex.bin", "the pickle asks for \"torch.ComplexFloatStorage\"");
        check("expanded.bin", "it has 1099511627776 elements, its storage only 1");
    }

    /// A pickle of one tensor `x` of floats in storage `0`.
    fn pickle(numel: &str, offset: &str, size: &str, stride: &str) -> Vec<u8> {
        let mut out = b"\x80\x02}X\x01\0\0\0xctorch._utils\n_rebuild_tensor_v2\n".to_vec();
        let storage = format!("((X{}ctorch\nFloatStorage\n", "\x07\0\0\0storage");
        out.extend_from_slice(storage.as_bytes());
        out.extend_from_slice(b"X\x01\0\0\x000N");
        // An integer is written in decimal here and as eight bytes in the pickle.
        let int = |out: &mut Vec<u8>, text: &str| {
            out.extend_from_slice(b"\x8a\x08");
            out.extend_from_slice(&text.parse::<i64>().unwrap().to_le_bytes());
        };
        int(&mut out, numel);
        out.extend_from_slice(b"tQ");
        int(&mut out, offset);
        for sizes in [size, stride] {
            out.push(b'(');
            sizes.split_whitespace().for_each(|size| int(&mut out, size));
            out.push(b't');
        }
        out.extend_from_slice(b"tRs.");
        out
    }

    #[test]
    fn tensors_outside_their_storage_are_refused() {
        let check = |numel: &str, offset: &str, size: &str, stride: &str, expected: &str| {
            let pickle = pickle(numel, offset, size, stride);
            let bytes = archive(&[("a/data.pkl", &pickle), ("a/data/0", &[0; 24])], 1 << 20);
            let error = refusal("pytorch_model.bin", &bytes);
            assert!(error.contains(expected), "{error}\nexpected {expected}");
        };
        let max = &i64::MAX.to_string();
        check("6", "0", "7", "1", "it reaches to element 7 of a storage of 6 elements");
        check("6", "1", "2 3", "3 1", "it reaches to element 7");
        check("6", "0", "2 2", "5 1", "it reaches to element 7");
        check("6", max, "1", "1", "it reaches to element");
        check("6", "-1", "1", "1", "the pickle has -1 where a count belongs");
        check("6", "0", "-1", "1", "its shape [-1] is impossible");
        check("6", "0", "2", "-1", "it has negative strides");
        check("6", "0", "4", max, "its strides are impossible");
        check("6", "0", &format!("{max} {max}"), "0 0", "is impossible");
        check("6", "0", "1000000000", "0", "it has 1000000000 elements, its storage only 6");
        check("6", "0", "2 3", "1", "it has 2 dimensions and 1 strides");
        check("6", "0", &"1 ".repeat(65), &"1 ".repeat(65), "it has 65 dimensions");
        check("7", "0", "6", "1", "should have 7 elements of 4 bytes and has 24 bytes");
        check(max, "0", "6", "1", "should have 9223372036854775807 elements");
    }

    #[test]
    fn archives_that_are_no_checkpoint_are_refused() {
        let check = |entries: &[(&str, &[u8])], expected: &str| {
            let error = refusal("pytorch_model.bin", &archive(entries, 1 << 20));
            assert!(error.contains(expected), "{error}");
        };
        let good = pickle("6", "0", "2 3", "3 1");
        check(&[("a/data.pkl", &good), ("b/data.pkl", &good)], "more than one data.pkl");
        check(&[("a/readme", b"")], "has no data.pkl");
        check(&[("a/data.pkl", &good)], "tensor \"x\": its storage \"0\" is not in the file");
        check(&[("a/data.pkl", b"N.")], "the file holds no state dict");
        check(&[("a/data.pkl", b"}."), ("a/byteorder", b"pdp")], "the byte order \"pdp\"");
        let mut packed = archive(&[("a/data.pkl", b"}.")], 1 << 20);
        let method = packed.windows(4).position(|window| window == b"PK\x01\x02").unwrap() + 10;
        packed[method] = 8;
        assert!(
            refusal("x.bin", &packed).contains("\"a/data.pkl\" of the zip archive is compress")
        );
        let twice = [&good[..good.len() - 1], &good[3..good.len() - 2], b"s."].concat();
        check(&[("a/data.pkl", &twice), ("a/data/0", &[0; 24])], "tensor \"x\" occurs twice");
        assert!(refusal("x.bin", b"garbage").contains("not a file of torch.save"));
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        tar[0] = b's';
        assert!(refusal("x.bin", &tar).contains("a tar file of torch 0.1"));
    }

    #[test]
    fn big_endian_storages_are_turned() {
        let pickle = pickle("6", "1", "2 2", "2 1");
        let data: Vec<u8> = (0..6).flat_map(|value| (value as f32).to_be_bytes()).collect();
        let entries: [(&str, &[u8]); 3] =
            [("a/data.pkl", &pickle), ("a/byteorder", b"big"), ("a/data/0", &data)];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pytorch_model.bin");
        std::fs::write(&path, archive(&entries, 1 << 20)).unwrap();
        let tensor = Checkpoint::open(dir.path()).unwrap().tensor("x").unwrap();
        let values: Vec<f32> = tensor.view(-1).try_into().unwrap();
        assert_eq!(values, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn truncated_legacy_files_are_refused() {
        let whole = std::fs::read(fixture("bin-legacy").join("pytorch_model.bin")).unwrap();
        for length in [14, 20, 60, 500, 2000, whole.len() - 30, whole.len() - 1] {
            let error = refusal("pytorch_model.bin", &whole[..length]);
            assert!(error.contains("truncated") || error.contains("too soon"), "{length}: {error}");
        }
    }
}
