//! Units through the model, batch by batch, and back into records.

use std::time::Instant;

use anyhow::{Result, anyhow};
use tch::Tensor;

use super::ahead::Ahead;
use super::prepare::{Prepared, Unit};
use super::{Reader, Reading, Record, Sequence, Watch};
use crate::image::Pixels;
use crate::ved::generation::{self, Finish, Generated, Hooks, Step};

/// A unit that is a record already, or becomes one.
struct Pending {
    record: Record,
    /// None once its outcome is in the record.
    prepared: Option<Prepared>,
}

impl Reader {
    /// Takes units to the last. A batch ends with its `size`-th picture; failed ones do not count, and
    /// those that nothing waits before are told at once.
    pub(super) fn consume(
        &self,
        units: Ahead,
        size: usize,
        watch: Watch,
        sink: &mut impl FnMut(Record) -> Result<()>,
    ) -> Result<()> {
        let mut batch: Vec<Pending> = Vec::new();
        let mut good = 0;
        let mut first = 0;
        for unit in units {
            if watch.is_over() {
                return Ok(());
            }
            let pending = Pending::from(unit);
            good += usize::from(pending.prepared.is_some());
            if good == 0 {
                sink(pending.record)?;
                first += 1;
                continue;
            }
            batch.push(pending);
            // Failures without end must not fill the memory.
            if good == size || batch.len() >= 16 * size {
                first += self.finish(std::mem::take(&mut batch), first, watch, sink)?;
                good = 0;
            }
        }
        self.finish(batch, first, watch, sink)?;
        Ok(())
    }

    /// One batch to its end; how many records it gave.
    fn finish(
        &self,
        mut batch: Vec<Pending>,
        first: usize,
        watch: Watch,
        sink: &mut impl FnMut(Record) -> Result<()>,
    ) -> Result<usize> {
        self.read(&mut batch, first, watch)?;
        let count = batch.len();
        for pending in batch {
            sink(pending.record)?;
        }
        Ok(count)
    }

    /// One batch through the model; `first` numbers its first record. Images go in groups of equal pixel
    /// sizes; with sampling only neighbours do, because a text depends on the number of its image.
    fn read(&self, batch: &mut [Pending], first: usize, watch: Watch) -> Result<()> {
        let start = Instant::now();
        let mut waiting: Vec<(usize, Prepared)> = Vec::new();
        for (index, pending) in batch.iter_mut().enumerate() {
            match pending.prepared.take() {
                Some(image) if image.blank => {
                    pending.record.outcome = Ok(self.blank_reading(image))
                }
                image => waiting.extend(image.map(|image| (index, image))),
            }
        }
        let read: Vec<usize> = waiting.iter().map(|(index, _)| *index).collect();
        while let Some((number, head)) = waiting.first() {
            let (number, shape) = (*number, shape(&head.pixels));
            let mut expected = number;
            let (group, rest): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(index, image)| {
                    let neighbour = *index == expected || !self.generation.do_sample;
                    let fits = neighbour && self::shape(&image.pixels) == shape;
                    expected += usize::from(fits);
                    fits
                });
            waiting = rest;
            let pixels: Vec<&Pixels> = group.iter().map(|(_, image)| &image.pixels).collect();
            match self.generate(&pixels, (first + number) as u64, watch) {
                Ok(generated) => {
                    for ((index, image), (sequences, steps)) in group.into_iter().zip(generated) {
                        batch[index].record.outcome = self.reading(image, sequences, steps);
                    }
                }
                // All images have one size: what fails for these fails for all.
                Err(error) if self.processor.image_processor.output_size().is_some() => {
                    return Err(error);
                }
                Err(error) => {
                    for (index, _) in group {
                        batch[index].record.outcome = Err(anyhow!("{error:#}"));
                    }
                }
            }
        }
        let ms = start.elapsed().as_secs_f64() * 1e3 / read.len().max(1) as f64;
        for index in read {
            if let Ok(reading) = &mut batch[index].record.outcome {
                reading.ms = ms;
            }
        }
        Ok(())
    }

    /// Pixels of one size through encoder and decoder: of each image its sequences, and the steps of the
    /// best one where they are to be explained.
    fn generate(
        &self,
        pixels: &[&Pixels],
        first_image: u64,
        watch: Watch,
    ) -> Result<Vec<(Vec<Generated>, Vec<Step>)>> {
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
        let decoder = self.model.decoder.as_ref();
        let generated = generation::generate(decoder, &states, &prompt, &self.generation, &hooks)?;
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
        let Unit { image, origin, page, region, outcome } = unit;
        let (prepared, error) = match outcome {
            Ok(prepared) => (Some(prepared), anyhow!("no result")),
            Err(error) => (None, error),
        };
        let record = Record { image, origin, page, region, outcome: Err(error) };
        Pending { record, prepared }
    }
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
