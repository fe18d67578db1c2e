//! Units through the model, batch by batch, and back into records.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Result, anyhow};
use tch::Tensor;

use super::ahead::Ahead;
use super::arrange::{Group, arrange};
use super::prepare::{Prepared, Unit};
use super::room::Room;
use super::{Reader, Reading, Record, Sequence, Watch};
use crate::device::within_memory;
use crate::image::Pixels;
use crate::native::Inference;
use crate::ved::generation::{self, Finish, Generated, Hooks, Step};

/// Batches that wait for each other where lengths are told by the pictures: so many are sorted at once.
const SORTED: usize = 4;

/// Bytes of pixels from which on no more batches are sorted together.
const SORTED_BYTES: u64 = 32 << 20;

/// Tokens after which drafts are written: for one text of a line, what they compute with would take as long
/// to make as it saves.
const DRAFTS_FROM: usize = 32;

/// A unit that is a record already, or becomes one.
struct Pending {
    record: Record,
    /// None once the model is asked, or where there is nothing to ask.
    prepared: Option<Prepared>,
    /// The model has been asked and has not answered.
    waits: bool,
}

impl Reader {
    /// Takes units to the last. A batch has `size` pictures; failed ones do not count, and those that
    /// nothing waits before are told at once.
    pub(super) fn consume(
        &self,
        units: Ahead,
        size: usize,
        watch: Watch,
        sink: &mut impl FnMut(Record) -> Result<()>,
    ) -> Result<()> {
        let window = self.window(size);
        let room = &Room::new(size);
        let mut batch: Vec<Pending> = Vec::new();
        let (mut good, mut bytes) = (0, 0);
        let mut first = 0;
        for unit in units {
            if watch.is_over() {
                return Ok(());
            }
            bytes += unit.bytes();
            let pending = Pending::from(unit);
            good += usize::from(pending.prepared.is_some());
            if good == 0 {
                sink(pending.record)?;
                first += 1;
                continue;
            }
            batch.push(pending);
            let enough = good % size == 0 && bytes >= SORTED_BYTES;
            // Failures without end must not fill the memory.
            if good == window || enough || batch.len() >= 16 * size {
                first += self.finish(std::mem::take(&mut batch), first, room, watch, sink)?;
                (good, bytes) = (0, 0);
            }
        }
        self.finish(batch, first, room, watch, sink)?;
        Ok(())
    }

    /// Pictures that are arranged into batches at once. What is sampled depends on the number of its
    /// picture, so that only neighbours share a batch.
    pub(super) fn window(&self, size: usize) -> usize {
        let sorted = self.sorted && !self.generation.do_sample && size > 1;
        if sorted { SORTED * size } else { size }
    }

    /// The pictures at hand to their end, batch by batch; how many records they gave. `first` numbers the
    /// first. Records are told as soon as those before them are.
    fn finish(
        &self,
        mut pending: Vec<Pending>,
        first: usize,
        room: &Room,
        watch: Watch,
        sink: &mut impl FnMut(Record) -> Result<()>,
    ) -> Result<usize> {
        let count = pending.len();
        let groups = self.groups(&mut pending, room.batch.get());
        let mut told = 0;
        let mut pending: VecDeque<Pending> = pending.into();
        for group in groups {
            if told > 0 && watch.is_over() {
                break;
            }
            self.read(group, first, (room, watch), &mut |index, outcome| {
                let answered: &mut Pending = &mut pending[index - told];
                answered.waits = false;
                answered.record.outcome = outcome;
            })?;
            while pending.front().is_some_and(|pending| !pending.waits) {
                pending.pop_front().map(|pending| sink(pending.record)).transpose()?;
                told += 1;
            }
        }
        for pending in pending.into_iter().filter(|pending| !pending.waits) {
            sink(pending.record)?;
        }
        Ok(count)
    }

    /// Takes out what the model is to read, in batches of equal pixel sizes, the one with the first
    /// picture first. With sampling only neighbours share a batch.
    fn groups(&self, pending: &mut [Pending], size: usize) -> Vec<Group> {
        let mut waiting: Group = Vec::new();
        for (index, pending) in pending.iter_mut().enumerate() {
            match pending.prepared.take() {
                Some(image) if image.blank => {
                    pending.record.outcome = Ok(self.blank_reading(image));
                }
                Some(image) => {
                    pending.waits = true;
                    waiting.push((index, image));
                }
                None => {}
            }
        }
        arrange(waiting, size, self.sorted, self.generation.do_sample)
    }

