//! The flags of `train`, as typed, and the options they become.

use std::path::PathBuf;

use clap::Args;

use crate::train::data::TableOptions;
use crate::train::options::Interval;

/// Which columns of a table hold what: of `train` and `eval`.
#[derive(Args)]
pub(super) struct ColumnArgs {
    /// Column of the image paths [default: image, file_name or image_path]
    #[arg(
        long,
        env = "VEDM_IMAGE_COLUMN",
        hide_env = true,
        value_name = "NAME",
        hide_short_help = true
    )]
    image_column: Option<String>,

    /// Column of the texts [default: text or caption]
    #[arg(
        long,
        env = "VEDM_TEXT_COLUMN",
        hide_env = true,
        value_name = "NAME",
        hide_short_help = true
    )]
    text_column: Option<String>,
}

impl ColumnArgs {
    /// As tables are read with.
    pub(super) fn options(&self) -> TableOptions {
        TableOptions {
            image_column: self.image_column.clone(),
            text_column: self.text_column.clone(),
        }
    }
}

#[derive(Args)]
#[command(next_help_heading = "Data")]
pub(super) struct DataArgs {
    /// Images and texts: .csv, .jsonl, .tar, a folder of pairs, or pipe:COMMAND
    ///
    /// The command of pipe: writes a tar stream of KEY.png and KEY.txt pairs without end; {skip} in it
    /// becomes the number of samples that a resumed run has taken already.
    #[arg(long, env = "VEDM_DATA", hide_env = true, value_name = "FILE")]
    pub data: PathBuf,

    /// Table to evaluate on
    #[arg(long, env = "VEDM_EVAL_DATA", hide_env = true, value_name = "FILE")]
    pub eval_data: Option<PathBuf>,

    /// Keep this share of the images of --data for evaluation
    #[arg(
        long,
        env = "VEDM_EVAL_SPLIT",
        hide_env = true,
        value_name = "SHARE",
        conflicts_with = "eval_data"
    )]
    pub eval_split: Option<f64>,

    /// Evaluate on at most so many rows
    #[arg(
        long,
        env = "VEDM_EVAL_SAMPLES",
        hide_env = true,
        value_name = "N",
        hide_short_help = true
    )]
    pub eval_samples: Option<usize>,

    #[command(flatten)]
    pub columns: ColumnArgs,

    /// Leave out rows that can't be used instead of refusing the table
    #[arg(long, env = "VEDM_SKIP_BAD_ROWS", hide_env = true)]
    pub skip_bad_rows: bool,

    /// Cut labels to so many tokens [default: what the decoder's positions allow]
    #[arg(
        long,
        env = "VEDM_MAX_TARGET_LENGTH",
        hide_env = true,
        value_name = "N",
        hide_short_help = true
    )]
    pub max_target_length: Option<usize>,

    /// Vary the images: light, ocr, caption, or single changes [alone: light]
    #[arg(long, env = "VEDM_AUGMENT", hide_env = true, value_name = "HOW")]
    #[arg(num_args = 0..=1, default_missing_value = "light")]
    pub augment: Option<String>,

    /// Put labels of similar length into one batch (with --trim-padding, of a stream: pictures of similar
    /// shape)
    #[arg(long, env = "VEDM_GROUP_BY_LENGTH", hide_env = true, hide_short_help = true)]
    pub group_by_length: bool,

    /// Threads that decode images [default: by the cores]
    #[arg(
        long,
        env = "VEDM_DATALOADER_NUM_WORKERS",
        hide_env = true,
        value_name = "N",
        hide_short_help = true
    )]
    pub dataloader_num_workers: Option<usize>,
}

