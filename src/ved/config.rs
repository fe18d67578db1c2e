//! config.json of a VisionEncoderDecoder checkpoint: a typed head, and everything else kept as it is.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use crate::decoders;
use crate::encoders;
use crate::nn::config as reading;

/// The configuration of the whole model. Fields that vedm does not know are written back unchanged.
#[derive(Clone, Debug)]
pub struct VisionEncoderDecoderConfig {
    /// The encoder's config as the file has it.
    pub encoder: Value,
    /// The decoder's config as the file has it.
    pub decoder: Value,
    /// The whole file, without the two.
    rest: Map<String, Value>,
}

/// Model types that people try here, and what they are instead.
const STRANGERS: &[(&str, &str)] = &[
    ("blip", "BLIP"),
    ("blip-2", "BLIP-2"),
    ("git", "GIT"),
    ("pix2struct", "Pix2Struct"),
    ("florence2", "Florence-2"),
    ("kosmos-2", "Kosmos-2"),
    ("llava", "LLaVA"),
    ("encoder-decoder", "a text encoder-decoder"),
    ("speech-encoder-decoder", "a speech encoder-decoder"),
    ("vision-text-dual-encoder", "a dual encoder that scores, not a model that writes"),
    ("clip", "CLIP"),
];

impl VisionEncoderDecoderConfig {
    /// Reads `dir/config.json`.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let json = read_json(&dir.join("config.json"))?;
        Self::from_json(json).with_context(|| format!("{:?}", dir.join("config.json")))
    }

    /// Takes the two parts out of a parsed config.json; refuses what is no VisionEncoderDecoder.
    pub fn from_json(json: Value) -> Result<Self> {
        for part in [Some(&json), json.get("encoder"), json.get("decoder")].into_iter().flatten() {
            refuse_quantized(part)?;
        }
        let Value::Object(mut rest) = json else { bail!("not a JSON object") };
        let model_type = rest.get("model_type").and_then(Value::as_str).unwrap_or_default();
        if model_type != "vision-encoder-decoder" {
            let what = match STRANGERS.iter().find(|(name, _)| *name == model_type) {
                Some((_, what)) => format!("{what} (model_type {model_type:?})"),
                None if encoders::find(model_type).is_ok() => {
                    format!(
                        "an encoder alone ({model_type:?}); join it to a decoder with `vedm init`"
                    )
                }
                None if decoders::find(model_type).is_ok() => {
                    format!(
                        "a decoder alone ({model_type:?}); join it to an encoder with `vedm init`"
                    )
                }
                None if model_type.is_empty() => "a model without model_type".to_string(),
                None => format!("a {model_type:?} model"),
            };
            bail!("this is {what}, not a \"vision-encoder-decoder\"");
        }
        let mut part = |name: &str| -> Result<Value> {
            match rest.shift_remove(name) {
                Some(part) if part.get("model_type").is_some_and(Value::is_string) => Ok(part),
                Some(_) => bail!("{name:?} has no model_type"),
                None => bail!("{name:?} is missing; both \"encoder\" and \"decoder\" are needed"),
            }
        };
        let (encoder, decoder) = (part("encoder")?, part("decoder")?);
        let config = VisionEncoderDecoderConfig { encoder, decoder, rest };
        let cross = config.decoder.get("add_cross_attention").and_then(Value::as_bool);
        ensure!(
            cross != Some(false),
            "decoder.add_cross_attention is false: such a decoder never sees the image; set it to true \
             (the checkpoint must have the cross-attention weights)"
        );
        Ok(config)
    }

    /// A config for `encoder` and `decoder` (complete configs with their model_type).
    pub fn join(encoder: Value, decoder: Value, rest: Map<String, Value>) -> Self {
        VisionEncoderDecoderConfig { encoder, decoder, rest }
    }

    pub fn encoder_type(&self) -> &str {
        self.encoder.get("model_type").and_then(Value::as_str).unwrap_or_default()
    }

    pub fn decoder_type(&self) -> &str {
        self.decoder.get("model_type").and_then(Value::as_str).unwrap_or_default()
    }

    /// A special id of the top level: `decoder_start_token_id`, `pad_token_id`, ..
    pub fn id(&self, name: &str) -> Option<i64> {
        self.rest.get(name).and_then(Value::as_i64)
    }

    /// A field of the top level.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.rest.get(name)
    }

    /// Sets a field of the top level.
    pub fn set(&mut self, name: &str, value: Value) {
        self.rest.insert(name.to_string(), value);
    }

    /// The size of the encoder states that the decoder was made for, if its config says one.
    /// The very first TrOCR files call it `encoder_hidden_size`.
    pub fn cross_attention_hidden_size(&self) -> Option<i64> {
        let field = |name: &str| self.decoder.get(name).and_then(Value::as_i64);
        let old = || (self.decoder_type() == "trocr").then(|| field("encoder_hidden_size"))?;
        field("cross_attention_hidden_size").or_else(old)
    }

    /// Refuses an encoder that reads other pixels than images are decoded to.
    pub fn check_channels(&self) -> Result<()> {
        let channels = self.encoder.get("num_channels").and_then(Value::as_i64);
        ensure!(
            channels.is_none_or(|channels| channels == 3),
            "the encoder's num_channels is {}, and images are read in 3 channels: such a model is not \
             supported",
            channels.unwrap_or_default()
        );
        Ok(())
    }

    /// The decoder's class defaults overlaid with the file.
    pub fn full_decoder(&self) -> Result<Map<String, Value>> {
        let arch = decoders::find(self.decoder_type())?;
        Ok(reading::merge((arch.defaults)(), &self.decoder, arch.aliases))
    }

    /// The whole config.json, for writing and for resolving the generation settings.
    pub fn to_json(&self) -> Value {
        let mut json = self.rest.clone();
        json.insert("encoder".to_string(), self.encoder.clone());
        json.insert("decoder".to_string(), self.decoder.clone());
        Value::Object(json)
    }
}