    /// One batch through the model, in parts that fit the memory; `first` numbers the first record at hand.
    /// `answer` takes each picture's number and outcome.
    fn read(
        &self,
        mut group: Group,
        first: usize,
        (room, watch): (&Room, Watch),
        answer: &mut impl FnMut(usize, Result<Reading>),
    ) -> Result<()> {
        while !group.is_empty() {
            let size = room.batch.get().clamp(1, group.len());
            let start = Instant::now();
            let number = (first + group[0].0) as u64;
            let pixels: Vec<&Pixels> =
                group[..size].iter().map(|(_, image)| &image.pixels).collect();
            let generated = within_memory(|| self.generate(&pixels, number, room, watch));
            if generated.is_err() && size > 1 {
                let size = size.div_ceil(2);
                room.batch.set(size);
                watch.on_smaller.iter().for_each(|told| told(size));
                continue;
            }
            let part = group.drain(..size);
            match generated {
                Ok(Ok(generated)) => {
                    let ms = start.elapsed().as_secs_f64() * 1e3 / size as f64;
                    for ((index, image), (sequences, steps)) in part.zip(generated) {
                        let reading = self.reading(image, sequences, steps);
                        answer(index, reading.map(|reading| Reading { ms, ..reading }));
                    }
                }
                // All images have one size: what fails for these fails for all.
                Ok(Err(error)) if self.processor.image_processor.output_size().is_some() => {
                    return Err(error);
                }
                Ok(Err(error)) => {
                    part.for_each(|(index, _)| answer(index, Err(anyhow!("{error:#}"))));
                }
                Err(short) => {
                    let advice = self.advice();
                    let why = || anyhow!("{short} for this picture alone; {advice}");
                    part.for_each(|(index, _)| answer(index, Err(why())));
                }
            }
        }
        Ok(())
    }

    /// What takes less memory.
    fn advice(&self) -> &'static str {
        match (self.generation.num_beams > 1, self.model.device().is_cuda()) {
            (true, _) => "try --num-beams 1",
            (false, true) => "try --device cpu",
            (false, false) => "try a narrower --dtype, or a smaller model",
        }
    }

    /// Pixels of one size through encoder and decoder: of each image its sequences, and the steps of the
    /// best one where they are to be explained.
    fn generate(
        &self,
        pixels: &[&Pixels],
        first_image: u64,
        room: &Room,
        watch: Watch,
    ) -> Result<Vec<(Vec<Generated>, Vec<Step>)>> {
        let _inference = Inference::new();
        let pixel_values = room.stack(pixels, self.model.device()).to_kind(self.model.kind());
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
            drafts: self.model.drafts && self.written_alone.get() >= DRAFTS_FROM,
            seed: self.seed,
            first_image,
            ..Hooks::default()
        };
        let decoder = self.model.decoder.as_ref();
        let generated = generation::generate(decoder, &states, &prompt, &self.generation, &hooks)?;
        if let [sequences] = generated.as_slice() {
            let written = sequences.iter().map(|sequence| sequence.ids.len()).sum::<usize>();
            self.written_alone.update(|before| before.saturating_add(written));
        }
        let steps = self.replay(&states, &prompt, &generated, &hooks)?;
        Ok(generated.into_iter().zip(steps).collect())
    }

    fn reading(
        &self,
        image: Prepared,
        sequences: Vec<Generated>,
        steps: Vec<Step>,
    ) -> Result<Reading> {
        let sequences = sequences.into_iter().map(|generated| self.sequence(generated));
        let Prepared { width, height, orientation, rows, .. } = image;
        let sequences = sequences.collect::<Result<_>>()?;
        let explanation = self.explanation(image, steps);
        Ok(Reading { sequences, width, height, orientation, ms: 0.0, rows, explanation })
    }

    /// The text of an empty picture is empty, and no model was asked.
    fn blank_reading(&self, image: Prepared) -> Reading {
        let sequence = Sequence {
            text: String::new(),
            confidence: f64::NAN,
            finish: Finish::Blank,
            token_ids: Vec::new(),
            tokens: Vec::new(),
            token_logprobs: Vec::new(),
            sequences_score: None,
        };
        let Prepared { width, height, orientation, rows, .. } = image;
        let explanation = self.explanation(image, Vec::new());
        let sequences = vec![sequence];
        Reading { sequences, width, height, orientation, ms: 0.0, rows, explanation }
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

impl From<Unit> for Pending {
    fn from(unit: Unit) -> Self {
        let Unit { image, origin, page, region, end, outcome } = unit;
        let (prepared, error) = match outcome {
            Ok(prepared) => (Some(prepared), anyhow!("no result")),
            Err(error) => (None, error),
        };
        let record = Record { image, origin, page, region, end, outcome: Err(error) };
        Pending { record, prepared, waits: false }
    }
}
