//! `vedm caption` and `vedm ocr`: options settled, model opened, records written.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use tch::Kind;

use super::Verdict;
use super::args::{Form, ModelArgs, OcrArgs, ReadArgs};
use super::explain::Explain;
use super::inputs::Inputs;
use super::ledger::Ledger;
use super::open::{ImageSettings, open};
use super::output;
use super::output::Old;
use super::places;
use super::progress::Progress;
use super::session::{Session, Stream, allowed_tokens};
use super::sidecar::{self, Sidecars};
use crate::image::{Blank, DecodeOptions, ImageProcessor, Rgb8};
use crate::nn::Packing;
use crate::pipeline::{Cut, Input, Reader, Region, Watch};
use crate::{lines, signals};

/// Which of the two commands runs; they differ in the model they take by default, and in which pictures are
/// empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Task {
    Caption,
    Ocr,
}

impl Task {
    /// The model that was named, or the task's own.
    pub(super) fn model(self, args: &ModelArgs) -> &str {
        args.model.as_deref().unwrap_or(match self {
            Task::Caption => "nlpconnect/vit-gpt2-image-captioning",
            Task::Ocr => "vedm-ocr-printed",
        })
    }

    /// A picture without ink has no text, but its shades may be worth a caption.
    pub(super) fn blank(self) -> Blank {
        match self {
            Task::Caption => Blank::OneColor,
            Task::Ocr => Blank::NoInk,
        }
    }
}

/// `vedm caption`
pub(super) fn caption(args: &ReadArgs) -> Result<Verdict> {
    run(Task::Caption, args, &CAPTIONS)
}

/// `vedm ocr`
pub(super) fn ocr(args: &OcrArgs) -> Result<Verdict> {
    run(Task::Ocr, &args.read, &Texts::of(args))
}

/// What `vedm caption` reads with.
pub(super) fn caption_reader(args: &ReadArgs) -> Result<Reader> {
    reader(Task::Caption, args, &CAPTIONS)
}

/// What `vedm ocr` reads with.
pub(super) fn ocr_reader(args: &OcrArgs) -> Result<Reader> {
    reader(Task::Ocr, &args.read, &Texts::of(args))
}

/// What `ocr` alone is told.
struct Texts<'a> {
    normalize: Form,
    allowed: Option<&'a str>,
    lines: bool,
}

const CAPTIONS: Texts = Texts { normalize: Form::None, allowed: None, lines: false };

impl<'a> Texts<'a> {
    fn of(args: &'a OcrArgs) -> Self {
        let allowed = args.allowed_chars.as_deref();
        Texts { normalize: args.normalize, allowed, lines: args.lines }
    }
}

/// What interrupts are answered.
const STOPPING: &str = "stopping after the batch at hand; interrupt again to stop at once";
const STOPPED: &str = "stopped at once";

/// Reads all images. One bad file is told on standard error and never stops the others.
fn run(task: Task, args: &ReadArgs, texts: &Texts) -> Result<Verdict> {
    check(args, texts)?;
    let inputs = Inputs::new(&args.images, &args.input)?;
    let sidecars = sidecars(args, &inputs)?;
    let old = Old::of(args)?.map(Arc::new);
    let skipped = Arc::new(AtomicU64::new(0));
    let done = Done { sidecars: sidecars.as_ref().map(|s| s.names.clone()), old: old.clone() };
    let (single, stream) = undone(&inputs, args, done, skipped.clone())?;
    let mut stream = stream.peekable();
    let total = || if single { Some(1) } else { inputs.total() };
    let out = &args.output;
    let progress = Progress::new(out.progress, out.color, out.quiet, total, skipped)?;
    // Where nothing is left to do, no model is loaded.
    if stream.peek().is_none() {
        // Nor has anything failed.
        args.output.errors.as_deref().map(Ledger::create).transpose()?;
        progress.finish();
        return Ok(Verdict::Done);
    }

    let name = task.model(&args.model);
    let reader = reader(task, args, texts)?;
    if args.output.verbose {
        progress.say(&described(name, &reader, args.model.numbers(reader.model.device())?));
    }
    let shown = args.output.stream.then(|| Stream::new(&reader, single)).transpose()?;
    // The download of a model may be interrupted at any time; from here on a batch is finished.
    signals::listen(STOPPING, STOPPED)?;

    let run = output::Run {
        single,
        model: name,
        revision: args.model.revision.as_deref(),
        several: reader.generation.num_return_sequences > 1,
    };
    let silent = sidecars.is_some() && args.output.output.is_none() && args.output.format.is_none();
    let written = !silent && shown.is_none();
    let writer = || output::Writer::new(&args.output, &run, old.as_deref());
    let session = Session {
        args: &args.output,
        normalize: texts.normalize,
        allowed: texts.allowed,
        writer: written.then(writer).transpose()?,
        sidecars,
        explain: args.output.explain.as_deref().map(|dir| Explain::new(dir, name)),
        ledger: args.output.errors.as_deref().map(Ledger::create).transpose()?,
        progress,
        page_told: false,
        stopped: false,
    };
    if let Some(loss) = old.as_ref().filter(|_| written).and_then(|old| old.loss()) {
        session.progress.say(&format!("warning: {loss}"));
    }
    drive(&reader, stream, session, shown)
}

