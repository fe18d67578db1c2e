//! What is measured: checkpoints with random weights at the sizes of well-known ones, and pictures.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use vedm::splitmix::{GOLDEN, mix};

use crate::vocabulary::{self, Family};

/// A model that can be measured.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// New tokens of a text.
    pub(crate) tokens: i64,
    encoder: fn() -> Value,
    decoder: fn() -> Value,
    vocabulary: (Family, usize),
    picture: (u32, u32),
}

/// The sizes are those of nlpconnect/vit-gpt2-image-captioning, microsoft/trocr-small-printed,
/// microsoft/trocr-base-handwritten and naver-clova-ix/donut-base.
pub(crate) const MODELS: [Model; 5] = [
    Model {
        name: "vit-gpt2",
        tokens: 16,
        encoder: || json!({ "model_type": "vit" }),
        decoder: || json!({ "model_type": "gpt2", "vocab_size": 50257 }),
        vocabulary: (Family::Gpt2, 50257),
        picture: (640, 480),
    },
    Model {
        name: "trocr-small",
        tokens: 20,
        encoder: || {
            json!({
                "model_type": "deit", "hidden_size": 384, "num_attention_heads": 6,
                "intermediate_size": 1536, "image_size": 384,
            })
        },
        decoder: || {
            json!({
                "model_type": "trocr", "vocab_size": 64044, "d_model": 256, "decoder_layers": 6,
                "decoder_attention_heads": 8, "decoder_ffn_dim": 1024, "scale_embedding": true,
                "activation_function": "relu", "cross_attention_hidden_size": 384,
            })
        },
        vocabulary: (Family::XlmRoberta, 64044),
        picture: (768, 64),
    },
    Model {
        name: "trocr-base",
        tokens: 20,
        encoder: || json!({ "model_type": "vit", "image_size": 384, "qkv_bias": false }),
        decoder: || {
            json!({
                "model_type": "trocr", "vocab_size": 50265, "cross_attention_hidden_size": 768,
            })
        },
        vocabulary: (Family::Roberta, 50265),
        picture: (768, 64),
    },
    Model {
        name: "donut-base",
        tokens: 32,
        encoder: || {
            json!({
                "model_type": "donut-swin", "image_size": [2560, 1920], "embed_dim": 128,
                "depths": [2, 2, 14, 2], "num_heads": [4, 8, 16, 32], "window_size": 10,
            })
        },
        decoder: || {
            json!({
                "model_type": "mbart", "vocab_size": 57525, "decoder_layers": 4, "d_model": 1024,
                "decoder_attention_heads": 16, "decoder_ffn_dim": 4096, "scale_embedding": true,
                "max_position_embeddings": 1536,
            })
        },
        vocabulary: (Family::XlmRoberta, 57525),
        picture: (1280, 960),
    },
    Model {
        name: "tiny",
        tokens: 6,
        encoder: || {
            json!({
                "model_type": "vit", "hidden_size": 32, "num_hidden_layers": 1,
                "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32,
            })
        },
        decoder: || {
            json!({
                "model_type": "gpt2", "vocab_size": 500, "n_embd": 32, "n_layer": 1, "n_head": 2,
            })
        },
        vocabulary: (Family::Gpt2, 500),
        picture: (48, 32),
    },
];

/// Different pictures of a batch; larger batches repeat them.
pub(crate) const PICTURES: usize = 8;

/// The model of this name.
pub(crate) fn find(name: &str) -> Result<&'static Model> {
    match MODELS.iter().find(|model| model.name == name) {
        Some(model) => Ok(model),
        None => {
            let names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
            bail!("no model {name:?}; there are {}", names.join(", "))
        }
    }
}

impl Model {
    /// The checkpoint under `dir`, made if it is not there: a run of `vedm init`, which `vedm` does.
    pub(crate) fn checkpoint(
        &self,
        dir: &Path,
        vedm: impl FnOnce(Vec<OsString>) -> Result<i32>,
    ) -> Result<PathBuf> {
        let out = dir.join(self.name);
        if out.join("config.json").is_file() {
            return Ok(out);
        }
        let parts = dir.join(format!("{}-parts", self.name));
        std::fs::create_dir_all(&parts).with_context(|| format!("can't make {parts:?}"))?;
        let write = |name: &str, json: &Value| -> Result<PathBuf> {
            let path = parts.join(name);
            std::fs::write(&path, serde_json::to_vec(json)?)
                .with_context(|| format!("can't write {path:?}"))?;
            Ok(path)
        };
        let encoder = write("encoder.json", &(self.encoder)())?;
        let decoder = write("decoder.json", &(self.decoder)())?;
        let (family, size) = self.vocabulary;
        for (name, json) in vocabulary::files(family, size) {
            write(name, &json)?;
        }
        let words: [OsString; 9] = [
            "init".into(),
            out.clone().into(),
            "--encoder".into(),
            encoder.into(),
            "--decoder".into(),
            decoder.into(),
            "--tokenizer".into(),
            parts.into(),
            "--force".into(),
        ];
        ensure!(vedm(words.to_vec())? == 0, "vedm init failed for {}", self.name);
        Ok(out)
    }

    /// Whether candle's TrOCR reads it: a ViT and a TrOCR (a DeiT has a token more than it knows of).
    pub(crate) fn is_candles(&self) -> bool {
        (self.encoder)()["model_type"] == "vit" && (self.decoder)()["model_type"] == "trocr"
    }

    /// So many pictures of the size that such a model sees: blocks and noise, no two alike.
    pub(crate) fn pictures(&self, dir: &Path, count: usize) -> Result<Vec<PathBuf>> {
        let folder = dir.join(format!("{}-pictures", self.name));
        std::fs::create_dir_all(&folder).with_context(|| format!("can't make {folder:?}"))?;
        let (width, height) = self.picture;
        (0..count as u64)
            .map(|number| {
                let path = folder.join(format!("{number}.png"));
                if !path.is_file() {
                    let picture = RgbImage::from_fn(width, height, |x, y| {
                        let block =
                            mix((u64::from(x / 24) << 20 | u64::from(y / 16)) ^ mix(number));
                        let noise = mix(block ^ (u64::from(y * width + x)).wrapping_mul(GOLDEN));
                        Rgb([0, 8, 16].map(|shift| {
                            let (block, noise) = (block >> shift & 0xff, noise >> shift & 0x1f);
                            (block * 7 / 8 + noise).min(255) as u8
                        }))
                    });
                    picture.save(&path).with_context(|| format!("can't write {path:?}"))?;
                }
                Ok(path)
            })
            .collect()
    }
}

/// As many pictures as a batch has.
pub(crate) fn batch(pictures: &[PathBuf], size: usize) -> Vec<PathBuf> {
    pictures.iter().cycle().take(size).cloned().collect()
}
