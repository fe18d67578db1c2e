//! DINOv2 (Oquab et al. 2023), without and with register tokens (Darcet et al. 2023). Reference:
//! `modeling_dinov2.py`, `modeling_dinov2_with_registers.py`. Differs from ViT: layer scale after each
//! branch, positions that always follow the image. Registers have no position.

use std::rc::Rc;

use anyhow::{Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use super::{Encoder, EncoderArch, Grid, vit, wrong_size};
use crate::nn::config::{self, Size2};
use crate::nn::params::{Init, ZEROS};
use crate::nn::position::{fits_square, interpolate_square};
use crate::nn::{
    Activation, Attention, FeedForward, LayerNorm, Linear, Params, PatchEmbeddings, drop_path,
    dropout, segment,
};

pub(super) const DINOV2: EncoderArch = EncoderArch {
    model_type: "dinov2",
    prefix: "dinov2",
    defaults: || {
        let mut defaults = defaults("dinov2");
        defaults["patch_size"] = json!(14);
        defaults["use_mask_token"] = json!(true);
        defaults
    },
    build: |json, p| {
        let config = Config::read((DINOV2.defaults)(), json)?;
        Ok(Box::new(Dinov2::new(p, &config, false)?))
    },
    ignore: &["embeddings.mask_token"],
};

pub(super) const DINOV2_WITH_REGISTERS: EncoderArch = EncoderArch {
    model_type: "dinov2_with_registers",
    prefix: "dinov2_with_registers",
    defaults: || {
        let mut defaults = defaults("dinov2_with_registers");
        defaults["num_register_tokens"] = json!(4);
        defaults
    },
    build: |json, p| {
        let config = Config::read((DINOV2_WITH_REGISTERS.defaults)(), json)?;
        Ok(Box::new(Dinov2::new(p, &config, true)?))
    },
    ignore: &["embeddings.mask_token"],
};

#[derive(Deserialize)]
struct Config {
    hidden_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    mlp_ratio: f64,
    hidden_act: String,
    hidden_dropout_prob: f64,
    attention_probs_dropout_prob: f64,
    initializer_range: f64,
    layer_norm_eps: f64,
    image_size: Size2,
    patch_size: Size2,
    num_channels: i64,
    qkv_bias: bool,
    layerscale_value: f64,
    drop_path_rate: f64,
    use_swiglu_ffn: bool,
    /// The type with registers always has one.
    #[serde(default = "yes")]
    use_mask_token: bool,
    #[serde(default)]
    num_register_tokens: i64,
}

fn yes() -> bool {
    true
}

fn defaults(model_type: &str) -> Value {
    json!({
        "model_type": model_type, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "mlp_ratio": 4, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02, "layer_norm_eps": 1e-6, "image_size": 224, "patch_size": 16,
        "num_channels": 3, "qkv_bias": true, "layerscale_value": 1.0, "drop_path_rate": 0.0,
        "use_swiglu_ffn": false,
    })
}

impl Config {
    fn read(defaults: Value, json: &Value) -> Result<Self> {
        let config: Config = config::read(defaults, json, &[])?;
        ensure!(
            config.num_attention_heads > 0 && config.hidden_size % config.num_attention_heads == 0,
            "hidden_size {} is no multiple of num_attention_heads {}",
            config.hidden_size,
            config.num_attention_heads
        );
        let ((height, width), (rows, columns)) =
            (config.image_size.pair(), config.patch_size.pair());
        ensure!(
            rows > 0 && columns > 0 && height >= rows && width >= columns,
            "patch_size {rows}x{columns} does not fit image_size {height}x{width}"
        );
        Ok(config)
    }

    /// Inner width of the feed-forward; SwiGLU has two thirds of it, in eights.
    fn inner(&self) -> i64 {
        let inner = (self.hidden_size as f64 * self.mlp_ratio) as i64;
        if !self.use_swiglu_ffn {
            return inner;
        }
        ((inner as f64 * 2.0 / 3.0) as i64 + 7) / 8 * 8
    }
}

struct Dinov2 {
    embeddings: Embeddings,
    layers: Vec<Rc<Layer>>,
    layernorm: LayerNorm,
}

struct Embeddings {
    patches: PatchEmbeddings,
    /// [1, 1, D]
    cls_token: Tensor,
    /// [1, R, D]; the type that has them also resizes its positions with antialiasing.
    register_tokens: Option<Tensor>,
    /// [1, 1 + P, D]
    positions: Tensor,
    image_size: (i64, i64),
    dropout: f64,
}

struct Layer {
    norm1: LayerNorm,
    attention: Attention,
    /// [D]
    layer_scale1: Tensor,
    norm2: LayerNorm,
    mlp: Mlp,
    layer_scale2: Tensor,
    hidden_dropout: f64,
    drop_path_rate: f64,
}

enum Mlp {
    Plain(FeedForward),
    /// Shazeer 2020; the gate is the first half of `weights_in`.
    SwiGlu {
        weights_in: Linear,
        weights_out: Linear,
    },
}

impl Dinov2 {
    fn new(p: &Params, config: &Config, registers: bool) -> Result<Self> {
        Ok(Dinov2 {
            embeddings: Embeddings::new(&(p / "embeddings"), config, registers)?,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::new(&(p / "encoder" / "layer" / i), config).map(Rc::new))
                .collect::<Result<_>>()?,
            layernorm: p.layer_norm("layernorm", config.hidden_size, config.layer_norm_eps)?,
        })
    }
}

