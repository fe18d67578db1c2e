//! A checkpoint taken apart into encoder and decoder, and put together again.
//!
//! The projection between the two belongs to neither; it lies beside them in
//! `enc_to_dec_proj.safetensors`, and the top level of config.json in `vision-encoder-decoder.json`.

use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};

use super::assemble::assemble;
use super::config::{read_json, read_json_if_there};
use super::load::{stored_kind, tell_unused};
use super::report::collapse;
use super::save::{WeightFormat, WeightOptions, in_kind, name_dtype, with_aliases, write_json};
use super::source::{Half, Source};
use super::{VisionEncoderDecoder, VisionEncoderDecoderConfig};
use crate::checkpoint::{self, Checkpoint};
use crate::nn::store::{Missing, Store};
use crate::text::TOKENIZER_FILES;

const PROJECTION: &str = "enc_to_dec_proj.safetensors";
const TOP: &str = "vision-encoder-decoder.json";

/// Files that belong to the encoder's half.
const ENCODER_FILES: &[&str] = &["preprocessor_config.json", "processor_config.json"];

/// Writes `out/encoder` and `out/decoder`, each a checkpoint that the reference opens by itself.
pub fn split(
    model: &VisionEncoderDecoder,
    dir: &Path,
    out: &Path,
    options: WeightOptions,
) -> Result<()> {
    let kind = options.kind.unwrap_or(model.kind());
    for (half, config) in
        [(Half::Encoder, &model.config.encoder), (Half::Decoder, &model.config.decoder)]
    {
        let folder = out.join(half.name());
        std::fs::create_dir(&folder).with_context(|| format!("can't make {folder:?}"))?;
        let mut config = config.clone();
        if let Value::Object(config) = &mut config {
            name_dtype(config, kind);
        }
        write_json(&folder.join("config.json"), &config)?;
        let prefix = format!("{}.", half.name());
        let tensors = tensors_under(model, &prefix, kind)?;
        match options.format {
            WeightFormat::Safetensors => {
                checkpoint::save_safetensors(&folder, &tensors, Some(options.max_shard_size))?;
            }
            WeightFormat::Pytorch => {
                let inside = |name: &str| name.strip_prefix(&prefix).map(str::to_string);
                let aliases = model.store().aliases();
                let aliases = aliases
                    .iter()
                    .filter_map(|(alias, name)| Some((inside(alias)?, inside(name)?)))
                    .collect();
                let tensors = with_aliases(tensors, aliases);
                checkpoint::save_pytorch(&folder, &tensors, Some(options.max_shard_size))?;
            }
        }
    }
    copy_files(dir, out)?;
    let projection: Vec<(String, Tensor)> = tensors_under(model, "enc_to_dec_proj.", kind)?
        .into_iter()
        .map(|(name, tensor)| (format!("enc_to_dec_proj.{name}"), tensor))
        .collect();
    if !projection.is_empty() {
        checkpoint::write_safetensors(&out.join(PROJECTION), &projection, &[])?;
    }
    let Value::Object(mut top) = model.config.to_json() else { bail!("config is no object") };
    top.shift_remove("encoder");
    top.shift_remove("decoder");
    write_json(&out.join(TOP), &Value::Object(top))
}

/// The variables whose names begin with `prefix`, without it.
fn tensors_under(
    model: &VisionEncoderDecoder,
    prefix: &str,
    kind: Kind,
) -> Result<Vec<(String, Tensor)>> {
    let variables = model.store().variables().into_iter();
    variables
        .filter_map(|variable| {
            let name = variable.name.strip_prefix(prefix)?.to_string();
            Some(in_kind(&variable, kind).map(|tensor| (name, tensor)))
        })
        .collect()
}

