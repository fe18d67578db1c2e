//! The flags of `caption` and `ocr`, as typed. What they mean is settled in `read.rs` and `generate.rs`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use tch::{Device, Kind};

use super::download::HubArgs;
use super::generate::GenerateArgs;
use super::inputs::Shard;
use super::progress::When;
use super::sidecar::Existing;
use super::typed::threads;
use crate::device::{DeviceChoice, Dtype};
use crate::image::{Background, Pages};
use crate::nn::Packing;
use crate::ved;

/// Where else flags may come from.
pub(super) const ENVIRONMENT: &str =
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
    #[command(flatten)]
    pub sidecar: SidecarArgs,
}

/// `vedm ocr`: all of `vedm caption`, and what only texts have.
#[derive(Args)]
pub(super) struct OcrArgs {
    #[command(flatten)]
    pub read: ReadArgs,

    /// Cut pages into their text lines and read these, in reading order
    #[arg(long, env = "VEDM_LINES", hide_env = true, help_heading = "Input")]
    #[arg(conflicts_with = "stream")]
    pub lines: bool,

    /// Unicode form of the texts
    #[arg(long, env = "VEDM_NORMALIZE", hide_env = true, value_name = "FORM")]
    #[arg(
        default_value = "none",
        ignore_case = true,
        help_heading = "Text",
        hide_short_help = true
    )]
    #[arg(conflicts_with = "stream")]
    pub normalize: Form,

    /// Write these characters and blanks alone
    #[arg(long, env = "VEDM_ALLOWED_CHARS", hide_env = true, value_name = "CHARS")]
    #[arg(help_heading = "Text", hide_short_help = true)]
    pub allowed_chars: Option<String>,
}

/// Unicode normalisation forms (UAX 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// Composed characters
    Nfc,
    /// Composed, and compatibility characters such as ﬁ replaced
    Nfkc,
    None,
}

#[derive(Args)]
#[command(next_help_heading = "Model")]
pub(super) struct ModelArgs {
    /// Directory of a checkpoint, name of a shipped model, or owner/name[@revision] at the Hugging Face Hub
    #[arg(short, long, env = "VEDM_MODEL", hide_env = true)]
    pub model: Option<String>,

    /// Branch, tag or commit of a model at the Hub [default: main]
    #[arg(long, env = "VEDM_REVISION", hide_env = true, hide_short_help = true)]
    pub revision: Option<String>,

    #[command(flatten)]
    pub hub: HubArgs,

    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, env = "VEDM_DEVICE", hide_env = true, default_value = "auto")]
    pub device: DeviceChoice,

    /// Number type of the model's weights
    #[arg(long, env = "VEDM_DTYPE", hide_env = true, default_value = "auto")]
    pub dtype: Dtype,

    /// Threads of one operation [default: one a core]
    #[arg(long, env = "VEDM_THREADS", hide_env = true, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,

    /// Run although the checkpoint has tensors that the model of its config does not use
    #[arg(long, env = "VEDM_ALLOW_UNUSED_TENSORS", hide_env = true, hide_short_help = true)]
    pub allow_unused_tensors: bool,
}

impl ModelArgs {
    /// The number type of the model on `device`, and on a CPU what its matrices are packed as.
    pub(super) fn numbers(&self, device: Device) -> Result<(Kind, Option<Packing>)> {
        if device.is_cuda() {
            return Ok(match self.dtype {
                Dtype::F32 => (Kind::Float, None),
                Dtype::Bf16 => (Kind::BFloat16, None),
                Dtype::F16 | Dtype::Auto => (Kind::Half, None),
                Dtype::Int8 => {
                    bail!("--dtype int8 is for a CPU; on CUDA use f16, or pass --device cpu")
                }
            });
        }
        Ok((Kind::Float, Some(ved::cpu_packing(self.dtype)?)))
    }
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
    #[arg(long, env = "VEDM_DETAILS", hide_env = true, hide_short_help = true)]
    pub details: bool,

    /// Print tokens as they come: one image, no beams
    #[arg(long, env = "VEDM_STREAM", hide_env = true, hide_short_help = true)]
    // Text that was shown can't be taken back, and is no record.
    #[arg(conflicts_with_all = ["format", "output", "details", "min_confidence"])]
    pub stream: bool,

