//! Units through the model, batch by batch, and back into records.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Result, anyhow};
use tch::Tensor;

use super::ahead::Ahead;
use super::prepare::{Prepared, Unit};
use super::{Reader, Reading, Record, Sequence, Watch};
use crate::image::Pixels;
use crate::ved::generation::{self, Finish, Generated, Hooks};

/// Batches that wait for each other where lengths are told by the pictures: so many are sorted at once.
const SORTED: usize = 4;

/// Bytes of pixels from which on no more batches are sorted together.
const SORTED_BYTES: u64 = 32 << 20;

/// A unit that is a record already, or becomes one.
struct Pending {
    record: Record,
    /// None once the model is asked, or where there is nothing to ask.
    prepared: Option<Prepared>,
    /// The model has been asked and has not answered.
    waits: bool,
}

/// Pictures that go through the model together, with their numbers among the records at hand.
type Group = Vec<(usize, Prepared)>;

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
                first += self.finish(std::mem::take(&mut batch), first, size, watch, sink)?;
                (good, bytes) = (0, 0);
            }
        }
        self.finish(batch, first, size, watch, sink)?;
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
        size: usize,
        watch: Watch,
        sink: &mut impl FnMut(Record) -> Result<()>,
    ) -> Result<usize> {
        let count = pending.len();
        let groups = self.groups(&mut pending, size);
        let mut told = 0;
        let mut pending: VecDeque<Pending> = pending.into();
        for group in groups {
            if told > 0 && watch.is_over() {
                break;
            }
            self.read(group, first, watch, |index, outcome| {
                let answered = &mut pending[index - told];
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
                Some(image) if image.blank => pending.record.outcome = Ok(blank_reading(&image)),
                Some(image) => {
                    pending.waits = true;
                    waiting.push((index, image));
                }
                None => {}
            }
        }
        arrange(waiting, size, self.sorted, self.generation.do_sample)
    }

    /// One batch through the model; `first` numbers the first record at hand. `answer` takes each
    /// picture's number and outcome.
    fn read(
        &self,
        group: Group,
        first: usize,
        watch: Watch,
        mut answer: impl FnMut(usize, Result<Reading>),
    ) -> Result<()> {
        let start = Instant::now();
        let number = group.first().map_or(0, |(index, _)| *index);
        let pixels: Vec<&Pixels> = group.iter().map(|(_, image)| &image.pixels).collect();
        match self.generate(&pixels, (first + number) as u64, watch) {
            Ok(generated) => {
                let ms = start.elapsed().as_secs_f64() * 1e3 / group.len().max(1) as f64;
                for ((index, image), sequences) in group.into_iter().zip(generated) {
                    let reading = self.reading(&image, sequences);
                    answer(index, reading.map(|reading| Reading { ms, ..reading }));
                }
            }
            // All images have one size: what fails for these fails for all.
            Err(error) if self.processor.image_processor.output_size().is_some() => {
                return Err(error);
            }
            Err(error) => {
                for (index, _) in group {
                    answer(index, Err(anyhow!("{error:#}")));
                }
            }
        }
        Ok(())
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

    fn reading(&self, image: &Prepared, sequences: Vec<Generated>) -> Result<Reading> {
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

impl From<Unit> for Pending {
    fn from(unit: Unit) -> Self {
        let Unit { image, origin, page, region, outcome } = unit;
        let (prepared, error) = match outcome {
            Ok(prepared) => (Some(prepared), anyhow!("no result")),
            Err(error) => (None, error),
        };
        let record = Record { image, origin, page, region, outcome: Err(error) };
        Pending { record, prepared, waits: false }
    }
}

/// Batches of up to `size` pictures of one pixel size, the one with the first picture first. `sorted`:
/// those alike in aspect share one. `neighbours`: only such do, whatever `sorted` says.
fn arrange(mut waiting: Group, size: usize, sorted: bool, neighbours: bool) -> Vec<Group> {
    let mut groups = Vec::new();
    while let Some((number, head)) = waiting.first() {
        let (shape, mut expected) = (shape(&head.pixels), *number);
        let (mut group, rest): (Group, Group) = waiting.into_iter().partition(|(index, image)| {
            let fits = (*index == expected || !neighbours) && self::shape(&image.pixels) == shape;
            expected += usize::from(fits);
            fits
        });
        waiting = rest;
        if sorted && !neighbours {
            // Lines as long as each other have texts as long as each other, and end together.
            group.sort_by(|a, b| a.1.aspect.total_cmp(&b.1.aspect));
        }
        while !group.is_empty() {
            let rest = group.split_off(size.min(group.len()));
            groups.push(std::mem::replace(&mut group, rest));
        }
    }
    groups.sort_by_key(|group| group.iter().map(|(index, _)| *index).min());
    groups
}

/// The text of an empty picture is empty, and no model was asked.
fn blank_reading(image: &Prepared) -> Reading {
    let sequence = Sequence {
        text: String::new(),
        confidence: f64::NAN,
        finish: Finish::Blank,
        token_ids: Vec::new(),
        tokens: Vec::new(),
        token_logprobs: Vec::new(),
        sequences_score: None,
    };
    let Prepared { width, height, orientation, .. } = *image;
    Reading { sequences: vec![sequence], width, height, orientation, ms: 0.0 }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures of (width of the pixels, aspect), and the numbers of each batch.
    fn arranged(pictures: &[(usize, f32)], size: usize, flags: (bool, bool)) -> Vec<Vec<usize>> {
        let prepared = |(width, aspect): &(usize, f32)| Prepared {
            pixels: Pixels { channels: 1, height: 1, width: *width, data: vec![0.0; *width] },
            blank: false,
            aspect: *aspect,
            width: 1,
            height: 1,
            orientation: 1,
        };
        let waiting = pictures.iter().map(prepared).enumerate().collect();
        arrange(waiting, size, flags.0, flags.1)
            .iter()
            .map(|group| group.iter().map(|(index, _)| *index).collect())
            .collect()
    }

    #[test]
    fn alike_pictures_share_a_batch() {
        let lines = [(8, 3.0), (8, 9.0), (8, 2.0), (8, 8.0), (8, 1.0), (8, 7.0)];
        let sorted = arranged(&lines, 2, (true, false));
        assert_eq!(sorted, [vec![0, 5], vec![3, 1], vec![4, 2]]);
        assert_eq!(arranged(&lines, 4, (false, false)), [vec![0, 1, 2, 3], vec![4, 5]]);
        assert_eq!(arranged(&lines, 4, (true, true)), [vec![0, 1, 2, 3], vec![4, 5]]);
        let sizes = [(8, 1.0), (4, 1.0), (8, 1.0), (8, 1.0), (4, 1.0)];
        assert_eq!(arranged(&sizes, 2, (true, false)), [vec![0, 2], vec![1, 4], vec![3]]);
        assert_eq!(arranged(&sizes, 9, (true, true)), [vec![0], vec![1], vec![2, 3], vec![4]]);
    }
}