impl Encoder for Dinov2 {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let mut xs = self.embeddings.forward(pixel_values, train); // [B, 1+R+P, D]
        for layer in &self.layers {
            xs = segment::encode(layer, &xs, move |layer, xs| layer.forward(xs, train));
        }
        self.layernorm.forward(&xs)
    }

    fn hidden_size(&self) -> i64 {
        self.layernorm.weight.size()[0]
    }

    /// Positions follow the image without being told.
    fn check_size(&self, height: i64, width: i64, _interpolate: bool) -> Result<()> {
        let (rows, columns) = self.embeddings.patches.patch;
        if height < rows || width < columns {
            return wrong_size((height, width), self.embeddings.image_size);
        }
        let count = self.embeddings.positions.size()[1] - 1;
        if fits_square(count, (height, width), (height / rows, width / columns)) {
            return Ok(());
        }
        bail!(
            "the positions of {count} patches can't be fitted to an image of {height}x{width} pixels: \
             they are no square (image_size is {}x{})",
            self.embeddings.image_size.0,
            self.embeddings.image_size.1
        )
    }

    fn grid(&self, height: i64, width: i64) -> Grid {
        let registers = self.embeddings.register_tokens.as_ref();
        let leading = 1 + registers.map_or(0, |tokens| tokens.size()[1]);
        Grid::of_patches(leading, self.embeddings.patches.patch, height, width)
    }
}

impl Embeddings {
    fn new(p: &Params, config: &Config, registers: bool) -> Result<Self> {
        let (d, init) = (config.hidden_size, Init::TruncNormal(config.initializer_range));
        let cls_token = p.var("cls_token", &[1, 1, d], init)?;
        if config.use_mask_token || registers {
            p.spare("mask_token", &[1, d], ZEROS)?;
        }
        let register_tokens = if registers {
            Some(p.var("register_tokens", &[1, config.num_register_tokens, d], ZEROS)?)
        } else {
            None
        };
        let ((height, width), patch) = (config.image_size.pair(), config.patch_size.pair());
        let count = 1 + (height / patch.0) * (width / patch.1);
        Ok(Embeddings {
            patches: PatchEmbeddings::new(
                &(p / "patch_embeddings"),
                "projection",
                config.num_channels,
                d,
                patch,
                true,
                init,
            )?,
            cls_token,
            register_tokens,
            positions: p.var("position_embeddings", &[1, count, d], init)?,
            image_size: (height, width),
            dropout: config.hidden_dropout_prob,
        })
    }

