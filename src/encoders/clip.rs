//! The vision towers of CLIP (Radford et al. 2021) and Chinese CLIP. Reference: `modeling_clip.py`,
//! `modeling_chinese_clip.py`. The last norm is for classification alone: `post_layernorm` is not
//! applied to what a decoder sees.

use std::rc::Rc;

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use super::{Encoder, EncoderArch, Grid, wrong_size};
use crate::nn::config;
use crate::nn::params::{Init, ONES, ZEROS};
use crate::nn::position::interpolate_square;
use crate::nn::{
    Activation, Attention, FeedForward, LayerNorm, Params, PatchEmbeddings, PreNorm, segment,
};

pub(super) const CLIP_VISION: EncoderArch = EncoderArch {
    model_type: "clip_vision_model",
    prefix: "clip",
    defaults: || defaults("clip_vision_model"),
    build: |json, p| build(p, defaults("clip_vision_model"), json),
    ignore: &[".position_ids"],
};

pub(super) const CHINESE_CLIP_VISION: EncoderArch = EncoderArch {
    model_type: "chinese_clip_vision_model",
    prefix: "chinese_clip",
    defaults: || defaults("chinese_clip_vision_model"),
    build: |json, p| build(p, defaults("chinese_clip_vision_model"), json),
    ignore: &[".position_ids"],
};

/// The fields that the towers of CLIP and SigLIP share.
#[derive(Deserialize)]
pub(super) struct Config {
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub num_channels: i64,
    pub image_size: i64,
    pub patch_size: i64,
    pub hidden_act: String,
    pub layer_norm_eps: f64,
    pub attention_dropout: f64,
    #[serde(default)]
    initializer_range: f64,
    #[serde(default)]
    initializer_factor: f64,
}

fn defaults(model_type: &str) -> Value {
    json!({
        "model_type": model_type, "hidden_size": 768, "intermediate_size": 3072,
        "projection_dim": 512, "num_hidden_layers": 12, "num_attention_heads": 12,
        "num_channels": 3, "patch_size": 32, "image_size": 224, "initializer_range": 0.02,
        "initializer_factor": 1.0, "attention_dropout": 0.0, "layer_norm_eps": 1e-5,
        "hidden_act": "quick_gelu",
    })
}

impl Config {
    pub(super) fn read(defaults: Value, json: &Value) -> Result<Self> {
        let config: Config = config::read(defaults, json, &[])?;
        ensure!(
            config.num_attention_heads > 0 && config.hidden_size % config.num_attention_heads == 0,
            "hidden_size {} is no multiple of num_attention_heads {}",
            config.hidden_size,
            config.num_attention_heads
        );
        ensure!(
            config.patch_size > 0 && config.image_size >= config.patch_size,
            "patch_size {} does not fit image_size {}",
            config.patch_size,
            config.image_size
        );
        Ok(config)
    }

    /// Patches of an image of the configured size.
    pub(super) fn patches(&self) -> i64 {
        (self.image_size / self.patch_size).pow(2)
    }
}

struct Clip {
    embeddings: Embeddings,
    pre_layrnorm: LayerNorm,
    layers: Vec<Rc<PreNorm>>,
}

/// Patches, if need be after a class token, and learned positions.
pub(super) struct Embeddings {
    pub patches: PatchEmbeddings,
    /// [D]
    pub class: Option<Tensor>,
    /// [P, D] or [1 + P, D]
    pub positions: Tensor,
    pub image_size: i64,
}

/// How a family draws its layers.
pub(super) struct LayerInit {
    pub qkv: Init,
    pub out: Init,
    pub fc1: Init,
    pub fc2: Init,
    pub fc_bias: Init,
}

/// Where the tower's tensors are: the class that the reference makes has one level more than others
/// wrote. Of a model of images and text both spellings are offered, and that of the class is taken.
pub(super) fn tower(p: &Params) -> Params {
    let (inside, first) = (p / "vision_model", "embeddings.patch_embedding.weight");
    if p.has(first) && !inside.has(first) { p.clone() } else { inside }
}

fn build(p: &Params, defaults: Value, json: &Value) -> Result<Box<dyn Encoder>> {
    let config = Config::read(defaults, json)?;
    Ok(Box::new(Clip::new(&tower(p), &config)?))
}

impl Clip {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let (d, factor) = (config.hidden_size, config.initializer_factor);
        let width = (d as f64).powf(-0.5) * factor;
        let depth = (2.0 * config.num_hidden_layers as f64).powf(-0.5);
        let init = Init::Normal(config.initializer_range * factor);
        let own = p / "embeddings";
        let class = own.var("class_embedding", &[d], Init::Normal(width))?;
        let embeddings = Embeddings::new(&own, config, Some(class), false, init, init)?;
        let layers = LayerInit {
            qkv: Init::Normal(width * depth),
            out: Init::Normal(width),
            fc1: Init::Normal(width * 2f64.powf(-0.5)),
            fc2: Init::Normal(width * depth),
            fc_bias: ZEROS,
        };
        (p / "post_layernorm").spare("weight", &[d], ONES)?;
        (p / "post_layernorm").spare("bias", &[d], ZEROS)?;
        Ok(Clip {
            embeddings,
            pre_layrnorm: p.layer_norm("pre_layrnorm", d, config.layer_norm_eps)?,
            layers: stack(p, config, &layers)?,
        })
    }
}

