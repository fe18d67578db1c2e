//! Weights split over several files and the index that says which file holds what.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use super::atomic::{Finished, write_file};
use super::weights::{Item, Weights};
use super::{FILES, pytorch_write, safetensors_write};

/// Names of the files of one format.
struct Family {
    stem: &'static str,
    extension: &'static str,
}

const SAFETENSORS: Family = Family { stem: "model", extension: "safetensors" };
const PYTORCH: Family = Family { stem: "pytorch_model", extension: "bin" };

impl Family {
    fn single(&self) -> String {
        format!("{}.{}", self.stem, self.extension)
    }

    fn index(&self) -> String {
        format!("{}.{}.index.json", self.stem, self.extension)
    }

    fn shard(&self, at: usize, of: usize) -> String {
        format!("{}-{:05}-of-{of:05}.{}", self.stem, at + 1, self.extension)
    }

    /// Whether `name` is a shard of this family, of any number of shards.
    fn is_shard(&self, name: &str) -> bool {
        let middle = name.strip_prefix(self.stem).and_then(|name| name.strip_prefix('-'));
        let middle = middle.and_then(|name| name.strip_suffix(self.extension)?.strip_suffix('.'));
        let numbers = middle.and_then(|middle| middle.split_once("-of-"));
        let five = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        numbers.is_some_and(|(at, of)| five(at) && five(of))
    }
}

/// Whether a file of this name holds weights that a directory is opened with.
pub fn is_weights(name: &str) -> bool {
    FILES.contains(&name) || [SAFETENSORS, PYTORCH].iter().any(|family| family.is_shard(name))
}

/// Saves `tensors` as `model.safetensors` in `dir`, or as shards of at most `max_shard_size`
/// bytes and their index. Of tensors that share memory only the first is written, as
/// transformers does. The weights a former save left in `dir` are replaced.
pub fn save_safetensors(
    dir: &Path,
    tensors: &[(String, Tensor)],
    max_shard_size: Option<u64>,
) -> Result<()> {
    Weights::of(tensors).save_safetensors(dir, max_shard_size)
}

/// Saves `tensors` as `pytorch_model.bin` in `dir`, or as shards of at most `max_shard_size`
/// bytes and their index. Every name is written; tensors that share memory share a storage.
/// Refused where `dir` has safetensors, which would be read instead.
pub fn save_pytorch(
    dir: &Path,
    tensors: &[(String, Tensor)],
    max_shard_size: Option<u64>,
) -> Result<()> {
    Weights::of(tensors).save_pytorch(dir, max_shard_size)
}

impl Weights<'_> {
    /// Saves the weights in `dir`, as [`save_safetensors`] does.
    pub fn save_safetensors(&self, dir: &Path, max_shard_size: Option<u64>) -> Result<()> {
        let mut seen = HashSet::new();
        let items = self.items().iter().filter(|item| seen.insert(item.first)).collect();
        save(self, dir, &SAFETENSORS, &split(items, max_shard_size), |path, items| {
            safetensors_write::finish(self, path, items, &[])
        })
    }

    /// Saves the weights in `dir`, as [`save_pytorch`] does.
    pub fn save_pytorch(&self, dir: &Path, max_shard_size: Option<u64>) -> Result<()> {
        for name in [SAFETENSORS.single(), SAFETENSORS.index()] {
            let path = dir.join(name);
            ensure!(!path.exists(), "{path:?} exists and would be read instead: remove it first");
        }
        let shards = split(self.items().iter().collect(), max_shard_size);
        save(self, dir, &PYTORCH, &shards, |path, items| pytorch_write::finish(self, path, items))
    }
}

