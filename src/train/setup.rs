//! Everything a run needs, opened and checked before the first step.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tch::Device;

use super::data::check::{CACHE_BYTES, CheckOptions, Prepared, prepare};
use super::data::{Augment, Dataset, Labeller, Table, TableOptions};
use super::log::{METRICS, Talk};
use super::optim::{AdamW, AdamWOptions, Freeze, parameters};
use super::options::{Options, Resume, Start, check_evaluation};
use super::schedule::{Rate, Schedule, warmup_steps};
use super::state::{self, Companions, Fingerprint, Saved, TrainState};
use crate::image::DecodeOptions;
use crate::pipeline::Reader;
use crate::ved::config::read_json_if_there;
use crate::ved::generation::GenerationConfig;
use crate::ved::{self, LoadOptions, Processor, VisionEncoderDecoder};

/// What is trained on what, and where.
#[derive(Clone, Debug)]
pub struct Request {
    /// Directory of the model to start from; a resumed run may do without.
    pub model: Option<PathBuf>,
    /// The model as the user named it.
    pub name: Option<String>,
    pub output: PathBuf,
    pub start: Start,
    pub device: Device,
    pub data: PathBuf,
    pub eval_data: Option<PathBuf>,
    pub columns: TableOptions,
    pub quiet: bool,
}

/// A run, ready to go.
pub struct Setup {
    /// Owns the model.
    pub reader: Reader,
    pub companions: Companions,
    pub train: Dataset,
    pub eval: Option<(Dataset, Table)>,
    /// Different images of the two tables.
    pub images: (usize, Option<usize>),
    pub optimizer: AdamW,
    pub rate: Rate,
    pub state: TrainState,
    pub talk: Talk,
}

/// Longest label of a decoder that counts its positions without end.
const MAX_TARGET_LENGTH: usize = 512;

/// Opens everything. Nothing is written or removed unless all of it is fit to train.
pub fn open(request: &Request, options: &Options) -> Result<Setup> {
    let mut talk = Talk::new(&request.output, request.quiet);
    let schedule: Schedule = options
        .lr_scheduler_type
        .parse()
        .map_err(|reason| anyhow!("--lr-scheduler-type {}: {reason}", options.lr_scheduler_type))?;
    check_evaluation(options, request.eval_data.is_some() || options.eval_split.is_some())?;
    if let Some(names) = &options.augment {
        names.parse::<Augment>().context("--augment")?;
    }
    let saved = saved(request, &talk)?;
    let source = match (&saved, &request.model) {
        (Some(saved), _) => saved.dir.clone(),
        (None, Some(model)) => model.clone(),
        (None, None) => bail!("--model is missing: a new run needs a checkpoint to start from"),
    };

    let load = LoadOptions { device: request.device, ..LoadOptions::default() };
    let (model, warnings) = ved::load(&source, load)?;
    let processor = Processor::from_dir(&source, &model.config)?;
    warnings.iter().chain(&processor.warnings).for_each(|warning| talk.warn(warning));
    model.config.id("decoder_start_token_id").context(NO_START)?;
    model.config.id("pad_token_id").context(NO_START)?;
    let companions = Companions::read(&source, &model, &processor)?;
    let generation = generation(&source, &model, options)?;
    let eos = generation.eos_token_id.first().copied();
    let (train, eval) = data(request, options, &model, &processor, eos, &talk)?;

    let batches = (train.dataset.len() as u64).div_ceil(options.per_device_train_batch_size as u64);
    let steps_per_epoch = batches.div_ceil(options.gradient_accumulation_steps as u64);
    let all = (options.num_train_epochs * steps_per_epoch as f64).ceil() as u64;
    let max_steps = options.max_steps.unwrap_or(all);
    let rate = Rate {
        schedule,
        learning_rate: options.learning_rate,
        warmup_steps: warmup_steps(options.warmup_steps, options.warmup_ratio, max_steps),
        max_steps,
    };

    let freeze = Freeze { encoder: options.freeze_encoder, decoder: options.freeze_decoder };
    let parameters = parameters(model.store(), freeze);
    ensure!(!parameters.is_empty(), "the model has nothing to train");
    let count: usize = parameters.iter().map(|parameter| parameter.tensor.numel()).sum();
    let mut optimizer = AdamW::new(
        parameters,
        AdamWOptions {
            betas: (options.adam_beta1, options.adam_beta2),
            eps: options.adam_epsilon,
            weight_decay: options.weight_decay,
            max_grad_norm: options.max_grad_norm,
        },
    );
    let data = fingerprint(&train, eval.as_ref());
    let base_model = request.name.clone().unwrap_or_default();
    let mut state = TrainState { data: data.clone(), base_model, ..TrainState::default() };
    if let Some(saved) = &saved {
        optimizer.restore(&saved.moments()?).with_context(|| format!("{:?}", saved.dir))?;
        state = saved.state.clone();
        tell_changes(&state, options, &data, &talk);
        state.data = data;
    }
    state.scaler = options.fp16.then(|| state.scaler.unwrap_or_default());
    state.max_steps = max_steps;
    state.options = options.to_map();

    let reader = reader(model, processor, generation, options, &train, eval.as_ref())?;
    talk.say(&format!(
        "{:.1} million of {:.1} million parameters are trained, {max_steps} steps, {steps_per_epoch} an epoch",
        count as f64 / 1e6,
        reader.model.store().variables().iter().map(|v| v.tensor.numel()).sum::<usize>() as f64 / 1e6,
    ));
    clear(request)?;
    talk.restart(&state.log_history)?;
    let images = (train.report.images, eval.as_ref().map(|eval| eval.report.images));
    let eval = eval.map(|eval| (eval.dataset, eval.table));
    let train = train.dataset;
    Ok(Setup { reader, companions, train, eval, images, optimizer, rate, state, talk })
}

