//! `*.index.json`: which shard holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::json::UniqueMap;

/// An index larger than this is refused.
const MAX_INDEX: u64 = 100_000_000;

/// The content of an index that loading needs.
pub(super) struct Index {
    path: PathBuf,
    /// Keys of every shard, by its file name.
    shards: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Raw {
    weight_map: UniqueMap<String>,
}

impl Index {
    /// Reads the index and checks that its shards are plain file names beside it, all present.
    pub(super) fn open(path: &Path) -> Result<Index> {
        Index::read(path).with_context(|| format!("{path:?}"))
    }

    fn read(path: &Path) -> Result<Index> {
        let length = path.metadata().context("cannot be opened")?.len();
        ensure!(length <= MAX_INDEX, "an index of {length} bytes is too large");
        let text = std::fs::read(path).context("cannot be read")?;
        let raw: Raw = serde_json::from_slice(&text).context("not a valid index of shards")?;
        let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, file) in raw.weight_map.0 {
            shards.entry(file).or_default().push(key);
        }
        ensure!(!shards.is_empty(), "the index names no shard");
        let folder = path.parent().unwrap_or(Path::new(""));
        for file in shards.keys() {
            let plain = !file.is_empty() && !file.contains(['/', '\\', '\0', ':']);
            ensure!(
                plain && file != "." && file != "..",
                "the shard {file:?} is not the plain name of a file beside the index"
            );
            ensure!(
                folder.join(file).is_file(),
                "the shard {file:?} is missing: download the whole checkpoint"
            );
        }
        Ok(Index { path: path.to_owned(), shards })
    }

    /// The shards, in the order of their names.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.shards.keys().map(|file| self.path.with_file_name(file)).collect()
    }

    /// Every key the index promises of a shard is among the keys the shard has.
    pub(super) fn check(&self, shard: &Path, keys: &BTreeSet<&str>) -> Result<()> {
        let name = shard.file_name().unwrap_or_default().to_string_lossy();
        let promised = self.shards.get(name.as_ref()).map(Vec::as_slice).unwrap_or_default();
        match promised.iter().find(|key| !keys.contains(key.as_str())) {
            Some(key) => bail!("{:?}: tensor {key:?} is not in the shard {name:?}", self.path),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Checkpoint;
    use super::super::tests::fixture;

    const NAME: &str = "model.safetensors.index.json";

    /// What opening the sharded fixture says when its index is this text.
    fn refusal(index: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        for at in 1..=2 {
            let name = format!("model-{at:05}-of-00002.safetensors");
            std::fs::copy(fixture("sharded").join(&name), dir.path().join(&name)).unwrap();
        }
        std::fs::write(dir.path().join(NAME), index).unwrap();
        let error = format!("{:#}", Checkpoint::open(dir.path()).err().unwrap());
        let prefix = format!("{:?}: ", dir.path().join(NAME));
        assert!(error.starts_with(&prefix), "{error}");
        error[prefix.len()..].to_owned()
    }

    #[test]
    fn an_index_that_misleads_is_refused() {
        let check = |index: &str, expected: &str| {
            let error = refusal(index);
            assert!(error.contains(expected), "{error}");
        };
        let map = |file: &str| format!(r#"{{"weight_map":{{"a":"{file}"}}}}"#);
        for file in ["../model.safetensors", "/etc/passwd", "a\\\\b", "..", ".", "", "c:x"] {
            check(&map(file), "is not the plain name of a file beside the index");
        }
        let missing = "model-00003-of-00003.safetensors";
        check(&map(missing), &format!("the shard {missing:?} is missing"));
        check(r#"{"weight_map":{}}"#, "the index names no shard");
        check(r#"{"weight_map":{"a":"x","a":"y"}}"#, "the name \"a\" occurs twice");
        check(r#"{"metadata":{}}"#, "missing field `weight_map`");
        check(r#"{"weight_map":{"a":7}}"#, "expected a string");
        let shard = "model-00002-of-00002.safetensors";
        check(&map(shard), &format!("tensor \"a\" is not in the shard {shard:?}"));
    }

    #[test]
    fn shards_of_other_formats_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let shard = dir.path().join("tf_model-00001-of-00001.h5");
        std::fs::copy(fixture("h5").join("tf_model.h5"), &shard).unwrap();
        let index = dir.path().join("tf_model.h5.index.json");
        let text = r#"{"weight_map":{"a/b:0":"tf_model-00001-of-00001.h5"}}"#;
        std::fs::write(&index, text).unwrap();
        let error = Checkpoint::open_file(&index).err().unwrap().to_string();
        assert_eq!(error, format!("{shard:?}: shards of tensorflow are not supported"));
    }
}
