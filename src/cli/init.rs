//! `vedm init`: a new checkpoint from two parts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Map, Value, json};
use tch::Kind;

use super::download::{self, HubArgs};
use super::{Verdict, ids};
use crate::image::ImageProcessor;
use crate::models::Need;
use crate::text::Tokenizer;
use crate::ved::VisionEncoderDecoder;
use crate::ved::assemble::{COMMON, assemble};
use crate::ved::generation::GenerationConfig;
use crate::ved::processor::read_image_processor;
use crate::ved::report::Report;
use crate::ved::save::{Staging, WeightOptions, keep_apart, save_model, write_json};
use crate::ved::source::{Half, Source};
use crate::{signals, stderr};

#[derive(Args)]
pub(super) struct InitArgs {
    /// Directory of the new checkpoint
    #[arg(value_name = "OUT")]
    pub out: PathBuf,

    /// Encoder: a model (its weights are taken), a config .json, or a type such as vit (random weights)
    #[arg(long, env = "VEDM_ENCODER", hide_env = true, value_name = "E")]
    pub encoder: String,

    /// Decoder: a model (its weights are taken), a config .json, or a type such as gpt2
    #[arg(long, env = "VEDM_DECODER", hide_env = true, value_name = "D")]
    pub decoder: String,

    /// Directory or model of the tokenizer [default: the decoder's]
    #[arg(long, env = "VEDM_TOKENIZER", hide_env = true, value_name = "T")]
    pub tokenizer: Option<String>,

    /// Directory or model of the image processor [default: the encoder's]
    #[arg(long, env = "VEDM_IMAGE_PROCESSOR", hide_env = true, value_name = "P")]
    pub image_processor: Option<String>,

    /// A config value: encoder.NAME=VALUE, decoder.NAME=VALUE, or NAME=VALUE of the top level
    #[arg(long, env = "VEDM_SET", hide_env = true, value_name = "NAME=VALUE")]
    pub set: Vec<String>,

    /// Seed of the random weights
    #[arg(long, env = "VEDM_SEED", hide_env = true, default_value_t = 0)]
    pub seed: i64,

    /// Number type of the weights in the file
    #[arg(long, env = "VEDM_DTYPE", hide_env = true, default_value = "f32")]
    pub dtype: FileDtype,

    /// Replace OUT if it exists
    #[arg(long)]
    pub force: bool,

    #[command(flatten)]
    pub hub: HubArgs,
}

/// Number types of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum FileDtype {
    F32,
    Bf16,
    F16,
}

impl FileDtype {
    pub(super) fn kind(self) -> Kind {
        match self {
            FileDtype::F32 => Kind::Float,
            FileDtype::Bf16 => Kind::BFloat16,
            FileDtype::F16 => Kind::Half,
        }
    }
}

/// Overrides sorted by what they concern.
#[derive(Default)]
struct Settings {
    encoder: Map<String, Value>,
    decoder: Map<String, Value>,
    top: Map<String, Value>,
}

