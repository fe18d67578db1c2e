//! `vedm doctor`: what was found, and what follows from it.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::Verdict;
use super::download::{self, HubArgs};
use crate::checkpoint::Memory;
use crate::hub::{Settings, Survey, survey};
use crate::models::{self, Need};
use crate::ved::config::read_json_if_there;
use crate::ved::{self, LoadOptions, Processor, VisionEncoderDecoder};
use crate::{decoders, device, encoders, native};

#[derive(Args)]
pub(super) struct DoctorArgs {
    /// Open this model as well, and account for its tensors, its tokenizer and its image processor
    #[arg(short, long, env = "VEDM_MODEL", hide_env = true)]
    pub model: Option<String>,

    #[command(flatten)]
    pub hub: HubArgs,
}

/// Prints the report; a model that can't be used is an error.
pub(super) fn run(args: &DoctorArgs) -> Result<Verdict> {
    let out = &mut std::io::stdout().lock();
    writeln!(out, "vedm        {}", env!("CARGO_PKG_VERSION"))?;
    let folder = native::libtorch_folder();
    writeln!(out, "libtorch    2.11.0 in {}", shown(folder))?;
    writeln!(out, "cpu         {}, {} threads an operation", capability(), tch::get_num_threads())?;
    match device::cuda() {
        Ok(count) => writeln!(out, "cuda        {count} device(s); --device auto computes there")?,
        Err(reason) => writeln!(out, "cuda        not used: {reason}")?,
    }
    hub(&Settings::from_env(args.hub.offline), out)?;
    let shipped = models::shipped_names().join(", ");
    writeln!(out, "shipped     {}", if shipped.is_empty() { "none" } else { &shipped })?;
    writeln!(out, "encoders    {}", encoders::names())?;
    writeln!(out, "decoders    {}", decoders::names())?;
    if let Some(name) = &args.model {
        model(name, &args.hub, out)?;
    }
    Ok(Verdict::Done)
}

/// The Hub, as which user it is asked, and what the cache has of it.
fn hub(settings: &Settings, out: &mut impl Write) -> Result<()> {
    let use_of_it = if settings.offline { "not asked: offline" } else { "asked for models" };
    let token = match &settings.token {
        Some((_, source)) => format!("token from {source}"),
        None => "no token".to_string(),
    };
    writeln!(out, "hub         {} ({use_of_it}; {token})", settings.endpoint)?;
    let folder = settings.cache.display();
    if !settings.cache.is_dir() {
        writeln!(out, "hub cache   {folder} (not there yet)")?;
        return Ok(());
    }
    let Survey { models, incomplete, bytes } = survey(&settings.cache);
    writeln!(out, "hub cache   {folder}: {models} model(s), {:.1} MB", bytes as f64 / 1e6)?;
    if incomplete > 0 {
        writeln!(
            out,
            "            {incomplete} download(s) broken off, which the next use goes on with"
        )?;
    }
    Ok(())
}

fn model(name: &str, hub: &HubArgs, out: &mut impl Write) -> Result<()> {
    let dir = download::find(name, Need::Model, None, hub, false)?;
    writeln!(out, "model       {}", dir.display())?;
    let options = LoadOptions { memory: Memory::Shared, ..LoadOptions::default() };
    let (model, mut warnings) = ved::load(&dir, options)?;
    model.config.check_channels()?;
    let variables = model.store().variables();
    let count: usize = variables.iter().map(|variable| variable.tensor.numel()).sum();
    let limits = model.decoder.limits();
    writeln!(
        out,
        "            {} encoder, {} decoder, {} tensors, {:.1} million parameters",
        model.config.encoder_type(),
        model.config.decoder_type(),
        variables.len(),
        count as f64 / 1e6
    )?;
    let processor = Processor::from_dir(&dir, &model.config)?;
    writeln!(
        out,
        "            vocabulary {} (tokenizer {}), positions {}",
        limits.vocab_size,
        processor.tokenizer.vocab_size(),
        limits.max_positions.map_or("unlimited".to_string(), |positions| positions.to_string())
    )?;
    warnings.extend(processor.warnings.iter().cloned());
    warnings.extend(settings(&dir, &model, &processor)?);
    for warning in warnings {
        writeln!(out, "            warning: {warning}")?;
    }
    writeln!(out, "            sound: every tensor is accounted for")?;
    Ok(())
}

/// Refuses what would end a run of `caption` or `ocr` although the weights are in order; gives the warnings.
fn settings(
    dir: &Path,
    model: &VisionEncoderDecoder,
    processor: &Processor,
) -> Result<Vec<String>> {
    let file = read_json_if_there(&dir.join("generation_config.json"))?;
    let warnings = model.check_generation(file.as_ref())?;
    if let Some((height, width)) = processor.image_processor.output_size() {
        let sized = model.encoder.check_size(height as i64, width as i64, false);
        sized.context("preprocessor_config.json does not fit the encoder")?;
    }
    Ok(warnings)
}

fn capability() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        let table = [
            (std::arch::is_x86_feature_detected!("avx512bf16"), "AVX-512 with bf16"),
            (std::arch::is_x86_feature_detected!("avx512f"), "AVX-512"),
            (std::arch::is_x86_feature_detected!("avx2"), "AVX2"),
        ];
        table.iter().find(|(has, _)| *has).map_or("x86-64 without AVX2", |(_, name)| name)
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::env::consts::ARCH
}

fn shown(folder: Option<PathBuf>) -> String {
    folder.map_or("an unknown folder".to_string(), |folder| folder.display().to_string())
}
