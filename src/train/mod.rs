//! Training: the loop, flat, from top to bottom. What it stands on lies beside it.

pub mod card;
pub mod data;

                    && (ends || interval.due(step, max_steps, epoch_ends))
                    && interval != Interval::Never
                 checkpoint is as it was)"
                 grad_norm {grad_norm:.3}  {rate:.1} samples/s  {} left",
                "--metric-for-best-model {name:?} is not measured; there are {}",
                "step {}/{}  epoch {:.2}  loss {mean:.4}  learning_rate {learning_rate:.2e}  \
                "{sentence}; this is the {MAX_NON_FINITE}th such step in a row, the run ends (the last \
                .with_context(|| format!("the best model, {dir:?}, can't be read"))?;
                / state.global_step.max(1) as f64;
                break;
                known.join(", ")
                let loss = self.micro_step(batch, items as i64)?;
                log::duration(left)
                return Ok(Outcome::Interrupted);
                return Ok(false);
                save |= self.evaluate()?;
                self.save()?;
                self.tell_how_to_go_on();
                state.epoch,
                state.global_step,
                state.max_steps,
                step > 0
                tch::no_grad(|| loss::forward(model, &pixel_values, &labels, 1, 0.0, false))
                total += loss;
             --resume-from-checkpoint goes on",
             --warmup-ratio",
            "epoch": rounded(state.epoch, 4),
            "evaluation after step {}: {name} {metric:.4}{}",
            "grad_norm": grad_norm,
            "interrupted after step {step} of {}: {place}; the same command with \
            "learning_rate": learning_rate,
            "loss": if state.loss_count > 0 { json!(mean) } else { Value::Null },
            "samples_per_second": rounded(rate, 3),
            "step {}: the {what} is no finite number, the step is left out; lower --learning-rate, raise \
            "step": state.global_step,
            "{} holds the model after {} steps, {}",
            && best != state.global_step
            ));
            );
            .context("the trained model could not be written")?;
            None => metric.is_finite(),
            Ok((total.double_value(&[]), grad_norm))
            Some(best) => metric < best,
            Some(best) if greater_is_better(&name) => metric > best,
            bail!(
            batch_size: self.options.per_device_eval_batch_size,
            batch_size: self.options.per_device_train_batch_size,
            epochs: None,
            epochs: Some(1),
            for batch in &group {
            group.push(batch);
            group_by_length: false,
            group_by_length: self.options.group_by_length,
            if due(self.options.eval_steps) && self.setup.state.evaluated_step != Some(step) {
            if ends || self.patience_is_over() {
            if epoch_ends {
            if gain { ", the best so far" } else { "" }
            if interrupted {
            if save || (interrupted && step != resumed) {
            if signals::asked() {
            items += loss::items(&labels);
            let Setup { optimizer, .. } = &mut self.setup;
            let batch = batch?;
            let batch = batches.next().context("the data ended before the run")??;
            let dir = state::checkpoint_dir(out, best);
            let due = |interval: Interval| {
            let ends = step >= max_steps || self.patience_is_over();
            let epoch_ends = batch.next.index == 0;
            let epoch_ends = step > 0 && self.setup.state.position.index == 0;
            let grad_norm = optimizer.step(&mut self.gradients, learning_rate);
            let interrupted = signals::asked();
            let known: Vec<&str> = figures.keys().map(|name| &name["eval_".len()..]).collect();
            let labels = batch.label_ids().to_device(self.request.device);
            let left = (state.max_steps - state.global_step) as f64 * state.seconds
            let loss = guarded(|| {
            let model = &self.setup.reader.model;
            let mut save = due(self.options.save_steps) && step != resumed;
            let mut total = Tensor::zeros([], (Kind::Float, self.request.device));
            let pixel_values = batch.pixel_values().to_device(self.request.device);
            let step = self.setup.state.global_step;
            log::duration(state.seconds)
            out.display(),
            return Ok(());
            seed: 0,
            seed: self.options.seed,
            self.setup.state.max_steps
            self.step(&mut batches)?;
            shuffle: false,
            shuffle: true,
            state.best_global_step = Some(state.global_step);
            state.best_metric = Some(metric);
            state.evaluations_without_gain += 1;
            state.evaluations_without_gain = 0;
            state.global_step
            state.global_step,
            state.loss_count += 1;
            state.loss_sum += loss;
            state.non_finite = 0;
            sum += loss.double_value(&[]);
            take_weights(reader, &dir)
            talk.say(&format!(
            talk.say(&format!("the model of step {best} is the best and is kept"));
            workers: Some(self.options.workers()),
            }
            })?;
            };
         --gradient-accumulation-steps by as much (what is learnt stays the same), or pass \
         --gradient-checkpointing, --bf16 or a smaller --max-target-length"
        "the memory does not suffice: lower --per-device-train-batch-size and raise \
        (self.samples, self.seconds) = (0, 0.0);
        (state.loss_sum, state.loss_count) = (0.0, 0);
        ));
        );
        .any(|sign| text.contains(sign))
        .iter()
        // Dropout is a function of seed and place alone: no state of a generator has to be saved, and
        // a resumed run draws what the uninterrupted one would have. Seeds the CPU and all GPUs.
        Err(panic) => panic,
        Ok(())
        Ok(Outcome::Done)
        Ok(done) => return done,
        Ok(gain && self.options.load_best_model_at_end)
        Ok(loss.detach())
        drop(batches);
        figures.insert("eval_loss".into(), json!(sum / items.max(1) as f64));
        figures.insert("eval_seconds".into(), json!(rounded(seconds, 3)));
        for batch in dataset.batches(&options, Position::default())? {
        if !(state.global_step.is_multiple_of(self.options.logging_steps) || ends) {
        if !talk.has_bar() {
        if gain {
        if let Some(best) = state.best_global_step.filter(|_| self.options.load_best_model_at_end)
        if loss.is_finite() && grad_norm.is_finite() {
        if loss.is_finite() {
        if state.non_finite >= MAX_NON_FINITE {
        let (loss, grad_norm) = guarded(|| {
        let (mut sum, mut items) = (0.0, 0);
        let Setup { state, optimizer, reader, companions, talk, .. } = &mut self.setup;
        let Setup { state, reader, companions, talk, .. } = &mut self.setup;
        let Setup { state, talk, .. } = &mut self.setup;
        let Some((dataset, _)) = &self.setup.eval else { return Ok(false) };
        let Some(metric) = figures.get(&name).and_then(Value::as_f64) else {
        let best = state.best_global_step.filter(|_| self.options.load_best_model_at_end);
        let ends = state.global_step == state.max_steps;
        let gain = match state.best_metric {
        let items: usize = group.iter().flat_map(|batch| &batch.labels).map(Vec::len).sum();
        let labels = batch.label_ids().to_device(self.request.device);
        let learning_rate = self.setup.rate.at(self.setup.state.global_step);
        let line = Value::Object(line);
        let line = json!({
        let loss = loss::forward(model, &pixel_values, &labels, items, smoothing, true)?;
        let max_steps = self.setup.state.max_steps;
        let mean = state.loss_sum / state.loss_count.max(1) as f64;
        let model = &self.setup.reader.model;
        let mut batches = self.batches(self.setup.state.position)?;
        let mut figures = Map::new();
        let mut group: Vec<Batch> = Vec::new();
        let mut line = Map::new();
        let name = eval_name(self.options.metric_for_best_model.as_deref().unwrap_or("loss"));
        let options = BatchOptions {
        let out = &self.request.output;
        let patience = self.options.early_stopping_patience;
        let pixel_values = batch.pixel_values().to_device(self.request.device);
        let place = if step > 0 { format!("{place:?} is saved") } else { "nothing is lost".into() };
        let place = state::checkpoint_dir(&self.request.output, step);
        let rate = self.samples as f64 / self.seconds.max(1e-9);
        let resumed = self.setup.state.global_step;
        let rows = self.setup.train.len() as f64;
        let samples: usize = group.iter().map(|batch| batch.labels.len()).sum();
        let seconds = start.elapsed().as_secs_f64();
        let sentence = format!(
        let smoothing = self.options.label_smoothing_factor;
        let start = Instant::now();
        let state = &mut self.setup.state;
        let step = self.setup.state.global_step;
        let value = file.tensor(&variable.name)?;
        let what = if loss.is_finite() { "gradient" } else { "loss" };
        line.extend(figures);
        line.insert("epoch".into(), json!(rounded(state.epoch, 4)));
        line.insert("step".into(), json!(state.global_step));
        loop {
        patience.is_some_and(|most| self.setup.state.evaluations_without_gain >= most)
        self.finish()?;
        self.gradients.add(&loss, self.setup.optimizer.parameters());
        self.judge(figures)
        self.log(loss, grad_norm, learning_rate)
        self.look_at(loss, grad_norm)?;
        self.samples += samples as u64;
        self.seconds += seconds;
        self.setup.state.micro_step += 1;
        self.setup.talk.doing("evaluating");
        self.setup.talk.start(resumed, max_steps);
        self.setup.talk.warn(&format!(
        self.setup.talk.warn(&sentence);
        self.setup.train.batches(&options, position)
        state.epoch = state.position.epoch as f64 + state.position.index as f64 / rows;
        state.evaluated_step = Some(state.global_step);
        state.global_step += 1;
        state.log_history.push(line);
        state.non_finite += 1;
        state.position = group.last().map_or(state.position, |batch| batch.next);
        state.seconds += seconds;
        state::rotate(out, self.options.save_total_limit, best)
        state::save(out, state, &reader.model, companions, &optimizer.state())?;
        state::write_model(out, &reader.model, companions)
        std::panic::resume_unwind(panic);
        talk.doing("saving");
        talk.metrics(&line)?;
        talk.say(&format!(
        talk.step(state.global_step, mean, learning_rate, rate);
        tch::manual_seed(seed_of(self.options.seed, self.setup.state.micro_step));
        tch::no_grad(|| variable.tensor.copy_(&value));
        while group.len() < self.options.gradient_accumulation_steps {
        {
        }
        } else {
        });
        })?;
        };
    (value * scale).round() / scale
    (z ^ (z >> 31)) as i64
    )
    /// Adds to the mean of the losses, and writes it when it is time.
    /// Asked to stop; a checkpoint was saved.
    /// Forward and backward pass of one batch; gives its share of the loss. -> []
    /// Loss and texts on the evaluation data. True if a checkpoint should keep what was found.
    /// One step of the optimizer over as many batches as are accumulated; an epoch's end closes a step.
    /// Samples and seconds of steps since the last line of the log.
    /// Says so at once when numbers leave the finite, and ends a run that stays there. The optimizer has
    /// The final or the best model into the output directory.
    /// The loop. What is due after a step is done at the head of the next round, so that a run which
    /// Writes `checkpoint-N`, then removes those beyond the limit.
    /// Writes the figures down and compares them with the best so far.
    /// not moved in such a step.
    /// was interrupted in an evaluation begins with it when it is resumed.
    Done,
    Interrupted,
    Ok(())
    bail!(
    fn batches(&self, position: Position) -> Result<Batches> {
    fn evaluate(&mut self) -> Result<bool> {
    fn finish(&mut self) -> Result<()> {
    fn go(&mut self) -> Result<Outcome> {
    fn judge(&mut self, figures: Map<String, Value>) -> Result<bool> {
    fn log(&mut self, loss: f64, grad_norm: f64, learning_rate: f64) -> Result<()> {
    fn look_at(&mut self, loss: f64, grad_norm: f64) -> Result<()> {
    fn micro_step(&mut self, batch: &Batch, items: i64) -> Result<Tensor> {
    fn patience_is_over(&self) -> bool {
    fn save(&mut self) -> Result<()> {
    fn step(&mut self, batches: &mut Batches) -> Result<()> {
    fn tell_how_to_go_on(&self) {
    for mut variable in reader.model.store().variables() {
    gradients: Gradients,
    if !["out of memory", "not enough memory", "can't allocate memory"]
    let file = Checkpoint::open(dir)?;
    let gradients = Gradients::new(setup.optimizer.parameters().len());
    let mut run = Run { request, options, setup, gradients, samples: 0, seconds: 0.0 };
    let mut z = seed.wrapping_add((micro_step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let outcome = run.go();
    let panic = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
    let scale = 10f64.powi(digits);
    let setup = setup::open(request, options)?;
    let text = panic.downcast_ref::<String>().map_or("", String::as_str);
    options: &'a Options,
    outcome
    request: &'a Request,
    run.setup.talk.stop();
    samples: u64,
    seconds: f64,
    setup: Setup,
    signals::listen()?;
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    {
    }
    };
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
///
/// A number that looks random, from the seed of the run and the number of the forward pass (the
/// A run and its settings.
/// How a run ended.
/// Operators of libtorch panic in this crate, once shapes are checked; memory alone is not ours to check.
/// Runs work on the model; memory that does not suffice becomes a sentence.
/// Steps in a row without a finite loss after which a run ends.
/// The weights of a checkpoint into the variables of a model.
/// Trains from the first step, or from where a checkpoint stands, to the end.
/// finaliser of SplitMix64, Steele et al. 2014).
const MAX_NON_FINITE: u64 = 5;
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
fn rounded(value: f64, digits: i32) -> f64 {
fn seed_of(seed: u64, micro_step: u64) -> i64 {
fn take_weights(reader: &crate::pipeline::Reader, dir: &std::path::Path) -> Result<()> {
impl Run<'_> {
pub enum Outcome {
pub fn run(request: &Request, options: &Options) -> Result<Outcome> {
pub mod evaluate;
pub mod log;
pub mod loss;
pub mod optim;
pub mod options;
pub mod plot;
pub mod report;
pub mod schedule;
pub mod setup;
pub mod signals;
pub mod state;
pub use setup::Request;
struct Run<'a> {
use anyhow::{Context, Result, bail};
use crate::checkpoint::Checkpoint;
use data::{Batch, BatchOptions, Batches, Position};
use optim::Gradients;
use options::{Interval, Options, eval_name, greater_is_better};
use serde_json::{Map, Value, json};
use setup::Setup;
use std::time::Instant;
use tch::{Kind, Tensor};
}
