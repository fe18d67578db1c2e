//! Tensors on their way into a file, handed over one at a time.

use std::collections::{HashMap, HashSet};
use std::io::Write;

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use super::Checkpoint;
use super::entry::TensorInfo;

/// Elements copied out of a tensor at once.
const CHUNK: usize = 1 << 20;

/// Names, shapes and number types of tensors to be written, and how to get each when its turn
/// comes: a large checkpoint passes through without ever being in memory as a whole.
pub struct Weights<'a> {
    items: Vec<Item>,
    read: Box<dyn Fn(usize) -> Result<Tensor> + 'a>,
}

#[derive(Clone)]
pub(super) struct Item {
    pub(super) key: String,
    pub(super) info: TensorInfo,
    /// Where the tensor stands in the list the weights were made of.
    at: usize,
    /// `at` of the first tensor that is the same view of the same memory.
    pub(super) first: usize,
}

impl<'a> Weights<'a> {
    /// The given tensors, in the given order.
    pub fn of(tensors: &'a [(String, Tensor)]) -> Weights<'a> {
        let firsts = first_of_shared(tensors);
        let items = tensors.iter().zip(firsts).enumerate().map(|(at, ((key, tensor), first))| {
            let info = TensorInfo { shape: tensor.size(), kind: tensor.kind() };
            Item { key: key.clone(), info, at, first }
        });
        let items = items.collect();
        Weights { items, read: Box::new(|at| Ok(tensors[at].1.shallow_clone())) }
    }

    /// All tensors of a checkpoint, in its order, each read when it is written.
    pub fn of_checkpoint(checkpoint: &'a Checkpoint) -> Weights<'a> {
        let items = checkpoint.entries.iter().zip(checkpoint.first_of_shared()).enumerate();
        let items = items
            .map(|(at, ((key, entry), first))| Item {
                key: key.clone(),
                info: entry.info.clone(),
                at,
                first,
            })
            .collect();
        Weights { items, read: Box::new(|at| checkpoint.read_at(at)) }
    }

    /// These tensors and then those of `other`.
    pub fn chain(mut self, other: Weights<'a>) -> Weights<'a> {
        let taken = self.items.iter().map(|item| item.at.max(item.first) + 1).max().unwrap_or(0);
        let shifted = other.items.into_iter().map(|item| Item {
            at: item.at + taken,
            first: item.first + taken,
            ..item
        });
        self.items.extend(shifted);
        let (ours, theirs) = (self.read, other.read);
        self.read = Box::new(move |at| if at < taken { ours(at) } else { theirs(at - taken) });
        self
    }

    /// Without the tensors whose key is refused by `keep`.
    pub fn filter(mut self, keep: impl Fn(&str) -> bool) -> Weights<'a> {
        self.items.retain(|item| keep(&item.key));
        self
    }

    /// Under other names: `rename` gives the new key of each.
    pub fn rename(mut self, rename: impl Fn(&str) -> String) -> Weights<'a> {
        for item in &mut self.items {
            item.key = rename(&item.key);
        }
        self
    }

    /// Floating-point tensors in another number type; integers and booleans stay as they are.
    pub fn cast(mut self, kind: Kind) -> Weights<'a> {
        for item in self.items.iter_mut().filter(|item| is_float(item.info.kind)) {
            item.info.kind = kind;
        }
        self
    }

    /// Of tensors that are the same memory only the first, as transformers saves them.
    pub fn without_aliases(mut self) -> Weights<'a> {
        let mut seen = HashSet::new();
        self.items.retain(|item| seen.insert(item.first));
        self
    }

    /// The keys, in the order of writing to a state dict.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.items.iter().map(|item| item.key.as_str())
    }

    /// Shape and number type of every tensor, in the order of `keys`.
    pub fn infos(&self) -> impl Iterator<Item = &TensorInfo> {
        self.items.iter().map(|item| &item.info)
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    /// No name twice, none that a format reserves.
    pub(super) fn check_names(&self) -> Result<()> {
        let mut seen = HashSet::new();
        for item in &self.items {
            ensure!(seen.insert(&item.key), "tensor {:?} is to be written twice", item.key);
            ensure!(item.key != "__metadata__", "a tensor cannot be named \"__metadata__\"");
        }
        Ok(())
    }

    /// Appends the row-major little-endian bytes of a tensor to `out`.
    pub(super) fn copy(&self, item: &Item, out: &mut impl Write) -> Result<()> {
        let tensor = (self.read)(item.at)?;
        copy_bytes(&tensor, &item.info, out).with_context(|| format!("tensor {:?}", item.key))
    }
}

/// For each tensor the index of the first one that is the same view (start, shape, strides and
/// number type) of the same memory: its own index where it is the first.
pub fn first_of_shared(tensors: &[(String, Tensor)]) -> Vec<usize> {
    let mut firsts = HashMap::new();
    let of = |(at, (_, tensor)): (usize, &(String, Tensor))| match tensor.numel() {
        // Empty tensors have no memory to share.
        0 => at,
        _ => {
            let kind = super::safetensors::dtype_rank(tensor.kind());
            let view = (tensor.data_ptr() as usize, tensor.size(), tensor.stride(), kind);
            *firsts.entry(view).or_insert(at)
        }
    };
    tensors.iter().enumerate().map(of).collect()
}

fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Double | Kind::Float | Kind::Half | Kind::BFloat16)
}

fn copy_bytes(tensor: &Tensor, info: &TensorInfo, out: &mut impl Write) -> Result<()> {
    ensure!(
        tensor.size() == info.shape,
        "it is {:?} now and was {:?} before",
        tensor.size(),
        info.shape
    );
    let flat = tensor.detach().f_reshape([-1])?;
    let size = info.kind.elt_size_in_bytes();
    let numel = info.numel();
    let mut buffer = vec![0; CHUNK.min(numel) * size];
    for start in (0..numel).step_by(CHUNK) {
        let count = CHUNK.min(numel - start);
        let part = flat.f_narrow(0, start as i64, count as i64)?.f_to_kind(info.kind)?;
        part.f_copy_data_u8(&mut buffer, count)?;
        out.write_all(&buffer[..count * size])?;
    }
    Ok(())
}
