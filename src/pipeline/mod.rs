//! Inputs become records: decoding runs ahead on rayon, one thread owns the model.
//!
//! ```text
//! inputs ─ ahead: read, decode, cut, process (workers) ─▶ units ─ batches: model ─▶ records
//! ```
//!
//! Inputs are a lazy stream; one gives a unit a page, or a unit a line of a page (`prepare`). Only
//! `Pixels` cross threads, never tensors. How far decoding may run ahead is bounded in inputs and in
//! bytes (`gate`), so memory does not grow with the number of inputs or the size of their pictures.

mod ahead;
mod arrange;
mod batch;
mod explain;
mod gate;
mod input;
mod prepare;
mod room;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use tch::Tensor;

use self::ahead::Ahead;
use self::gate::Limits;
use self::prepare::Preparer;
use crate::image::{Blank, DecodeOptions, Pages};
use crate::ved::generation::{Finish, GenerationConfig, LoopDetector};
use crate::ved::{Processor, VisionEncoderDecoder};

pub use explain::{ExplainedStep, Explanation};
pub use input::{Input, MAX_FILE, Source};
pub use prepare::Cut;
pub use room::stack;

/// Bytes of pictures that are decoded at a time; a larger one is decoded alone.
const DECODING: u64 = 1 << 30;

/// Bytes of pixels that wait for the model; a batch that is larger waits in parts.
const WAITING: u64 = 256 << 20;

/// A model ready to read images.
pub struct Reader {
    pub model: VisionEncoderDecoder,
    pub processor: Processor,
    pub generation: GenerationConfig,
    /// Start token and prompt.
    pub prompt: Vec<i64>,
    pub decode: DecodeOptions,
    /// Which pages are read; none is all pages of a TIFF and the first frame of an animation.
    pub pages: Option<Pages>,
    /// Cuts pages into parts that are read one by one; none reads them as a whole.
    pub cut: Option<Cut>,
    pub batch_size: usize,
    /// Pictures as wide by their height as each other share a batch: text lines whose ends come together.
    pub sorted: bool,
    /// Threads that read and decode.
    pub workers: usize,
    /// Seed of sampling.
    pub seed: u64,
    /// Resize position embeddings to images of another size.
    pub interpolate: bool,
    /// Ends texts that repeat themselves.
    pub loop_detector: Option<LoopDetector>,
    /// [V] bool: only these tokens may be written.
    pub allowed: Option<Tensor>,
    /// Pictures that are empty in this sense give an empty text, whatever the model would make of them.
    pub blank: Option<Blank>,
    /// The model reads one line of text: pictures of several are told apart by `Reading::rows`.
    pub one_line: bool,
    /// Texts come with an explanation of how they came about, which takes about as long again.
    pub explain: bool,
    /// Tokens written so far for images by themselves.
    pub(crate) written_alone: Cell<usize>,
}

impl Reader {
    /// A reader that reads every picture as a whole and adds no rule of its own to the model's.
    pub fn new(
        model: VisionEncoderDecoder,
        processor: Processor,
        generation: GenerationConfig,
        prompt: Vec<i64>,
    ) -> Self {
        Reader {
            model,
            processor,
            generation,
            prompt,
            decode: DecodeOptions::default(),
            pages: None,
            cut: None,
            batch_size: 1,
            sorted: false,
            workers: 1,
            seed: 0,
            interpolate: false,
            loop_detector: None,
            allowed: None,
            blank: None,
            one_line: false,
            explain: false,
            written_alone: Cell::new(0),
        }
    }
}

/// What a run looks at and reports to while it goes.
#[derive(Clone, Copy, Default)]
pub struct Watch<'a> {
    /// Set to true, it ends the run after the batch at hand.
    pub interrupt: Option<&'a AtomicBool>,
    /// Called with every token as it is chosen: one image, no beams.
    pub on_token: Option<&'a dyn Fn(i64)>,
    /// Called with the new size when batches become smaller, because the memory does not suffice.
    pub on_smaller: Option<&'a dyn Fn(usize)>,
}

impl Watch<'_> {
    fn is_over(&self) -> bool {
        self.interrupt.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// What one image gave.
pub struct Record {
    /// The input's name as the user gave it; `archive.tar/member.png` for a member of an archive.
    pub image: String,
    /// The file that sidecars are named after; none for standard input and URLs.
    pub origin: Option<PathBuf>,
    /// Counted from 1; only where the file holds several pages or frames.
    pub page: Option<usize>,
    /// The part of the page that was read; only where pages are cut into lines.
    pub region: Option<Region>,
    /// What is over with this record.
    pub end: End,
    pub outcome: Result<Reading>,
}

/// What of an input ends with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// More lines of the page follow.
    Line,
    /// More pages of the input follow.
    Page,
    Input,
}

/// One text line of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Counted from 1, in reading order.
    pub line: usize,
    /// Left, top, right, bottom in pixels of the upright page; right and bottom lie just outside.
    pub bbox: [u32; 4],
}

/// The texts of one image, best first, and what there is to say about them.
pub struct Reading {
    pub sequences: Vec<Sequence>,
    /// Of the picture in the file.
    pub width: usize,
    pub height: usize,
    /// EXIF orientation, 1 to 8; 1 is upright.
    pub orientation: u8,
    /// Wall time of the image's batch, divided by its images.
    pub ms: f64,
    /// Lines of text in a picture that was read as one line, where it has several.
    pub rows: Option<usize>,
    /// Of the best text; only where the reader was asked for it.
    pub explanation: Option<Explanation>,
}

/// One generated text.
pub struct Sequence {
    pub text: String,
    /// exp(mean log-probability of the generated tokens, end token included); NaN without tokens.
    pub confidence: f64,
    pub finish: Finish,
    pub token_ids: Vec<i64>,
    pub tokens: Vec<String>,
    pub token_logprobs: Vec<f64>,
    /// Of beam search, as the reference returns it.
    pub sequences_score: Option<f64>,
}

impl Reader {
    /// Reads all inputs; `sink` gets the records in input order, as their batches end.
    ///
    /// A failed input is a record with an error. An error of `sink` or of the model ends the run; so does
    /// dropping the process: the work ahead is not waited for.
    pub fn run(
        &self,
        inputs: impl Iterator<Item = Input> + Send + 'static,
        sink: impl FnMut(Record) -> Result<()>,
    ) -> Result<()> {
        self.run_watched(inputs, Watch::default(), sink)
    }

    /// As `run`, with somebody who looks on.
    pub fn run_watched(
        &self,
        inputs: impl Iterator<Item = Input> + Send + 'static,
        watch: Watch,
        mut sink: impl FnMut(Record) -> Result<()>,
    ) -> Result<()> {
        let preparer = Preparer {
            processor: self.processor.image_processor.clone(),
            decode: self.decode,
            pages: self.pages.clone(),
            cut: self.cut.clone(),
            blank: self.blank,
            one_line: self.one_line && self.cut.is_none(),
            explain: self.explain,
        };
        let (batch, workers) = (self.batch_size.max(1), self.workers.max(1));
        let limits = Limits {
            workers,
            // What is arranged into batches at once, and two batches behind it.
            inputs: self.window(batch) + 2 * batch + workers,
            decoding: DECODING,
            waiting: WAITING,
        };
        self.consume(Ahead::start(inputs, preparer, limits)?, batch, watch, &mut sink)
    }
}
