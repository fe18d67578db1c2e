//! Files with damaged bytes: whatever a byte becomes, opening and reading a file ends with
//! tensors or with an error, never with a panic, and no tensor is larger than its file.

use std::path::{Path, PathBuf};

use super::Checkpoint;
use super::tests::fixture;

/// Damaged copies made of each file.
const MUTATIONS: usize = 600;

/// A generator of fixed numbers (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Every tensor of the file that can be read; the number of those, where the file opens.
fn read(path: &Path, length: usize) -> Option<usize> {
    let checkpoint = Checkpoint::open_file(path).ok()?;
    let readable = |key: &&str| {
        let bytes = checkpoint.info(key).unwrap().bytes();
        assert!(bytes <= length, "{key:?} of {bytes} bytes in a file of {length}");
        checkpoint.tensor(key).is_ok()
    };
    Some(checkpoint.keys().filter(readable).count())
}

fn survive(path: PathBuf) {
    let whole = std::fs::read(&path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let damaged = dir.path().join(path.file_name().unwrap());
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let (mut opened, mut refused) = (0, 0);
    for round in 0..MUTATIONS {
        let mut bytes = whole.clone();
        // The structure of every format is at its beginning or its end.
        let at = match round % 4 {
            0 => numbers.below(bytes.len().min(256)),
            1 => bytes.len() - 1 - numbers.below(bytes.len().min(512)),
            _ => numbers.below(bytes.len()),
        };
        bytes[at] = match round % 3 {
            0 => [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)],
            1 => bytes[at] ^ (1 << numbers.below(8)),
            _ => numbers.below(256) as u8,
        };
        if round % 16 == 15 {
            bytes.truncate(numbers.below(bytes.len()));
        }
        std::fs::write(&damaged, &bytes).unwrap();
        match read(&damaged, bytes.len()) {
            Some(_) => opened += 1,
            None => refused += 1,
        }
    }
    assert!(opened > 0 && refused > MUTATIONS / 16, "{path:?}: {opened} opened, {refused} refused");
}

#[test]
fn damaged_safetensors_do_no_harm() {
    survive(fixture("safetensors").join("model.safetensors"));
    survive(fixture("sharded").join("model-00001-of-00002.safetensors"));
}

#[test]
fn damaged_pytorch_files_do_no_harm() {
    for name in ["bin-dict", "bin-extra", "bin-protocol-4"] {
        survive(fixture(name).join("pytorch_model.bin"));
    }
}

#[test]
fn damaged_legacy_files_do_no_harm() {
    survive(fixture("bin-legacy").join("pytorch_model.bin"));
    survive(fixture("bin-legacy-protocol-4").join("pytorch_model.bin"));
}

#[test]
fn damaged_flax_files_do_no_harm() {
    survive(fixture("flax").join("flax_model.msgpack"));
    survive(fixture("flax-statistics").join("flax_model.msgpack"));
}

#[test]
fn damaged_hdf5_files_do_no_harm() {
    for name in ["h5", "h5-latest", "h5-layouts"] {
        survive(fixture(name).join("tf_model.h5"));
    }
}
