//! DeiT (Touvron et al. 2021): ViT with a distillation token after the class token.
//! Reference: `modeling_deit.py`; the special tokens and positions start at zero there.

use anyhow::Result;
use serde_json::Value;
use tch::Tensor;

use super::vit::{self, Config, Embeddings, Layer};
use super::{Encoder, EncoderArch};
use crate::nn::params::{Init, ZEROS};
use crate::nn::{LayerNorm, Params};

pub(super) const DEIT: EncoderArch = EncoderArch {
    model_type: "deit",
    prefix: "deit",
    defaults: || vit::defaults("deit"),
    build: |json: &Value, p| Ok(Box::new(Deit::new(p, &Config::from_json(json)?)?)),
    ignore: &["embeddings.mask_token", "pooler."],
};

struct Deit {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    layernorm: LayerNorm,
}

impl Deit {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let init = Init::TruncNormal(config.initializer_range);
        let tokens = ["cls_token", "distillation_token"];
        let embeddings = Embeddings::new(&(p / "embeddings"), config, &tokens, ZEROS)?;
        let layers = Layer::stack(&(p / "encoder" / "layer"), config, init)?;
        let layernorm = p.layer_norm("layernorm", config.hidden_size, config.layer_norm_eps)?;
        vit::spare_pooler(p, config, init)?;
        Ok(Deit { embeddings, layers, layernorm })
    }
}

impl Encoder for Deit {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let mut xs = self.embeddings.forward(pixel_values, train); // [B, 2+P, D]
        for layer in &self.layers {
            xs = layer.forward(&xs, train);
        }
        self.layernorm.forward(&xs)
    }

    fn hidden_size(&self) -> i64 {
        self.layernorm.weight.size()[0]
    }

    fn check_size(&self, height: i64, width: i64, interpolate: bool) -> Result<()> {
        self.embeddings.check_size(height, width, interpolate)
    }
}
