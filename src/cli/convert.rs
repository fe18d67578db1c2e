//! `vedm convert`: the same model in another file format, number type or split.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::Verdict;
use super::download::{self, HubArgs};
use super::init::FileDtype;
use crate::checkpoint::{Checkpoint, Memory};
use crate::models::Need;
use crate::text::Tokenizer;
use crate::ved::parts::{merge, split};
use crate::ved::report::collapse;
use crate::ved::save::{
    MAX_SHARD_SIZE, Staging, WeightFormat, WeightOptions, keep_apart, save_model,
};
use crate::ved::verify::compare;
use crate::ved::{self, LoadOptions, VisionEncoderDecoder};
use crate::{signals, stderr};

#[derive(Args)]
pub(super) struct ConvertArgs {
    /// Checkpoint or model at the Hub to read (left out with --merge), then the directory to write
    #[arg(value_name = "IN OUT", required = true, num_args = 1..=2)]
    pub paths: Vec<PathBuf>,

    /// File format of the weights
    #[arg(long, env = "VEDM_TO", hide_env = true, default_value = "safetensors")]
    pub to: To,

    /// Number type of the weights [default: as they are]
    #[arg(long, env = "VEDM_DTYPE", hide_env = true)]
    pub dtype: Option<FileDtype>,

    /// Weights larger than this are split into several files, e.g. 5GB or 200MB
    #[arg(long, env = "VEDM_MAX_SHARD_SIZE", hide_env = true, value_name = "SIZE")]
    #[arg(default_value_t = Bytes(MAX_SHARD_SIZE))]
    pub max_shard_size: Bytes,

    /// Write OUT/encoder and OUT/decoder
    #[arg(long, conflicts_with = "merge")]
    pub split: bool,

    /// Join two directories that --split wrote, or an encoder's and a decoder's
    #[arg(long, num_args = 2, value_names = ["ENCODER", "DECODER"])]
    pub merge: Vec<PathBuf>,

    /// Read OUT again: compare every tensor, and run both checkpoints on one image
    #[arg(long, env = "VEDM_VERIFY", hide_env = true)]
    pub verify: bool,

    /// Replace OUT if it exists
    #[arg(long)]
    pub force: bool,

    /// Convert although the checkpoint has tensors that the model of its config does not use
    #[arg(long, env = "VEDM_ALLOW_UNUSED_TENSORS", hide_env = true)]
    pub allow_unused_tensors: bool,

    /// Branch, tag or commit of a model at the Hub [default: main]
    #[arg(long, env = "VEDM_REVISION", hide_env = true, conflicts_with = "merge")]
    pub revision: Option<String>,