/// Assembles, fills in the special ids, writes, and reports.
pub(super) fn run(args: &InitArgs) -> Result<Verdict> {
    let mut settings = Settings::parse(&args.set)?;
    let encoder = source(Half::Encoder, &args.encoder, &args.hub)?;
    let decoder = source(Half::Decoder, &args.decoder, &args.hub)?;
    for dir in [encoder.dir(), decoder.dir()].into_iter().flatten() {
        keep_apart(&args.out, dir)?;
    }
    let staging = Staging::new(&args.out, args.force)?;
    signals::abandon(staging.path())?;
    let (tokenizer, decoder_own) = tokenizer(args, &decoder)?;
    let pretrained = matches!(decoder, Source::Pretrained { .. });
    if !pretrained
        && !settings.decoder.contains_key("vocab_size")
        && !names_vocabulary(&decoder, &args.decoder)
    {
        settings.decoder.insert("vocab_size".into(), json!(tokenizer.vocab_size()));
    }
    let unknown = settings.unknown_of_the_top();
    ids::fill(&mut settings.top, &mut settings.decoder, &tokenizer, &decoder, decoder_own)?;

    tch::manual_seed(args.seed);
    let (model, report) = assemble(
        &encoder,
        &decoder,
        &settings.encoder,
        &settings.decoder,
        settings.top,
        Kind::Float,
    )?;
    let vocabulary = model.decoder.limits().vocab_size;
    ensure!(
        tokenizer.vocab_size() as i64 <= vocabulary,
        "the tokenizer has {} tokens, the decoder's vocabulary {vocabulary}; take the tokenizer of that \
         decoder, or draw a decoder with --set decoder.vocab_size={}",
        tokenizer.vocab_size(),
        tokenizer.vocab_size()
    );
    ids::check(&model)?;
    let (processor, mut notes) = image_processor(args, &encoder, &model)?;
    notes.extend(unknown);

    let dir = staging.path();
    let options = WeightOptions { kind: Some(args.dtype.kind()), ..WeightOptions::default() };
    save_model(dir, &model, options)?;
    write_json(&dir.join("generation_config.json"), &generation(&model)?)?;
    write_json(&dir.join("preprocessor_config.json"), &processor.to_json())?;
    tokenizer.save(dir)?;
    staging.finish()?;
    notes.extend(report.notes);
    tell(args, &model, &Report { notes, ..report });
    Ok(Verdict::Done)
}

/// generation_config.json as the reference derives it from a fresh model's config.
fn generation(model: &VisionEncoderDecoder) -> Result<Value> {
    let (config, _) = model.generation_config(&Map::new(), None, true)?;
    Ok(config.to_json())
}

impl Settings {
    fn parse(set: &[String]) -> Result<Self> {
        let mut settings = Settings::default();
        for text in set {
            let (name, value) = text
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .with_context(|| format!("--set {text:?}: expected NAME=VALUE"))?;
            // JSON where it is JSON (numbers, true, lists), else the text itself.
            let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
            let (map, name) = match name.split_once('.') {
                Some(("encoder", name)) => (&mut settings.encoder, name),
                Some(("decoder", name)) => (&mut settings.decoder, name),
                Some((part, _)) => bail!("--set {text:?}: {part:?} is neither encoder nor decoder"),
                None => (&mut settings.top, name),
            };
            ensure!(
                name != "model_type",
                "--set {text:?}: the type comes from --encoder, --decoder"
            );
            map.insert(name.to_string(), value);
        }
        Ok(settings)
    }

    /// Warnings for names of the top level that nothing reads there.
    fn unknown_of_the_top(&self) -> Vec<String> {
        let generation = GenerationConfig::names();
        let known = |name: &str| COMMON.contains(&name) || generation.contains(&name);
        let unknown = self.top.keys().filter(|name| !known(name));
        unknown
            .map(|name| {
                format!(
                    "the top level of a config has no {name:?}; it is written, and has no effect \
                     (encoder.{name} and decoder.{name} name the halves' fields)"
                )
            })
            .collect()
    }
}

/// A directory or model name, a config file, or a type.
fn source(half: Half, name: &str, hub: &HubArgs) -> Result<Source> {
    let path = Path::new(name);
    if path.is_file() {
        return Source::from_config_file(half, path);
    }
    if !path.is_dir()
        && let Some(source) = Source::from_type(half, name)
    {
        return Ok(source);
    }
    let flag = half.name();
    let dir = match download::find(name, Need::Model, None, hub, false) {
        Ok(dir) => dir,
        // A bare word may have been meant as a type: then that is what to speak of.
        Err(error)
            if name.contains(['/', '.'])
                || path.is_dir()
                || error.to_string().contains("did you mean") =>
        {
            return Err(error).with_context(|| format!("--{flag} {name:?}"));
        }
        Err(error) => {
            half.refuse(name).with_context(|| format!("--{flag}: {error}"))?;
            return Err(error);
        }
    };
    Source::from_dir(half, &dir).with_context(|| format!("--{flag} {name:?}"))
}

