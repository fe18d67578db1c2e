//! `vedm caption` and `vedm ocr`: options settled, model opened, records written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail, ensure};
use tch::Device;

use super::Verdict;
use super::args::{BatchSize, Form, ModelArgs, OcrArgs, ReadArgs};
use super::generate::GenerateArgs;
use super::ledger::Ledger;
use super::progress::Progress;
use super::session::{Session, Stream, allowed_tokens};
use super::sidecar::Sidecars;
use super::{download, inputs, output};
use crate::image::DecodeOptions;
use crate::models::{self, Need};
use crate::pipeline::{Input, Reader, Watch};
use crate::ved::config::read_json_if_there;
use crate::ved::generation::{GenerationConfig, LoopDetector};
use crate::ved::{self, LoadOptions, Processor};
use crate::{device, signals};

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

/// `vedm caption`
pub(super) fn caption(args: &ReadArgs) -> Result<Verdict> {
    run(Task::Caption, args, Form::None, None)
}

/// `vedm ocr`
pub(super) fn ocr(args: &OcrArgs) -> Result<Verdict> {
    run(Task::Ocr, &args.read, args.normalize, args.allowed_chars.as_deref())
}

/// What interrupts are answered.
const STOPPING: &str = "stopping after the batch at hand; interrupt again to stop at once";
const STOPPED: &str = "stopped at once";

/// A text that says the same 8 times in a row, in at least 32 tokens, has no end: a table's dots and
/// long numbers are shorter.
const LOOPS: LoopDetector = LoopDetector { max_period: 24, repeats: 8, min_tokens: 32 };

/// Reads all images. One bad file is told on standard error and never stops the others.
fn run(task: Task, args: &ReadArgs, normalize: Form, allowed: Option<&str>) -> Result<Verdict> {
    check(args)?;
    let mut inputs = inputs::gather(&args.images, args.input.recursive)?;
    let single = matches!(args.images.as_slice(), [name] if !name.is_dir());
    let sidecars = Sidecars::new(&args.sidecar)?;
    let mut skipped = 0;
    if let Some(sidecars) = &sidecars {
        sidecars.check_all(inputs.iter().filter_map(Input::origin))?;
        let before = inputs.len();
        inputs.retain(|input| !input.origin().is_some_and(|origin| sidecars.is_done(origin)));
        skipped = before - inputs.len();
        if inputs.iter().any(|input| input.origin().is_none()) {
            bail!("an image without a file of its own has no place for a sidecar; leave - out");
        }
    }
    let mut progress = Progress::new(
        args.output.progress,
        args.output.color,
        args.output.quiet,
        Some((inputs.len() + skipped) as u64),
    )?;
    progress.skipped = skipped as u64;
    if inputs.is_empty() {
        progress.finish();
        return Ok(Verdict::Done);
    }

    let name = args.model.model.as_deref().unwrap_or(task.default_model());
    let mut reader = open(name, &args.model, &args.generate, images(args), args.output.quiet)?;
    reader.loop_detector = Some(LOOPS);
    reader.skip_blank = true;
    if let Some(chars) = allowed {
        let vocabulary = reader.model.decoder.limits().vocab_size;
        reader.allowed = Some(allowed_tokens(&reader.processor.tokenizer, chars, vocabulary)?);
    }
    if args.output.verbose {
        progress.say(&format!(
            "{name}: {} and {} on {:?} as {:?}, {} images a batch",
            reader.model.config.encoder_type(),
            reader.model.config.decoder_type(),
            reader.model.device(),
            reader.model.kind(),
            reader.batch_size
        ));
    }
    let stream = args.output.stream.then(|| Stream::new(&reader, single)).transpose()?;
    // The download of a model may be interrupted at any time; from here on a batch is finished.
    signals::listen(STOPPING, STOPPED)?;

    let described = output::Run {
        single,
        model: name,
        revision: args.model.revision.as_deref(),
        several: reader.generation.num_return_sequences > 1,
    };
    let silent = sidecars.is_some() && args.output.output.is_none() && args.output.format.is_none();
    let written = !silent && stream.is_none();
    let mut session = Session {
        args: &args.output,
        normalize,
        writer: written.then(|| output::Writer::new(&args.output, &described)).transpose()?,
        sidecars,
        ledger: args.output.errors.as_deref().map(Ledger::create).transpose()?,
        progress,
    };
    let on_token = |id: i64| stream.iter().for_each(|stream| stream.token(id));
    let on_token: Option<&dyn Fn(i64)> = if stream.is_some() { Some(&on_token) } else { None };
    let watch = Watch { interrupt: Some(signals::flag()), on_token };
    let outcome = reader.run_watched(&inputs, watch, |record| session.take(record));
    // What was read is written down, whatever ended the run.
    let closed = session.sidecars.as_mut().map_or(Ok(()), Sidecars::finish);
    session.progress.finish();
    outcome?;
    closed?;
    stream.map_or(Ok(()), |stream| stream.finish())?;
    Ok(match session.progress.failed {
        _ if signals::asked() => Verdict::Interrupted,
        0 => Verdict::Done,
        _ => Verdict::SomeFailed,
    })
}

/// Values that no run can have.
fn check(args: &ReadArgs) -> Result<()> {
    ensure!(
        args.input.max_image_mpixels > 0.0,
        "--max-image-mpixels {}: expected a number above 0",
        args.input.max_image_mpixels
    );
    if let Some(least) = args.output.min_confidence {
        ensure!((0.0..=1.0).contains(&least), "--min-confidence {least}: expected 0 to 1");
    }
    let sidecars = args.sidecar.sidecar.is_some() || args.sidecar.out_template.is_some();
    let (prefix, suffix) = (&args.sidecar.prefix, &args.sidecar.suffix);
    ensure!(
        sidecars || (prefix.is_empty() && suffix.is_empty()),
        "--prefix and --suffix belong to sidecars; pass --sidecar as well"
    );
    Ok(())
}

fn images(args: &ReadArgs) -> ImageSettings {
    ImageSettings {
        batch_size: args.input.batch_size,
        decode: DecodeOptions {
            apply_exif: !args.input.no_exif,
            background: args.input.background.into(),
            max_mpixels: args.input.max_image_mpixels,
        },
        interpolate: args.input.interpolate_pos_encoding,
    }
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
        loop_detector: None,
        allowed: None,
        skip_blank: false,
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
