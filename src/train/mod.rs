//! Training: the loop, flat, from top to bottom. What it stands on lies beside it.

pub mod card;
mod ctc;
pub mod data;
pub mod evaluate;
mod finish;
pub mod frozen;
pub mod log;
pub mod loss;
mod material;
pub mod memory;
pub mod optim;
pub mod options;
pub mod output;
pub mod plot;
pub mod report;
mod resume;
pub mod scaler;
pub mod schedule;
pub mod setup;
pub mod state;
mod step;
mod watch;

use anyhow::Result;
use serde_json::{Value, json};

use crate::signals;
use ctc::CtcHead;
use data::{BatchOptions, Feed, Position};
use frozen::FrozenStates;
use optim::Gradients;
use options::{Interval, Options, Resume, Start};
use output::checkpoint_dir;
pub use setup::Request;
use setup::Setup;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Asked to stop; a checkpoint was saved.
    Interrupted,
}

/// What the first interrupt is answered, and the second.
const STOPPING: &str = "stopping: a checkpoint is saved first; interrupt again to stop at once";
const STOPPED: &str = "stopped at once; what the last checkpoint holds is safe";

/// A run and its settings.
struct Run<'a> {
    request: &'a Request,
    options: &'a Options,
    setup: Setup,
    gradients: Gradients,
    /// What a frozen encoder says of the images, if that is kept.
    frozen: Option<FrozenStates>,
    /// Samples and seconds of steps since the last line of the log.
    samples: u64,
    seconds: f64,
    /// Images that were left out at their step.
    left_out: u64,
    /// What to do about a CER of 1 and more, from the last evaluation.
    advice: Option<String>,
}

/// Trains from the first step, or from where a checkpoint stands, to the end.
pub fn run(request: &Request, options: &Options) -> Result<Outcome> {
    signals::listen(STOPPING, STOPPED)?;
    let setup = setup::open(request, options)?;
    let gradients = Gradients::new(setup.optimizer.parameters().len());
    let mut run = Run {
        request,
        options,
        setup,
        gradients,
        frozen: None,
        samples: 0,
        seconds: 0.0,
        left_out: 0,
        advice: None,
    };
    let outcome = run.go();
    run.setup.talk.stop();
    outcome
}

impl Run<'_> {
    /// The loop. What is due after a step is done at the head of the next round, so that a run which
    /// was interrupted in an evaluation begins with it when it is resumed.
    fn go(&mut self) -> Result<Outcome> {
        self.freeze()?;
        let mut feed = self.feed(self.setup.state.position)?;
        let resumed = self.setup.state.global_step;
        // A run that goes on from elsewhere has no checkpoint of its own yet.
        let kept = checkpoint_dir(&self.request.output, resumed).is_dir().then_some(resumed);
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
            if save || (interrupted && step > 0 && Some(step) != kept) {
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
        if self.left_out > 0 {
            let sentence = "images of --data that could not be used and were left out";
            self.setup.talk.warn(&format!("{sentence}: {}", self.left_out));
        }
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
            pixels: self.frozen.is_none(),
            skip_bad_rows: self.options.skip_bad_rows,
        };
        self.setup.train.feed(&options, position)
    }

    /// Adds to the mean of the losses, and writes it when it is time.
    fn log(&mut self, loss: f64, grad_norm: f64, learning_rate: f64) -> Result<()> {
        let Setup { state, talk, .. } = &mut self.setup;
        if loss.is_finite() {
            state.loss_sum += loss;
            state.loss_count += 1;
        }
        // None of them: NaN, which is what the losses were.
        let mean = state.loss_sum / state.loss_count as f64;
        let rate = self.samples as f64 / self.seconds.max(1e-9);
        talk.step(state.global_step, mean, learning_rate, rate);
        let ends = state.global_step == state.max_steps;
        if !(state.global_step.is_multiple_of(self.options.logging_steps) || ends) {
            return Ok(());
        }
        let mut line = json!({
            "step": state.global_step,
            "epoch": rounded(state.epoch, 4),
            "loss": if state.loss_count > 0 { json!(mean) } else { Value::Null },
            "grad_norm": grad_norm,
            "learning_rate": learning_rate,
            "samples_per_second": rounded(rate, 3),
        });
        if let Some(scaler) = state.scaler {
            line["loss_scale"] = json!(scaler.scale);
            line["skipped_steps"] = json!(scaler.skipped);
        }
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
        output::rotate(out, self.options.save_total_limit, state.global_step, best)
    }

    fn tell_how_to_go_on(&self) {
        let step = self.setup.state.global_step;
        let place = match step {
            0 => "nothing is lost".to_string(),
            step => format!("{:?} is saved", checkpoint_dir(&self.request.output, step)),
        };
        let how = match &self.request.start {
            _ if step == 0 => "--overwrite-output-dir begins anew",
            Start::Resume(Resume::From(_)) => "--resume-from-checkpoint and no directory goes on",
            Start::Overwrite => "--resume-from-checkpoint for --overwrite-output-dir goes on",
            _ => "--resume-from-checkpoint goes on",
        };
        self.setup.talk.warn(&format!(
            "interrupted after step {step} of {}: {place}; the same command with {how}",
            self.setup.state.max_steps
        ));
    }
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
