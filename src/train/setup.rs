//! Everything a run needs, opened and checked before the first step.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value, json};
use tch::Device;

use super::ctc::CtcHead;
use super::data::{Augment, Dataset, LabelRule, Source, Table, TableOptions};
use super::log::Talk;
use super::material::{self, Material, NO_END};
use super::optim::{AdamW, AdamWOptions, Freeze, parameters};
use super::options::{Options, Start, check_evaluation};
use super::schedule::{Rate, Schedule, warmup_steps};
use super::state::{Companions, TrainState};
use super::{output, resume};
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
    pub train: Source,
    pub labels: LabelRule,
    pub eval: Option<(Dataset, Table)>,
    /// Different images of the two tables; a stream does not know.
    pub images: (Option<usize>, Option<usize>),
    pub ctc: Option<CtcHead>,
    pub optimizer: AdamW,
    pub rate: Rate,
    pub state: TrainState,
    pub talk: Talk,
}

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
    let saved = resume::saved(request, &talk)?;
    let source = match (&saved, &request.model) {
        (Some(saved), _) => saved.dir.clone(),
        (None, Some(model)) => model.clone(),
        (None, None) => bail!("--model is missing: a new run needs a checkpoint to start from"),
    };

    let load = LoadOptions { device: request.device, ..LoadOptions::default() };
    let (model, warnings) = ved::load(&source, load)?;
    model.config.check_channels()?;
    let processor = Processor::from_dir(&source, &model.config)?;
    warnings.iter().chain(&processor.warnings).for_each(|warning| talk.warn(warning));
    model.config.id("decoder_start_token_id").context(NO_START)?;
    model.config.id("pad_token_id").context(NO_START)?;
    let companions = Companions::read(&source, &model, &processor)?;
    let generation = generation(&source, &model, options)?;
    let eos = generation.eos_token_id.first().copied();
    let Material { train, eval, labels, images, longest, fingerprint: data } =
        material::read(request, options, &model, &processor, eos, &talk)?;

    let per_step = options.per_device_train_batch_size * options.gradient_accumulation_steps;
    let steps_per_epoch = train.rows().map(|rows| {
        let batches = (rows as u64).div_ceil(options.per_device_train_batch_size as u64);
        batches.div_ceil(options.gradient_accumulation_steps as u64)
    });
    let all = |an_epoch| (options.num_train_epochs * an_epoch as f64).ceil() as u64;
    let max_steps = options.max_steps.or_else(|| steps_per_epoch.map(all)).context(NO_END)?;
    let rate = Rate {
        schedule,
        learning_rate: options.learning_rate,
        warmup_steps: warmup_steps(options.warmup_steps, options.warmup_ratio, max_steps),
        max_steps,
    };

    let freeze = Freeze { encoder: options.freeze_encoder, decoder: options.freeze_decoder };
    let mut parameters = parameters(model.store(), freeze);
    ensure!(!parameters.is_empty(), "the model has nothing to train");
    let count: usize = parameters.iter().map(|parameter| parameter.tensor.numel()).sum();
    check_trimming(&model, options)?;
    let mut ctc = match options.ctc_weight {
        0.0 => None,
        share => Some(CtcHead::new(&model, share, options.seed)?),
    };
    parameters.extend(ctc.iter().flat_map(CtcHead::parameters));
    let mut optimizer = AdamW::new(
        parameters,
        AdamWOptions {
            betas: (options.adam_beta1, options.adam_beta2),
            eps: options.adam_epsilon,
            weight_decay: options.weight_decay,
            max_grad_norm: options.max_grad_norm,
        },
    );
    let base_model = request.name.clone().unwrap_or_default();
    let mut state =
        TrainState { data: data.clone(), base_model, max_steps, ..TrainState::default() };
    if let Some(saved) = &saved {
        let moments = saved.moments()?;
        let restored = optimizer.restore(&moments);
        let restored = restored.and_then(|()| ctc.iter_mut().try_for_each(|c| c.restore(&moments)));
        restored.with_context(|| format!("{:?}", saved.dir))?;
        state = resume::state(saved, request, options, &data, max_steps, &talk);
    }
    state.scaler = options.fp16.then(|| state.scaler.unwrap_or_default());
    state.options = options.to_map();

    let reader = reader(model, processor, generation, options, longest)?;
    let pace = match steps_per_epoch {
        Some(steps) => format!("{steps} an epoch"),
        None => format!("{per_step} samples each"),
    };
    talk.say(&format!(
        "{:.1} million of {:.1} million parameters are trained, {max_steps} steps, {pace}",
        count as f64 / 1e6,
        reader.model.store().variables().iter().map(|v| v.tensor.numel()).sum::<usize>() as f64
            / 1e6,
    ));
    clear(request)?;
    talk.restart(&state.log_history)?;
    Ok(Setup { reader, companions, train, labels, eval, images, ctc, optimizer, rate, state, talk })
}

/// Trimming needs an encoder that can do without columns.
fn check_trimming(model: &VisionEncoderDecoder, options: &Options) -> Result<()> {
    ensure!(
        options.trim_padding == 0.0 || model.encoder.by_columns().is_some(),
        "--trim-padding: the encoder keeps no columns of patches in order; it works with vit"
    );
    Ok(())
}

const NO_START: &str = "config.json needs decoder_start_token_id and pad_token_id at its top level to \
                        train with labels; set them there";

/// Makes the output directory, removes what is half written, and an earlier run if that was asked for.
fn clear(request: &Request) -> Result<()> {
    let out = &request.output;
    std::fs::create_dir_all(out).with_context(|| format!("can't make {out:?}"))?;
    output::sweep(out)?;
    if request.start == Start::Overwrite {
        output::clear(out)?;
    }
    Ok(())
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
    longest: usize,
) -> Result<Reader> {
    // A model that has not learnt to stop yet would write to the limit of its positions under every
    // image. Twice the longest label is enough to be wrong.
    let bound = 2 * longest as i64 + 8;
    generation.max_new_tokens = Some(match generation.max_new_tokens {
        Some(tokens) => tokens.min(bound),
        None => (generation.total_length(1) - 1).min(bound),
    });
    let prompt = vec![generation.start_token()?];
    Ok(Reader {
        batch_size: options.per_device_eval_batch_size,
        seed: options.seed,
        workers: options.workers(),
        ..Reader::new(model, processor, generation, prompt)
    })
}