/// How the table of `--data` is called.
const TRAINING: &str = "training data";

const NO_START: &str = "config.json needs decoder_start_token_id and pad_token_id at its top level to \
                        train with labels; set them there";

/// The checkpoint to go on from, after a look at what lies in the output directory.
fn saved(request: &Request, talk: &Talk) -> Result<Option<Saved>> {
    let out = &request.output;
    ensure!(!out.is_file(), "--output {out:?} is a file, the output is a directory");
    if let Some(model) = &request.model
        && model.canonicalize().ok() == out.canonicalize().ok()
    {
        bail!("--output {out:?} is the model itself; train into another directory");
    }
    let has_model = ["config.json", METRICS].iter().any(|name| out.join(name).exists());
    match &request.start {
        Start::Resume(Resume::From(dir)) => Saved::open(dir).map(Some),
        Start::Resume(Resume::Newest) => {
            let (saved, notes) = Saved::newest(out)?;
            notes.iter().for_each(|note| talk.warn(note));
            Ok(Some(saved))
        }
        Start::Overwrite => {
            if let Some(model) = &request.model {
                let inside = model
                    .canonicalize()
                    .is_ok_and(|model| out.canonicalize().is_ok_and(|out| model.starts_with(out)));
                ensure!(!inside, "the model {model:?} lies in {out:?}, which is to be overwritten");
            }
            Ok(None)
        }
        Start::Fresh => {
            if let Some((step, _)) = state::checkpoints(out)?.last() {
                bail!(
                    "{out:?} holds checkpoint-{step} of an earlier run: pass --resume-from-checkpoint \
                     to go on with it, or --overwrite-output-dir to start anew"
                );
            }
            ensure!(
                !has_model,
                "{out:?} holds a model already: choose another directory, or pass \
                 --overwrite-output-dir"
            );
            Ok(None)
        }
    }
}

/// Makes the output directory, removes what is half written, and an earlier run if that was asked for.
fn clear(request: &Request) -> Result<()> {
    let out = &request.output;
    std::fs::create_dir_all(out).with_context(|| format!("can't make {out:?}"))?;
    state::sweep(out)?;
    if request.start == Start::Overwrite {
        state::clear(out)?;
    }
    Ok(())
}

