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
mod leftover;
mod mapped;
mod msgpack;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod mutations;
mod pickle;
mod pytorch;
mod pytorch_write;
mod rename;
mod safetensors;
mod safetensors_write;
mod shards;
mod state_dict;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod tf;
mod weights;
mod zip;
mod zip_write;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use tch::{Device, Kind, Tensor};

pub use atomic::write_file;
use entry::{Entries, Entry};
pub use entry::{Memory, TensorInfo};
use index::Index;
pub use leftover::{aside, sweep, unfinished};
use mapped::Mapped;
pub use pytorch_write::write_pytorch;
pub use safetensors_write::write_safetensors;
pub use shards::{is_weights, save_pytorch, save_safetensors};
pub use weights::{Weights, first_of_shared};

#[cfg(target_endian = "big")]
compile_error!("weights are little endian and are copied as they lie");

/// File names `Checkpoint::open` looks for, in this order.
pub const FILES: [&str; 6] = [
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
    entries: Entries,
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
                let format = checkpoint.format;
                ensure!(
                    matches!(format, Format::Safetensors | Format::Pytorch),
                    "{path:?}: shards of {format} are not supported"
                );
                index.check(&path, &entries.iter().map(|(key, _)| key.as_str()).collect())?;
            }
            let entries = checkpoint.translate(&path, entries)?;
            checkpoint.add(&path, entries)?;
            checkpoint.files.push(path);
        }
        Ok(checkpoint)
    }

    /// The entries of one file, under the names they have there.
    fn read(&mut self, path: &Path) -> Result<Entries> {
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

    /// Gives the tensors of a safetensors file that TensorFlow or Flax wrote the names and layouts
    /// of PyTorch; other entries stay as they are.
    fn translate(&self, path: &Path, entries: Entries) -> Result<Entries> {
        let framework = match self.format {
            Format::Safetensors => self.metadata.get("format").map(String::as_str),
            _ => None,
        };
        let entries = entries.into_iter();
        Ok(match framework {
            None | Some("pt" | "mlx") => entries.collect(),
            // The names lack the scope of the model, which those of Keras begin with.
            Some("tf") => {
                entries.map(|(key, entry)| tf::to_pytorch(&format!("model/{key}"), entry)).collect()
            }
            Some("flax") => entries
                .map(|(key, entry)| flax::to_pytorch(&key.split('.').collect::<Vec<_>>(), entry))
                .collect(),
            Some(other) => bail!(
                "{path:?}: the metadata name the format {other:?}, which is none of pt, tf, flax, \
                 mlx"
            ),
        })
    }

    /// Takes the entries of one file under their current names.
    fn add(&mut self, path: &Path, entries: Entries) -> Result<()> {
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
        self.read_at(self.place(key)?)
    }

    /// Reads a tensor to `device`, contiguous; a float comes as `kind`, any other as it is stored.
    pub fn tensor_as(
        &self,
        key: &str,
        kind: Kind,
        device: Device,
        memory: Memory,
    ) -> Result<Tensor> {
        let (key, entry) = &self.entries[self.place(key)?];
        entry
            .read_as(kind, device, memory)
            .with_context(|| format!("{:?}: tensor {key:?}", entry.file.path))
    }

    /// Has the system read the files from their disk while other work goes on.
    pub fn read_ahead(&self) {
        self.mapped().for_each(|file| file.read_ahead());
    }

    /// The pages of the files may leave the memory; touched again, they come from the files.
    pub fn release(&self) {
        self.mapped().for_each(|file| file.release(&(0..file.bytes().len())));
    }

    /// The files, each once: the tensors of one lie together.
    fn mapped(&self) -> impl Iterator<Item = &Rc<Mapped>> {
        let mut last: Option<&Rc<Mapped>> = None;
        self.entries.iter().map(|(_, entry)| &entry.file).filter(move |file| {
            let new = last.is_none_or(|last| !Rc::ptr_eq(last, file));
            last = Some(file);
            new
        })
    }

    fn place(&self, key: &str) -> Result<usize> {
        match self.places.get(key) {
            Some(&at) => Ok(at),
            None => bail!("{:?}: there is no tensor {key:?}", self.files[0]),
        }
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
