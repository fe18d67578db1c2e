//! One step of the optimizer: batches in, gradients, a look at the numbers.

use std::time::Instant;

use anyhow::{Result, bail};
use tch::{Kind, Tensor};

use super::data::{Batch, Feed};
use super::memory::{self, guarded};
use super::setup::Setup;
use super::{Run, loss};
use crate::encoders::Grid;
use crate::nn::precision::{self, Autocast};
use crate::nn::{lookup, segment};
use crate::splitmix;

/// Steps in a row without a finite loss after which a run ends.
const MAX_NON_FINITE: u64 = 5;
/// Images left out at their step that are told by name.
const NAMED: u64 = 10;
/// In 16 bits, lengths of labels and numbers of columns come in multiples of this.
const STEP: i64 = 8;

impl Run<'_> {
    /// One step of the optimizer over as many batches as are accumulated; an epoch's end closes a step.
    pub(super) fn step(&mut self, feed: &mut Feed) -> Result<()> {
        let start = Instant::now();
        let labeller = self.setup.labels.labeller(&self.setup.reader.processor.tokenizer);
        let mut group: Vec<Batch> = Vec::new();
        let (mut place, mut left_out) = (self.setup.state.position, Vec::new());
        while group.len() < self.options.gradient_accumulation_steps {
            let batch = feed.next(&labeller)?;
            place = batch.next;
            left_out.extend(batch.left_out.iter().cloned());
            group.extend(Some(batch).filter(|batch| !batch.labels.is_empty()));
            if place.index == 0 {
                break;
            }
        }
        self.setup.state.position = place;
        self.tell_left_out(&left_out);
        if group.is_empty() {
            // All rows up to the epoch's end were left out: there is no step to make.
            return Ok(());
        }
        let items: usize = group.iter().flat_map(|batch| &batch.labels).map(Vec::len).sum();
        let samples: usize = group.iter().map(|batch| batch.labels.len()).sum();

        // The reference's schedule waits while steps are left out for their overflow.
        let scaler = self.setup.state.scaler;
        let skipped = scaler.map_or(0, |scaler| scaler.skipped);
        let learning_rate = self.setup.rate.at(self.setup.state.global_step - skipped);
        let (loss, grad_norm) = guarded(
            || memory::for_a_step(self.options),
            || {
                let mut total = Tensor::zeros([], (Kind::Float, self.request.device));
                for batch in &group {
                    let loss = self.micro_step(batch, items as i64)?;
                    total += loss;
                }
                if let Some(scaler) = scaler {
                    self.gradients.scale(1.0 / scaler.scale);
                }
                let Setup { optimizer, .. } = &mut self.setup;
                let grad_norm = optimizer.step(&mut self.gradients, learning_rate);
                Ok((total.double_value(&[]), grad_norm))
            },
        )?;

        let state = &mut self.setup.state;
        state.global_step += 1;
        state.epoch = match self.setup.train.rows() {
            Some(rows) => state.position.epoch as f64 + state.position.index as f64 / rows as f64,
            // As the reference counts a stream: the run is one epoch.
            None => state.global_step as f64 / state.max_steps as f64,
        };
        self.samples += samples as u64;
        let seconds = start.elapsed().as_secs_f64();
        self.seconds += seconds;
        state.seconds += seconds;
        self.look_at(loss, grad_norm)?;
        self.log(loss, grad_norm, learning_rate)
    }

    /// Names the first images that are left out at their step, and counts all of them.
    pub(super) fn tell_left_out(&mut self, sentences: &[String]) {
        for sentence in sentences {
            if self.left_out < NAMED {
                self.setup.talk.warn(&format!("{sentence}; it is left out"));
            }
            self.left_out += 1;
        }
    }

    /// Forward and backward pass of one batch; gives its share of the loss. -> []
    fn micro_step(&mut self, batch: &Batch, items: i64) -> Result<Tensor> {
        // Dropout is a function of seed and place alone: no state of a generator has to be saved, and
        // a resumed run draws what the uninterrupted one would have. Seeds the CPU and all GPUs.
        let seed = seed_of(self.options.seed, self.setup.state.micro_step);
        tch::manual_seed(seed);
        self.setup.state.micro_step += 1;
        let _mixed = Autocast::new(self.options.mixed_precision());
        let labels = self.labels(batch);
        let frozen = self.options.freeze_encoder.then(|| tch::no_grad(|| self.encode(batch)));
        let forward = || {
            let (states, grid) = frozen.unwrap_or_else(|| self.encode(batch));
            // The layers of the decoder read them, and the CTC loss.
            self.loss(batch, &labels, &segment::leaf(&states), &grid, items)
        };
        let checkpointing = self.options.gradient_checkpointing;
        let ((loss, tape), lookups) = lookup::watch(|| match checkpointing {
            true => {
                let (loss, tape) = segment::record(seed as u64, forward);
                (loss, Some(tape))
            }
            false => (forward(), None),
        });
        let loss = loss?;
        let scaled = match self.setup.state.scaler {
            Some(scaler) => &loss * scaler.scale,
            None => loss.shallow_clone(),
        };
        let parameters = self.setup.optimizer.parameters();
        match tape {
            Some(tape) => self.gradients.add_taped(tape, &scaled, parameters, &lookups),
            None => self.gradients.add(&scaled, parameters, &lookups),
        }
        Ok(loss.detach())
    }

    /// The labels of a batch; in 16 bits their length is rounded up. -> [B, T]
    fn labels(&self, batch: &Batch) -> Tensor {
        let labels = batch.label_ids().to_device(self.request.device);
        let length = labels.size()[1];
        let limit = self.setup.reader.model.decoder.limits().max_positions.unwrap_or(i64::MAX);
        let spare = precision::in_steps(length, STEP).min(limit).max(length) - length;
        labels.pad([0, spare], "constant", loss::IGNORED as f64)
    }

    /// The loss of a batch whose states are known, and that of the encoder's columns where it is wished.
    /// labels [B, T], states [B, S, De], how they lie -> []
    fn loss(
        &self,
        batch: &Batch,
        labels: &Tensor,
        states: &Tensor,
        grid: &Grid,
        items: i64,
    ) -> Result<Tensor> {
        let Setup { reader, ctc, .. } = &self.setup;
        let smoothing = self.options.label_smoothing_factor;
        let loss = loss::decode(&reader.model, states, labels, items, smoothing, true)?;
        let Some(ctc) = ctc else { return Ok(loss) };
        let is_text = |id: &&i64| !reader.processor.tokenizer.is_special(**id);
        let texts = batch.labels.iter().map(|ids| ids.iter().filter(is_text).copied().collect());
        Ok(ctc.mix(&loss, &grid.columns(states), &texts.collect::<Vec<_>>(), items))
    }

    /// The encoder's states of a batch, of the columns that hold something where that is wished, and how
    /// they lie. -> [B, S, De]
    fn encode(&self, batch: &Batch) -> (Tensor, Grid) {
        let encoder = &self.setup.reader.model.encoder;
        let [_, _, height, width] = batch.shape.map(|size| size as i64);
        let grid = encoder.grid(height, width);
        if let Some(frozen) = &self.frozen {
            return (frozen.batch(&batch.images).to_device(self.request.device), grid);
        }
        let pixel_values = batch.pixel_values();
        let draw = splitmix::unit(seed_of(!self.options.seed, self.setup.state.micro_step) as u64);
        if let (Some(content), Some(by_columns)) = (&batch.content, encoder.by_columns())
            && draw < self.options.trim_padding
        {
            let (column, device) = (grid.cell.1, self.request.device);
            let first = content.start as i64 / column;
            let end = (content.end.div_ceil(column as usize) as i64).min(grid.columns);
            let columns = precision::in_steps(end - first, STEP).min(grid.columns);
            let first = first.min(grid.columns - columns);
            let (start, width) = (first * column, columns * column);
            let pixel_values = pixel_values.narrow(3, start, width).to_device(device);
            let states = by_columns.forward_columns(&pixel_values, first, true);
            return (states, encoder.grid(height, width));
        }
        (encoder.forward(&pixel_values.to_device(self.request.device), true), grid)
    }

    /// Says so at once when numbers leave the finite, and ends a run that stays there. The optimizer has
    /// not moved in such a step.
    fn look_at(&mut self, loss: f64, grad_norm: f64) -> Result<()> {
        let Setup { state, talk, .. } = &mut self.setup;
        let finite = loss.is_finite() && grad_norm.is_finite();
        if let Some(scaler) = &mut state.scaler {
            scaler.update(finite);
        }
        if finite {
            state.non_finite = 0;
            return Ok(());
        }
        if let Some(scaler) = state.scaler.filter(|scaler| loss.is_finite() && scaler.scale >= 1.0)
        {
            talk.say(&format!(
                "step {}: a gradient is too large for f16, the step is left out ({} so far); the loss is \
                 scaled by {} from here on",
                state.global_step, scaler.skipped, scaler.scale
            ));
            return Ok(());
        }
        state.non_finite += 1;
        let what = if loss.is_finite() { "gradient" } else { "loss" };
        let sentence = format!(
            "step {}: the {what} is no finite number, the step is left out; lower --learning-rate, raise \
             --warmup-ratio",
            state.global_step
        );
        if state.non_finite >= MAX_NON_FINITE {
            bail!(
                "{sentence}; this is the {MAX_NON_FINITE}th such step in a row, the run ends (the last \
                 checkpoint is as it was)"
            );
        }
        talk.warn(&sentence);
        Ok(())
    }
}

/// A number that looks random, from the seed of the run and the number of the forward pass.
fn seed_of(seed: u64, micro_step: u64) -> i64 {
    splitmix::mix(seed.wrapping_add((micro_step + 1).wrapping_mul(splitmix::GOLDEN))) as i64
}
