//! Paths become records: decoding runs ahead on rayon, one thread owns the model.
//!
//! Only `Pixels` cross threads, never tensors. At most three batches of pixels exist at a time: one that
//! is being decoded, one that waits, one in the model; so memory does not grow with the number of inputs.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use tch::Tensor;

use crate::fetch;
use crate::image::{self, DecodeOptions, Pixels};
use crate::ved::generation::{self, Finish, Generated, GenerationConfig, Hooks, LoopDetector};
use crate::ved::{Processor, VisionEncoderDecoder};

/// One image to read.
#[derive(Clone, Debug)]
pub enum Input {
    File(PathBuf),
    /// One image on standard input.
    Stdin,
}

/// A model ready to read images.
pub struct Reader {
    pub model: VisionEncoderDecoder,
    pub processor: Processor,
    pub generation: GenerationConfig,
    /// Start token and prompt.
    pub prompt: Vec<i64>,
    pub decode: DecodeOptions,
    pub batch_size: usize,
    /// Seed of sampling.
    pub seed: u64,
    /// Resize position embeddings to images of another size.
    pub interpolate: bool,
    /// Ends texts that repeat themselves.
    pub loop_detector: Option<LoopDetector>,
    /// [V] bool: only these tokens may be written.
    pub allowed: Option<Tensor>,
    /// Empty pictures give an empty text, whatever the model would make of them.
    pub skip_blank: bool,
}

/// What a run looks at and reports to while it goes.
#[derive(Clone, Copy, Default)]
pub struct Watch<'a> {
    /// Set to true, it ends the run after the batch at hand.
    pub interrupt: Option<&'a AtomicBool>,
    /// Called with every token as it is chosen: one image, no beams.
    pub on_token: Option<&'a dyn Fn(i64)>,
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
    pub outcome: Result<Reading>,
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

/// An input decoded and processed.
struct Prepared {
    pixels: Pixels,
    blank: bool,
    width: usize,
    height: usize,
    orientation: u8,
}

impl Input {
    /// As the user named it.
    pub fn name(&self) -> String {
        match self {
            Input::File(path) => path.display().to_string(),
            Input::Stdin => "-".to_string(),
        }
    }

    /// The file that sidecars are named after.
    pub fn origin(&self) -> Option<&Path> {
        match self {
            Input::File(path) if is_url(path) => None,
            Input::File(path) => Some(path),
            Input::Stdin => None,
        }
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        match self {
            // No path in the sentence: whoever reports it puts the name before.
            Input::File(path) if path.is_dir() => bail!("is a directory"),
            Input::File(path) if is_url(path) => {
                let url = path.to_string_lossy();
                fetch::fetch(&url, fetch::LIMIT, fetch::TIMEOUT)
            }
            Input::File(path) => std::fs::read(path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => anyhow::anyhow!("no such file"),
                _ => anyhow::anyhow!("can't be read: {error}"),
            }),
            Input::Stdin => {
                let mut bytes = Vec::new();
                std::io::stdin().read_to_end(&mut bytes).context("standard input")?;
                Ok(bytes)
            }
        }
    }
}

impl Reader {
    /// Reads all inputs; `sink` gets the records in input order, as their batches end.
    ///
    /// A failed input is a record with an error. An error of `sink` or of the model ends the run.
    pub fn run(&self, inputs: &[Input], sink: impl FnMut(Record) -> Result<()>) -> Result<()> {
        self.run_watched(inputs, Watch::default(), sink)
    }

