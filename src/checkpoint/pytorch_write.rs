//! Writing `pytorch_model.bin` as `torch.save` does: a zip archive with a pickle of protocol 2
//! that `torch.load(weights_only=True)` accepts.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use tch::Tensor;

use super::atomic::{Atomic, Finished};
use super::pickle::storage_name;
use super::weights::{Item, Weights};
use super::zip_write::ZipWriter;

/// Writes `tensors` to the file `path` as a dict by name, which appears whole or not at all.
/// Tensors that are the same memory share one storage.
pub fn write_pytorch(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    Weights::of(tensors).write_pytorch(path)
}

impl Weights<'_> {
    /// Writes the tensors to the file `path`, as [`write_pytorch`] does.
    pub fn write_pytorch(&self, path: &Path) -> Result<()> {
        finish(self, path, self.items().iter().collect())?.publish()
    }
}

/// Writes some of the weights to a file that still waits for its name.
pub(super) fn finish(weights: &Weights, path: &Path, items: Vec<&Item>) -> Result<Finished> {
    weights.check_names()?;
    let (pickle, storages) = pickle(&items)?;
    let mut file = Atomic::create(path)?;
    let written = (|| -> Result<()> {
        let mut zip = ZipWriter::new(&mut file);
        let mut small = |name: &str, bytes: &[u8]| {
            zip.entry(name, bytes.len() as u64, |out| Ok(out.write_all(bytes)?))
        };
        small("archive/data.pkl", &pickle)?;
        small("archive/byteorder", b"little")?;
        for (at, item) in storages.iter().enumerate() {
            let name = format!("archive/data/{at}");
            zip.entry(&name, item.info.bytes() as u64, |mut out| weights.copy(item, &mut out))?;
        }
        zip.entry("archive/version", 2, |out| Ok(out.write_all(b"3\n")?))?;
        zip.finish()
    })();
    written.with_context(|| format!("cannot write {path:?}"))?;
    file.finish()
}

/// The pickle of a dict of tensors, and the tensor that fills each storage.
fn pickle<'w>(items: &[&'w Item]) -> Result<(Vec<u8>, Vec<&'w Item>)> {
    let mut storages = Vec::new();
    let mut storage_of = HashMap::new();
    let mut out = b"\x80\x02}(".to_vec();
    for item in items {
        let storage = *storage_of.entry(item.first).or_insert_with(|| {
            storages.push(*item);
            storages.len() - 1
        });
        push_text(&mut out, &item.key)?;
        push_tensor(&mut out, item, storage).with_context(|| format!("tensor {:?}", item.key))?;
    }
    out.extend_from_slice(b"u.");
    Ok((out, storages))
}

/// `_rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict())`.
fn push_tensor(out: &mut Vec<u8>, item: &Item, storage: usize) -> Result<()> {
    let kind = item.info.kind;
    let class = storage_name(kind).with_context(|| format!("{kind:?} is no type of a storage"))?;
    out.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    push_text(out, "storage")?;
    out.extend_from_slice(format!("ctorch\n{class}\n").as_bytes());
    push_text(out, &storage.to_string())?;
    push_text(out, "cpu")?;
    push_int(out, item.info.numel() as i64);
    out.push(b't');
    out.push(b'Q');
    push_int(out, 0);
    let mut stride = vec![1; item.info.shape.len()];
    for at in (1..stride.len()).rev() {
        stride[at - 1] = stride[at] * item.info.shape[at].max(1);
    }
    for sizes in [&item.info.shape, &stride] {
        out.push(b'(');
        sizes.iter().for_each(|&size| push_int(out, size));
        out.push(b't');
    }
    out.extend_from_slice(b"\x89ccollections\nOrderedDict\n)RtR");
    Ok(())
}

fn push_text(out: &mut Vec<u8>, text: &str) -> Result<()> {
    out.push(b'X');
    out.extend_from_slice(&u32::try_from(text.len())?.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn push_int(out: &mut Vec<u8>, value: i64) {
    match i32::try_from(value) {
        Ok(value) => {
            out.push(b'J');
            out.extend_from_slice(&value.to_le_bytes());
        }
        Err(_) => {
            out.extend_from_slice(&[0x8a, 8]);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{assert_same, fixture, read_all};
    use super::super::{Checkpoint, save_pytorch};
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut tensors = read_all(&fixture("bin-ordered"));
        let tied = tensors[0].1.shallow_clone();
        tensors.push(("tied to the first".to_owned(), tied));
        let dir = tempfile::tempdir().unwrap();
        save_pytorch(dir.path(), &tensors, None).unwrap();
        assert_same(&read_all(dir.path()), &tensors);
        let read = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(read.first_of_shared().last(), Some(&0));
    }

    #[test]
    fn shards_read_back() {
        let tensors = read_all(&fixture("bin-dict"));
        let dir = tempfile::tempdir().unwrap();
        save_pytorch(dir.path(), &tensors, Some(100)).unwrap();
        let read = Checkpoint::open(dir.path()).unwrap();
        assert!(read.files().len() > 2);
        assert_eq!(read.len(), tensors.len());
        for (key, tensor) in &tensors {
            assert_eq!(&read.tensor(key).unwrap(), tensor, "{key}");
        }
    }

    #[test]
    fn large_integers_have_eight_bytes() {
        let mut out = Vec::new();
        push_int(&mut out, 1 << 40);
        push_int(&mut out, -2);
        assert_eq!(out, b"\x8a\x08\0\0\0\0\0\x01\0\0J\xfe\xff\xff\xff");
    }

    #[test]
    fn safetensors_beside_it_are_not_overlooked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, b"").unwrap();
        let error = save_pytorch(dir.path(), &[], None).unwrap_err().to_string();
        assert_eq!(error, format!("{path:?} exists and would be read instead: remove it first"));
    }
}
