//! Reading the part of HDF5 that Keras and h5py use for weights: groups, and datasets of numbers
//! that lie contiguous, compact or in chunks without filters.
//!
//! Everything else is refused by its name. Addresses come from the file: each is checked, and the
//! steps one file may take are counted.

mod chunks;
mod dataset;
mod group;
mod object;

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};

use super::bytes::{u8_at, u64_at};
use super::entry::{Layout, TensorInfo};
use object::Message;

const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";
/// Groups within groups beyond this depth are refused.
const MAX_DEPTH: usize = 64;
/// Messages, links and nodes one file may have; a model has some ten thousand.
const MAX_STEPS: usize = 2_000_000;
/// Bytes of all names together.
const MAX_NAMES: usize = 16 << 20;
/// An address that points nowhere.
const UNDEFINED: u64 = u64::MAX;

/// A dataset: the names of its groups and its own, joined by slashes, and where its data lie.
pub(super) struct Dataset {
    pub(super) path: String,
    pub(super) info: TensorInfo,
    pub(super) layout: Layout,
}

/// Whether a file that begins so is HDF5.
pub(super) fn is_hdf5(head: &[u8]) -> bool {
    head.starts_with(SIGNATURE)
}

/// All datasets, in the order in which the groups list their members.
pub(super) fn datasets(bytes: &[u8]) -> Result<Vec<Dataset>> {
    let root = root(bytes)?;
    let mut file = File { bytes, steps: 0 };
    let mut walk = Walk { groups: HashSet::new(), names: 0, datasets: Vec::new() };
    walk.object(&mut file, "", root, 0)?;
    Ok(walk.datasets)
}

/// The bytes of a file, and a count of what was done with them.
struct File<'a> {
    bytes: &'a [u8],
    steps: usize,
}

impl File<'_> {
    fn step(&mut self) -> Result<()> {
        self.steps += 1;
        ensure!(self.steps <= MAX_STEPS, "an HDF5 file of more than {MAX_STEPS} parts is no model");
        Ok(())
    }
}

/// The address of the root group's object header, from the superblock.
fn root(bytes: &[u8]) -> Result<u64> {
    ensure!(is_hdf5(bytes), "not an HDF5 file");
    let version = u8_at(bytes, 8)?;
    let (sizes, addresses) = match version {
        0 => (13, 24),
        1 => (13, 28),
        2 | 3 => (9, 12),
        _ => bail!("version {version} of the HDF5 superblock is not supported"),
    };
    let (offsets, lengths) = (u8_at(bytes, sizes)?, u8_at(bytes, sizes + 1)?);
    ensure!(
        (offsets, lengths) == (8, 8),
        "HDF5 with addresses of {offsets} and lengths of {lengths} bytes is not supported, only 8"
    );
    let base = u64_at(bytes, addresses)?;
    ensure!(base == 0, "HDF5 that begins at byte {base} of its file is not supported");
    let end = u64_at(bytes, addresses + 16)?;
    let length = bytes.len() as u64;
    ensure!(
        end <= length,
        "the file is truncated: {} bytes are missing at its end (it should have {end})",
        end - length
    );
    match version {
        // Base, free space, end, driver, then the entry of the root: name, header.
        0 | 1 => u64_at(bytes, addresses + 40),
        // Base, extension, end, root.
        _ => u64_at(bytes, addresses + 24),
    }
}

struct Walk {
    /// Addresses of the groups met so far.
    groups: HashSet<u64>,
    names: usize,
    datasets: Vec<Dataset>,
}

impl Walk {
    fn object(&mut self, file: &mut File, path: &str, address: u64, depth: usize) -> Result<()> {
        self.names += path.len();
        ensure!(self.names <= MAX_NAMES, "the names in the file take more than {MAX_NAMES} bytes");
        ensure!(depth <= MAX_DEPTH, "groups are nested more than {MAX_DEPTH} deep");
        let messages =
            object::messages(file, address).with_context(|| format!("object {path:?}"))?;
        let has = |kind| messages.iter().any(|message: &Message| message.kind == kind);
        if has(object::LAYOUT) {
            let (info, layout) =
                dataset::read(file, &messages).with_context(|| format!("dataset {path:?}"))?;
            self.datasets.push(Dataset { path: path.to_owned(), info, layout });
            return Ok(());
        }
        ensure!(self.groups.insert(address), "the group {path:?} has a second name");
        let links = group::links(file, &messages).with_context(|| format!("group {path:?}"))?;
        let mut seen = HashSet::new();
        for (name, address) in links {
            ensure!(seen.insert(name), "the group {path:?} has two members {name:?}");
            let inner = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            self.object(file, &inner, address, depth + 1)?;
        }
        Ok(())
    }
}

/// A place in the file, from an address in it.
fn place(address: u64) -> Result<usize> {
    ensure!(address != UNDEFINED, "an address that is needed is undefined");
    usize::try_from(address).context("an address is impossible")
}

/// The place `by` bytes after `at`.
fn after(at: usize, by: usize) -> Result<usize> {
    at.checked_add(by).context("an address is impossible")
}
