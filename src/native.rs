//! The only file where `unsafe` is allowed: each use says why it is sound.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};

/// The file at `path` as bytes mapped into memory, read from the disk when touched.
pub fn map_file(path: &Path) -> Result<memmap2::Mmap> {
    let file = File::open(path).with_context(|| format!("cannot open {path:?}"))?;
    // SAFETY: the map is read only, and its bytes are only ever copied out and checked, never
    // trusted to stay the same between two reads. A file cut short by another process while it is
    // mapped ends this process with SIGBUS, as it does every program that maps its weights.
    unsafe { memmap2::Mmap::map(&file) }.with_context(|| format!("cannot map {path:?} into memory"))
}
