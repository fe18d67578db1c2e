//! `vedm eval`: scores a checkpoint on labelled images.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::Verdict;
use super::args::{BatchSize, ModelArgs};
use super::generate::GenerateArgs;
use super::open::{self, ImageSettings};
use super::output::is_picture;
use super::places::same;
use super::read::Task;
use super::train_args::ColumnArgs;
use crate::image::DecodeOptions;
use crate::stderr::{self, visible};
use crate::train::data::Table;
use crate::train::{evaluate, report};

#[derive(Args)]
pub(super) struct EvalArgs {
    #[command(flatten)]
    pub model: ModelArgs,

    /// CSV, TSV, JSONL or tar file, or folder, of images with their texts
    #[arg(long, env = "VEDM_DATA", hide_env = true, value_name = "PATH")]
    pub data: PathBuf,

    #[command(flatten)]
    pub columns: ColumnArgs,

    /// The command that is scored; they differ in which pictures count as empty
    #[arg(long, env = "VEDM_TASK", hide_env = true, value_name = "COMMAND", default_value = "ocr")]
    pub task: Task,

    /// Compare without regard to case
    #[arg(long, env = "VEDM_IGNORE_CASE", hide_env = true)]
    pub ignore_case: bool,

    /// Form of the report
    #[arg(long, env = "VEDM_FORMAT", hide_env = true, default_value = "text")]
    pub format: ReportFormat,

    /// File for the text of every image beside its labels: JSON lines, or CSV by the name
    #[arg(long, env = "VEDM_PREDICTIONS", hide_env = true, value_name = "FILE")]
    pub predictions: Option<PathBuf>,

    /// So many of the worst items are shown
    #[arg(long, env = "VEDM_WORST", hide_env = true, value_name = "N", default_value_t = 5)]
    pub worst: usize,

    /// Images in one pass through the model: a number, or auto
    #[arg(long, env = "VEDM_BATCH_SIZE", hide_env = true, default_value = "auto")]
    pub batch_size: BatchSize,

    /// Accept images of another size than the encoder's by resizing its position embeddings
    #[arg(long, env = "VEDM_INTERPOLATE_POS_ENCODING", hide_env = true, hide_short_help = true)]
    pub interpolate_pos_encoding: bool,

    /// Say nothing but errors on standard error
    #[arg(short, long, env = "VEDM_QUIET", hide_env = true)]
    pub quiet: bool,

    #[command(flatten)]
    pub generate: GenerateArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ReportFormat {
    /// Figures, the worst items and confusions for people
    Text,
    /// One JSON object
    Json,
}

/// Reads all images of the table, prints the report.
pub(super) fn run(args: &EvalArgs) -> Result<Verdict> {
    let table = Table::read(&args.data, &args.columns.options())?;
    args.predictions.as_deref().map_or(Ok(()), |file| check_predictions(file, &args.data))?;
    let name = args.task.model(&args.model);
    let images = ImageSettings {
        batch_size: args.batch_size,
        decode: DecodeOptions::default(),
        interpolate: args.interpolate_pos_encoding,
    };
    let mut reader = open::open(name, &args.model, &args.generate, images, args.quiet)?;
    // What the command would make of the images is what is scored.
    reader.loop_detector = args.generate.loop_detector();
    reader.blank = Some(args.task.blank());

    let bar = bar(table.images().len() as u64, args.quiet)?;
    let evaluation = evaluate::evaluate(&reader, &table, args.ignore_case, |done| {
        bar.set_position(done as u64);
        Ok(())
    })?;
    bar.finish_and_clear();
    for failed in &evaluation.failed {
        stderr::say(format_args!("vedm: {}", visible(failed, false)));
    }
    if let Err(error) = evaluation.ensure_some() {
        // As of all inputs of a run that failed: it ran, and there is nothing to report.
        stderr::say(format_args!("vedm: {error}"));
        return Ok(Verdict::SomeFailed);
    }
    if let (false, Some(advice)) = (args.quiet, evaluation.advice(&reader)) {
        stderr::warn(advice);
    }
    let told = match args.format {
        ReportFormat::Text => report::text(&evaluation, args.worst),
        ReportFormat::Json => {
            let data = args.data.display().to_string();
            format!("{}\n", report::json(&evaluation, name, &data, args.worst))
        }
    };
    let mut out = std::io::stdout();
    // Texts, those of the model among them, do not act on a terminal.
    let told = if out.is_terminal() { visible(&told, true) } else { told.into() };
    out.write_all(told.as_bytes())?;
    out.flush()?;
    if let Some(path) = &args.predictions {
        evaluation.write_predictions(path)?;
    }
    Ok(if evaluation.failed.is_empty() { Verdict::Done } else { Verdict::SomeFailed })
}

/// Refuses a file that is read, or that can't be written, before the model has done its work.
fn check_predictions(file: &Path, data: &Path) -> Result<()> {
    ensure!(!is_picture(file), "--predictions {file:?} is a picture; it is not written over");
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let is_data = file.file_stem().is_some_and(|stem| stem == "metadata")
        || ["txt", "tar"].contains(&ending.to_ascii_lowercase().as_str());
    let lies_in_data = || file.canonicalize().is_ok_and(|file| contains(data, &file));
    let is_read = same(file, data) || (is_data && lies_in_data());
    ensure!(
        !is_read,
        "--predictions {file:?} is a part of --data, which is not written over; name another file"
    );
    let told = || format!("--predictions: can't write {file:?}");
    if file.is_file() || file.is_dir() {
        // What is in it stays until there is something to put in its place.
        std::fs::OpenOptions::new().append(true).open(file).with_context(told)?;
    } else if !file.exists() {
        let folder = file.parent().filter(|folder| *folder != Path::new(""));
        tempfile::tempfile_in(folder.unwrap_or(Path::new("."))).with_context(told)?;
    }
    Ok(())
}

/// True if the file lies in the folder, at any depth.
fn contains(folder: &Path, file: &Path) -> bool {
    folder.is_dir() && folder.canonicalize().is_ok_and(|folder| file.starts_with(folder))
}

/// Shown where a person looks on.
fn bar(images: u64, quiet: bool) -> Result<ProgressBar> {
    if quiet || !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{pos}/{len} images  {per_sec}  {eta} left")?;
    Ok(ProgressBar::new(images).with_style(style))
}