/// The sidecars, if they are asked for; they have places of their own as far as names are known.
fn sidecars(args: &ReadArgs, inputs: &Inputs) -> Result<Option<Sidecars>> {
    let sidecars = Sidecars::new(&args.sidecar)?;
    if let Some(sidecars) = sidecars.as_ref().filter(|_| inputs.can_be_listed()) {
        let origins = inputs.stream()?.filter_map(|input| input.origin);
        let named = |path: &Path, origin: &Path| places::check_sidecar(args, path, origin);
        sidecars.names.check_all(origins, named)?;
    }
    Ok(sidecars)
}

/// Images through the model, records to where they go, to the end or an interrupt.
fn drive(
    reader: &Reader,
    stream: impl Iterator<Item = Input> + Send + 'static,
    mut session: Session,
    shown: Option<Stream>,
) -> Result<Verdict> {
    session.progress.begin();
    let on_token = |id: i64| shown.iter().for_each(|shown| shown.token(id));
    let on_token: Option<&dyn Fn(i64)> = if shown.is_some() { Some(&on_token) } else { None };
    let smaller = Cell::new(None);
    let on_smaller = |size| smaller.set(Some(size));
    let on_smaller: Option<&dyn Fn(usize)> = Some(&on_smaller);
    let watch = Watch { interrupt: Some(signals::flag()), on_token, on_smaller };
    let outcome = reader.run_watched(stream, watch, |record| {
        if let Some(size) = smaller.take() {
            let sentence =
                "the memory does not suffice for larger batches: from here on --batch-size is";
            session.progress.say(&format!("warning: {sentence} {size}"));
        }
        session.take(record)
    });
    let written = session.finish();
    if !session.stopped {
        outcome?;
    }
    written?;
    shown.map_or(Ok(()), |shown| shown.finish(session.progress.ok > 0))?;
    Ok(match session.progress.failed {
        _ if signals::asked() => Verdict::Interrupted,
        0 => Verdict::Done,
        _ => Verdict::SomeFailed,
    })
}

/// Model, device, number type and batch size. On a CPU the type is that of the matrices: all else is reckoned
/// in f32.
fn described(name: &str, reader: &Reader, numbers: (Kind, Option<Packing>)) -> String {
    let numbers = match numbers {
        (_, Some(packing)) => format!("{packing:?}"),
        (Kind::Half, None) => "F16".to_string(),
        (Kind::BFloat16, None) => "Bf16".to_string(),
        (_, None) => "F32".to_string(),
    };
    format!(
        "{name}: {} and {} on {:?} as {}, {} images a batch",
        reader.model.config.encoder_type(),
        reader.model.config.decoder_type(),
        reader.model.device(),
        numbers.to_lowercase(),
        reader.batch_size
    )
}

/// What an earlier run did.
struct Done {
    sidecars: Option<sidecar::Names>,
    old: Option<Arc<Old>>,
}

impl Done {
    fn holds(&self, input: &Input, single: bool) -> bool {
        let lies_beside = self.sidecars.as_ref().zip(input.origin.as_ref());
        lies_beside.is_some_and(|(names, origin)| names.is_done(origin))
            || self.old.as_ref().is_some_and(|old| old.tells(input, single))
    }
}