/// Writes every shard under a temporary name first: a full disk is met before anything changes.
fn save<'w>(
    weights: &Weights,
    dir: &Path,
    family: &Family,
    shards: &[Vec<&'w Item>],
    write: impl Fn(&Path, Vec<&'w Item>) -> Result<Finished>,
) -> Result<()> {
    weights.check_names()?;
    if let [items] = shards {
        write(&dir.join(family.single()), items.clone())?.publish()?;
        return remove_former(dir, family, &[family.single()]);
    }
    let mut keep = vec![family.index()];
    let mut finished = Vec::with_capacity(shards.len());
    for (at, items) in shards.iter().enumerate() {
        let name = family.shard(at, shards.len());
        finished.push(write(&dir.join(&name), items.clone())?);
        keep.push(name);
    }
    // From here until the new index stands, the directory has no weights rather than wrong ones.
    remove_former(dir, family, &[])?;
    finished.into_iter().try_for_each(Finished::publish)?;
    write_file(&dir.join(family.index()), index(family, shards)?.as_bytes())
}

/// Splits tensors into shards in their order, as `split_torch_state_dict_into_shards` does: a
/// tensor larger than the limit gets a shard of its own, and tensors that share memory stay
/// together and count once.
fn split(items: Vec<&Item>, max_shard_size: Option<u64>) -> Vec<Vec<&Item>> {
    let limit = max_shard_size.unwrap_or(u64::MAX);
    let mut shards: Vec<Vec<&Item>> = Vec::new();
    let (mut filling, mut filled) = (Vec::new(), 0);
    let mut seen = HashSet::new();
    let (firsts, aliases): (Vec<&Item>, Vec<&Item>) =
        items.into_iter().partition(|item| seen.insert(item.first));
    for item in firsts {
        let size = item.info.bytes() as u64;
        if size > limit {
            shards.push(vec![item]);
            continue;
        }
        if filled + size > limit {
            shards.push(std::mem::take(&mut filling));
            filled = 0;
        }
        filling.push(item);
        filled += size;
    }
    if !filling.is_empty() || shards.is_empty() {
        shards.push(filling);
    }
    for alias in aliases {
        let home = shards.iter_mut().find(|shard| shard.iter().any(|it| it.first == alias.first));
        if let Some(home) = home {
            home.push(alias);
        }
    }
    shards
}

/// The text of the index, laid out as transformers writes it.
fn index(family: &Family, shards: &[Vec<&Item>]) -> Result<String> {
    let mut seen = HashSet::new();
    let (mut total_size, mut total_parameters) = (0, 0);
    let mut weight_map = BTreeMap::new();
    for (at, items) in shards.iter().enumerate() {
        for item in items {
            weight_map.insert(item.key.as_str(), family.shard(at, shards.len()));
            if seen.insert(item.first) {
                total_size += item.info.bytes();
                total_parameters += item.info.numel();
            }
        }
    }
    let metadata =
        BTreeMap::from([("total_parameters", total_parameters), ("total_size", total_size)]);
    let value = serde_json::json!({ "metadata": metadata, "weight_map": weight_map });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

/// Removes the weights of a former save, except the files just written.
fn remove_former(dir: &Path, family: &Family, keep: &[String]) -> Result<()> {
    let failed = || format!("cannot clear {dir:?} of former weights");
    for file in std::fs::read_dir(dir).with_context(failed)? {
        let name = file.with_context(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        let ours = name == family.single() || name == family.index() || family.is_shard(name);
        if ours && !keep.iter().any(|kept| kept == name) {
            std::fs::remove_file(dir.join(name)).with_context(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{assert_same, fixture, read_all};
    use super::super::{Checkpoint, first_of_shared};
    use super::*;

    fn floats(key: &str, count: i64) -> (String, Tensor) {
        (key.to_owned(), Tensor::arange(count, (tch::Kind::Float, tch::Device::Cpu)))
    }

    fn names(dir: &Path) -> Vec<String> {
        let files = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn shards_are_those_of_the_reference() {
        // split_torch_state_dict_into_shards of huggingface_hub, on tensors of so many floats.
        let check = |sizes: &[(&str, i64)], limit: u64, expected: &[&[&str]]| {
            let tensors: Vec<_> = sizes.iter().map(|&(key, count)| floats(key, count)).collect();
            let weights = Weights::of(&tensors);
            let shards = split(weights.items().iter().collect(), Some(limit));
            let keys: Vec<Vec<&str>> = shards
                .iter()
                .map(|shard| shard.iter().map(|item| item.key.as_str()).collect())
                .collect();
            assert_eq!(keys, expected);
        };
        check(
            &[("a", 6), ("b", 6), ("c", 2), ("d", 6), ("e", 2), ("f", 2)],
            40,
            &[&["a"], &["b", "c"], &["d", "e", "f"]],
        );
        // A tensor above the limit comes before the shard that was being filled.
        check(&[("a", 1), ("big", 30), ("b", 1)], 40, &[&["big"], &["a", "b"]]);
        check(&[("a", 1), ("b", 1)], 8, &[&["a", "b"]]);
    }

    #[test]
    fn a_sharded_directory_is_the_reference_one() {
        let tensors = [floats("b", 2), floats("a", 3), floats("c", 4)];
        let dir = tempfile::tempdir().unwrap();
        save_safetensors(dir.path(), &tensors, Some(20)).unwrap();
        assert_eq!(names(dir.path()), names(&fixture("sharded")));
        let name = "model.safetensors.index.json";
        let [ours, reference] =
            [dir.path(), &fixture("sharded")].map(|dir| std::fs::read_to_string(dir.join(name)));
        assert_eq!(ours.unwrap(), reference.unwrap());
        assert_same(&read_all(dir.path()), &[&tensors[1], &tensors[0], &tensors[2]].map(clone));
    }

    fn clone(pair: &(String, Tensor)) -> (String, Tensor) {
        (pair.0.clone(), pair.1.shallow_clone())
    }

    #[test]
    fn a_new_save_replaces_the_former_one() {
        let dir = tempfile::tempdir().unwrap();
        let many = [floats("a", 4), floats("b", 4), floats("c", 4)];
        std::fs::write(dir.path().join("model-card.txt"), "kept").unwrap();
        save_safetensors(dir.path(), &many, Some(16)).unwrap();
        assert_eq!(names(dir.path()).len(), 5);
        save_safetensors(dir.path(), &many[..1], None).unwrap();
        assert_eq!(names(dir.path()), ["model-card.txt", "model.safetensors"]);
        save_safetensors(dir.path(), &many[..2], Some(16)).unwrap();
        assert_eq!(Checkpoint::open(dir.path()).unwrap().files().len(), 2);
        assert!(!dir.path().join("model.safetensors").exists());
    }

    #[test]
    fn of_shared_memory_the_first_name_is_saved() {
        let (_, wte) = floats("", 6);
        let wte = wte.view([2, 3]);
        let tensors = [
            ("wte".to_owned(), wte.shallow_clone()),
            ("other".to_owned(), wte.copy()),
            ("lm_head".to_owned(), wte.shallow_clone()),
            ("transposed".to_owned(), wte.transpose(0, 1)),
            ("part".to_owned(), wte.narrow(0, 0, 1)),
        ];
        assert_eq!(first_of_shared(&tensors), [0, 1, 0, 3, 4]);
        let dir = tempfile::tempdir().unwrap();
        save_safetensors(dir.path(), &tensors, None).unwrap();
        let saved = Checkpoint::open(dir.path()).unwrap();
        let mut keys: Vec<&str> = saved.keys().collect();
        keys.sort();
        assert_eq!(keys, ["other", "part", "transposed", "wte"]);
    }
}
