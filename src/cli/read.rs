//! `vedm caption` and `vedm ocr`: options settled, model opened, records written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, anyhow, bail, ensure};
use tch::Device;

use super::Verdict;
use super::args::{BatchSize, Form, Format, ModelArgs, OcrArgs, ReadArgs};
use super::generate::GenerateArgs;
use super::inputs::Inputs;
use super::ledger::Ledger;
use super::progress::Progress;
use super::session::{Session, Stream, allowed_tokens};
use super::sidecar::Sidecars;
use super::{download, output};
use crate::image::{Blank, DecodeOptions, Rgb8};
use crate::models::{self, Need};
use crate::pipeline::{Cut, Input, Reader, Region, Watch};
use crate::ved::config::read_json_if_there;
use crate::ved::generation::{GenerationConfig, LoopDetector};
use crate::ved::{self, LoadOptions, Processor};
use crate::{device, lines, signals};

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
    run(Task::Caption, args, &Texts { normalize: Form::None, allowed: None, lines: false })
}

/// `vedm ocr`
pub(super) fn ocr(args: &OcrArgs) -> Result<Verdict> {
    let allowed = args.allowed_chars.as_deref();
    run(Task::Ocr, &args.read, &Texts { normalize: args.normalize, allowed, lines: args.lines })
}

/// What `ocr` alone is told.
struct Texts<'a> {
    normalize: Form,
    allowed: Option<&'a str>,
    lines: bool,
}

/// What interrupts are answered.
const STOPPING: &str = "stopping after the batch at hand; interrupt again to stop at once";
const STOPPED: &str = "stopped at once";

/// A text that says the same 8 times in a row, in at least 64 tokens, has no end: a table's dots and
/// long numbers are shorter.
const LOOPS: LoopDetector = LoopDetector { max_period: 24, repeats: 8, min_tokens: 64 };

/// Reads all images. One bad file is told on standard error and never stops the others.
fn run(task: Task, args: &ReadArgs, texts: &Texts) -> Result<Verdict> {
    check(args)?;
    let of_pages = matches!(args.output.format, Some(Format::Hocr | Format::Alto));
    ensure!(
        texts.lines || !of_pages,
        "--format hocr and alto tell the lines of pages: they go with ocr --lines"
    );
    let inputs = Inputs::new(&args.images, &args.input)?;
    let sidecars = Sidecars::new(&args.sidecar)?;
    if let Some(sidecars) = sidecars.as_ref().filter(|_| inputs.can_be_listed()) {
        sidecars.names.check_all(inputs.stream()?.filter_map(|input| input.origin))?;
    }
    let skipped = Arc::new(AtomicU64::new(0));
    let (single, stream) = undone(&inputs, args, sidecars.as_ref(), skipped.clone())?;
    let mut stream = stream.peekable();
    let total = || if single { Some(1) } else { inputs.total() };
    let out = &args.output;
    let mut progress = Progress::new(out.progress, out.color, out.quiet, total, skipped)?;
    // Where nothing is left to do, no model is loaded.
    if stream.peek().is_none() {
        progress.finish();
        return Ok(Verdict::Done);
    }

    let name = args.model.model.as_deref().unwrap_or(task.default_model());
    let mut reader = open(name, &args.model, &args.generate, images(args), args.output.quiet)?;
    equip(&mut reader, task, args, texts)?;
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
    let shown = args.output.stream.then(|| Stream::new(&reader, single)).transpose()?;
    // The download of a model may be interrupted at any time; from here on a batch is finished.
    signals::listen(STOPPING, STOPPED)?;

    let described = output::Run {
        single,
        model: name,
        revision: args.model.revision.as_deref(),
        several: reader.generation.num_return_sequences > 1,
    };
    let silent = sidecars.is_some() && args.output.output.is_none() && args.output.format.is_none();
    let written = !silent && shown.is_none();
    progress.begin();
    let mut session = Session {
        args: &args.output,
        normalize: texts.normalize,
        allowed: texts.allowed,
        writer: written.then(|| output::Writer::new(&args.output, &described)).transpose()?,
        sidecars,
        ledger: args.output.errors.as_deref().map(Ledger::create).transpose()?,
        progress,
        stopped: false,
    };
    let on_token = |id: i64| shown.iter().for_each(|shown| shown.token(id));
    let on_token: Option<&dyn Fn(i64)> = if shown.is_some() { Some(&on_token) } else { None };
    let watch = Watch { interrupt: Some(signals::flag()), on_token };
    let outcome = reader.run_watched(stream, watch, |record| session.take(record));
    let whole = outcome.is_ok() && !signals::asked();
    let written = session.finish(whole);
    if !session.stopped {
        outcome?;
    }
    written?;
    shown.map_or(Ok(()), |shown| shown.finish())?;
    Ok(match session.progress.failed {
        _ if signals::asked() => Verdict::Interrupted,
        0 => Verdict::Done,
        _ => Verdict::SomeFailed,
    })
}