#[derive(Args)]
#[command(next_help_heading = "Learning")]
pub(super) struct LearningArgs {
    /// Highest learning rate of AdamW
    #[arg(
        long,
        env = "VEDM_LEARNING_RATE",
        hide_env = true,
        value_name = "X",
        default_value = "5e-5"
    )]
    pub learning_rate: f64,

    /// Times to go through the data
    #[arg(
        long,
        env = "VEDM_NUM_TRAIN_EPOCHS",
        hide_env = true,
        value_name = "N",
        default_value = "3"
    )]
    pub num_train_epochs: f64,

    /// Steps of the optimizer; beats --num-train-epochs
    #[arg(long, env = "VEDM_MAX_STEPS", hide_env = true, value_name = "N")]
    pub max_steps: Option<u64>,

    /// Rows in one pass through the model
    #[arg(
        long,
        env = "VEDM_PER_DEVICE_TRAIN_BATCH_SIZE",
        hide_env = true,
        value_name = "N",
        default_value_t = 8
    )]
    pub per_device_train_batch_size: usize,

    /// Passes before one step of the optimizer
    #[arg(
        long,
        env = "VEDM_GRADIENT_ACCUMULATION_STEPS",
        hide_env = true,
        value_name = "N",
        default_value_t = 1
    )]
    pub gradient_accumulation_steps: usize,

    /// linear, cosine, constant, ...
    #[arg(
        long,
        env = "VEDM_LR_SCHEDULER_TYPE",
        hide_env = true,
        value_name = "NAME",
        default_value = "linear"
    )]
    pub lr_scheduler_type: String,

    /// Steps in which the learning rate rises from 0
    #[arg(
        long,
        env = "VEDM_WARMUP_STEPS",
        hide_env = true,
        value_name = "N",
        default_value_t = 0,
        hide_short_help = true
    )]
    pub warmup_steps: u64,

    /// Share of all steps with a rising rate
    #[arg(
        long,
        env = "VEDM_WARMUP_RATIO",
        hide_env = true,
        value_name = "SHARE",
        default_value = "0"
    )]
    pub warmup_ratio: f64,

    /// Decoupled weight decay
    #[arg(
        long,
        env = "VEDM_WEIGHT_DECAY",
        hide_env = true,
        value_name = "X",
        default_value = "0",
        hide_short_help = true
    )]
    pub weight_decay: f64,

    /// AdamW's first beta
    #[arg(
        long,
        env = "VEDM_ADAM_BETA1",
        hide_env = true,
        value_name = "X",
        default_value = "0.9",
        hide_short_help = true
    )]
    pub adam_beta1: f64,

    /// AdamW's second beta
    #[arg(
        long,
        env = "VEDM_ADAM_BETA2",
        hide_env = true,
        value_name = "X",
        default_value = "0.999",
        hide_short_help = true
    )]
    pub adam_beta2: f64,

    /// AdamW's epsilon
    #[arg(
        long,
        env = "VEDM_ADAM_EPSILON",
        hide_env = true,
        value_name = "X",
        default_value = "1e-8",
        hide_short_help = true
    )]
    pub adam_epsilon: f64,

    /// Clip the gradients' norm to this; 0 does not clip
    #[arg(
        long,
        env = "VEDM_MAX_GRAD_NORM",
        hide_env = true,
        value_name = "X",
        default_value = "1",
        hide_short_help = true
    )]
    pub max_grad_norm: f64,

    /// Share of the labels' weight that goes to all words alike
    #[arg(
        long,
        env = "VEDM_LABEL_SMOOTHING_FACTOR",
        hide_env = true,
        value_name = "X",
        default_value = "0",
        hide_short_help = true
    )]
    pub label_smoothing_factor: f64,

    /// Share of a CTC loss on the encoder's columns, for readers of lines (vit)
    #[arg(
        long,
        env = "VEDM_CTC_WEIGHT",
        hide_env = true,
        value_name = "SHARE",
        default_value = "0",
        hide_short_help = true
    )]
    pub ctc_weight: f64,

    /// Encode this share of the batches without columns that are only padding (vit) [alone: 0.9]
    #[arg(long, env = "VEDM_TRIM_PADDING", hide_env = true, value_name = "SHARE")]
    #[arg(num_args = 0..=1, default_missing_value = "0.9", default_value = "0")]
    #[arg(hide_default_value = true, hide_short_help = true)]
    pub trim_padding: f64,

    /// Train the decoder alone
    #[arg(long, env = "VEDM_FREEZE_ENCODER", hide_env = true)]
    pub freeze_encoder: bool,

    /// Train the encoder alone
    #[arg(long, env = "VEDM_FREEZE_DECODER", hide_env = true, hide_short_help = true)]
    pub freeze_decoder: bool,

    /// Compute in bf16 where that is safe
    #[arg(long, env = "VEDM_BF16", hide_env = true)]
    pub bf16: bool,

    /// Compute in f16 where that is safe, with loss scaling (CUDA)
    #[arg(long, env = "VEDM_FP16", hide_env = true, hide_short_help = true)]
    pub fp16: bool,

    /// Save memory: compute activations again in the backward pass
    #[arg(long, env = "VEDM_GRADIENT_CHECKPOINTING", hide_env = true, hide_short_help = true)]
    pub gradient_checkpointing: bool,

    /// Seed of order, dropout and augmentation
    #[arg(long, env = "VEDM_SEED", hide_env = true, value_name = "N", default_value_t = 42)]
    pub seed: u64,
}

#[derive(Args)]
#[command(next_help_heading = "Evaluation and checkpoints")]
pub(super) struct EvaluationArgs {
    /// When to evaluate: epoch, N (steps), never
    #[arg(
        long,
        env = "VEDM_EVAL_STEPS",
        hide_env = true,
        value_name = "WHEN",
        default_value = "epoch"
    )]
    pub eval_steps: Interval,

    /// When to save a checkpoint: likewise
    #[arg(
        long,
        env = "VEDM_SAVE_STEPS",
        hide_env = true,
        value_name = "WHEN",
        default_value = "epoch"
    )]
    pub save_steps: Interval,

    /// Steps between two lines of the log
    #[arg(
        long,
        env = "VEDM_LOGGING_STEPS",
        hide_env = true,
        value_name = "N",
        default_value_t = 10,
        hide_short_help = true
    )]
    pub logging_steps: u64,

    /// Rows in one pass of the evaluation
    #[arg(
        long,
        env = "VEDM_PER_DEVICE_EVAL_BATCH_SIZE",
        hide_env = true,
        value_name = "N",
        default_value_t = 8,
        hide_short_help = true
    )]
    pub per_device_eval_batch_size: usize,

    /// Beams of the evaluation [default: greedy]
    #[arg(
        long,
        env = "VEDM_GENERATION_NUM_BEAMS",
        hide_env = true,
        value_name = "N",
        hide_short_help = true
    )]
    pub generation_num_beams: Option<i64>,

    /// Keep the newest N checkpoints, and the best
    #[arg(
        long,
        env = "VEDM_SAVE_TOTAL_LIMIT",
        hide_env = true,
        value_name = "N",
        default_value_t = 3,
        hide_short_help = true
    )]
    pub save_total_limit: usize,

    /// The model of OUT is the best one, not the last
    #[arg(long, env = "VEDM_LOAD_BEST_MODEL_AT_END", hide_env = true)]
    pub load_best_model_at_end: bool,

    /// loss, cer, wer, bleu, cider, ... [default: loss]
    #[arg(long, env = "VEDM_METRIC_FOR_BEST_MODEL", hide_env = true, value_name = "NAME")]
    pub metric_for_best_model: Option<String>,

    /// Stop after so many evaluations without a gain
    #[arg(long, env = "VEDM_EARLY_STOPPING_PATIENCE", hide_env = true, value_name = "N")]
    pub early_stopping_patience: Option<u64>,
}
