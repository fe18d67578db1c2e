//! The vision tower of AIMv2 (Fini et al. 2024). Reference: `modeling_aimv2.py`. Differs from SigLIP's:
//! root mean square norms, gated feed-forwards; the native variant computes its positions.

use std::rc::Rc;

use anyhow::{Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::{Encoder, EncoderArch, Grid};
use crate::nn::config;
use crate::nn::params::{Init, ONES, ZEROS};
use crate::nn::position::sinusoidal_grid;
use crate::nn::{Activation, Attention, Linear, Params, PatchEmbeddings, segment};

pub(super) const AIMV2_VISION: EncoderArch = EncoderArch {
    model_type: "aimv2_vision_model",
    prefix: "aimv2",
    defaults,
    build: |json, p| Ok(Box::new(Aimv2::new(p, &Config::read(json)?)?)),
    ignore: &[".position_ids", "head."],
};

#[derive(Deserialize)]
struct Config {
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    num_channels: i64,
    image_size: i64,
    patch_size: i64,
    hidden_act: String,
    attention_dropout: f64,
    initializer_range: f64,
    rms_norm_eps: f64,
    qkv_bias: bool,
    mlp_bias: bool,
    use_head: bool,
    is_native: bool,
}

fn defaults() -> Value {
    json!({
        "model_type": "aimv2_vision_model", "hidden_size": 1024, "intermediate_size": 2816,
        "num_hidden_layers": 24, "num_attention_heads": 8, "num_channels": 3, "patch_size": 14,
        "image_size": 224, "attention_dropout": 0.0, "hidden_act": "silu", "use_head": true,
        "initializer_range": 0.02, "mlp_bias": false, "qkv_bias": false, "rms_norm_eps": 1e-5,
        "is_native": false,
    })
}

impl Config {
    fn read(json: &Value) -> Result<Self> {
        let config: Config = config::read(defaults(), json, &[])?;
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
        ensure!(
            !config.is_native || config.hidden_size % 4 == 0,
            "hidden_size {} is no multiple of 4, which is_native needs",
            config.hidden_size
        );
        Ok(config)
    }

    fn init(&self) -> Init {
        Init::Normal(self.initializer_range)
    }
}

struct Aimv2 {
    patches: PatchEmbeddings,
    patches_norm: RmsNorm,
    /// [P, D]; the native variant computes them.
    positions: Option<Tensor>,
    layers: Vec<Rc<Layer>>,
    norm: RmsNorm,
    image_size: i64,
}

/// A pre-norm layer.
struct Layer {
    rms_norm1: RmsNorm,
    attention: Attention,
    rms_norm2: RmsNorm,
    ffn: Ffn,
}

/// act(gate(x))·up(x), projected down.
struct Ffn {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
}

/// Normalisation by the root mean square (Zhang and Sennrich 2019), computed in f32.
struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl Aimv2 {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let (d, side) = (config.hidden_size, config.patch_size);
        let own = p / "embeddings";
        let positions = if config.is_native {
            None
        } else {
            let count = (config.image_size / side).pow(2);
            Some(own.embedding("position_embedding", count, d, config.init())?.weight)
        };
        if config.use_head {
            spare_head(&(p / "head"), config)?;
        }
        Ok(Aimv2 {
            patches: PatchEmbeddings::new(
                &own,
                "patch_embed",
                config.num_channels,
                d,
                (side, side),
                true,
                config.init(),
            )?,
            patches_norm: RmsNorm::new(&(&own / "rms_norm"), config)?,
            positions,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::new(&(p / "encoder" / "layers" / i), config).map(Rc::new))
                .collect::<Result<_>>()?,
            norm: RmsNorm::new(&(p / "rms_norm"), config)?,
            image_size: config.image_size,
        })
    }
}

