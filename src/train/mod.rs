//! Training: the loop, flat, from top to bottom. What it stands on lies beside it.

pub mod card;
mod ctc;
pub mod data;
pub mod evaluate;
mod finish;
pub mod log;
pub mod loss;
mod material;
pub mod optim;
pub mod options;
pub mod plot;
pub mod report;
pub mod schedule;
pub mod setup;
pub mod state;
mod watch;

use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::encoders::Grid;
use crate::{signals, splitmix};
use ctc::CtcHead;
use data::{Batch, BatchOptions, Feed, Position};
use optim::Gradients;
use options::{Interval, Options};
pub use setup::Request;
use setup::Setup;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Asked to stop; a checkpoint was saved.
    Interrupted,
}

/// Steps in a row without a finite loss after which a run ends.
const MAX_NON_FINITE: u64 = 5;

/// What the first interrupt is answered, and the second.
const STOPPING: &str = "stopping: a checkpoint is saved first; interrupt again to stop at once";
const STOPPED: &str = "stopped at once; what the last checkpoint holds is safe";

/// A run and its settings.
struct Run<'a> {
    request: &'a Request,
    options: &'a Options,
    setup: Setup,
    gradients: Gradients,
    /// Samples and seconds of steps since the last line of the log.
    samples: u64,
    seconds: f64,
    /// What to do about a CER of 1 and more, from the last evaluation.
    advice: Option<String>,
}

/// Trains from the first step, or from where a checkpoint stands, to the end.
pub fn run(request: &Request, options: &Options) -> Result<Outcome> {
    signals::listen(STOPPING, STOPPED)?;
    let setup = setup::open(request, options)?;
    let gradients = Gradients::new(setup.optimizer.parameters().len());
    let mut run =
        Run { request, options, setup, gradients, samples: 0, seconds: 0.0, advice: None };
    let outcome = run.go();
    run.setup.talk.stop();
    outcome
}

