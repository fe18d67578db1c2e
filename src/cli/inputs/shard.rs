//! `--shard K/N`: the same part of the inputs on every machine, without a word between them.

use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::pipeline::{Input, Source};

/// Part `index` (from 1) of `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    index: u64,
    count: u64,
}

impl Shard {
    /// By the input's name as it was given, byte for byte; of a member, with the archive's name.
    pub(super) fn holds(self, input: &Input) -> bool {
        match &input.source {
            Source::File(path) => self.holds_name(path.as_os_str().as_encoded_bytes()),
            _ => self.holds_name(input.name.as_bytes()),
        }
    }

    /// The first eight bytes of the name's SHA-256, as a big-endian number, modulo N: K - 1.
    ///
    /// This is a promise: shards of a run may be read by different versions of the program.
    fn holds_name(self, name: &[u8]) -> bool {
        let hash = Sha256::digest(name);
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        u64::from_be_bytes(first) % self.count == self.index - 1
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(index, count)| {
            Some(Shard { index: index.parse().ok()?, count: count.parse().ok()? })
        });
        match parsed {
            Some(shard) if (1..=shard.count).contains(&shard.index) => Ok(shard),
            _ => Err("expected K/N with K from 1 to N, such as 3/16".to_string()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// int.from_bytes(hashlib.sha256(name).digest()[:8], "big") % N + 1, by Python.
    #[test]
    fn shards_never_change() {
        let table: &[(&[u8], [u64; 3])] = &[
            (b"a.jpg", [1, 2, 11]),
            (b"b\xC3\xBCcher/\xC3\xA4.png", [2, 2, 6]),
            (b"shards/000.tar/000123.jpg", [1, 2, 7]),
            (b"", [1, 2, 5]),
            (b"\xFF\xFE.png", [1, 2, 5]),
        ];
        for (name, shards) in table {
            for (count, expected) in [2, 3, 16].into_iter().zip(shards) {
                let holds = |index: &u64| Shard { index: *index, count }.holds_name(name);
                let holding: Vec<u64> = (1..=count).filter(holds).collect();
                assert_eq!(holding, [*expected], "{:?} of {count}", String::from_utf8_lossy(name));
            }
        }
    }

    #[test]
    fn shards_are_read() {
        assert_eq!("3/16".parse(), Ok(Shard { index: 3, count: 16 }));
        for text in ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b"] {
            assert!(text.parse::<Shard>().is_err(), "{text:?}");
        }
    }
}