/// The tokenizer, and whether it is the pretrained decoder's own.
fn tokenizer(args: &InitArgs, decoder: &Source) -> Result<(Tokenizer, bool)> {
    let (dir, own) = match (&args.tokenizer, decoder.dir()) {
        (Some(name), _) => {
            let found = download::find(name, Need::Tokenizer, None, &args.hub, false);
            (found.context("--tokenizer")?, false)
        }
        (None, Some(dir)) => (dir.to_path_buf(), true),
        (None, None) => bail!(
            "a decoder from a config brings no tokenizer; name one by --tokenizer (a directory with \
             tokenizer.json, or a model)"
        ),
    };
    let tokenizer = Tokenizer::from_dir(&dir, Some(decoder.model_type()))
        .with_context(|| format!("the tokenizer of {dir:?}"))?;
    Ok((tokenizer, own))
}

/// True if the config file itself says how large the vocabulary is; a type's defaults are no file.
fn names_vocabulary(decoder: &Source, name: &str) -> bool {
    Path::new(name).is_file() && decoder.config().get("vocab_size").is_some_and(|v| !v.is_null())
}

/// The encoder's own processor, or its family's default at the encoder's size.
fn image_processor(
    args: &InitArgs,
    encoder: &Source,
    model: &VisionEncoderDecoder,
) -> Result<(ImageProcessor, Vec<String>)> {
    let mut notes = Vec::new();
    let encoder_type = encoder.model_type();
    let named = match &args.image_processor {
        Some(name) => Some(
            download::find(name, Need::ImageProcessor, None, &args.hub, false)
                .context("--image-processor")?,
        ),
        None => encoder.dir().map(Path::to_path_buf),
    };
    let processor = match &named {
        Some(dir) => read_image_processor(dir, encoder_type, &mut notes)
            .context("the image processor of the encoder; --image-processor names another")?,
        None => ImageProcessor::default_for(encoder_type)?,
    };
    let Some(size) = image_size(&model.config.encoder) else { return Ok((processor, notes)) };
    // The default of a family without a file of its own is of another size as likely as not.
    if named.as_deref().is_none_or(|dir| !dir.join("preprocessor_config.json").exists()) {
        return Ok((processor.with_size(size.0, size.1)?, notes));
    }
    let fit = |processor: &ImageProcessor| match processor.output_size() {
        Some((height, width)) => model.encoder.check_size(height as i64, width as i64, false),
        None => Ok(()),
    };
    if fit(&processor).is_ok() {
        return Ok((processor, notes));
    }
    let resized = processor.with_size(size.0, size.1)?;
    fit(&resized).with_context(|| {
        format!(
            "no image processor fits the encoder's image_size {}x{}; --image-processor names one, \
             --set encoder.image_size another size",
            size.0, size.1
        )
    })?;
    notes
        .push(format!("the image processor's size is now {}x{}, as the encoder's", size.0, size.1));
    Ok((resized, notes))
}

/// image_size of a config, (height, width).
fn image_size(encoder: &Value) -> Option<(usize, usize)> {
    match encoder.get("image_size")? {
        Value::Number(side) => side.as_u64().map(|side| (side as usize, side as usize)),
        Value::Array(pair) => {
            Some((pair.first()?.as_u64()? as usize, pair.get(1)?.as_u64()? as usize))
        }
        _ => None,
    }
}

/// What was taken, left and made, on standard error.
fn tell(args: &InitArgs, model: &VisionEncoderDecoder, report: &Report) {
    let variables = model.store().variables();
    let parameters: usize = variables.iter().map(|variable| variable.tensor.numel()).sum();
    stderr::say(format_args!(
        "{}: {} encoder, {} decoder, {} tensors, {:.1} million parameters",
        args.out.display(),
        model.config.encoder_type(),
        model.config.decoder_type(),
        variables.len(),
        parameters as f64 / 1e6
    ));
    report.lines().iter().for_each(stderr::say);
}
