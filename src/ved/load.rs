//! A checkpoint directory becomes a model, every tensor accounted for.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use tch::{Device, Kind};

use super::{VisionEncoderDecoder, VisionEncoderDecoderConfig};
use crate::checkpoint::{Checkpoint, Memory, TensorInfo};
use crate::decoders;
use crate::device::Dtype;
use crate::encoders::{self, ignored};
use crate::native;
use crate::nn::Packing;
use crate::nn::store::{Missing, Store, list};

/// How a checkpoint is opened.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    pub device: Device,
    /// Number type of the model; files in others are converted.
    pub kind: Kind,
    /// Tensors that the model does not use are an error unless this is set.
    pub allow_unused: bool,
    /// Whose memory the weights are: a model that only computes may share the file's.
    pub memory: Memory,
    /// For inference on a CPU: what the matrices are packed as, whatever `kind` says of the rest.
    pub packing: Option<Packing>,
}

/// What `--dtype` packs the matrices as on a CPU, in a sentence where this one does not serve it.
pub fn cpu_packing(dtype: Dtype) -> Result<Packing> {
    let packing = match dtype {
        Dtype::Auto => Packing::auto(),
        Dtype::F32 => Packing::F32,
        Dtype::Bf16 => Packing::Bf16,
        Dtype::F16 => Packing::F16,
        Dtype::Int8 => Packing::Int8,
    };
    packing.check()?;
    Ok(packing)
}

/// Bytes of the matrices of a model that is loaded from `dir` with `packing`, and a few more: tables of embeddings
/// count as matrices.
pub fn packed_bytes(dir: &Path, packing: Packing) -> Result<usize> {
    let checkpoint = Checkpoint::open(dir)?;
    // Encoders stay as they are in f32.
    let whole = packing != Packing::F32;
    let packed = |key: &&str| whole || key.starts_with("decoder.");
    let infos = checkpoint.keys().filter(packed).filter_map(|key| checkpoint.info(key));
    let numbers = infos.filter(|info| info.shape.len() > 1).map(TensorInfo::numel);
    Ok(packing.bytes() * numbers.sum::<usize>())
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            device: Device::Cpu,
            kind: Kind::Float,
            allow_unused: false,
            memory: Memory::Own,
            packing: None,
        }
    }
}

/// Bytes of the file that may stay in memory while a model is built from it.
const KEPT: usize = 64 << 20;

/// Bytes that a draft's step spares, from which on drafts pay (measured): below, what a step does beside reading
/// weights takes longer.
const WORTH_DRAFTS: usize = 64 << 20;

/// Loads config.json and the weights of `dir`.
///
/// Errors name what is missing, misshapen or left over. The returned sentences are warnings.
pub fn load(dir: &Path, options: LoadOptions) -> Result<(VisionEncoderDecoder, Vec<String>)> {
    let config = VisionEncoderDecoderConfig::from_dir(dir)?;
    let checkpoint = Rc::new(Checkpoint::open(dir)?);
    checkpoint.read_ahead();
    let LoadOptions { device, kind, memory, .. } = options;
    let keys: Vec<String> = checkpoint.keys().map(str::to_string).collect();
    let give_back = {
        let source = checkpoint.clone();
        Rc::new(move || {
            source.release();
            native::trim_allocator();
        })
    };
    let (source, between) = (checkpoint.clone(), give_back.clone());
    let touched = Cell::new(0);
    let lookup = Box::new(move |key: &str| {
        // Layers that keep their weights in another form have read the pages of those before.
        touched.set(touched.get() + source.info(key).map_or(0, TensorInfo::bytes));
        if touched.get() > KEPT {
            between();
            touched.set(0);
        }
        source.tensor_as(key, kind, device, memory)
    });
    let store = Store::new(keys, lookup, Missing::Refuse, device, kind);
    let between = give_back.clone();
    let store = Rc::new(match options.packing {
        Some(packing) => store.packing(packing).giving_back(Box::new(move || between())),
        None => store,
    });
    let mut model = VisionEncoderDecoder::build(config, store.clone())
        .with_context(|| format!("the checkpoint {dir:?} can't be used"))?;
    store.check().with_context(|| format!("{dir:?}"))?;
    let spared = options.packing.map_or(0, Packing::spared_by_drafts);
    model.drafts = spared * numbers_of(&checkpoint, "decoder.") >= WORTH_DRAFTS;
    store.close();
    // What constructors only looked at need not stay in memory.
    give_back();
    native::none_needed();

    let mut warnings = store.warnings();
    warnings.extend(tell_unused(&model, options.allow_unused).with_context(|| format!("{dir:?}"))?);
    Ok((model, warnings))
}