/// The inputs that need reading, and whether they are one image alone, whose result needs no name.
/// Those that an earlier run did are left out and counted.
fn undone(
    inputs: &Inputs,
    args: &ReadArgs,
    done: Done,
    skipped: Arc<AtomicU64>,
) -> Result<(bool, impl Iterator<Item = Input> + Send + use<>)> {
    let mut stream = inputs.stream()?;
    // Of a list nothing is taken before its time: whoever writes it may wait for an answer.
    let listed = args.input.files_from.is_some();
    let ahead: Vec<Input> = stream.by_ref().take(if listed { 0 } else { 2 }).collect();
    let single = ahead.len() == 1 && matches!(args.images.as_slice(), [name] if !name.is_dir());
    let whole = done.sidecars.as_ref().is_some_and(|names| !names.of_pages());
    let undone = ahead.into_iter().chain(stream).filter(move |input| {
        let skip = done.holds(input, single);
        skipped.fetch_add(u64::from(skip), Ordering::Relaxed);
        !skip
    });
    let undone = undone.map(move |input| match input.page {
        Some(page) if whole => Input::failed(
            input.name,
            format!(
                "page {page} alone is asked for, and the sidecar would pass for the whole file; put {{page}} \
                 into --out-template, or name the file without its page"
            ),
        ),
        _ => input,
    });
    Ok((single, undone))
}

/// The model, and what the two commands ask of a reader beyond its own settings.
fn reader(task: Task, args: &ReadArgs, texts: &Texts) -> Result<Reader> {
    let mut reader = open(
        task.model(&args.model),
        &args.model,
        &args.generate,
        images(args),
        args.output.quiet,
    )?;
    reader.loop_detector = args.generate.loop_detector();
    reader.one_line = task == Task::Ocr && !reads_pages(&reader.processor.image_processor);
    reader.explain = args.output.explain.is_some();
    reader.blank = Some(task.blank());
    reader.sorted = task == Task::Ocr;
    reader.pages = args.input.pages.clone();
    reader.cut = texts.lines.then(|| Arc::new(cut) as Cut);
    if let Some(chars) = texts.allowed {
        let vocabulary = reader.model.decoder.limits().vocab_size;
        reader.allowed = Some(allowed_tokens(&reader.processor.tokenizer, chars, vocabulary)?);
    }
    Ok(reader)
}

/// True for processors of documents that keep the shape of a page; where they give a wide strip, it is
/// lines that they are for.
fn reads_pages(processor: &ImageProcessor) -> bool {
    let strip = processor.output_size().is_some_and(|(height, width)| width > 2 * height);
    processor.class.is_document() && !strip
}

/// The text lines of a page, in reading order.
fn cut(page: &Rgb8) -> Result<Vec<(Region, Rgb8)>> {
    let numbered = lines::find(page).into_iter().zip(1..);
    Ok(numbered
        .map(|(line, number)| (Region { line: number, bbox: line.bbox }, line.image))
        .collect())
}

/// Values that no run can have.
fn check(args: &ReadArgs, texts: &Texts) -> Result<()> {
    let inferred = args.output.format.is_none();
    ensure!(
        texts.lines || !output::tells_lines(&args.output),
        "{} the lines of pages: {} with ocr --lines{}",
        if inferred { "--output NAME.hocr tells" } else { "--format hocr and alto tell" },
        if inferred { "it goes" } else { "they go" },
        if inferred { ", or pass --format for another form" } else { "" }
    );
    ensure!(
        args.input.max_image_mpixels > 0.0,
        "--max-image-mpixels {}: expected a number above 0",
        args.input.max_image_mpixels
    );
    if let Some(least) = args.output.min_confidence {
        ensure!((0.0..=1.0).contains(&least), "--min-confidence {least}: expected 0 to 1");
    }
    ensure!(
        args.output.min_confidence.is_some() || args.output.placeholder.is_empty(),
        "--placeholder stands for texts of low confidence; pass --min-confidence as well"
    );
    places::check(args)?;
    ensure!(
        args.sidecar.existing.is_none()
            || args.sidecar.are_asked_for()
            || output::target(&args.output).is_some(),
        "--existing belongs to sidecars and the file of --output; pass one of them as well"
    );
    let (prefix, suffix) = (&args.sidecar.prefix, &args.sidecar.suffix);
    ensure!(
        args.sidecar.are_asked_for() || (prefix.is_empty() && suffix.is_empty()),
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
            ..DecodeOptions::default()
        },
        interpolate: args.input.interpolate_pos_encoding,
    }
}