/// Image processor to the encoder, tokenizer and generation settings to the decoder.
fn copy_files(dir: &Path, out: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("can't list {dir:?}"))? {
        let path = entry.with_context(|| format!("can't list {dir:?}"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The last is a vocabulary that RemBERT's tokenizer.json is made of.
        let of_text = matches!(name.as_str(), "generation_config.json" | "sentencepiece.model")
            || TOKENIZER_FILES.contains(&name.as_str());
        let half = if ENCODER_FILES.contains(&name.as_str()) {
            Half::Encoder
        } else if of_text {
            Half::Decoder
        } else {
            continue;
        };
        let target = out.join(half.name()).join(&name);
        std::fs::copy(&path, &target).with_context(|| format!("can't copy {path:?}"))?;
    }
    Ok(())
}

/// Joins an encoder's and a decoder's directory. If `split` wrote both, projection and top level come
/// back as they were; else the projection and missing cross-attention are drawn, which the notes say.
///
/// `allow_unused`: halves of one model may hold tensors that it does not use.
pub fn merge(
    encoder: &Path,
    decoder: &Path,
    allow_unused: bool,
) -> Result<(VisionEncoderDecoder, Vec<String>)> {
    // However the two are spelled.
    let real = |dir: &Path| dir.canonicalize().with_context(|| format!("can't find {dir:?}"));
    let (encoder, decoder) = (&*real(encoder)?, &*real(decoder)?);
    let parent = encoder.parent().filter(|parent| decoder.parent() == Some(parent));
    let top = match parent {
        Some(parent) => read_json_if_there(&parent.join(TOP))?,
        None => None,
    };
    let projection = parent.map(|parent| parent.join(PROJECTION)).filter(|path| path.is_file());
    match top {
        Some(Value::Object(top)) => {
            let (model, mut notes) = rejoin(encoder, decoder, top, projection.as_deref())?;
            notes.extend(tell_unused(&model, allow_unused)?);
            Ok((model, notes))
        }
        _ => join_strangers(encoder, decoder),
    }
}

/// Two halves of one model: nothing may be missing.
fn rejoin(
    encoder: &Path,
    decoder: &Path,
    top: Map<String, Value>,
    projection: Option<&Path>,
) -> Result<(VisionEncoderDecoder, Vec<String>)> {
    let parts =
        (read_json(&encoder.join("config.json"))?, read_json(&decoder.join("config.json"))?);
    let config = VisionEncoderDecoderConfig::join(parts.0, parts.1, top);
    let mut files =
        vec![("encoder.", Checkpoint::open(encoder)?), ("decoder.", Checkpoint::open(decoder)?)];
    if let Some(path) = projection {
        files.push(("", Checkpoint::open_file(path)?));
    }
    let mut keys = Vec::new();
    for (prefix, file) in &files {
        keys.extend(file.keys().map(|key| format!("{prefix}{key}")));
    }
    let kind = stored_kind(files.iter().map(|(_, file)| file));
    let lookup = Box::new(move |key: &str| {
        let found = files.iter().find_map(|(prefix, file)| {
            let inside = key.strip_prefix(prefix)?;
            file.info(inside).map(|_| file.tensor(inside))
        });
        found.with_context(|| format!("no tensor {key:?}"))?
    });
    let store = Rc::new(Store::new(keys, lookup, Missing::Refuse, Device::Cpu, kind));
    let model = VisionEncoderDecoder::build(config, store.clone())?;
    store.check()?;
    Ok((model, store.warnings()))
}

fn join_strangers(encoder: &Path, decoder: &Path) -> Result<(VisionEncoderDecoder, Vec<String>)> {
    let encoder = Source::from_dir(Half::Encoder, encoder)?;
    let decoder = Source::from_dir(Half::Decoder, decoder)?;
    let none = Map::new();
    let kind = stored_kind([&encoder, &decoder].into_iter().filter_map(Source::checkpoint));
    let (model, report) = assemble(&encoder, &decoder, &none, &none, Map::new(), kind)?;
    let mut notes = report.notes;
    if !report.made.is_empty() {
        notes.push(format!("newly drawn: {}", collapse(&report.made).join(", ")));
    }
    let left: Vec<String> = report.left.into_iter().map(|(_, key)| key).collect();
    if !left.is_empty() {
        notes.push(format!("left in the two checkpoints: {}", collapse(&left).join(", ")));
    }
    notes.push(
        "the top level has no special ids yet; `vedm init` sets them from the tokenizer"
            .to_string(),
    );
    Ok((model, notes))
}
