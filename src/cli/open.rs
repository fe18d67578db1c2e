//! A model opened for reading: its weights, its processor, its settings.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use tch::Kind;

use super::args::{BatchSize, ModelArgs};
use super::download;
use super::generate::GenerateArgs;
use crate::checkpoint::Memory;
use crate::device;
use crate::image::DecodeOptions;
use crate::models::{self, Need};
use crate::pipeline::Reader;
use crate::stderr;
use crate::ved::config::read_json_if_there;
use crate::ved::generation::GenerationConfig;
use crate::ved::{self, LoadOptions, Processor, VisionEncoderDecoder, VisionEncoderDecoderConfig};

/// How images are decoded and batched.
pub(super) struct ImageSettings {
    pub batch_size: BatchSize,
    pub decode: DecodeOptions,
    /// Resize position embeddings to images of another size.
    pub interpolate: bool,
}

/// The model, its processor and its generation settings. Warnings are told unless `quiet`.
pub(super) fn open(
    name: &str,
    args: &ModelArgs,
    generate: &GenerateArgs,
    images: ImageSettings,
    quiet: bool,
) -> Result<Reader> {
    let talk = |sentence: &str| {
        if !quiet {
            stderr::warn(sentence);
        }
    };
    let dir = model_folder(name, args, quiet)?;
    device::set_threads(args.threads)?;
    let device = args.device.resolve()?;
    let (kind, packing) = args.numbers(device)?;
    let allow_unused = args.allow_unused_tensors;
    let options = LoadOptions { device, kind, allow_unused, memory: Memory::Shared, packing };
    let (model, processor) = both(&dir, options)?;
    let (model, warnings) = model;
    warnings.iter().for_each(|warning| talk(warning));
    processor.warnings.iter().for_each(|warning| talk(warning));

    let overrides = generate.overrides(&processor.tokenizer)?;
    let generation_config = read_json_if_there(&dir.join("generation_config.json"))?;
    let (generation, warnings) =
        model.generation_config(&overrides, generation_config.as_ref(), false)?;
    // A sentence once is enough, however many settings it concerns.
    let once: BTreeMap<&String, ()> = warnings.iter().map(|warning| (warning, ())).collect();
    once.keys().for_each(|warning| talk(warning));

    let prompt = prompt(generate, &model, &processor, &generation)?;
    Ok(Reader {
        batch_size: batch_size(images.batch_size, &model, &processor, &generation),
        decode: images.decode,
        seed: generate.seed,
        interpolate: images.interpolate,
        workers: device::decoding_threads(args.threads, device),
        ..Reader::new(model, processor, generation, prompt)
    })
}

/// A model with the warnings of its loading, and its processor; a large vocabulary takes as long to open
/// as the weights, so the two are opened side by side.
fn both(
    dir: &Path,
    options: LoadOptions,
) -> Result<((VisionEncoderDecoder, Vec<String>), Processor)> {
    let config = VisionEncoderDecoderConfig::from_dir(dir)?;
    config.check_channels()?;
    std::thread::scope(|scope| {
        let processor = scope.spawn(|| Processor::from_dir(dir, &config));
        let model = ved::load(dir, options);
        let processor = processor.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok((model?, processor?))
    })
}

/// The model's directory. Where `caption` was given none and its usual one can't be had, a shipped one is named.
fn model_folder(name: &str, args: &ModelArgs, quiet: bool) -> Result<PathBuf> {
    let found = download::find(name, Need::Model, args.revision.as_deref(), &args.hub, quiet);
    let captions =
        models::shipped_names().into_iter().find(|name| name.starts_with("vedm-caption"));
    match captions {
        Some(shipped) if args.model.is_none() && name.contains('/') => {
            found.map_err(|error| anyhow!("{error:#}; or try --model {shipped}, which is shipped"))
        }
        _ => found,
    }
}

/// The start token, then the prompt's. Donut's prompts bring their own start token.
fn prompt(
    args: &GenerateArgs,
    model: &VisionEncoderDecoder,
    processor: &Processor,
    generation: &GenerationConfig,
) -> Result<Vec<i64>> {
    let start = generation.start_token()?;
    let Some(text) = &args.prompt else { return Ok(vec![start]) };
    let ids = processor.tokenizer.encode(text, false)?;
    if ids.is_empty() {
        bail!("--prompt {text:?} has no tokens");
    }
    let vocabulary = model.decoder.limits().vocab_size;
    if let Some(id) = ids.iter().find(|id| **id >= vocabulary) {
        bail!(
            "--prompt {text:?}: token {id} lies outside the decoder's vocabulary of {vocabulary}"
        );
    }
    Ok(model.prompt(start, ids))
}

/// Bytes of cross-attention's keys and values that a batch on a CPU may take.
const CROSS: usize = 256 << 20;

/// A batch that keeps the device busy and its memory small.
fn batch_size(
    choice: BatchSize,
    model: &VisionEncoderDecoder,
    processor: &Processor,
    generation: &GenerationConfig,
) -> usize {
    match choice {
        BatchSize::Images(images) => images,
        BatchSize::Auto if model.device().is_cuda() => 32,
        BatchSize::Auto => {
            // The decoder reads its weights once a step for all rows: up to 32 rows are nearly free. What
            // grows with the images are keys and values of an image's tokens, of which most encoders have
            // one for 16 by 16 pixels, some fewer.
            let limits = model.decoder.limits();
            let tokens =
                processor.image_processor.most_pixels().map_or(1024, |pixels| pixels / 256);
            let numbers = 2 * limits.layers * tokens.max(1) * limits.hidden_size.max(1) as usize;
            let bytes = numbers.max(1) * if model.kind() == Kind::Float { 4 } else { 2 };
            let least = (2 * CROSS / bytes).clamp(1, 8);
            let most = 32 / generation.num_beams.clamp(1, 32) as usize;
            (CROSS / bytes).min(most).max(least)
        }
    }
}
