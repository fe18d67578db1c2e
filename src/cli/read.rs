//! `vedm caption` and `vedm ocr`: options settled, model opened, records written.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use tch::Device;

use super::Verdict;
use super::args::{BatchSize, ReadArgs};
use super::inputs::Inputs;
use super::output;
use crate::image::DecodeOptions;
use crate::pipeline::{Input, Reader};
use crate::ved::config::read_json_if_there;
use crate::ved::generation::GenerationConfig;
use crate::ved::{self, LoadOptions, Processor};
use crate::{device, models};

/// Which of the two commands runs; they differ in the model they take by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Caption,
    Ocr,
}

impl Task {
    fn default_model(self) -> &'static str {
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
    let inputs = Inputs::new(&args.images, &args.input)?;
    let mut stream = inputs.stream()?;
    let ahead: Vec<Input> = stream.by_ref().take(2).collect();
    // Enough to know whether the results need names.
    let count = ahead.len();
    let name = args.model.model.as_deref().unwrap_or(task.default_model());
    let reader = open(name, args)?;

    let several = reader.generation.num_return_sequences > 1;
    let revision = args.model.revision.as_deref();
    let mut writer = output::Writer::new(&args.output, count, name, revision, several)?;
    let mut failed = 0;
    reader.run(ahead.into_iter().chain(stream), |record| {
        if let Err(error) = &record.outcome {
            failed += 1;
            eprintln!("vedm: {}: {error:#}", record.image);
        }
        writer.write(&record)
    })?;
    Ok(if failed > 0 { Verdict::SomeFailed } else { Verdict::Done })
}

/// The model, its processor and its generation settings.
fn open(name: &str, args: &ReadArgs) -> Result<Reader> {
    let talk = |sentence: &str| {
        if !args.output.quiet {
            eprintln!("vedm: warning: {sentence}");
        }
    };
    let dir = models::find(name, args.model.revision.as_deref())?;
    device::set_threads(args.model.threads)?;
    let device = args.model.device.resolve()?;
    let kind = args.model.dtype.resolve(device);
    let allow_unused = args.model.allow_unused_tensors;
    let (model, warnings) = ved::load(&dir, LoadOptions { device, kind, allow_unused })?;
    warnings.iter().for_each(|warning| talk(warning));
    let processor = Processor::from_dir(&dir, &model.config)?;
    processor.warnings.iter().for_each(|warning| talk(warning));

    let overrides = args.generate.overrides(&processor.tokenizer)?;
    let generation_config = read_json_if_there(&dir.join("generation_config.json"))?;
    let (generation, warnings) =
        model.generation_config(&overrides, generation_config.as_ref(), false)?;
    // A sentence once is enough, however many settings it concerns.
    let once: BTreeMap<&String, ()> = warnings.iter().map(|warning| (warning, ())).collect();
    once.keys().for_each(|warning| talk(warning));

    let prompt = prompt(args, &model, &processor, &generation)?;
    Ok(Reader {
        batch_size: batch_size(args.input.batch_size, device),
        decode: DecodeOptions {
            apply_exif: !args.input.no_exif,
            background: args.input.background.into(),
            max_mpixels: args.input.max_image_mpixels,
        },
        pages: args.input.pages.clone(),
        cut: None,
        workers: device::decoding_threads(args.model.threads, device),
        seed: args.generate.seed,
        interpolate: args.input.interpolate_pos_encoding,
        model,
        processor,
        generation,
        prompt,
    })
}

/// The start token, then the prompt's. Donut's prompts bring their own start token.
fn prompt(
    args: &ReadArgs,
    model: &ved::VisionEncoderDecoder,
    processor: &Processor,
    generation: &GenerationConfig,
) -> Result<Vec<i64>> {
    let start = generation.start_token()?;
    let Some(text) = &args.generate.prompt else { return Ok(vec![start]) };
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
