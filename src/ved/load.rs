//! A checkpoint directory becomes a model, every tensor accounted for.

use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use tch::{Device, Kind};

use super::{VisionEncoderDecoder, VisionEncoderDecoderConfig};
use crate::checkpoint::Checkpoint;
use crate::decoders;
use crate::encoders::{self, ignored};
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
    /// For inference on a CPU: what the matrices are packed as, whatever `kind` says of the rest.
    pub packing: Option<Packing>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { device: Device::Cpu, kind: Kind::Float, allow_unused: false, packing: None }
    }
}

/// Loads config.json and the weights of `dir`.
///
/// Errors name what is missing, misshapen or left over. The returned sentences are warnings.
pub fn load(dir: &Path, options: LoadOptions) -> Result<(VisionEncoderDecoder, Vec<String>)> {
    let config = VisionEncoderDecoderConfig::from_dir(dir)?;
    let checkpoint = Checkpoint::open(dir)?;
    let keys: Vec<String> = checkpoint.keys().map(str::to_string).collect();
    let lookup = Box::new(move |key: &str| checkpoint.tensor(key));
    let store = Store::new(keys, lookup, Missing::Refuse, options.device, options.kind);
    let store = Rc::new(match options.packing {
        Some(packing) => store.packing(packing),
        None => store,
    });
    let model = VisionEncoderDecoder::build(config, store.clone())
        .with_context(|| format!("the checkpoint {dir:?} can't be used"))?;
    store.check().with_context(|| format!("{dir:?}"))?;

    let mut warnings = store.warnings();
    let unused = unused(&model);
    if !unused.is_empty() {
        let names: Vec<String> = unused.iter().map(|name| format!("{name:?}")).collect();
        let sentence = format!(
            "{} tensor{} of the checkpoint {} not part of the model its config describes: {}",
            unused.len(),
            if unused.len() == 1 { "" } else { "s" },
            if unused.len() == 1 { "is" } else { "are" },
            list(&names)
        );
        if !options.allow_unused {
            bail!("{dir:?}: {sentence}; correct config.json, or pass --allow-unused-tensors");
        }
        warnings.push(sentence);
    }
    Ok((model, warnings))
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