impl Encoder for Clip {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let mut xs = self.pre_layrnorm.forward(&self.embeddings.forward(pixel_values)); // [B, 1+P, D]
        for layer in &self.layers {
            xs = segment::encode(layer, &xs, move |layer, xs| layer.forward(xs, train));
        }
        xs
    }

    fn hidden_size(&self) -> i64 {
        self.pre_layrnorm.weight.size()[0]
    }

    fn check_size(&self, height: i64, width: i64, interpolate: bool) -> Result<()> {
        let side = self.embeddings.image_size;
        if !interpolate && (height, width) != (side, side) {
            return wrong_size((height, width), (side, side));
        }
        self.embeddings.check_size(height, width, interpolate)
    }

    fn grid(&self, height: i64, width: i64) -> Grid {
        self.embeddings.place(height, width)
    }
}

impl Embeddings {
    /// `class` is the class token, if any; `bias` is for the patches.
    pub(super) fn new(
        p: &Params,
        config: &Config,
        class: Option<Tensor>,
        bias: bool,
        patches: Init,
        positions: Init,
    ) -> Result<Self> {
        let (d, side) = (config.hidden_size, config.patch_size);
        let rows = config.patches() + i64::from(class.is_some());
        Ok(Embeddings {
            patches: PatchEmbeddings::new(
                p,
                "patch_embedding",
                config.num_channels,
                d,
                (side, side),
                bias,
                patches,
            )?,
            class,
            positions: p.embedding("position_embedding", rows, d, positions)?.weight,
            image_size: config.image_size,
        })
    }

    /// [B, C, H, W] -> [B, S, D]
    pub(super) fn forward(&self, pixel_values: &Tensor) -> Tensor {
        let size = pixel_values.size();
        let (rows, columns) = self.patches.patch;
        let grid = (size[2] / rows, size[3] / columns);
        let leading = i64::from(self.class.is_some());
        let count = self.positions.size()[0] - leading;
        let positions = self.positions.narrow(0, leading, count).unsqueeze(0); // [1, P, D]
        // Whatever remains at the edges is no part of the grid.
        let kept = (grid.0 * rows, grid.1 * columns);
        let patches =
            self.patches.forward(pixel_values) + interpolate_square(&positions, kept, grid, false);
        match &self.class {
            Some(class) => {
                let class = (class + self.positions.get(0)).expand([size[0], 1, -1], false);
                Tensor::cat(&[class, patches], 1)
            }
            None => patches,
        }
    }

    /// Positions are learned for a square grid; what remains at the edges does not matter.
    pub(super) fn place(&self, height: i64, width: i64) -> Grid {
        Grid::of_patches(i64::from(self.class.is_some()), self.patches.patch, height, width)
    }

    pub(super) fn check_size(&self, height: i64, width: i64, interpolate: bool) -> Result<()> {
        let (rows, columns) = self.patches.patch;
        let side = (self.positions.size()[0] - i64::from(self.class.is_some())).isqrt();
        let grid = (height / rows, width / columns);
        if grid == (side, side) || (interpolate && grid.0 > 0 && grid.1 > 0) {
            return Ok(());
        }
        wrong_size((height, width), (self.image_size, self.image_size))
    }
}

/// The layers of CLIP and SigLIP; `p` is the tower.
pub(super) fn stack(p: &Params, config: &Config, init: &LayerInit) -> Result<Vec<Rc<PreNorm>>> {
    let p = p / "encoder" / "layers";
    (0..config.num_hidden_layers).map(|i| layer(&(&p / i), config, init).map(Rc::new)).collect()
}

fn layer(p: &Params, config: &Config, init: &LayerInit) -> Result<PreNorm> {
    let (d, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
    let own = p / "self_attn";
    let attention = Attention {
        qkv: own.joined(
            &["q_proj", "k_proj", "v_proj"].map(|name| (name, true)),
            d,
            d,
            init.qkv,
        )?,
        out: own.linear("out_proj", d, d, init.out)?,
        heads: config.num_attention_heads,
        scale: ((d / config.num_attention_heads) as f64).powf(-0.5),
        dropout: config.attention_dropout,
        relative: None,
    };
    let own = p / "mlp";
    let dense = |name, inputs, outputs, weight| {
        own.linear_drawn(name, inputs, outputs, weight, init.fc_bias)
    };
    let feed_forward = FeedForward {
        up: dense("fc1", d, inner, init.fc1)?,
        activation: Activation::from_name(&config.hidden_act)?,
        activation_dropout: 0.0,
        down: dense("fc2", inner, d, init.fc2)?,
    };
    Ok(PreNorm {
        attention_norm: p.layer_norm("layer_norm1", d, eps)?,
        attention,
        feed_norm: p.layer_norm("layer_norm2", d, eps)?,
        feed_forward,
        dropout: 0.0,
    })
}
