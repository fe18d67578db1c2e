//! Endless synthetic data: `pipe:COMMAND` runs a command that writes a tar stream of `key.png` and
//! `key.txt` pairs, as in WebDataset. Samples are batched as they come; memory is bounded.

use std::io::{BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rayon::prelude::*;

use super::augment::Augment;
use super::batches::{Batch, Batches, Position};
use super::forms::{self, Pairs, Part};
use super::labels::Labeller;
use super::order;
use crate::image::{self, DecodeOptions, ImageProcessor, Pixels};
use crate::native;

/// What `--data` begins with to name a command.
pub const PIPE: &str = "pipe:";
/// In a command, replaced by the number of samples that a resumed run has taken already.
const SKIP: &str = "{skip}";
/// Batches whose samples are sorted together, where similar ones are to share a batch.
const WINDOW: usize = 16;
/// A larger member is no image of a line or a photograph.
const MAX_IMAGE: u64 = 256 << 20;

/// A command that writes samples.
#[derive(Clone, Debug)]
pub struct Stream {
    command: String,
}

/// How a stream becomes batches.
#[derive(Clone)]
pub struct StreamOptions {
    pub batch_size: usize,
    pub workers: Option<usize>,
    /// Samples that can't be used are left out instead of ending the run.
    pub skip_bad_rows: bool,
    pub decode: DecodeOptions,
    pub augment: Option<Augment>,
    pub seed: u64,
    /// Samples alike share a batch: pictures of similar shape if `trim` is on, else texts of similar
    /// length.
    pub group_by_length: bool,
    /// Batches know which columns of their pictures are more than padding.
    pub trim: bool,
}

/// Batches of a stream; their labels are still texts.
pub struct StreamBatches {
    batches: Batches<Vec<String>>,
    cut: usize,
}

/// One pair as it came: the key, the file, the text.
struct Raw {
    name: String,
    bytes: Vec<u8>,
    text: String,
}

impl Stream {
    /// None if `data` does not begin with `pipe:`.
    ///
    /// # Errors
    /// A command of no words.
    pub fn parse(data: &str) -> Result<Option<Stream>> {
        let Some(command) = data.strip_prefix(PIPE) else { return Ok(None) };
        ensure!(!command.trim().is_empty(), "--data {data:?}: a command is missing behind pipe:");
        Ok(Some(Stream { command: command.to_string() }))
    }

    /// The command as it was given.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// The names and texts of the first `count` samples, for a look before the first step.
    pub fn first(&self, count: usize) -> Result<Vec<(String, String)>> {
        let mut samples = Running::start(&self.command, 0)?;
        (0..count).map(|_| samples.next().map(|raw| (raw.name, raw.text))).collect()
    }

    /// Runs the command and batches what it writes, from the sample `start.index` on.
    ///
    /// The stream has no end: where it ends or fails, the iterator gives the reason as its last item.
    pub fn batches(
        &self,
        processor: &ImageProcessor,
        options: &StreamOptions,
        start: Position,
    ) -> Result<StreamBatches> {
        let (stream, processor, options) = (self.clone(), processor.clone(), options.clone());
        let batches = Batches::produce(options.workers, move |emit| {
            // Windows begin at multiples of their length, so that a resumed run cuts the same batches.
            let window = (options.batch_size * options.window()) as u64;
            let begin = start.index / window * window;
            let mut samples = match Running::start(&stream.command, begin) {
                Ok(samples) => samples,
                Err(error) => {
                    emit(Err(error));
                    return;
                }
            };
            let mut done = (start.index - begin) as usize / options.batch_size;
            loop {
                let cut = match cut(&mut samples, &options) {
                    Ok(cut) => cut,
                    Err(error) => {
                        emit(Err(error));
                        return;
                    }
                };
                let first = samples.taken - window;
                for (place, raw) in cut.into_iter().enumerate().skip(done) {
                    let taken = first + ((place + 1) * options.batch_size) as u64;
                    let next = Position { epoch: 0, index: taken };
                    if !emit(batch(raw, next, &processor, &options)) {
                        return;
                    }
                }
                done = 0;
            }
        })?;
        Ok(StreamBatches { batches, cut: 0 })
    }
}

impl StreamBatches {
    /// The next batch, its texts encoded by `labeller`. Never ends but with an error.
    pub fn next(&mut self, labeller: &Labeller) -> Result<Batch> {
        let batch = self.batches.next().context("the stream has ended")??;
        let mut labels = Vec::with_capacity(batch.labels.len());
        for text in &batch.labels {
            let label = labeller.encode(text)?;
            self.cut += usize::from(label.cut);
            labels.push(label.ids);
        }
        Ok(batch.with_labels(labels))
    }

    /// Labels that were longer than the limit so far.
    pub fn cut(&self) -> usize {
        self.cut
    }
}

impl StreamOptions {
    /// Batches that are cut from one sorted window.
    fn window(&self) -> usize {
        if self.group_by_length { WINDOW } else { 1 }
    }

    /// What samples of one batch should have in common.
    fn kind(&self, raw: &Raw) -> u64 {
        if !self.trim {
            return raw.text.chars().count() as u64;
        }
        // Bad images are told when they are decoded.
        let (width, height) = image::probe(&raw.bytes, &self.decode).unwrap_or((0, 1));
        (width * 1000 / height.max(1)) as u64
    }
}

/// The samples of the next window, cut into batches. Each sample keeps its number in the stream.
fn cut(samples: &mut Running, options: &StreamOptions) -> Result<Vec<Vec<(u64, Raw)>>> {
    let (size, first) = (options.batch_size, samples.taken);
    let count = (size * options.window()) as u64;
    let mut window: Vec<(u64, Raw)> = (first..first + count)
        .map(|number| Ok((number, samples.next()?)))
        .collect::<Result<_>>()?;
    if options.group_by_length {
        window.sort_by_cached_key(|(_, raw)| options.kind(raw));
    }
    let mut rest = window.into_iter();
    let mut batches: Vec<Option<Vec<_>>> =
        (0..options.window()).map(|_| Some(rest.by_ref().take(size).collect())).collect();
    // Lengths must not rise and fall in step.
    let order = order::permutation(batches.len(), options.seed.wrapping_add(first));
    Ok(order.into_iter().filter_map(|place| batches[place].take()).collect())
}

/// One batch of the samples that can be used.
fn batch(
    raw: Vec<(u64, Raw)>,
    next: Position,
    processor: &ImageProcessor,
    options: &StreamOptions,
) -> Result<Batch<Vec<String>>> {
    let prepared: Vec<Result<Pixels>> = raw
        .par_iter()
        .map(|(number, raw)| {
            let prepare = || {
                ensure!(!raw.text.trim().is_empty(), "no text");
                let mut image = image::decode(&raw.bytes, &options.decode)?.image;
                if let Some(augment) = &options.augment {
                    image = augment.apply(image, options.seed, 0, *number);
                }
                processor.process(&image)
            };
            prepare().map_err(|error| anyhow!("{}: {error:#}", raw.name))
        })
        .collect();
    let (mut images, mut labels, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for ((_, raw), pixels) in raw.into_iter().zip(prepared) {
        match pixels {
            Ok(pixels) => {
                images.push(pixels);
                labels.push(raw.text);
            }
            Err(error) if options.skip_bad_rows => left_out.push(format!("{error:#}")),
            Err(error) => {
                return Err(error.context(
                    "a sample of the stream can't be used (--skip-bad-rows leaves such out)",
                ));
            }
        }
    }
    let mut batch = Batch { left_out, ..Batch::stack(images, labels, next)? };
    if options.trim && !batch.labels.is_empty() {
        batch.find_content(processor);
    }
    Ok(batch)
}

/// The command at work, and the thread that reads its archive.
struct Running {
    samples: std::sync::mpsc::Receiver<Result<Raw>>,
    child: Child,
    taken: u64,
}

impl Running {
    fn start(command: &str, skip: u64) -> Result<Running> {
        let skips_itself = command.contains(SKIP);
        let line = command.replace(SKIP, &skip.to_string());
        let mut child = Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C is for this program, which saves and then closes the pipe.
            .process_group(0)
            .spawn()
            .with_context(|| format!("the command {line:?} could not be started"))?;
        let output = child.stdout.take().context("the command has no output")?;
        // A few samples wait, whatever their size: the command writes on while others are decoded.
        let (sender, samples) = std::sync::mpsc::sync_channel(64);
        std::thread::Builder::new()
            .name("stream".to_string())
            .spawn(move || {
                let mut left = if skips_itself { 0 } else { skip };
                let read = read_pairs(output, |raw| {
                    if left > 0 {
                        left -= 1;
                        return true;
                    }
                    sender.send(Ok(raw)).is_ok()
                });
                if let Err(error) = read {
                    // Nobody waits for it where the run has ended.
                    let _ = sender.send(Err(error));
                }
            })
            .context("the thread that reads the stream could not be started")?;
        Ok(Running { samples, child, taken: skip })
    }

    fn next(&mut self) -> Result<Raw> {
        let taken = self.taken;
        match self.samples.recv() {
            Ok(Ok(raw)) => {
                self.taken += 1;
                Ok(raw)
            }
            Ok(Err(error)) => {
                Err(error).context(format!("the stream of --data, after {taken} samples"))
            }
            Err(_) => {
                let status = self.child.wait().context("the command of --data")?;
                bail!(
                    "the command of --data ended after {taken} samples ({status}), but training needs \
                     more; let it write without end"
                )
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What the shell has started would hold the pipes open. It may have ended by itself: then there
        // is nothing to end.
        native::kill_group(self.child.id());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hands on every pair of a tar stream until `sink` wants no more. Members of other kinds are passed
/// over.
fn read_pairs(from: impl Read, mut sink: impl FnMut(Raw) -> bool) -> Result<()> {
    let mut pairs = Pairs::default();
    let mut tar = tar::Archive::new(BufReader::with_capacity(1 << 16, from));
    let told = "its output is no tar archive";
    for entry in tar.entries().context(told)? {
        let mut entry = entry.context(told)?;
        let Some((key, part, name)) = forms::member(&entry) else { continue };
        let size = entry.size();
        let pair = match part {
            Part::Image => {
                ensure!(size <= MAX_IMAGE, "{name}: an image of {size} bytes is too large");
                let mut bytes = Vec::with_capacity(size as usize);
                entry.read_to_end(&mut bytes).with_context(|| format!("{name} is cut short"))?;
                ensure!(bytes.len() as u64 == size, "{name} is cut short");
                pairs.image(key, (name, bytes))
            }
            Part::Text => {
                let text = forms::read_text(&mut entry, size).with_context(|| name.clone())?;
                pairs.text(key, text)
            }
        };
        if let Some(((name, bytes), text)) = pair
            && !sink(Raw { name, bytes, text })
        {
            return Ok(());
        }
    }
    ensure!(pairs.single == 0, "{} of its members stayed without partner", pairs.single);
    Ok(())
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