/// A sentence about tensors of the checkpoint that the model does not use, if there are any: an error unless
/// they are allowed.
pub(super) fn tell_unused(model: &VisionEncoderDecoder, allowed: bool) -> Result<Option<String>> {
    let unused = unused(model);
    if unused.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = unused.iter().map(|name| format!("{name:?}")).collect();
    let sentence = format!(
        "{} tensor{} of the checkpoint {} not part of the model its config describes: {}",
        unused.len(),
        if unused.len() == 1 { "" } else { "s" },
        if unused.len() == 1 { "is" } else { "are" },
        list(&names)
    );
    if !allowed {
        bail!("{sentence}; correct config.json, or pass --allow-unused-tensors");
    }
    Ok(Some(sentence))
}

/// The number type that holds every float of the files as it is: theirs, or f32 where they differ.
pub fn stored_kind<'a>(files: impl IntoIterator<Item = &'a Checkpoint>) -> Kind {
    let mut found: Option<Kind> = None;
    for file in files {
        for kind in file.keys().filter_map(|key| file.info(key)).map(|info| info.kind) {
            found = match (found, kind) {
                (_, Kind::Double) | (Some(Kind::Double), _) => Some(Kind::Double),
                (None, Kind::Float | Kind::Half | Kind::BFloat16) => Some(kind),
                (Some(known), Kind::Float | Kind::Half | Kind::BFloat16) if known != kind => {
                    Some(Kind::Float)
                }
                _ => found,
            };
        }
    }
    found.unwrap_or(Kind::Float)
}

/// How many numbers lie under the keys that begin so.
fn numbers_of(checkpoint: &Checkpoint, prefix: &str) -> usize {
    let keys = checkpoint.keys().filter(|key| key.starts_with(prefix));
    keys.filter_map(|key| checkpoint.info(key)).map(TensorInfo::numel).sum()
}

/// Keys of the checkpoint that nothing asked for, less those that the rows declare harmless.
fn unused(model: &VisionEncoderDecoder) -> Vec<String> {
    let encoder = encoders::find(model.config.encoder_type()).map_or(&[][..], |arch| arch.ignore);
    let decoder = decoders::find(model.config.decoder_type()).map_or(&[][..], |arch| arch.ignore);
    let harmless = |key: &str| {
        key.strip_prefix("encoder.").is_some_and(|key| ignored(encoder, key))
            || key.strip_prefix("decoder.").is_some_and(|key| ignored(decoder, key))
    };
    model.store().left_over().into_iter().filter(|key| !harmless(key)).collect()
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The maps of this process that are of this file.
    fn maps(file: &Path) -> Vec<(usize, usize)> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let name = file.to_string_lossy().into_owned();
        let ours = maps.lines().filter(|line| line.ends_with(&name));
        let number = |text: &str| usize::from_str_radix(text, 16).unwrap();
        let range = |line: &str| {
            let (start, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
            (number(start), number(end))
        };
        ours.map(range).collect()
    }

    /// The maps, once whoever reads ahead has let go of the file.
    fn settled(file: &Path, inside: bool) -> Vec<(usize, usize)> {
        for _ in 0..200 {
            if maps(file).is_empty() != inside {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        maps(file)
    }

    #[test]
    fn packed_matrices_are_those_of_the_checkpoint() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vit-gpt2");
        let matrices = |part: &str| -> usize {
            let checkpoint = Checkpoint::open(&dir).unwrap();
            let infos = checkpoint.keys().filter(|key| key.starts_with(part));
            let infos = infos.map(|key| checkpoint.info(key).unwrap());
            infos.filter(|info| info.shape.len() > 1).map(TensorInfo::numel).sum()
        };
        let (encoder, decoder) = (matrices("encoder."), matrices("decoder."));
        assert!(encoder > 0 && decoder > 0);
        let bytes = |packing| packed_bytes(&dir, packing).unwrap();
        assert_eq!(bytes(Packing::F32), 4 * decoder);
        assert_eq!(bytes(Packing::F16), 2 * (encoder + matrices("enc_to_dec_proj") + decoder));
        assert_eq!(bytes(Packing::Int8), bytes(Packing::F16) / 2);
        assert!(packed_bytes(Path::new("absent"), Packing::F32).is_err());
    }

    #[test]
    fn weights_stay_in_the_file_or_let_it_go() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vit-gpt2");
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(golden.join(name), dir.path().join(name)).unwrap();
        }
        let file = dir.path().canonicalize().unwrap().join("model.safetensors");
        // Number type, memory, whether the weights lie in the file.
        let table = [
            (Kind::Float, Memory::Shared, true),
            (Kind::Float, Memory::Own, false),
            (Kind::BFloat16, Memory::Shared, false),
        ];
        for (kind, memory, inside) in table {
            let options = LoadOptions { kind, memory, ..LoadOptions::default() };
            let (model, _) = load(dir.path(), options).unwrap();
            let maps = settled(&file, inside);
            assert_eq!(!maps.is_empty(), inside, "{kind:?} {memory:?}: {maps:?}");
            for variable in model.store().variables() {
                let at = variable.tensor.data_ptr() as usize;
                let found = maps.iter().any(|(start, end)| (*start..*end).contains(&at));
                assert_eq!(found, inside, "{kind:?} {memory:?}: {}", variable.name);
            }
        }
        assert_eq!(settled(&file, false), []);
    }
}
