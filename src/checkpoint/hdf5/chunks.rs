//! Chunked datasets: a B-tree says where each chunk begins, in the file and in the array.

use anyhow::{Context, Result, ensure};

use super::super::bytes::{u8_at, u16_at, u32_at, u64_at};
use super::super::entry::{Layout, TensorInfo};
use super::{File, after, place};

/// The chunks of the B-tree at `tree`; `sizes` are those of a chunk, then that of an element.
pub(super) fn layout(
    file: &mut File,
    tree: u64,
    sizes: &[usize],
    info: &TensorInfo,
) -> Result<Layout> {
    let element = info.kind.elt_size_in_bytes();
    let rank = info.shape.len();
    ensure!(
        sizes.len() == rank + 1 && sizes[rank] == element && !sizes.contains(&0),
        "the sizes of its chunks do not fit its shape"
    );
    let shape = sizes[..rank].to_vec();
    let bytes = sizes.iter().try_fold(1_usize, |bytes, &size| bytes.checked_mul(size));
    let bytes = bytes.context("its chunks are impossibly large")?;
    let mut chunks = Vec::new();
    if info.numel() > 0 {
        collect(file, tree, rank, bytes, None, &mut chunks)?;
    }
    check(info, &shape, bytes, &chunks, file.bytes.len())?;
    Ok(Layout::Chunked { shape, chunks })
}

/// Collects (first element in every dimension, place in the file) of the chunks under a node.
fn collect(
    file: &mut File,
    address: u64,
    rank: usize,
    size: usize,
    parent: Option<u8>,
    chunks: &mut Vec<(Vec<usize>, usize)>,
) -> Result<()> {
    file.step()?;
    let bytes = file.bytes;
    let at = place(address).context("its chunks were never written")?;
    let signed = bytes.get(at..).is_some_and(|rest| rest.starts_with(b"TREE"));
    ensure!(signed, "the tree of its chunks is not where it should be");
    let (kind, level) = (u8_at(bytes, at + 4)?, u8_at(bytes, at + 5)?);
    ensure!(kind == 1, "the tree of its chunks is one of members");
    ensure!(parent.is_none_or(|above| level + 1 == above), "the tree of its chunks is damaged");
    let count = usize::from(u16_at(bytes, at + 6)?);
    // A key: bytes of the chunk, filters left out, first element in every dimension and in itself.
    let key = 8 + 8 * (rank + 1);
    for entry in 0..count {
        file.step()?;
        let at = at + 24 + entry * (key + 8);
        let child = u64_at(bytes, at + key)?;
        if level > 0 {
            collect(file, child, rank, size, Some(level), chunks)?;
            continue;
        }
        ensure!(u32_at(bytes, at)? as usize == size, "one of its chunks has the wrong size");
        let first = (0..rank).map(|axis| place(u64_at(bytes, at + 8 + 8 * axis)?));
        chunks.push((first.collect::<Result<_>>()?, place(child)?));
    }
    Ok(())
}

/// Every chunk is there once, inside the array and inside the file, and none lies on another.
fn check(
    info: &TensorInfo,
    shape: &[usize],
    bytes: usize,
    chunks: &[(Vec<usize>, usize)],
    length: usize,
) -> Result<()> {
    let counts = info.shape.iter().zip(shape).map(|(&size, &by)| (size as usize).div_ceil(by));
    let expected = counts.fold(1_usize, |product, count| product.saturating_mul(count));
    ensure!(chunks.len() == expected, "{} of its {expected} chunks are there", chunks.len());
    let mut firsts: Vec<&[usize]> = chunks.iter().map(|(first, _)| first.as_slice()).collect();
    firsts.sort_unstable();
    ensure!(firsts.windows(2).all(|pair| pair[0] != pair[1]), "one of its chunks is there twice");
    for first in firsts {
        let inside = first
            .iter()
            .zip(shape)
            .zip(&info.shape)
            .all(|((&first, &by), &size)| first < size as usize && first.is_multiple_of(by));
        ensure!(inside, "one of its chunks lies outside of it");
    }
    let mut places: Vec<usize> = chunks.iter().map(|&(_, place)| place).collect();
    places.sort_unstable();
    ensure!(
        places.windows(2).all(|pair| pair[1] - pair[0] >= bytes),
        "two of its chunks lie on one another"
    );
    let end = places.last().map_or(Ok(0), |&last| after(last, bytes))?;
    ensure!(end <= length, "the file is truncated: {} bytes of its data are missing", end - length);
    Ok(())
}