    #[command(flatten)]
    pub hub: HubArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum To {
    Safetensors,
    Pytorch,
}

/// A number of bytes, written as the reference writes it: 5GB, 200MB, 1GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes(u64);

const UNITS: &[(&str, u64)] = &[
    ("GIB", 1 << 30),
    ("MIB", 1 << 20),
    ("KIB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("", 1),
];

impl std::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.trim().to_ascii_uppercase();
        let wrong = || format!("{text:?} is no size, expected something like 5GB or 200MB");
        let (number, unit) = UNITS
            .iter()
            .find_map(|(unit, size)| Some((upper.strip_suffix(unit)?, *size)))
            .ok_or_else(wrong)?;
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        let bytes = number * unit as f64;
        if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(Bytes(bytes as u64)) } else { Err(wrong()) }
    }
}

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (unit, size) =
            UNITS.iter().find(|(_, size)| self.0.is_multiple_of(*size)).copied().unwrap_or(("", 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

/// Reads IN, writes OUT whole or not at all; IN is never touched.
pub(super) fn run(args: &ConvertArgs) -> Result<Verdict> {
    if !args.merge.is_empty() {
        return run_merge(args);
    }
    let [input, out] = args.paths.as_slice() else {
        bail!("convert takes two directories: the checkpoint to read and the one to write")
    };
    let name = input.to_string_lossy();
    let dir = download::find(&name, Need::Model, args.revision.as_deref(), &args.hub, false)?;
    keep_apart(out, &dir)?;
    let staging = Staging::new(out, args.force)?;
    signals::abandon(staging.path())?;
    let (model, warnings) = load_as_stored(&dir, args.allow_unused_tensors)?;
    warnings.iter().for_each(stderr::warn);

    if args.split {
        split(&model, &dir, staging.path(), options(args))?;
        let report =
            if args.verify { Some(verify_parts(&model, staging.path(), args)?) } else { None };
        staging.finish()?;
        tell(out, &model, report);
        stderr::say("the halves are in encoder/ and decoder/");
        return Ok(Verdict::Done);
    }
    save_model(staging.path(), &model, options(args))?;
    copy_companions(&dir, staging.path())?;
    complete_tokenizer(&dir, staging.path(), &model);
    let changes = changes(&dir, &model)?;
    let report = if args.verify { Some(verify(&model, staging.path(), args)?) } else { None };
    staging.finish()?;
    tell(out, &model, report);
    changes.iter().for_each(stderr::say);
    Ok(Verdict::Done)
}

fn run_merge(args: &ConvertArgs) -> Result<Verdict> {
    let ([encoder, decoder], [out]) = (args.merge.as_slice(), args.paths.as_slice()) else {
        bail!("convert --merge ENCODER DECODER takes one more directory: the one to write")
    };
    for part in [encoder, decoder] {
        keep_apart(out, part)?;
    }
    let staging = Staging::new(out, args.force)?;
    signals::abandon(staging.path())?;
    let (model, notes) = merge(encoder, decoder, args.allow_unused_tensors)?;
    notes.iter().for_each(|note| stderr::say(format_args!("note: {note}")));
    save_model(staging.path(), &model, options(args))?;
    for part in [encoder, decoder] {
        copy_companions(part, staging.path())?;
    }
    complete_tokenizer(decoder, staging.path(), &model);
    let report = if args.verify { Some(verify(&model, staging.path(), args)?) } else { None };
    staging.finish()?;
    tell(out, &model, report);
    Ok(Verdict::Done)
}

fn options(args: &ConvertArgs) -> WeightOptions {
    WeightOptions {
        kind: args.dtype.map(FileDtype::kind),
        max_shard_size: args.max_shard_size.0,
        format: match args.to {
            To::Safetensors => WeightFormat::Safetensors,
            To::Pytorch => WeightFormat::Pytorch,
        },
    }
}

/// The model in the number type of its file, so that nothing is rounded on the way.
fn load_as_stored(dir: &Path, allow_unused: bool) -> Result<(VisionEncoderDecoder, Vec<String>)> {
    let kind = ved::stored_kind([&Checkpoint::open(dir)?]);
    let memory = Memory::Shared;
    ved::load(dir, LoadOptions { kind, allow_unused, memory, ..LoadOptions::default() })
}

/// Files that hold weights in whatever format, also those that `checkpoint::is_weights` does not open.
fn is_any_weights(name: &str) -> bool {
    let by_end = [
        ".safetensors",
        ".bin",
        ".h5",
        ".msgpack",
        ".index.json",
        ".pt",
        ".pth",
        ".onnx",
        ".ot",
        ".ckpt",
        ".gguf",
    ];
    by_end.iter().any(|end| name.ends_with(end))
}

/// Everything beside weights and config: tokenizer, processor, generation settings, card.
fn copy_companions(from: &Path, to: &Path) -> Result<()> {
    let entries = std::fs::read_dir(from).with_context(|| format!("can't list {from:?}"))?;
    for entry in entries {
        let path = entry.with_context(|| format!("can't list {from:?}"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let skip = name.starts_with('.') || name == "config.json" || is_any_weights(&name);
        let target = to.join(&name);
        if path.is_file() && !skip && !target.exists() {
            std::fs::copy(&path, &target).with_context(|| format!("can't copy {path:?}"))?;
        }
    }
    Ok(())
}

/// Adds tokenizer.json where the checkpoint has older files only; a checkpoint without any is let be.
fn complete_tokenizer(dir: &Path, out: &Path, model: &VisionEncoderDecoder) {
    let saved = Tokenizer::from_dir(dir, Some(model.config.decoder_type()))
        .and_then(|tokenizer| tokenizer.save(out));
    if let Err(error) = saved {
        stderr::warn(format_args!("no tokenizer.json was made: {error:#}"));
    }
}

/// Opens what was written and compares it; the largest difference of the logits.
fn verify(model: &VisionEncoderDecoder, written: &Path, args: &ConvertArgs) -> Result<f64> {
    let (again, _) = load_as_stored(written, false).context("verify")?;
    compare(model, &again, args.dtype.map(FileDtype::kind)).context("verify")
}

/// The same, of two halves.
fn verify_parts(model: &VisionEncoderDecoder, written: &Path, args: &ConvertArgs) -> Result<f64> {
    let halves = (written.join("encoder"), written.join("decoder"));
    let (again, _) = merge(&halves.0, &halves.1, false).context("verify")?;
    compare(model, &again, args.dtype.map(FileDtype::kind)).context("verify")
}

/// What is not written as it was read: renamed keys, second names of one tensor, spare tensors.
fn changes(dir: &Path, model: &VisionEncoderDecoder) -> Result<Vec<String>> {
    let file = Checkpoint::open(dir)?;
    let variables: HashSet<String> =
        model.store().variables().into_iter().map(|variable| variable.name).collect();
    let (second, spare): (Vec<String>, Vec<String>) = file
        .keys()
        .filter(|key| !variables.contains(*key))
        .map(str::to_string)
        .partition(|key| model.store().aliases().iter().any(|(alias, _)| alias == key));
    let renamed: Vec<String> =
        file.renamed().iter().map(|(old, new)| format!("{old} is now {new}")).collect();
    let mut lines = Vec::new();
    for (what, names) in [
        ("renamed", renamed),
        ("second names of shared tensors", second),
        ("left out, not used by the model", spare),
        ("left out, no tensors", file.skipped().to_vec()),
    ] {
        if !names.is_empty() {
            lines.push(format!("{what}: {}", names.len()));
            lines.extend(collapse(&names).into_iter().map(|name| format!("  {name}")));
        }
    }
    Ok(lines)
}

fn tell(out: &Path, model: &VisionEncoderDecoder, verified: Option<f64>) {
    let tensors = model.store().variables().len();
    stderr::say(format_args!("{}: {tensors} tensors written", out.display()));
    if let Some(difference) = verified {
        stderr::say(format_args!(
            "verified: every tensor is equal; logits of one image differ by {difference:.1e}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        let table = [
            ("5GB", Some(5_000_000_000)),
            ("200 mb", Some(200_000_000)),
            ("1GiB", Some(1 << 30)),
            ("12", Some(12)),
            ("0.5KB", Some(500)),
            ("x", None),
            ("0", None),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Bytes>().ok().map(|bytes| bytes.0), expected, "{text}");
        }
        assert_eq!(Bytes(5_000_000_000).to_string(), "5GB");
        assert_eq!(Bytes(1 << 20).to_string(), "1MIB");
    }
}