/// The inputs that need reading, and whether they are one image alone, whose result needs no name.
/// Those that sidecars say are done are left out and counted.
fn undone(
    inputs: &Inputs,
    args: &ReadArgs,
    sidecars: Option<&Sidecars>,
    skipped: Arc<AtomicU64>,
) -> Result<(bool, impl Iterator<Item = Input> + Send + use<>)> {
    let mut stream = inputs.stream()?;
    // Of a list nothing is taken before its time: whoever writes it may wait for an answer.
    let listed = args.input.files_from.is_some();
    let ahead: Vec<Input> = stream.by_ref().take(if listed { 0 } else { 2 }).collect();
    let single = ahead.len() == 1 && matches!(args.images.as_slice(), [name] if !name.is_dir());
    let names = sidecars.map(|sidecars| sidecars.names.clone());
    let undone = ahead.into_iter().chain(stream).filter(move |input| {
        let both = names.as_ref().zip(input.origin.as_ref());
        let skip = both.is_some_and(|(names, origin)| names.is_done(origin));
        skipped.fetch_add(u64::from(skip), Ordering::Relaxed);
        !skip
    });
    Ok((single, undone))
}

/// What the two commands ask of a reader beyond the model's own settings.
fn equip(reader: &mut Reader, task: Task, args: &ReadArgs, texts: &Texts) -> Result<()> {
    reader.loop_detector = Some(LOOPS);
    reader.blank = Some(match task {
        Task::Caption => Blank::OneColor,
        Task::Ocr => Blank::NoInk,
    });
    reader.pages = args.input.pages.clone();
    reader.cut = texts.lines.then(|| Arc::new(cut) as Cut);
    if let Some(chars) = texts.allowed {
        let vocabulary = reader.model.decoder.limits().vocab_size;
        reader.allowed = Some(allowed_tokens(&reader.processor.tokenizer, chars, vocabulary)?);
    }
    Ok(())
}

/// The text lines of a page, in reading order.
fn cut(page: &Rgb8) -> Result<Vec<(Region, Rgb8)>> {
    let numbered = lines::find(page).into_iter().zip(1..);
    Ok(numbered
        .map(|(line, number)| (Region { line: number, bbox: line.bbox }, line.image))
        .collect())
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
    let (output, errors) = (args.output.output.as_deref(), args.output.errors.as_deref());
    for (flag, file) in [("--output", output), ("--errors", errors)] {
        if let Some(file) = file.filter(|file| output::is_picture(file)) {
            bail!("{flag} {file:?} is a picture; it is not written over");
        }
    }
    ensure!(errors.is_none() || errors != output, "--output and --errors name the same file");
    ensure!(
        errors.is_none() || errors != args.input.files_from.as_deref(),
        "--errors and --files-from name the same file: the list would be lost before it is read"
    );
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
    let (kind, packing) = args.numbers(device)?;
    let allow_unused = args.allow_unused_tensors;
    let (model, warnings) = ved::load(&dir, LoadOptions { device, kind, allow_unused, packing })?;
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
        blank: None,
        pages: None,
        cut: None,
        workers: device::decoding_threads(args.threads, device),
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