/// Reads and checks the tables.
fn data(
    request: &Request,
    options: &Options,
    model: &VisionEncoderDecoder,
    processor: &Processor,
    eos: Option<i64>,
    talk: &Talk,
) -> Result<(Prepared, Option<Prepared>)> {
    let table = Table::read(&request.data, &request.columns)?;
    let (table, eval) = match (&request.eval_data, options.eval_split) {
        (Some(path), _) => (table, Some(Table::read(path, &request.columns)?)),
        (None, Some(part)) => table.split(part, options.seed).map(|(t, e)| (t, Some(e)))?,
        (None, None) => (table, None),
    };
    let eval = eval.map(|mut eval| {
        eval.rows.truncate(options.eval_samples.unwrap_or(usize::MAX));
        eval
    });

    let limits = model.decoder.limits();
    let positions = limits.max_positions.map_or(MAX_TARGET_LENGTH, |most| most as usize);
    let wanted = options.max_target_length.unwrap_or(positions.min(MAX_TARGET_LENGTH));
    ensure!(
        limits.max_positions.is_none() || wanted <= positions,
        "--max-target-length {wanted}: the decoder has {positions} positions"
    );
    let labeller = Labeller::new(&processor.tokenizer, eos, wanted, limits.vocab_size)?;
    let check = |table: Table, what: &str, arranged: bool| -> Result<Prepared> {
        let options = CheckOptions {
            skip_bad_rows: options.skip_bad_rows,
            decode: DecodeOptions::default(),
            cache_bytes: CACHE_BYTES,
            arranged,
        };
        let counting = talk.counting(&format!("checking the {what}"));
        let progress = |done, all| counting.done(done, all);
        let prepared = prepare(table, &labeller, &processor.image_processor, &options, &progress)?;
        drop(counting);
        let is_example = |sentence: &str| sentence.starts_with("label ");
        for sentence in prepared.report.sentences() {
            // The labels of one table show what the tokenizer does.
            if what == TRAINING || !is_example(&sentence) {
                talk.say(&format!("{what}: {sentence}"));
            }
        }
        Ok(prepared)
    };
    let train = check(table, TRAINING, options.augment.is_none())?;
    let eval = eval.map(|eval| check(eval, "evaluation data", true)).transpose()?;
    if let Some(eval) = &eval {
        match train.report.shared_images(&eval.report) {
            0 => {}
            shared => talk.warn(&format!(
                "{shared} images of the evaluation data are in the training data as well: the scores \
                 will flatter"
            )),
        }
    }
    Ok((train, eval))
}

/// What the rows are, so that a resumed run can tell that they changed.
fn fingerprint(train: &Prepared, eval: Option<&Prepared>) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in [Some(train), eval].into_iter().flatten() {
        for (row, sample) in part.table.rows.iter().zip(part.dataset.rows()) {
            hash.update(row.image.name().as_bytes());
            hash.update([0]);
            sample.label.iter().for_each(|id| hash.update(id.to_le_bytes()));
            hash.update([0]);
        }
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let eval_rows = eval.map_or(0, |eval| eval.dataset.len());
    Fingerprint { train_rows: train.dataset.len(), eval_rows, sha256 }
}

/// A resumed run says how it differs from the one that is gone on with.
fn tell_changes(state: &TrainState, options: &Options, data: &Fingerprint, talk: &Talk) {
    talk.say(&format!("going on after step {} of {}", state.global_step, state.max_steps));
    let changes = options.changes_since(&state.options);
    if !changes.is_empty() {
        talk.warn(&format!("options differ from the checkpoint's: {}", changes.join(", ")));
    }
    if state.data != *data {
        talk.warn(&format!(
            "the data is not the checkpoint's ({} rows to train on then, {} now): the run goes on at \
             the same place of it",
            state.data.train_rows, data.train_rows
        ));
    }
}

/// The settings that evaluations generate with.
fn generation(
    source: &Path,
    model: &VisionEncoderDecoder,
    options: &Options,
) -> Result<GenerationConfig> {
    let mut overrides = Map::new();
    if let Some(beams) = options.generation_num_beams {
        overrides.insert("num_beams".into(), json!(beams));
    }
    let file: Option<Value> = read_json_if_there(&source.join("generation_config.json"))?;
    Ok(model.generation_config(&overrides, file.as_ref(), false)?.0)
}

/// The model as evaluations read with it.
fn reader(
    model: VisionEncoderDecoder,
    processor: Processor,
    mut generation: GenerationConfig,
    options: &Options,
    train: &Prepared,
    eval: Option<&Prepared>,
) -> Result<Reader> {
    // A model that has not learnt to stop yet would write to the limit of its positions under every
    // image. Twice the longest label is enough to be wrong.
    let longest = [Some(train), eval].into_iter().flatten().map(|part| part.report.tokens.1).max();
    let bound = 2 * longest.unwrap_or(0) as i64 + 8;
    generation.max_new_tokens = Some(match generation.max_new_tokens {
        Some(tokens) => tokens.min(bound),
        None => (generation.total_length(1) - 1).min(bound),
    });
    let prompt = vec![generation.start_token()?];
    Ok(Reader {
        model,
        processor,
        generation,
        prompt,
        decode: DecodeOptions::default(),
        batch_size: options.per_device_eval_batch_size,
        seed: options.seed,
        interpolate: false,
        loop_detector: None,
        allowed: None,
        blank: None,
        pages: None,
        cut: None,
        workers: options.workers(),
    })
}
