//! Tensors of a checkpoint directory by their keys, read when asked for.
//!
//! Every reader turns its file into the same list of entries: a name, a shape, a number type and
//! the place of the bytes. Nothing is copied before a tensor is asked for. Files come from
//! strangers: each length and offset is checked, and nothing in a file is ever executed.

mod atomic;
mod bytes;
mod detect;
mod entry;
mod flax;
mod hdf5;
mod index;
mod json;
mod msgpack;
mod pickle;
mod pytorch;
mod pytorch_write;
mod rename;
mod safetensors;
mod safetensors_write;
mod shards;
mod tf;
mod weights;
mod zip;
mod zip_write;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tch::Tensor;

pub use atomic::write_file;
use entry::Entry;
pub use entry::TensorInfo;
use index::Index;
pub use pytorch_write::write_pytorch;
pub use safetensors_write::write_safetensors;
pub use shards::{save_pytorch, save_safetensors};
pub use weights::{Weights, first_of_shared};

#[cfg(target_endian = "big")]
compile_error!("weights are little endian and are copied as they lie");

/// File names `Checkpoint::open` looks for, in this order.
const FILES: [&str; 6] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
    "flax_model.msgpack",
];

/// The kind of file a checkpoint was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Safetensors,
    /// `torch.save`, either of its formats.
    Pytorch,
    /// The HDF5 of Keras.
    Tensorflow,
    /// The MessagePack of Flax.
    Flax,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Format::Safetensors => "safetensors",
            Format::Pytorch => "pytorch",
            Format::Tensorflow => "tensorflow",
            Format::Flax => "flax",
        })
    }
}

/// The tensors of a directory, or of one file, by key.
pub struct Checkpoint {
    format: Format,
    files: Vec<PathBuf>,
    entries: Vec<(String, Entry)>,
    places: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
    renamed: Vec<(String, String)>,
    skipped: Vec<String>,
}

impl Checkpoint {
    /// Opens the weights of the directory `dir`: the first of [`FILES`] that is there.
    pub fn open(dir: &Path) -> Result<Checkpoint> {
        match FILES.iter().map(|name| dir.join(name)).find(|path| path.is_file()) {
            Some(path) => Checkpoint::open_file(&path),
            None if !dir.is_dir() => bail!("{dir:?} is not a directory"),
            None => bail!("{dir:?} holds no weights: looked for {}", FILES.join(", ")),
        }
    }