impl Run<'_> {
    /// The loop. What is due after a step is done at the head of the next round, so that a run which
    /// was interrupted in an evaluation begins with it when it is resumed.
    fn go(&mut self) -> Result<Outcome> {
        let mut feed = self.feed(self.setup.state.position)?;
        let resumed = self.setup.state.global_step;
        let max_steps = self.setup.state.max_steps;
        self.setup.talk.start(resumed, max_steps);
        loop {
            let step = self.setup.state.global_step;
            let ends = step >= max_steps || self.patience_is_over();
            let epoch_ends = step > 0 && self.setup.state.position.index == 0;
            let due = |interval: Interval| {
                step > 0
                    && interval != Interval::Never
                    && (ends || interval.due(step, max_steps, epoch_ends))
            };
            let mut save = due(self.options.save_steps) && step != resumed;
            if due(self.options.eval_steps) && self.setup.state.evaluated_step != Some(step) {
                save |= self.evaluate()?;
            }
            let interrupted = signals::asked();
            if save || (interrupted && step != resumed) {
                self.save()?;
            }
            if interrupted {
                self.tell_how_to_go_on();
                return Ok(Outcome::Interrupted);
            }
            if ends || self.patience_is_over() {
                break;
            }
            self.step(&mut feed)?;
        }
        feed.notes().iter().for_each(|note| self.setup.talk.warn(note));
        drop(feed);
        self.finish()?;
        Ok(Outcome::Done)
    }

    fn feed(&self, position: Position) -> Result<Feed> {
        let options = BatchOptions {
            batch_size: self.options.per_device_train_batch_size,
            seed: self.options.seed,
            shuffle: true,
            group_by_length: self.options.group_by_length,
            workers: Some(self.options.workers()),
            epochs: None,
            augment: self.options.augment.as_deref().map(str::parse).transpose()?,
            trim: self.options.trim_padding > 0.0,
        };
        self.setup.train.feed(&options, self.options.skip_bad_rows, position)
    }

    /// One step of the optimizer over as many batches as are accumulated; an epoch's end closes a step.
    fn step(&mut self, feed: &mut Feed) -> Result<()> {
        let start = Instant::now();
        let labeller = self.setup.labels.labeller(&self.setup.reader.processor.tokenizer);
        let mut group: Vec<Batch> = Vec::new();
        while group.len() < self.options.gradient_accumulation_steps {
            let batch = feed.next(&labeller)?;
            let epoch_ends = batch.next.index == 0;
            group.push(batch);
            if epoch_ends {
                break;
            }
        }
        let items: usize = group.iter().flat_map(|batch| &batch.labels).map(Vec::len).sum();
        let samples: usize = group.iter().map(|batch| batch.labels.len()).sum();

        let learning_rate = self.setup.rate.at(self.setup.state.global_step);
        let (loss, grad_norm) = guarded(|| {
            let mut total = Tensor::zeros([], (Kind::Float, self.request.device));
            for batch in &group {
                let loss = self.micro_step(batch, items as i64)?;
                total += loss;
            }
            let Setup { optimizer, .. } = &mut self.setup;
            let grad_norm = optimizer.step(&mut self.gradients, learning_rate);
            Ok((total.double_value(&[]), grad_norm))
        })?;

        let state = &mut self.setup.state;
        state.position = group.last().map_or(state.position, |batch| batch.next);
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

    /// Forward and backward pass of one batch; gives its share of the loss. -> []
    fn micro_step(&mut self, batch: &Batch, items: i64) -> Result<Tensor> {
        // Dropout is a function of seed and place alone: no state of a generator has to be saved, and
        // a resumed run draws what the uninterrupted one would have. Seeds the CPU and all GPUs.
        tch::manual_seed(seed_of(self.options.seed, self.setup.state.micro_step));
        self.setup.state.micro_step += 1;
        let model = &self.setup.reader.model;
        let labels = batch.label_ids().to_device(self.request.device);
        let smoothing = self.options.label_smoothing_factor;
        let (states, grid) = self.encode(batch);
        let mut loss = loss::decode(model, &states, &labels, items, smoothing, true)?;
        if let Some(ctc) = &self.setup.ctc {
            let is_text = |id: &&i64| !self.setup.reader.processor.tokenizer.is_special(**id);
            let texts =
                batch.labels.iter().map(|ids| ids.iter().filter(is_text).copied().collect());
            loss = ctc.mix(&loss, &grid.columns(&states), &texts.collect::<Vec<_>>(), items);
        }
        self.gradients.add(&loss, self.setup.optimizer.parameters());
        Ok(loss.detach())
    }

    /// The encoder's states of a batch, of the columns that hold something where that is wished, and how
    /// they lie. -> [B, S, De]
    fn encode(&self, batch: &Batch) -> (Tensor, Grid) {
        let encoder = &self.setup.reader.model.encoder;
        let pixel_values = batch.pixel_values();
        let [_, _, height, width] = batch.shape.map(|size| size as i64);
        let grid = encoder.grid(height, width);
        let draw = splitmix::unit(seed_of(!self.options.seed, self.setup.state.micro_step) as u64);
        if let (Some(content), Some(by_columns)) = (&batch.content, encoder.by_columns())
            && draw < self.options.trim_padding
        {
            let (column, device) = (grid.cell.1, self.request.device);
            let first = content.start as i64 / column;
            let end = (content.end.div_ceil(column as usize) as i64).min(grid.columns);
            let (start, width) = (first * column, (end - first) * column);
            let pixel_values = pixel_values.narrow(3, start, width).to_device(device);
            let states = by_columns.forward_columns(&pixel_values, first, true);
            return (states, encoder.grid(height, width));
        }
        (encoder.forward(&pixel_values.to_device(self.request.device), true), grid)
    }

    /// Says so at once when numbers leave the finite, and ends a run that stays there. The optimizer has
    /// not moved in such a step.
    fn look_at(&mut self, loss: f64, grad_norm: f64) -> Result<()> {
        let state = &mut self.setup.state;
        if loss.is_finite() && grad_norm.is_finite() {
            state.non_finite = 0;
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
        self.setup.talk.warn(&sentence);
        Ok(())
    }

    /// Adds to the mean of the losses, and writes it when it is time.
    fn log(&mut self, loss: f64, grad_norm: f64, learning_rate: f64) -> Result<()> {
        let Setup { state, talk, .. } = &mut self.setup;
        if loss.is_finite() {
            state.loss_sum += loss;
            state.loss_count += 1;
        }
        let mean = state.loss_sum / state.loss_count.max(1) as f64;
        let rate = self.samples as f64 / self.seconds.max(1e-9);
        talk.step(state.global_step, mean, learning_rate, rate);
        let ends = state.global_step == state.max_steps;
        if !(state.global_step.is_multiple_of(self.options.logging_steps) || ends) {
            return Ok(());
        }
        let line = json!({
            "step": state.global_step,
            "epoch": rounded(state.epoch, 4),
            "loss": if state.loss_count > 0 { json!(mean) } else { Value::Null },
            "grad_norm": grad_norm,
            "learning_rate": learning_rate,
            "samples_per_second": rounded(rate, 3),
        });
        if !talk.has_bar() {
            let left = (state.max_steps - state.global_step) as f64 * state.seconds
                / state.global_step.max(1) as f64;
            talk.say(&format!(
                "step {}/{}  epoch {:.2}  loss {mean:.4}  learning_rate {learning_rate:.2e}  \
                 grad_norm {grad_norm:.3}  {rate:.1} samples/s  {} left",
                state.global_step,
                state.max_steps,
                state.epoch,
                log::duration(left)
            ));
        }
        (state.loss_sum, state.loss_count) = (0.0, 0);
        (self.samples, self.seconds) = (0, 0.0);
        talk.metrics(&line)?;
        state.log_history.push(line);
        Ok(())
    }

    fn patience_is_over(&self) -> bool {
        let patience = self.options.early_stopping_patience;
        patience.is_some_and(|most| self.setup.state.evaluations_without_gain >= most)
    }

    /// Writes `checkpoint-N`, then removes those beyond the limit.
    fn save(&mut self) -> Result<()> {
        let Setup { state, optimizer, ctc, reader, companions, talk, .. } = &mut self.setup;
        talk.doing("saving");
        let out = &self.request.output;
        let mut tensors = optimizer.state();
        tensors.extend(ctc.iter().flat_map(CtcHead::state));
        state::save(out, state, &reader.model, companions, &tensors)?;
        let best = state.best_global_step.filter(|_| self.options.load_best_model_at_end);
        state::rotate(out, self.options.save_total_limit, best)
    }

    fn tell_how_to_go_on(&self) {
        let step = self.setup.state.global_step;
        let place = state::checkpoint_dir(&self.request.output, step);
        let place = if step > 0 { format!("{place:?} is saved") } else { "nothing is lost".into() };
        self.setup.talk.warn(&format!(
            "interrupted after step {step} of {}: {place}; the same command with \
             --resume-from-checkpoint goes on",
            self.setup.state.max_steps
        ));
    }
}

/// A number that looks random, from the seed of the run and the number of the forward pass.
fn seed_of(seed: u64, micro_step: u64) -> i64 {
    splitmix::mix(seed.wrapping_add((micro_step + 1).wrapping_mul(splitmix::GOLDEN))) as i64
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// Runs work on the model; memory that does not suffice becomes a sentence.
///
/// Operators of libtorch panic in this crate, once shapes are checked; memory alone is not ours to check.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let panic = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(done) => return done,
        Err(panic) => panic,
    };
    let text = panic.downcast_ref::<String>().map_or("", String::as_str);
    if !["out of memory", "not enough memory", "can't allocate memory"]
        .iter()
        .any(|sign| text.contains(sign))
    {
        std::panic::resume_unwind(panic);
    }
    bail!(
        "the memory does not suffice: lower --per-device-train-batch-size and raise \
         --gradient-accumulation-steps by as much (what is learnt stays the same), or pass \
         --gradient-checkpointing, --bf16 or a smaller --max-target-length"
    )
}