    /// Write a page for each image: what the model saw, where it looked, what else it could have said
    ///
    /// DIR/a/b.jpg.html for a/b.jpg, pages and lines of their own behind it. A page is one HTML file
    /// with all its pictures, and written over if it is there. Takes the best text's tokens once
    /// more through the decoder.
    #[arg(long, env = "VEDM_EXPLAIN", hide_env = true, value_name = "DIR", hide_short_help = true)]
    pub explain: Option<PathBuf>,

    /// Texts of lower confidence are replaced by the placeholder
    #[arg(
        long,
        env = "VEDM_MIN_CONFIDENCE",
        hide_env = true,
        value_name = "P",
        hide_short_help = true
    )]
    pub min_confidence: Option<f64>,

    /// What stands in the place of a text of low confidence
    #[arg(
        long,
        env = "VEDM_PLACEHOLDER",
        hide_env = true,
        value_name = "TEXT",
        hide_short_help = true
    )]
    #[arg(default_value = "")]
    pub placeholder: String,

    /// File for the failures, one JSON object a line; --files-from reads it back
    #[arg(long, env = "VEDM_ERRORS", hide_env = true, value_name = "FILE", hide_short_help = true)]
    pub errors: Option<PathBuf>,

    /// End at the first image that fails
    #[arg(long, env = "VEDM_FAIL_FAST", hide_env = true, hide_short_help = true)]
    pub fail_fast: bool,

    /// Say nothing but errors on standard error
    #[arg(short, long, env = "VEDM_QUIET", hide_env = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Tell model, device, number type and batch size
    #[arg(short, long, env = "VEDM_VERBOSE", hide_env = true, hide_short_help = true)]
    pub verbose: bool,

    /// Show how far the run is
    #[arg(
        long,
        env = "VEDM_PROGRESS",
        hide_env = true,
        value_name = "WHEN",
        hide_short_help = true
    )]
    #[arg(default_value = "auto")]
    pub progress: When,

    /// Colour what is told on standard error
    #[arg(long, env = "VEDM_COLOR", hide_env = true, value_name = "WHEN", hide_short_help = true)]
    #[arg(default_value = "auto")]
    pub color: When,
}

#[derive(Args)]
#[command(next_help_heading = "Sidecars")]
pub(super) struct SidecarArgs {
    /// Write the text of dir/a.jpg to dir/a.EXT [default EXT: txt]
    #[arg(long, env = "VEDM_SIDECAR", hide_env = true, value_name = "EXT", num_args = 0..=1)]
    #[arg(require_equals = true, conflicts_with = "out_template")]
    pub sidecar: Option<Option<String>>,

    /// Write texts to files of this pattern: {dir} {stem} {ext} {name} {page} {line}
    #[arg(
        long,
        env = "VEDM_OUT_TEMPLATE",
        hide_env = true,
        value_name = "PATTERN",
        hide_short_help = true
    )]
    pub out_template: Option<String>,

    /// What happens where such a file, or that of --output, is there already [default: skip]
    ///
    /// Without sidecars the file of --output is written anew, unless this says skip (images that it
    /// tells of are left out, the others added) or append.
    #[arg(long, env = "VEDM_EXISTING", hide_env = true, hide_short_help = true)]
    pub existing: Option<Existing>,

    /// Put this before each text in a sidecar
    #[arg(long, env = "VEDM_PREFIX", hide_env = true, value_name = "TEXT", hide_short_help = true)]
    #[arg(default_value = "")]
    pub prefix: String,

    /// Put this behind each text in a sidecar
    #[arg(long, env = "VEDM_SUFFIX", hide_env = true, value_name = "TEXT", hide_short_help = true)]
    #[arg(default_value = "")]
    pub suffix: String,
}

impl SidecarArgs {
    pub(super) fn are_asked_for(&self) -> bool {
        self.sidecar.is_some() || self.out_template.is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One image: its text. Several: path, tab, text
    Text,
    /// One JSON object a line
    Jsonl,
    /// A table with the fields of the JSON objects
    Csv,
    /// The same with tabs
    Tsv,
    /// A page of lines with their boxes (ocr --lines): hOCR
    Hocr,
    /// The same as ALTO XML
    Alto,
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
