//! Which format a file of weights has: by its name, or by its first bytes where that says nothing.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{Format, hdf5, pytorch};

/// Bytes read to recognise a file.
const HEAD: u64 = 512;

/// The format of the file at `path`.
pub(super) fn format(path: &Path) -> Result<Format> {
    let meta = path.metadata().with_context(|| format!("cannot open {path:?}"))?;
    ensure!(meta.is_file(), "{path:?} is not a file");
    let file = File::open(path).with_context(|| format!("cannot open {path:?}"))?;
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head).with_context(|| format!("cannot read {path:?}"))?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    recognise(&head, extension).with_context(|| format!("{path:?}"))
}

fn recognise(head: &[u8], extension: &str) -> Result<Format> {
    ensure!(!head.is_empty(), "the file is empty");
    ensure!(
        !head.starts_with(b"version https://git-lfs"),
        "a pointer of Git LFS, not the weights themselves: fetch them with \"git lfs pull\""
    );
    let text = head.trim_ascii_start().to_ascii_lowercase();
    let page = text.starts_with(b"<!doctype html") || text.starts_with(b"<html");
    ensure!(!page, "a web page, not weights: download the file itself");
    match extension {
        "safetensors" => return Ok(Format::Safetensors),
        "msgpack" => return Ok(Format::Flax),
        _ if hdf5::is_hdf5(head) => return Ok(Format::Tensorflow),
        _ => {}
    }
    if pytorch::is_torch(head) || matches!(extension, "bin" | "pt" | "pth" | "ckpt") {
        return Ok(Format::Pytorch);
    }
    ensure!(!matches!(extension, "h5" | "hdf5"), "not an HDF5 file");
    if head.get(8) == Some(&b'{') {
        return Ok(Format::Safetensors);
    }
    bail!(
        "not a file of weights that is known: safetensors, PyTorch, TensorFlow (h5), Flax (msgpack)"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_and_first_bytes_tell_the_format() {
        let check = |head: &[u8], extension: &str, expected: Format| {
            assert_eq!(recognise(head, extension).unwrap(), expected, "{extension}");
        };
        check(b"anything", "safetensors", Format::Safetensors);
        check(b"\x10\0\0\0\0\0\0\0{\"a\":", "weights", Format::Safetensors);
        check(b"PK\x03\x04", "weights", Format::Pytorch);
        let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
        check(magic, "", Format::Pytorch);
        check(b"anything", "bin", Format::Pytorch);
        check(b"anything", "msgpack", Format::Flax);
        check(b"\x89HDF\r\n\x1a\n\0", "bin", Format::Tensorflow);
    }

    #[test]
    fn what_is_no_weights_is_named() {
        let check = |head: &[u8], extension: &str, expected: &str| {
            let error = recognise(head, extension).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        };
        check(b"", "bin", "the file is empty");
        check(b"version https://git-lfs.github.com/spec/v1\n", "bin", "a pointer of Git LFS");
        check(b"\n<!DOCTYPE html><html>", "safetensors", "a web page, not weights");
        check(b"hello there", "h5", "not an HDF5 file");
        check(b"hello there", "txt", "not a file of weights that is known");
    }
}