impl Encoder for Aimv2 {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let size = pixel_values.size();
        let patches = self.patches_norm.forward(&self.patches.forward(pixel_values)); // [B, P, D]
        let mut xs = match &self.positions {
            Some(positions) => patches + positions,
            None => {
                let grid = (size[2] / self.patches.patch.0, size[3] / self.patches.patch.1);
                let positions = sinusoidal_grid(grid, self.hidden_size());
                &patches + positions.to_device(patches.device()).to_kind(patches.kind())
            }
        };
        for layer in &self.layers {
            xs = segment::encode(layer, &xs, move |layer, xs| layer.forward(xs, train));
        }
        self.norm.forward(&xs)
    }

    fn hidden_size(&self) -> i64 {
        self.norm.weight.size()[0]
    }

    /// The learned positions can't be resized: the reference has no such thing for this type.
    fn check_size(&self, height: i64, width: i64, _interpolate: bool) -> Result<()> {
        let side = self.patches.patch.0;
        let grid = (height / side, width / side);
        let fits = match &self.positions {
            Some(_) => grid == (self.image_size / side, self.image_size / side),
            None => grid.0 > 0 && grid.1 > 0,
        };
        if fits {
            return Ok(());
        }
        bail!(
            "the image processor gives {height}x{width} pixels (height x width), the encoder's \
             image_size is {0}x{0}; correct `size` in preprocessor_config.json",
            self.image_size
        )
    }

    fn grid(&self, height: i64, width: i64) -> Grid {
        Grid::of_patches(0, self.patches.patch, height, width)
    }
}

/// The head that pools all tokens by attention, for classification alone.
fn spare_head(p: &Params, config: &Config) -> Result<()> {
    let d = config.hidden_size;
    p.spare("cls_token", &[1, 1, d], config.init())?;
    for (name, bias) in
        [("k_proj", config.qkv_bias), ("v_proj", config.qkv_bias), ("output_proj", true)]
    {
        (p / name).spare("weight", &[d, d], config.init())?;
        if bias {
            (p / name).spare("bias", &[d], ZEROS)?;
        }
    }
    Ok(())
}

impl Layer {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let (d, inner, init) = (config.hidden_size, config.intermediate_size, config.init());
        let own = p / "attention";
        let linear = |name| own.linear_if(name, d, d, config.qkv_bias, init);
        let attention = Attention {
            qkv: own.joined(
                &["q_proj", "k_proj", "v_proj"].map(|name| (name, config.qkv_bias)),
                d,
                d,
                init,
            )?,
            out: linear("out_proj")?,
            heads: config.num_attention_heads,
            scale: ((d / config.num_attention_heads) as f64).powf(-0.5),
            dropout: config.attention_dropout,
            relative: None,
        };
        let own = p / "ffn";
        let ffn = Ffn {
            gate: own.linear_if("gate_proj", d, inner, config.mlp_bias, init)?,
            up: own.linear_if("up_proj", d, inner, config.mlp_bias, init)?,
            down: own.linear_if("down_proj", inner, d, config.mlp_bias, init)?,
            activation: Activation::from_name(&config.hidden_act)?,
        };
        Ok(Layer {
            rms_norm1: RmsNorm::new(&(p / "rms_norm1"), config)?,
            attention,
            rms_norm2: RmsNorm::new(&(p / "rms_norm2"), config)?,
            ffn,
        })
    }

    /// [B, S, D] -> [B, S, D]
    fn forward(&self, xs: &Tensor, train: bool) -> Tensor {
        let xs = xs + self.attention.encode(&self.rms_norm1.forward(xs), None, train);
        &xs + self.ffn.forward(&self.rms_norm2.forward(&xs))
    }
}

impl Ffn {
    /// [.., D] -> [.., D]
    fn forward(&self, xs: &Tensor) -> Tensor {
        let gate = self.activation.forward(&self.gate.forward(xs));
        self.down.forward(&(gate * self.up.forward(xs)))
    }
}

impl RmsNorm {
    /// Key `weight`.
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let weight = p.var("weight", &[config.hidden_size], ONES)?;
        Ok(RmsNorm { weight, eps: config.rms_norm_eps })
    }

    /// [.., D] -> [.., D]
    fn forward(&self, xs: &Tensor) -> Tensor {
        let (wide, kind) = (xs.to_kind(Kind::Float), xs.kind());
        let mean = wide.square().mean_dim(-1, true, Kind::Float);
        &self.weight * (wide * (mean + self.eps).rsqrt()).to_kind(kind)
    }
}
