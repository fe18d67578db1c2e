//! From the pickle of a state dict to tensors with a checked place in the file.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::entry::{Entries, Entry, Layout, TensorInfo, checked_bytes, span};
use super::mapped::Mapped;
use super::pickle::{Object, Pickle, Storage, TensorRef};

/// The tensors of a state dict in its order, and the keys of what is no tensor.
pub(super) struct StateDict {
    pub(super) entries: Entries,
    pub(super) skipped: Vec<String>,
}

/// Where the bytes of the storages are.
pub(super) struct Storages<'a> {
    pub(super) file: &'a Rc<Mapped>,
    pub(super) ranges: HashMap<&'a str, Range<usize>>,
    pub(super) big_endian: bool,
}

/// The tensors of the dict that a pickle describes.
pub(super) fn read(pickle: &Pickle, storages: &Storages) -> Result<StateDict> {
    let Some(Object::Dict(items)) = pickle.root() else {
        bail!("the file holds no state dict (a dict of tensors by name)");
    };
    let (mut entries, mut skipped, mut dicts) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for &(key, value) in items {
        let Some(key) = pickle.text(key) else {
            bail!("a key of the state dict is no string");
        };
        ensure!(seen.insert(key), "tensor {key:?} occurs twice");
        match pickle.get(value) {
            Some(Object::Tensor(tensor)) => {
                let entry = entry(tensor, storages).with_context(|| format!("tensor {key:?}"))?;
                entries.push((key.to_owned(), entry));
            }
            other => {
                if matches!(other, Some(Object::Dict(_))) {
                    dicts.push(format!("{key:?}"));
                }
                skipped.push(key.to_owned());
            }
        }
    }
    ensure!(
        !entries.is_empty() || dicts.is_empty(),
        "the file holds no tensors at its top, only dicts ({}): it is a training checkpoint; save \
         the state dict in it as a file of its own",
        dicts.join(", ")
    );
    Ok(StateDict { entries, skipped })
}

fn entry(tensor: &TensorRef, storages: &Storages) -> Result<Entry> {
    let TensorRef { storage, kind, offset, ref size, ref stride } = *tensor;
    checked_bytes(size, kind)?;
    let range = storage_range(&storage, kind.elt_size_in_bytes(), storages)?;
    let numel = range.len() / kind.elt_size_in_bytes();
    ensure!(
        stride.len() == size.len(),
        "it has {} dimensions and {} strides",
        size.len(),
        stride.len()
    );
    let stride: Option<Vec<usize>> = stride.iter().map(|&by| usize::try_from(by).ok()).collect();
    let stride = stride.ok_or_else(|| anyhow!("it has negative strides"))?;
    let span = span(size, &stride).context("its strides are impossible")?;
    let offset = usize::try_from(offset)?;
    let end = offset.checked_add(span).context("its place is impossible")?;
    ensure!(end <= numel, "it reaches to element {end} of a storage of {numel} elements");
    let info = TensorInfo { shape: size.clone(), kind };
    // A repeated element costs nothing in the file and a great deal in memory.
    ensure!(info.numel() <= numel, "it has {} elements, its storage only {numel}", info.numel());
    let layout = if is_row_major(size, &stride) && !storages.big_endian {
        let start = range.start + offset * kind.elt_size_in_bytes();
        let range = start..start + info.bytes();
        Layout::Dense(vec![range])
    } else {
        let big_endian = storages.big_endian;
        Layout::Strided { storage: range, offset, stride, big_endian }
    };
    Ok(Entry { info, file: storages.file.clone(), layout, permute: Vec::new() })
}

/// The bytes of a storage, or of the view of it that is meant.
fn storage_range(storage: &Storage, size: usize, storages: &Storages) -> Result<Range<usize>> {
    let key = storage.key;
    let range = storages.ranges.get(key).cloned();
    let range = range.with_context(|| format!("its storage {key:?} is not in the file"))?;
    let unit = storage.kind.map_or(1, |kind| kind.elt_size_in_bytes()) as u64;
    let bytes = storage.numel.checked_mul(unit);
    ensure!(
        bytes == Some(range.len() as u64),
        "its storage {key:?} should have {} elements of {unit} bytes and has {} bytes",
        storage.numel,
        range.len()
    );
    ensure!(
        range.len().is_multiple_of(size),
        "its storage {key:?} of {} bytes does not divide into elements of {size} bytes",
        range.len()
    );
    let Some((first, length)) = storage.view else {
        return Ok(range);
    };
    // torch ends a view where its storage ends; some versions give the length in bytes.
    let first = first.min(storage.numel);
    let end = first.saturating_add(length).min(storage.numel);
    Ok(range.start + (first * unit) as usize..range.start + (end * unit) as usize)
}

fn is_row_major(size: &[i64], stride: &[usize]) -> bool {
    let mut expected = 1;
    size.contains(&0)
        || size.iter().zip(stride).rev().all(|(&size, &step)| {
            let fits = size == 1 || step == expected;
            expected *= size as usize;
            fits
        })
}
