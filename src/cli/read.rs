//! `vedm caption` and `vedm ocr`: options settled, model opened, records written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail, ensure};
use tch::Device;

use super::Verdict;
use super::args::{BatchSize, ModelArgs, ReadArgs};
use super::generate::GenerateArgs;
use super::{download, inputs, output};
use crate::device;
use crate::image::DecodeOptions;
use crate::models::{self, Need};
use crate::pipeline::Reader;
use crate::ved::config::read_json_if_there;
use crate::ved::generation::GenerationConfig;
use crate::ved::{self, LoadOptions, Processor};

/// Which of the two commands runs; they differ in the model they take by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Caption,
    Ocr,
}

impl Task {
    pub(super) fn default_model(self) -> &'static str {
        match self {
            Task::Caption => "nlpconnect/vit-gpt2-image-captioning",
            Task::Ocr => "vedm-ocr-printed",
        }
    }
}

/// Reads all images. One bad file is told on standard error and never stops the others.
pub(super) fn run(task: Task, args: &ReadArgs) -> Result<Verdict> {
    ensure!(
        args.input.max_image_mpixels > 0.0,
        "--max-image-mpixels {}: expected a number above 0",
        args.input.max_image_mpixels
    );
    let inputs = inputs::gather(&args.images, args.input.recursive)?;
    let name = args.model.model.as_deref().unwrap_or(task.default_model());
    let images = ImageSettings {
        batch_size: args.input.batch_size,
        decode: DecodeOptions {
            apply_exif: !args.input.no_exif,
            background: args.input.background.into(),
            max_mpixels: args.input.max_image_mpixels,
        },
        interpolate: args.input.interpolate_pos_encoding,
    };
    let reader = open(name, &args.model, &args.generate, images, args.output.quiet)?;

    let several = reader.generation.num_return_sequences > 1;
    let revision = args.model.revision.as_deref();
    let mut writer = output::Writer::new(&args.output, inputs.len(), name, revision, several)?;
    let mut failed = 0;
    reader.run(&inputs, |record| {
        if let Err(error) = &record.outcome {
            failed += 1;
            eprintln!("vedm: {}: {error:#}", record.image);
        }
        writer.write(&record)
    })?;
    Ok(if failed > 0 { Verdict::SomeFailed } else { Verdict::Done })
}

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
            eprintln!("vedm: warning: {sentence}");
        }
    };
    let dir = model_folder(name, args, quiet)?;
    device::set_threads(args.threads)?;
    let device = args.device.resolve()?;
    let kind = args.dtype.resolve(device);
    let allow_unused = args.allow_unused_tensors;
    let (model, warnings) = ved::load(&dir, LoadOptions { device, kind, allow_unused })?;
    warnings.iter().for_each(|warning| talk(warning));
    let processor = Processor::from_dir(&dir, &model.config)?;
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
        batch_size: batch_size(images.batch_size, device),
        decode: images.decode,
        seed: generate.seed,
        interpolate: images.interpolate,
        model,
        processor,
        generation,
        prompt,
    })
}

/// The model's directory. Where `caption` was given none and its usual one can't be had, a shipped one is named.
fn model_folder(name: &str, args: &ModelArgs, quiet: bool) -> Result<PathBuf> {
    let found = download::find(name, Need::Model, args.revision.as_deref(), &args.hub, quiet);
    let captions =
        models::shipped_names().into_iter().find(|name| name.starts_with("vedm-caption"));
    match captions {
        Some(shipped) if args.model.is_none() => {
            found.map_err(|error| anyhow!("{error:#}; or try --model {shipped}, which is shipped"))
        }
        _ => found,
    }
}

/// The start token, then the prompt's. Donut's prompts bring their own start token.
fn prompt(
    args: &GenerateArgs,
    model: &ved::VisionEncoderDecoder,
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

/// A batch that keeps the device busy and its memory small.
fn batch_size(choice: BatchSize, device: Device) -> usize {
    match choice {
        BatchSize::Images(images) => images,
        BatchSize::Auto if device.is_cuda() => 32,
        BatchSize::Auto => 8,
    }
}
