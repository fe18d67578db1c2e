//! The vision tower of SigLIP (Zhai et al. 2023). Reference: `modeling_siglip.py`. Differs from CLIP's:
//! no class token, no norm before the layers, `post_layernorm` on all tokens.

use std::rc::Rc;

use anyhow::Result;
use serde_json::{Value, json};
use tch::Tensor;

use super::clip::{Config, Embeddings, LayerInit, stack, tower};
use super::{Encoder, EncoderArch, Grid};
use crate::nn::params::{Init, ONES, ZEROS};
use crate::nn::{LayerNorm, Params, PreNorm, segment};

pub(super) const SIGLIP_VISION: EncoderArch = EncoderArch {
    model_type: "siglip_vision_model",
    prefix: "siglip",
    defaults,
    build: |json, p| {
        let (config, p) = (Config::read(defaults(), json)?, tower(p));
        let use_head = json.get("vision_use_head").and_then(Value::as_bool).unwrap_or(true);
        if use_head {
            spare_head(&(&p / "head"), &config)?;
        }
        Ok(Box::new(Siglip::new(&p, &config)?))
    },
    ignore: &[".position_ids", "vision_model.head.", "head."],
};

fn defaults() -> Value {
    json!({
        "model_type": "siglip_vision_model", "hidden_size": 768, "intermediate_size": 3072,
        "num_hidden_layers": 12, "num_attention_heads": 12, "num_channels": 3, "image_size": 224,
        "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
        "attention_dropout": 0.0,
    })
}

struct Siglip {
    embeddings: Embeddings,
    layers: Vec<Rc<PreNorm>>,
    post_layernorm: LayerNorm,
}

impl Siglip {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let d = config.hidden_size;
        let positions = Init::Normal((d as f64).powf(-0.5));
        let layers = LayerInit {
            qkv: Init::XavierUniform,
            out: Init::XavierUniform,
            fc1: Init::XavierUniform,
            fc2: Init::XavierUniform,
            fc_bias: Init::Normal(1e-6),
        };
        let own = p / "embeddings";
        Ok(Siglip {
            embeddings: Embeddings::new(&own, config, None, true, Init::LecunNormal, positions)?,
            layers: stack(p, config, &layers)?,
            post_layernorm: p.layer_norm("post_layernorm", d, config.layer_norm_eps)?,
        })
    }
}

impl Encoder for Siglip {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let mut xs = self.embeddings.forward(pixel_values); // [B, P, D]
        for layer in &self.layers {
            xs = segment::encode(layer, &xs, move |layer, xs| layer.forward(xs, train));
        }
        self.post_layernorm.forward(&xs)
    }

    fn hidden_size(&self) -> i64 {
        self.post_layernorm.weight.size()[0]
    }

    fn check_size(&self, height: i64, width: i64, interpolate: bool) -> Result<()> {
        self.embeddings.check_size(height, width, interpolate)
    }

    fn grid(&self, height: i64, width: i64) -> Grid {
        self.embeddings.place(height, width)
    }
}

/// The head that pools all tokens by attention, for classification alone.
fn spare_head(p: &Params, config: &Config) -> Result<()> {
    let (d, inner) = (config.hidden_size, config.intermediate_size);
    // Glorot's bound for a tensor [1, 1, D], as `xavier_uniform_` counts its fans.
    p.spare("probe", &[1, 1, d], Init::Uniform((3.0 / d as f64).sqrt()))?;
    let own = p / "attention";
    own.spare("in_proj_weight", &[3 * d, d], Init::XavierUniform)?;
    own.spare("in_proj_bias", &[3 * d], ZEROS)?;
    (&own / "out_proj").spare("weight", &[d, d], Init::LecunNormal)?;
    (&own / "out_proj").spare("bias", &[d], ZEROS)?;
    (p / "layernorm").spare("weight", &[d], ONES)?;
    (p / "layernorm").spare("bias", &[d], ZEROS)?;
    for (name, inputs, outputs) in [("fc1", d, inner), ("fc2", inner, d)] {
        let own = p / "mlp" / name;
        own.spare("weight", &[outputs, inputs], Init::XavierUniform)?;
        own.spare("bias", &[outputs], Init::Normal(1e-6))?;
    }
    Ok(())
}