    /// Opens one file of weights, or an index of shards and the shards beside it.
    pub fn open_file(path: &Path) -> Result<Checkpoint> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".index.json") {
            return Checkpoint::collect(None, vec![path.to_owned()]);
        }
        let index = Index::open(path)?;
        let files = index.files();
        Checkpoint::collect(Some(&index), files)
    }

    fn collect(index: Option<&Index>, files: Vec<PathBuf>) -> Result<Checkpoint> {
        let mut checkpoint = Checkpoint {
            format: Format::Safetensors,
            files: Vec::new(),
            entries: Vec::new(),
            places: HashMap::new(),
            metadata: BTreeMap::new(),
            renamed: Vec::new(),
            skipped: Vec::new(),
        };
        for path in files {
            let entries = checkpoint.read(&path)?;
            if let Some(index) = index {
                index.check(&path, &entries.iter().map(|(key, _)| key.as_str()).collect())?;
            }
            checkpoint.add(&path, entries)?;
            checkpoint.files.push(path);
        }
        Ok(checkpoint)
    }

    /// The entries of one file, under the names they have there.
    fn read(&mut self, path: &Path) -> Result<Vec<(String, Entry)>> {
        self.format = detect::format(path)?;
        match self.format {
            Format::Safetensors => {
                let (entries, metadata) = safetensors::open(path)?;
                self.metadata.extend(metadata);
                Ok(entries)
            }
            Format::Pytorch => {
                let state_dict = pytorch::open(path)?;
                self.skipped.extend(state_dict.skipped);
                Ok(state_dict.entries)
            }
            Format::Tensorflow => tf::open(path),
            Format::Flax => {
                let (entries, skipped) = flax::open(path)?;
                self.skipped.extend(skipped);
                Ok(entries)
            }
        }
    }

    /// Takes the entries of one file under their current names.
    fn add(&mut self, path: &Path, entries: Vec<(String, Entry)>) -> Result<()> {
        for (stored, entry) in entries {
            let key = match rename::current_name(&stored) {
                Some(current) => {
                    self.renamed.push((stored.clone(), current.clone()));
                    current
                }
                None => stored.clone(),
            };
            if self.places.insert(key.clone(), self.entries.len()).is_some() {
                match key == stored {
                    true => bail!("{path:?}: tensor {key:?} occurs twice in the checkpoint"),
                    false => {
                        bail!("{path:?}: tensor {stored:?} would become {key:?}, which exists")
                    }
                }
            }
            self.entries.push((key, entry));
        }
        Ok(())
    }

    /// The keys in the order of the file, shards in the order of their names.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(key, _)| key.as_str())
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Shape and number type of a tensor, without reading it.
    pub fn info(&self, key: &str) -> Option<&TensorInfo> {
        self.places.get(key).map(|&at| &self.entries[at].1.info)
    }

    /// Reads a tensor: on the CPU, of the stored kind, contiguous, in memory of its own.
    pub fn tensor(&self, key: &str) -> Result<Tensor> {
        let Some(&at) = self.places.get(key) else {
            bail!("{:?}: there is no tensor {key:?}", self.files[0]);
        };
        self.read_at(at)
    }

    fn read_at(&self, at: usize) -> Result<Tensor> {
        let (key, entry) = &self.entries[at];
        entry.read().with_context(|| format!("{:?}: tensor {key:?}", entry.file.path))
    }

    /// For each tensor the index of the first one that is the same view of the same storage.
    fn first_of_shared(&self) -> Vec<usize> {
        let mut firsts = HashMap::new();
        let of = |(at, (_, entry)): (usize, &(String, Entry))| match entry.info.numel() {
            0 => at,
            _ => *firsts.entry(entry.identity()).or_insert(at),
        };
        self.entries.iter().enumerate().map(of).collect()
    }

    /// The kind of file the tensors come from.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The files the tensors come from.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The `__metadata__` of safetensors files; empty for other formats.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Keys that were given their current name: (name in the file, name here).
    pub fn renamed(&self) -> &[(String, String)] {
        &self.renamed
    }

    /// Keys of the file that hold something else than a tensor.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use tch::Kind;

    use super::*;

    pub(super) fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
    }

    /// Every tensor of a directory, in its order.
    pub(super) fn read_all(dir: &Path) -> Vec<(String, Tensor)> {
        let checkpoint = Checkpoint::open(dir).unwrap();
        checkpoint.keys().map(|key| (key.to_owned(), checkpoint.tensor(key).unwrap())).collect()
    }

    /// What opening a file of these bytes and this name says, less the path.
    pub(super) fn refusal(name: &str, bytes: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = format!("{:#}", Checkpoint::open_file(&path).err().unwrap());
        let prefix = format!("{path:?}: ");
        assert!(error.starts_with(&prefix), "{error}");
        error[prefix.len()..].to_owned()
    }

    pub(super) fn assert_same(found: &[(String, Tensor)], expected: &[(String, Tensor)]) {
        let keys = |tensors: &[(String, Tensor)]| -> Vec<String> {
            tensors.iter().map(|(key, _)| key.clone()).collect()
        };
        assert_eq!(keys(found), keys(expected));
        for ((key, found), (_, expected)) in found.iter().zip(expected) {
            assert_eq!((found.kind(), found.size()), (expected.kind(), expected.size()), "{key}");
            assert_eq!(found, expected, "{key}");
        }
    }

    /// Opens a fixture and compares it with the `expected.safetensors` beside it.
    pub(super) fn check_expected(name: &str) -> Checkpoint {
        let dir = fixture(name);
        let found = Checkpoint::open(&dir).unwrap();
        let expected = Checkpoint::open_file(&dir.join("expected.safetensors")).unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        let in_order = found.keys().map(|key| (key.to_owned(), expected.tensor(key).unwrap()));
        assert_same(&read_all(&dir), &in_order.collect::<Vec<_>>());
        for key in found.keys() {
            let tensor = found.tensor(key).unwrap();
            assert!(tensor.is_contiguous(), "{name} {key}");
            let info = found.info(key).unwrap();
            assert_eq!((info.kind, &info.shape), (tensor.kind(), &tensor.size()), "{name} {key}");
        }
        found
    }

    #[test]
    fn values_are_those_of_the_fixture() {
        let checkpoint = Checkpoint::open(&fixture("safetensors")).unwrap();
        assert_eq!(checkpoint.format(), Format::Safetensors);
        assert_eq!(checkpoint.metadata().get("format").map(String::as_str), Some("pt"));
        let check = |key: &str, kind: Kind, shape: &[i64], expected: &[f64]| {
            let info = checkpoint.info(key).unwrap();
            assert_eq!((info.kind, info.shape.as_slice()), (kind, shape), "{key}");
            let tensor = checkpoint.tensor(key).unwrap();
            assert_eq!((tensor.kind(), tensor.size().as_slice()), (kind, shape), "{key}");
            let values: Vec<f64> = tensor.to_kind(Kind::Double).view(-1).try_into().unwrap();
            assert_eq!(values, expected, "{key}");
        };
        check("f32", Kind::Float, &[2, 3], &[-1.0, -0.75, -0.5, -0.25, 0.0, 0.25]);
        check("f16", Kind::Half, &[3], &[-1.0, -0.75, -0.5]);
        check("bf16", Kind::BFloat16, &[2, 2], &[100.0, 101.5, 103.0, 104.5]);
        check("f64", Kind::Double, &[1, 2], &[1e300, 1e299 + 1e300]);
        check("i32", Kind::Int, &[2, 1], &[-2147483648.0, 2147483647.0]);
        check("i16", Kind::Int16, &[3], &[-300.0, 300.0, 7.0]);
        check("i8", Kind::Int8, &[3], &[-128.0, 127.0, 0.0]);
        check("u8", Kind::Uint8, &[5], &[0.0, 255.0, 1.0, 2.0, 3.0]);
        check("bool", Kind::Bool, &[3], &[1.0, 0.0, 1.0]);
        check("scalar", Kind::Float, &[], &[2.5]);
        check("empty", Kind::Float, &[0, 4], &[]);
        check("quoted \"name\" é", Kind::Float, &[1], &[1.0]);
        let i64s: Vec<i64> = checkpoint.tensor("i64").unwrap().try_into().unwrap();
        assert_eq!(i64s, [i64::MIN, i64::MAX]);
        assert_eq!(checkpoint.len(), 13);
    }

    #[test]
    fn shards_come_in_the_order_of_their_names() {
        let checkpoint = Checkpoint::open(&fixture("sharded")).unwrap();
        assert_eq!(checkpoint.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(checkpoint.files().len(), 2);
        let c: Vec<f32> = checkpoint.tensor("c").unwrap().try_into().unwrap();
        assert_eq!(c, [0.0, 0.25, 0.5, 0.75]);
    }

    #[test]
    fn legacy_names_become_current() {
        let checkpoint = Checkpoint::open(&fixture("legacy-names")).unwrap();
        let mut keys: Vec<_> = checkpoint.keys().collect();
        keys.sort();
        assert_eq!(keys, ["bert.LayerNorm.bias", "bert.LayerNorm.weight"]);
        assert_eq!(checkpoint.renamed().len(), 2);
        let bias: Vec<f32> = checkpoint.tensor("bert.LayerNorm.bias").unwrap().try_into().unwrap();
        assert_eq!(bias, [9.0, 9.25, 9.5, 9.75]);
    }

    #[test]
    fn two_names_that_become_one_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let ones = || Tensor::ones([1], (Kind::Float, tch::Device::Cpu));
        let names = ["LayerNorm.beta", "LayerNorm.bias"];
        write_safetensors(&path, &names.map(|name| (name.to_owned(), ones())), &[]).unwrap();
        let error = Checkpoint::open(dir.path()).err().unwrap().to_string();
        let clash = "tensor \"LayerNorm.bias\" occurs twice in the checkpoint";
        assert_eq!(error, format!("{path:?}: {clash}"));
    }

    #[test]
    fn an_empty_directory_says_what_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let error = Checkpoint::open(dir.path()).err().unwrap().to_string();
        let looked = FILES.join(", ");
        assert_eq!(error, format!("{:?} holds no weights: looked for {looked}", dir.path()));
        let missing = dir.path().join("missing");
        let error = Checkpoint::open(&missing).err().unwrap().to_string();
        assert_eq!(error, format!("{missing:?} is not a directory"));
    }
}
