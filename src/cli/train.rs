//! `vedm train`: options settled, then the loop of `crate::train`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::Verdict;
use super::download::{self, HubArgs};
use super::train_args::{DataArgs, EvaluationArgs, LearningArgs};
use super::typed::threads;
use crate::device;
use crate::device::DeviceChoice;
use crate::models::Need;
use crate::train::options::{Options, Resume, Start};
use crate::train::{self, Outcome, Request};

#[derive(Args)]
#[command(after_help = super::args::ENVIRONMENT)]
pub(super) struct TrainArgs {
    /// Checkpoint to start from: a directory, or a name on the Hub
    #[arg(short, long, env = "VEDM_MODEL", hide_env = true)]
    #[arg(required_unless_present = "resume_from_checkpoint")]
    pub model: Option<String>,

    /// Directory of the trained model and its checkpoints
    #[arg(short, long, env = "VEDM_OUTPUT", hide_env = true, value_name = "OUT")]
    pub output: PathBuf,

    /// Go on from a checkpoint [default: the newest in OUT]
    #[arg(long, env = "VEDM_RESUME_FROM_CHECKPOINT", hide_env = true, value_name = "DIR")]
    #[arg(num_args = 0..=1)]
    pub resume_from_checkpoint: Option<Option<PathBuf>>,

    /// Remove what an earlier run left in OUT
    #[arg(long, env = "VEDM_OVERWRITE_OUTPUT_DIR", hide_env = true)]
    #[arg(conflicts_with = "resume_from_checkpoint")]
    pub overwrite_output_dir: bool,

    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub learning: LearningArgs,
    #[command(flatten)]
    pub evaluation: EvaluationArgs,

    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, env = "VEDM_DEVICE", hide_env = true, default_value = "auto")]
    #[arg(help_heading = "Machine")]
    pub device: DeviceChoice,

    /// Threads of one operation [default: one a core]
    #[arg(long, env = "VEDM_THREADS", hide_env = true, value_name = "N", value_parser = threads)]
    #[arg(help_heading = "Machine")]
    pub threads: Option<usize>,

    #[command(flatten)]
    pub hub: HubArgs,

    /// Say nothing but warnings and errors on standard error
    #[arg(short, long, env = "VEDM_QUIET", hide_env = true, help_heading = "Machine")]
    pub quiet: bool,
}

/// Trains, and says where the model is.
pub(super) fn run(args: &TrainArgs) -> Result<Verdict> {
    let options = options(args);
    options.check()?;
    device::set_threads(args.threads)?;
    let device = args.device.resolve()?;
    let model = match &args.model {
        Some(name) => Some(download::find(name, Need::Model, None, &args.hub, args.quiet)?),
        None => None,
    };
    let request = Request {
        model,
        name: args.model.clone(),
        output: args.output.clone(),
        start: start(args),
        device,
        data: args.data.data.clone(),
        eval_data: args.data.eval_data.clone(),
        columns: args.data.columns.options(),
        quiet: args.quiet,
    };
    let outcome = train::run(&request, &options).with_context(|| format!("{:?}", args.output));
    Ok(match outcome? {
        Outcome::Done => Verdict::Done,
        Outcome::Interrupted => Verdict::Interrupted,
    })
}

fn start(args: &TrainArgs) -> Start {
    match &args.resume_from_checkpoint {
        Some(Some(dir)) => Start::Resume(Resume::From(dir.clone())),
        Some(None) => Start::Resume(Resume::Newest),
        None if args.overwrite_output_dir => Start::Overwrite,
        None => Start::Fresh,
    }
}

fn options(args: &TrainArgs) -> Options {
    let TrainArgs { data, learning, evaluation, .. } = args;
    Options {
        learning_rate: learning.learning_rate,
        num_train_epochs: learning.num_train_epochs,
        max_steps: learning.max_steps,
        per_device_train_batch_size: learning.per_device_train_batch_size,
        per_device_eval_batch_size: evaluation.per_device_eval_batch_size,
        gradient_accumulation_steps: learning.gradient_accumulation_steps,
        weight_decay: learning.weight_decay,
        adam_beta1: learning.adam_beta1,
        adam_beta2: learning.adam_beta2,
        adam_epsilon: learning.adam_epsilon,
        max_grad_norm: learning.max_grad_norm,
        lr_scheduler_type: learning.lr_scheduler_type.clone(),
        warmup_steps: learning.warmup_steps,
        warmup_ratio: learning.warmup_ratio,
        label_smoothing_factor: learning.label_smoothing_factor,
        ctc_weight: learning.ctc_weight,
        trim_padding: learning.trim_padding,
        fp16: learning.fp16,
        bf16: learning.bf16,
        gradient_checkpointing: learning.gradient_checkpointing,
        seed: learning.seed,
        eval_steps: evaluation.eval_steps,
        save_steps: evaluation.save_steps,
        logging_steps: evaluation.logging_steps,
        save_total_limit: Some(evaluation.save_total_limit),
        load_best_model_at_end: evaluation.load_best_model_at_end,
        metric_for_best_model: evaluation.metric_for_best_model.clone(),
        early_stopping_patience: evaluation.early_stopping_patience,
        max_target_length: data.max_target_length,
        freeze_encoder: learning.freeze_encoder,
        freeze_decoder: learning.freeze_decoder,
        augment: data.augment.clone(),
        group_by_length: data.group_by_length,
        generation_num_beams: evaluation.generation_num_beams,
        eval_samples: data.eval_samples,
        eval_split: data.eval_split,
        dataloader_num_workers: data.dataloader_num_workers,
        skip_bad_rows: data.skip_bad_rows,
    }
}