    /// As `run`, with somebody who looks on.
    pub fn run_watched(
        &self,
        inputs: &[Input],
        watch: Watch,
        mut sink: impl FnMut(Record) -> Result<()>,
    ) -> Result<()> {
        let size = self.batch_size.max(1);
        let processor = &self.processor.image_processor;
        let decode = &self.decode;
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(1);
            scope.spawn(move || {
                for batch in inputs.chunks(size) {
                    let prepared: Vec<Result<Prepared>> =
                        batch.par_iter().map(|input| prepare(input, processor, decode)).collect();
                    // The model thread has ended early: nobody waits for more.
                    if sender.send(prepared).is_err() {
                        break;
                    }
                }
            });
            self.consume(inputs, size, receiver, watch, &mut sink)
        })
    }

    fn consume(
        &self,
        inputs: &[Input],
        size: usize,
        receiver: Receiver<Vec<Result<Prepared>>>,
        watch: Watch,
        sink: &mut impl FnMut(Record) -> Result<()>,
    ) -> Result<()> {
        for (batch, (names, prepared)) in inputs.chunks(size).zip(receiver).enumerate() {
            if watch.interrupt.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                break;
            }
            for (input, outcome) in names.iter().zip(self.read(prepared, batch * size, watch)?) {
                let origin = input.origin().map(Path::to_path_buf);
                sink(Record { image: input.name(), origin, page: None, region: None, outcome })?;
            }
        }
        Ok(())
    }

    /// One batch through the model; `first` numbers its first image. Images go in groups of equal pixel
    /// sizes; with sampling only neighbours do, because a text depends on the number of its image.
    fn read(
        &self,
        prepared: Vec<Result<Prepared>>,
        first: usize,
        watch: Watch,
    ) -> Result<Vec<Result<Reading>>> {
        let start = Instant::now();
        let mut outcomes: Vec<Option<Result<Reading>>> = Vec::new();
        let mut waiting: Vec<(usize, Prepared)> = Vec::new();
        for (index, image) in prepared.into_iter().enumerate() {
            match image {
                Ok(image) if image.blank && self.skip_blank => {
                    outcomes.push(Some(Ok(blank_reading(image))));
                }
                Ok(image) => {
                    outcomes.push(None);
                    waiting.push((index, image));
                }
                Err(error) => outcomes.push(Some(Err(error))),
            }
        }
        let count = waiting.len();
        while let Some((start, head)) = waiting.first() {
            let (start, shape) = (*start, shape(&head.pixels));
            let mut expected = start;
            let (group, rest): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(index, image)| {
                    let neighbour = *index == expected || !self.generation.do_sample;
                    let fits = neighbour && self::shape(&image.pixels) == shape;
                    expected += usize::from(fits);
                    fits
                });
            waiting = rest;
            let pixels: Vec<&Pixels> = group.iter().map(|(_, image)| &image.pixels).collect();
            match self.generate(&pixels, (first + start) as u64, watch) {
                Ok(generated) => {
                    for ((index, image), sequences) in group.into_iter().zip(generated) {
                        outcomes[index] = Some(self.reading(image, sequences));
                    }
                }
                Err(error) if group.len() == count && count > 0 => return Err(error),
                Err(error) => {
                    for (index, _) in group {
                        outcomes[index] = Some(Err(anyhow::anyhow!("{error:#}")));
                    }
                }
            }
        }
        let ms = start.elapsed().as_secs_f64() * 1e3 / count.max(1) as f64;
        let finish = |outcome: Option<Result<Reading>>| match outcome {
            Some(Ok(reading)) => Ok(Reading { ms, ..reading }),
            Some(Err(error)) => Err(error),
            None => bail!("no result"),
        };
        Ok(outcomes.into_iter().map(finish).collect())
    }

    /// Pixels of one size through encoder and decoder.
    fn generate(
        &self,
        pixels: &[&Pixels],
        first_image: u64,
        watch: Watch,
    ) -> Result<Vec<Vec<Generated>>> {
        let _guard = tch::no_grad_guard();
        let pixel_values = stack(pixels).to_device(self.model.device()).to_kind(self.model.kind());
        let size = pixel_values.size();
        self.model.encoder.check_size(size[2], size[3], self.interpolate)?;
        let states = self.model.project(&self.model.encode(&pixel_values, false)); // [B, S, Dd]
        let prompt = Tensor::from_slice(&self.prompt)
            .to_device(self.model.device())
            .unsqueeze(0)
            .repeat([size[0], 1]);
        let decode = |ids: &[i64]| self.processor.tokenizer.decode(ids, false).unwrap_or_default();
        let hooks = Hooks {
            decode: Some(&decode),
            on_token: watch.on_token,
            loop_detector: self.loop_detector,
            allowed: self.allowed.as_ref(),
            seed: self.seed,
            first_image,
            ..Hooks::default()
        };
        generation::generate(
            self.model.decoder.as_ref(),
            &states,
            &prompt,
            &self.generation,
            &hooks,
        )
    }

    fn reading(&self, image: Prepared, sequences: Vec<Generated>) -> Result<Reading> {
        Ok(Reading {
            sequences: sequences
                .into_iter()
                .map(|generated| self.sequence(generated))
                .collect::<Result<_>>()?,
            width: image.width,
            height: image.height,
            orientation: image.orientation,
            ms: 0.0,
        })
    }

    fn sequence(&self, generated: Generated) -> Result<Sequence> {
        let tokenizer = &self.processor.tokenizer;
        // The text begins with the prompt, as the reference's decoding of whole sequences does.
        let whole: Vec<i64> = self.prompt.iter().chain(&generated.ids).copied().collect();
        let token = |id: &i64| tokenizer.id_to_token(*id).unwrap_or_default();
        let logprobs = &generated.token_logprobs;
        let mean = logprobs.iter().sum::<f64>() / logprobs.len().max(1) as f64;
        Ok(Sequence {
            text: tokenizer.decode(&whole, true)?,
            confidence: mean.exp(),
            finish: generated.finish,
            tokens: generated.ids.iter().map(token).collect(),
            token_ids: generated.ids,
            token_logprobs: generated.token_logprobs,
            sequences_score: generated.sequences_score,
        })
    }
}

/// The text of an empty picture is empty, and no model was asked.
fn blank_reading(image: Prepared) -> Reading {
    let sequence = Sequence {
        text: String::new(),
        confidence: f64::NAN,
        finish: Finish::Blank,
        token_ids: Vec::new(),
        tokens: Vec::new(),
        token_logprobs: Vec::new(),
        sequences_score: None,
    };
    Reading {
        sequences: vec![sequence],
        width: image.width,
        height: image.height,
        orientation: image.orientation,
        ms: 0.0,
    }
}

fn is_url(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with("http://") || text.starts_with("https://"))
}

fn prepare(
    input: &Input,
    processor: &image::ImageProcessor,
    decode: &DecodeOptions,
) -> Result<Prepared> {
    let decoded = image::decode(&input.bytes()?, decode)?;
    Ok(Prepared {
        pixels: processor.process(&decoded.image)?,
        blank: image::is_blank(&decoded.image),
        width: decoded.width,
        height: decoded.height,
        orientation: decoded.orientation,
    })
}

fn shape(pixels: &Pixels) -> (usize, usize, usize) {
    (pixels.channels, pixels.height, pixels.width)
}

/// Pixels of one size -> [B, C, H, W]
pub fn stack(pixels: &[&Pixels]) -> Tensor {
    let images: Vec<Tensor> = pixels
        .iter()
        .map(|pixels| {
            let (c, h, w) = shape(pixels);
            Tensor::from_slice(&pixels.data).reshape([c as i64, h as i64, w as i64])
        })
        .collect();
    Tensor::stack(&images, 0)
}