    /// [B, C, H, W] -> [B, 1+R+P, D]
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let size = pixel_values.size();
        let grid = (size[2] / self.patches.patch.0, size[3] / self.patches.patch.1);
        let antialias = self.register_tokens.is_some();
        let positions = self.positions.narrow(1, 1, self.positions.size()[1] - 1);
        let positions = interpolate_square(&positions, (size[2], size[3]), grid, antialias);
        let each = |token: &Tensor| token.expand([size[0], -1, -1], false);
        let mut parts = vec![each(&(&self.cls_token + self.positions.narrow(1, 0, 1)))];
        parts.extend(self.register_tokens.as_ref().map(each));
        parts.push(self.patches.forward(pixel_values) + positions);
        dropout(&Tensor::cat(&parts, 1), self.dropout, train)
    }
}

impl Layer {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let (d, inner) = (config.hidden_size, config.inner());
        let (init, eps) = (Init::TruncNormal(config.initializer_range), config.layer_norm_eps);
        let (heads, dropout) = (config.num_attention_heads, config.attention_probs_dropout_prob);
        let attention =
            vit::attention(p, "attention", (d, heads), [config.qkv_bias; 3], dropout, init)?;
        let own = p / "mlp";
        let mlp = if config.use_swiglu_ffn {
            Mlp::SwiGlu {
                weights_in: own.linear("weights_in", d, 2 * inner, init)?,
                weights_out: own.linear("weights_out", inner, d, init)?,
            }
        } else {
            Mlp::Plain(FeedForward {
                up: own.linear("fc1", d, inner, init)?,
                activation: Activation::from_name(&config.hidden_act)?,
                activation_dropout: 0.0,
                down: own.linear("fc2", inner, d, init)?,
            })
        };
        let scale = |name| (p / name).var("lambda1", &[d], Init::Constant(config.layerscale_value));
        Ok(Layer {
            norm1: p.layer_norm("norm1", d, eps)?,
            attention,
            layer_scale1: scale("layer_scale1")?,
            norm2: p.layer_norm("norm2", d, eps)?,
            mlp,
            layer_scale2: scale("layer_scale2")?,
            hidden_dropout: config.hidden_dropout_prob,
            drop_path_rate: config.drop_path_rate,
        })
    }

    /// [B, S, D] -> [B, S, D]
    fn forward(&self, xs: &Tensor, train: bool) -> Tensor {
        let attended = self.attention.encode(&self.norm1.forward(xs), None, train);
        let attended = dropout(&attended, self.hidden_dropout, train) * &self.layer_scale1;
        let xs = xs + drop_path(&attended, self.drop_path_rate, train);
        let fed = self.mlp.forward(&self.norm2.forward(&xs), train) * &self.layer_scale2;
        xs + drop_path(&fed, self.drop_path_rate, train)
    }
}

impl Mlp {
    /// [B, S, D] -> [B, S, D]
    fn forward(&self, xs: &Tensor, train: bool) -> Tensor {
        match self {
            Mlp::Plain(mlp) => mlp.forward(xs, train),
            Mlp::SwiGlu { weights_in, weights_out } => {
                let halves = weights_in.forward(xs).chunk(2, -1);
                weights_out.forward(&(halves[0].silu() * &halves[1]))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn swiglu_is_as_wide_as_the_reference_says() {
        // dinov2-giant: 1536 wide, ratio 4; a small one that rounds up.
        for (hidden, ratio, expected) in [(1536, json!(4), 4096), (32, json!(2.5), 56)] {
            let json = json!({
                "hidden_size": hidden, "mlp_ratio": ratio, "use_swiglu_ffn": true,
                "num_attention_heads": 4,
            });
            assert_eq!(Config::read((DINOV2.defaults)(), &json).unwrap().inner(), expected);
        }
    }
}
