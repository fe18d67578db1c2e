//! The flags of `caption` and `ocr`, as typed. What they mean is settled in `read.rs` and `generate.rs`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::generate::GenerateArgs;
use super::inputs::Shard;
use crate::device::{DeviceChoice, Dtype};
use crate::image::{Background, Pages};

/// Where else flags may come from.
const ENVIRONMENT: &str =
    "Each flag can also be set by a variable: VEDM_NUM_BEAMS=4 is --num-beams 4.";

#[derive(Args)]
#[command(after_help = ENVIRONMENT)]
pub(super) struct ReadArgs {
    /// Image files, directories, archives (.tar .tar.gz .zip .cbz), URLs; - is one image on standard input
    #[arg(required_unless_present = "files_from", value_name = "IMAGE")]
    pub images: Vec<PathBuf>,

    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub generate: GenerateArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args)]
#[command(next_help_heading = "Model")]
pub(super) struct ModelArgs {
    /// Directory of a checkpoint, name of a shipped model, or owner/name[@revision] in the Hub's cache
    #[arg(short, long, env = "VEDM_MODEL", hide_env = true)]
    pub model: Option<String>,

    /// Revision of a model in the Hub's cache
    #[arg(long, env = "VEDM_REVISION", hide_env = true, hide_short_help = true)]
    pub revision: Option<String>,

    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, env = "VEDM_DEVICE", hide_env = true, default_value = "auto")]
    pub device: DeviceChoice,

    /// Number type of the model
    #[arg(long, env = "VEDM_DTYPE", hide_env = true, default_value = "auto")]
    pub dtype: Dtype,

    /// Threads of one operation [default: one a core]
    #[arg(long, env = "VEDM_THREADS", hide_env = true, value_name = "N")]
    pub threads: Option<usize>,

    /// Run although the checkpoint has tensors that the model of its config does not use
    #[arg(long, env = "VEDM_ALLOW_UNUSED_TENSORS", hide_env = true, hide_short_help = true)]
    pub allow_unused_tensors: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Input")]
pub(super) struct InputArgs {
    /// Images in one pass through the model: a number, or auto
    #[arg(long, env = "VEDM_BATCH_SIZE", hide_env = true, default_value = "auto")]
    pub batch_size: BatchSize,

    /// Search directories to any depth
    #[arg(short, long, env = "VEDM_RECURSIVE", hide_env = true)]
    pub recursive: bool,

    /// Read names from a file, one a line; - is standard input
    ///
    /// A line may also be a JSON object with "image" and perhaps "page", so that records and the file
    /// of --errors can be read back.
    #[arg(long, env = "VEDM_FILES_FROM", hide_env = true, value_name = "FILE")]
    pub files_from: Option<PathBuf>,

    /// Names in --files-from end with a zero byte, as of find -print0
    #[arg(long, env = "VEDM_NULL", hide_env = true, hide_short_help = true)]
    pub null: bool,

    /// Read part K of N of the inputs
    ///
    /// Which part an input belongs to depends on nothing but its name as given (that is "image" in
    /// its record): the first 8 bytes of the SHA-256 of its bytes, as a big-endian number, modulo N,
    /// plus 1. Members of an archive are divided, not archives; pages stay together.
    #[arg(long, env = "VEDM_SHARD", hide_env = true, value_name = "K/N", hide_short_help = true)]
    pub shard: Option<Shard>,

    /// Read these pages, counted from 1: 1,3-5,7-
    ///
    /// Pages of a TIFF, frames of an animated GIF, WebP or PNG. Without this flag all pages of a TIFF
    /// are read, and the first frame of an animation.
    #[arg(long, env = "VEDM_PAGES", hide_env = true, value_name = "LIST", hide_short_help = true)]
    pub pages: Option<Pages>,

    /// Refuse images with more million pixels than this
    #[arg(
        long,
        env = "VEDM_MAX_IMAGE_MPIXELS",
        hide_env = true,
        value_name = "N",
        default_value_t = 250.0,
        hide_short_help = true
    )]
    pub max_image_mpixels: f64,

    /// Take the pixels as stored, whatever the EXIF orientation says
    #[arg(long, env = "VEDM_NO_EXIF", hide_env = true, hide_short_help = true)]
    pub no_exif: bool,

    /// What lies behind transparent pixels
    #[arg(
        long,
        env = "VEDM_BACKGROUND",
        hide_env = true,
        default_value = "white",
        hide_short_help = true
    )]
    pub background: BackgroundArg,

    /// Accept images of another size than the encoder's by resizing its position embeddings
    #[arg(long, env = "VEDM_INTERPOLATE_POS_ENCODING", hide_env = true, hide_short_help = true)]
    pub interpolate_pos_encoding: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputArgs {
    /// Form of the results [default: by the name given to --output, else text]
    #[arg(long, env = "VEDM_FORMAT", hide_env = true)]
    pub format: Option<Format>,

    /// File for the results; - is standard output
    #[arg(short, long, env = "VEDM_OUTPUT", hide_env = true, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Put token ids, tokens, log-probabilities, scores and image sizes into the records
    #[arg(long, env = "VEDM_DETAILS", hide_env = true)]
    pub details: bool,

    /// Say nothing but errors on standard error
    #[arg(short, long, env = "VEDM_QUIET", hide_env = true)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One image: its text. Several: path, tab, text
    Text,
    /// One JSON object a line
    Jsonl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum BackgroundArg {
    White,
    Black,
    /// White or black, whichever sets the visible pixels off
    Auto,
}

impl From<BackgroundArg> for Background {
    fn from(arg: BackgroundArg) -> Self {
        match arg {
            BackgroundArg::White => Background::White,
            BackgroundArg::Black => Background::Black,
            BackgroundArg::Auto => Background::Auto,
        }
    }
}

/// `auto` or a number of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchSize {
    Auto,
    Images(usize),
}

impl std::str::FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(BatchSize::Auto),
            _ => match text.parse() {
                Ok(images) if images > 0 => Ok(BatchSize::Images(images)),
                _ => Err("expected auto or a number of at least 1".to_string()),
            },
        }
    }
}