/// Refuses a model whose weights were saved in another form than numbers.
pub(super) fn refuse_quantized(config: &Value) -> Result<()> {
    let Some(how) = config.get("quantization_config").filter(|how| !how.is_null()) else {
        return Ok(());
    };
    let method = how.get("quant_method").and_then(Value::as_str).unwrap_or("of an unknown method");
    bail!(
        "its quantization_config ({method}) is not supported; take the checkpoint that was not quantized, and \
         --dtype int8 for small weights"
    )
}

/// A JSON file; the error names the path and, for a syntax error, the line.
pub fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {path:?}"))?;
    serde_json::from_str(&text).with_context(|| format!("{path:?} is not valid JSON"))
}

/// A JSON file that may be absent.
pub fn read_json_if_there(path: &Path) -> Result<Option<Value>> {
    if path.exists() { read_json(path).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn strangers_are_refused_by_name() {
        let table = [
            (json!({"model_type": "blip"}), "BLIP (model_type \"blip\")"),
            (json!({"model_type": "vit"}), "an encoder alone (\"vit\")"),
            (json!({"model_type": "gpt2"}), "a decoder alone (\"gpt2\")"),
            (json!({"hidden_size": 3}), "a model without model_type"),
            (json!({"model_type": "vision-encoder-decoder"}), "\"encoder\" is missing"),
            (
                json!({"model_type": "vision-encoder-decoder", "encoder": {"model_type": "vit"},
                    "decoder": {"model_type": "gpt2"},
                    "quantization_config": {"quant_method": "bitsandbytes"}}),
                "its quantization_config (bitsandbytes) is not supported",
            ),
            (json!([1]), "not a JSON object"),
        ];
        for (json, expected) in table {
            let error = VisionEncoderDecoderConfig::from_json(json).expect_err("stranger");
            assert!(error.to_string().contains(expected), "{error} should say {expected}");
        }
    }

    #[test]
    fn encoders_of_other_channels_read_no_images() {
        for (channels, expected) in [(json!(3), true), (json!(null), true), (json!(1), false)] {
            let json = json!({
                "model_type": "vision-encoder-decoder", "decoder": {"model_type": "gpt2"},
                "encoder": {"model_type": "vit", "num_channels": channels},
            });
            let config = VisionEncoderDecoderConfig::from_json(json).expect("config");
            assert_eq!(config.check_channels().is_ok(), expected, "{channels}");
        }
    }

    #[test]
    fn unknown_fields_are_written_back() {
        let json = json!({
            "model_type": "vision-encoder-decoder", "mystery": [1, 2],
            "encoder": {"model_type": "vit", "odd": 1}, "decoder": {"model_type": "gpt2"},
        });
        let config = VisionEncoderDecoderConfig::from_json(json.clone()).expect("config");
        assert_eq!(config.to_json(), json);
    }
}
