//! The two ends of a model: image processor and tokenizer.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::config::{VisionEncoderDecoderConfig, read_json_if_there};
use crate::image::ImageProcessor;
use crate::text::Tokenizer;

/// What a checkpoint directory says about pixels and text (the reference's `TrOCRProcessor` and kin).
pub struct Processor {
    pub image_processor: ImageProcessor,
    pub tokenizer: Tokenizer,
    /// Sentences for the user that are no errors.
    pub warnings: Vec<String>,
}

impl Processor {
    /// Reads both from the directory of a checkpoint.
    pub fn from_dir(dir: &Path, config: &VisionEncoderDecoderConfig) -> Result<Self> {
        let mut warnings = Vec::new();
        let image_processor = read_image_processor(dir, config.encoder_type(), &mut warnings)?;
        let tokenizer = Tokenizer::from_dir(dir, Some(config.decoder_type()))
            .with_context(|| format!("the tokenizer of {dir:?}"))?;
        Ok(Processor { image_processor, tokenizer, warnings })
    }
}

/// preprocessor_config.json, else the `image_processor` of processor_config.json, else the defaults of
/// the encoder's family (told as a warning).
pub fn read_image_processor(
    dir: &Path,
    encoder_type: &str,
    warnings: &mut Vec<String>,
) -> Result<ImageProcessor> {
    let path = dir.join("preprocessor_config.json");
    let mut found = read_json_if_there(&path)?;
    let mut origin = path;
    if found.is_none() {
        origin = dir.join("processor_config.json");
        found = read_json_if_there(&origin)?
            .and_then(|json| json.get("image_processor").cloned().filter(Value::is_object));
    }
    match found {
        Some(json) => ImageProcessor::from_json(&json, Some(encoder_type))
            .with_context(|| format!("{origin:?}")),
        None => {
            warnings.push(format!(
                "{dir:?} has no preprocessor_config.json; the defaults of {encoder_type:?} are used"
            ));
            ImageProcessor::default_for(encoder_type)
        }
    }
}
