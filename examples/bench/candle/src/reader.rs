//! The model of a checkpoint folder, and greedy search, of which candle-transformers has none of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{trocr, vit};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::Tokenizer;

use crate::picture::Processor;

/// config.json
#[derive(Deserialize)]
struct Config {
    encoder: Encoder,
    decoder: trocr::TrOCRConfig,
}

#[derive(Deserialize)]
struct Encoder {
    model_type: String,
    #[serde(flatten)]
    rest: serde_json::Value,
}

/// All between files and texts.
pub(crate) struct Reader {
    model: trocr::TrOCRModel,
    processor: Processor,
    tokenizer: Tokenizer,
    start: u32,
    end: u32,
}

impl Reader {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let Config { encoder, decoder } = json(&folder.join("config.json"))?;
        let Encoder { model_type, rest } = encoder;
        ensure!(model_type == "vit", "candle's TrOCR has no {model_type} encoder, only vit");
        let encoder: vit::Config =
            serde_json::from_value(rest).context("encoder of config.json")?;
        let path = folder.join("model.safetensors");
        let weights = std::fs::read(&path).with_context(|| format!("can't read {path:?}"))?;
        let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)?;
        let path = folder.join("tokenizer.json");
        Ok(Reader {
            model: trocr::TrOCRModel::new(&encoder, &decoder, weights)?,
            processor: json(&folder.join("preprocessor_config.json"))?,
            tokenizer: Tokenizer::from_file(&path).map_err(Error::msg)?,
            start: decoder.decoder_start_token_id,
            end: decoder.eos_token_id,
        })
    }

    /// [B, 3, H, W]
    pub(crate) fn pixels(&self, images: &[PathBuf]) -> Result<Tensor> {
        let (height, width) = self.processor.size();
        let mut pixels = Vec::with_capacity(images.len() * 3 * height * width);
        for image in images {
            self.processor.read(image, &mut pixels)?;
        }
        Ok(Tensor::from_vec(pixels, (images.len(), 3, height, width), &Device::Cpu)?)
    }

    /// The encoder: [B, 3, H, W] to [B, S, D].
    pub(crate) fn states(&mut self, pixels: &Tensor) -> Result<Tensor> {
        Ok(self.model.encoder().forward(pixels)?)
    }

    /// Pictures to what the encoder makes of them, [B, S, D].
    pub(crate) fn encode(&mut self, images: &[PathBuf]) -> Result<Tensor> {
        let pixels = self.pixels(images)?;
        self.states(&pixels)
    }

    /// So many new tokens of each text: the end is no choice, as with min_new_tokens.
    pub(crate) fn greedy(&mut self, states: &Tensor, tokens: i64) -> Result<Vec<Vec<u32>>> {
        let rows = states.dim(0)?;
        self.model.reset_kv_cache();
        let mut texts = vec![Vec::new(); rows];
        let mut last = vec![self.start; rows];
        for past in 0..usize::try_from(tokens)? {
            let input = Tensor::from_vec(last, (rows, 1), &Device::Cpu)?;
            let logits = self.model.decode(&input, states, past)?.squeeze(1)?.to_vec2::<f32>()?;
            last = logits.iter().map(|row| greatest(row, self.end)).collect();
            texts.iter_mut().zip(&last).for_each(|(text, token)| text.push(*token));
        }
        Ok(texts)
    }

    pub(crate) fn texts(&self, ids: &[Vec<u32>]) -> Result<Vec<String>> {
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        self.tokenizer.decode_batch(&ids, true).map_err(Error::msg)
    }
}

/// The first greatest but for the token `end`.
pub(crate) fn greatest(logits: &[f32], end: u32) -> u32 {
    let mut best = (f32::NEG_INFINITY, 0);
    for (token, logit) in (0..).zip(logits) {
        if token != end && *logit > best.0 {
            best = (*logit, token);
        }
    }
    best.1
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).with_context(|| format!("can't read {path:?}"))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{path:?}"))
}
