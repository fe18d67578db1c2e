//! DINOv3 (Siméoni et al. 2025). Reference: `modeling_dinov3_vit.py`. Differs from DINOv2: rotary
//! positions from the patches' centres, for the patches alone; no table of positions.

use std::f64::consts::TAU;

use std::rc::Rc;

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::{Encoder, EncoderArch, Grid, wrong_size};
use crate::nn::attention::{attend, merge_heads, split_heads};
use crate::nn::config;
use crate::nn::params::{Init, ZEROS};
use crate::nn::{Activation, LayerNorm, Linear, Params, PatchEmbeddings, drop_path, segment};

pub(super) const DINOV3_VIT: EncoderArch = EncoderArch {
    model_type: "dinov3_vit",
    prefix: "dinov3_vit",
    defaults,
    build: |json, p| Ok(Box::new(Dinov3::new(p, Config::read(json)?)?)),
    ignore: &["embeddings.mask_token"],
};

#[derive(Deserialize)]
struct Config {
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    hidden_act: String,
    attention_dropout: f64,
    initializer_range: f64,
    layer_norm_eps: f64,
    image_size: i64,
    patch_size: i64,
    num_channels: i64,
    layerscale_value: f64,
    drop_path_rate: f64,
    use_gated_mlp: bool,
    rope_theta: f64,
    query_bias: bool,
    key_bias: bool,
    value_bias: bool,
    proj_bias: bool,
    mlp_bias: bool,
    num_register_tokens: i64,
    pos_embed_shift: Option<f64>,
    pos_embed_jitter: Option<f64>,
    pos_embed_rescale: Option<f64>,
}

fn defaults() -> Value {
    json!({
        "model_type": "dinov3_vit", "image_size": 224, "patch_size": 16, "num_channels": 3,
        "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12,
        "num_attention_heads": 6, "hidden_act": "gelu", "attention_dropout": 0.0,
        "initializer_range": 0.02, "layer_norm_eps": 1e-5, "layerscale_value": 1.0,
        "drop_path_rate": 0.0, "use_gated_mlp": false, "rope_theta": 100.0, "query_bias": true,
        "key_bias": false, "value_bias": true, "proj_bias": true, "mlp_bias": true,
        "num_register_tokens": 0, "pos_embed_shift": null, "pos_embed_jitter": null,
        "pos_embed_rescale": 2.0,
    })
}

impl Config {
    fn read(json: &Value) -> Result<Self> {
        let mut config: Config = config::read(defaults(), json, &[])?;
        // Here a null means none, not the default.
        if json.get("pos_embed_rescale").is_some_and(Value::is_null) {
            config.pos_embed_rescale = None;
        }
        ensure!(
            config.num_attention_heads > 0
                && config.hidden_size % (4 * config.num_attention_heads) == 0,
            "hidden_size {} is no multiple of 4 times num_attention_heads {}",
            config.hidden_size,
            config.num_attention_heads
        );
        Ok(config)
    }
}

struct Dinov3 {
    patches: PatchEmbeddings,
    /// [1, 1, D]
    cls_token: Tensor,
    /// [1, R, D]
    register_tokens: Tensor,
    layers: Vec<Rc<Layer>>,
    norm: LayerNorm,
    config: Config,
}

struct Layer {
    norm1: LayerNorm,
    attention: Attention,
    /// [D]
    layer_scale1: Tensor,
    norm2: LayerNorm,
    mlp: Mlp,
    layer_scale2: Tensor,
    drop_path_rate: f64,
}

struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: i64,
    dropout: f64,
}

struct Mlp {
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    activation: Activation,
}

/// Cosines and sines of the patches' angles, [P, d] each.
struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Dinov3 {
    fn new(p: &Params, config: Config) -> Result<Self> {
        let (d, init) = (config.hidden_size, Init::TruncNormal(config.initializer_range));
        let own = p / "embeddings";
        own.spare("mask_token", &[1, 1, d], ZEROS)?;
        let registers = [1, config.num_register_tokens, d];
        Ok(Dinov3 {
            patches: PatchEmbeddings::new(
                &own,
                "patch_embeddings",
                config.num_channels,
                d,
                (config.patch_size, config.patch_size),
                true,
                init,
            )?,
            cls_token: own.var("cls_token", &[1, 1, d], init)?,
            register_tokens: own.var("register_tokens", &registers, init)?,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::new(&(p / "layer" / i), &config).map(Rc::new))
                .collect::<Result<_>>()?,
            norm: p.layer_norm("norm", d, config.layer_norm_eps)?,
            config,
        })
    }
}

impl Encoder for Dinov3 {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let size = pixel_values.size();
        let grid = (size[2] / self.config.patch_size, size[3] / self.config.patch_size);
        let rotation = Rc::new(self.config.rotation(grid, pixel_values, train));
        let each = |token: &Tensor| token.expand([size[0], -1, -1], false);
        let patches = self.patches.forward(pixel_values);
        let tokens = [each(&self.cls_token), each(&self.register_tokens), patches];
        let mut xs = Tensor::cat(&tokens, 1); // [B, 1+R+P, D]
        for layer in &self.layers {
            let rotation = rotation.clone();
            xs = segment::encode(layer, &xs, move |layer, xs| layer.forward(xs, &rotation, train));
        }
        self.norm.forward(&xs)
    }

    fn hidden_size(&self) -> i64 {
        self.config.hidden_size
    }

    /// Every size will do: the positions are computed from it.
    fn check_size(&self, height: i64, width: i64, _interpolate: bool) -> Result<()> {
        let (side, image) = (self.config.patch_size, self.config.image_size);
        if height >= side && width >= side {
            return Ok(());
        }
        wrong_size((height, width), (image, image))
    }

    fn grid(&self, height: i64, width: i64) -> Grid {
        let leading = 1 + self.register_tokens.size()[1];
        Grid::of_patches(leading, self.patches.patch, height, width)
    }
}

impl Config {
    /// The angles of a grid's patches, in the kind and on the device of the pixels. Training moves and
    /// scales the coordinates at random.
    fn rotation(&self, grid: (i64, i64), pixel_values: &Tensor, train: bool) -> Rotation {
        let device = pixel_values.device();
        let mut centres = centres(grid, device); // [P, 2]
        if train {
            centres = self.augment(centres);
        }
        let quarter = self.hidden_size / self.num_attention_heads / 4;
        let exponents = Tensor::arange(quarter, (Kind::Float, device)) / quarter as f64;
        let frequencies = (exponents * -self.rope_theta.ln()).exp(); // [d/4]
        let angles = centres.unsqueeze(2) * TAU * frequencies; // [P, 2, d/4]
        let angles = angles.flatten(1, 2).tile([2]); // [P, d]
        let kind = pixel_values.kind();
        Rotation { cos: angles.cos().to_kind(kind), sin: angles.sin().to_kind(kind) }
    }

    /// Shift per axis, jitter per axis (log-uniform), scale of both (log-uniform). [P, 2] -> [P, 2]
    fn augment(&self, mut centres: Tensor) -> Tensor {
        let options = (Kind::Float, centres.device());
        let uniform = |n: i64, bound: f64| Tensor::empty([1, n], options).uniform_(-bound, bound);
        if let Some(shift) = self.pos_embed_shift {
            centres += uniform(2, shift);
        }
        if let Some(jitter) = self.pos_embed_jitter {
            centres *= uniform(2, jitter.ln()).exp();
        }
        if let Some(rescale) = self.pos_embed_rescale {
            centres *= uniform(1, rescale.ln()).exp();
        }
        centres
    }
}

/// (row, column) of each patch's centre, from -1 to 1. -> [hw, 2]
fn centres((height, width): (i64, i64), device: Device) -> Tensor {
    let axis = |n: i64| (Tensor::arange(n, (Kind::Float, device)) + 0.5) / n as f64 * 2.0 - 1.0;
    let rows = axis(height).unsqueeze(1).expand([height, width], false);
    let columns = axis(width).unsqueeze(0).expand([height, width], false);
    Tensor::stack(&[rows, columns], -1).flatten(0, 1)
}

impl Rotation {
    /// Turns the patches, which come last; the tokens before them stay. [B, A, S, d] -> [B, A, S, d]
    fn apply(&self, xs: &Tensor) -> Tensor {
        let patches = self.cos.size()[0];
        let leading = xs.size()[2] - patches;
        let turned = xs.narrow(2, leading, patches);
        let halves = turned.chunk(2, -1);
        let quarter_turn = Tensor::cat(&[halves[1].neg(), halves[0].shallow_clone()], -1);
        let turned = turned * &self.cos + quarter_turn * &self.sin;
        Tensor::cat(&[xs.narrow(2, 0, leading), turned], 2)
    }
}

impl Layer {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let (d, eps) = (config.hidden_size, config.layer_norm_eps);
        let scale = |name| (p / name).var("lambda1", &[d], Init::Constant(config.layerscale_value));
        Ok(Layer {
            norm1: p.layer_norm("norm1", d, eps)?,
            attention: Attention::new(&(p / "attention"), config)?,
            layer_scale1: scale("layer_scale1")?,
            norm2: p.layer_norm("norm2", d, eps)?,
            mlp: Mlp::new(&(p / "mlp"), config)?,
            layer_scale2: scale("layer_scale2")?,
            drop_path_rate: config.drop_path_rate,
        })
    }

    /// [B, S, D] -> [B, S, D]
    fn forward(&self, xs: &Tensor, rotation: &Rotation, train: bool) -> Tensor {
        let attended = self.attention.forward(&self.norm1.forward(xs), rotation, train);
        let xs = xs + drop_path(&(attended * &self.layer_scale1), self.drop_path_rate, train);
        let fed = self.mlp.forward(&self.norm2.forward(&xs));
        xs + drop_path(&(fed * &self.layer_scale2), self.drop_path_rate, train)
    }
}

impl Attention {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let d = config.hidden_size;
        let init = Init::TruncNormal(config.initializer_range);
        Ok(Attention {
            query: p.linear_if("q_proj", d, d, config.query_bias, init)?,
            key: p.linear_if("k_proj", d, d, config.key_bias, init)?,
            value: p.linear_if("v_proj", d, d, config.value_bias, init)?,
            out: p.linear_if("o_proj", d, d, config.proj_bias, init)?,
            heads: config.num_attention_heads,
            dropout: config.attention_dropout,
        })
    }

    /// [B, S, D] -> [B, S, D]
    fn forward(&self, xs: &Tensor, rotation: &Rotation, train: bool) -> Tensor {
        let q = rotation.apply(&split_heads(&self.query.forward(xs), self.heads));
        let k = rotation.apply(&split_heads(&self.key.forward(xs), self.heads));
        let v = split_heads(&self.value.forward(xs), self.heads);
        let scale = (q.size()[3] as f64).powf(-0.5);
        let p = if train { self.dropout } else { 0.0 };
        self.out.forward(&merge_heads(&attend(&q, &k, &v, None, scale, p)))
    }
}

impl Mlp {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let (d, inner) = (config.hidden_size, config.intermediate_size);
        let init = Init::TruncNormal(config.initializer_range);
        let up = |name| p.linear_if(name, d, inner, config.mlp_bias, init);
        Ok(Mlp {
            gate: if config.use_gated_mlp { Some(up("gate_proj")?) } else { None },
            up: up("up_proj")?,
            down: p.linear_if("down_proj", inner, d, config.mlp_bias, init)?,
            activation: Activation::from_name(&config.hidden_act)?,
        })
    }

    /// [B, S, D] -> [B, S, D]
    fn forward(&self, xs: &Tensor) -> Tensor {
        let up = self.up.forward(xs);
        let hidden = match &self.gate {
            Some(gate) => self.activation.forward(&gate.forward(xs)) * up,
            None => self.activation.forward(&up),
        };
        self.down.forward(&hidden)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn centres_are_halfway() {
        let found: Vec<Vec<f64>> = Vec::try_from(centres((1, 2), Device::Cpu)).unwrap();
        assert_eq!(found, [[0.0, -0.5], [0.0, 0.5]]);
    }

    #[test]
    fn a_null_switches_the_rescaling_off() {
        let read = |json: Value| Config::read(&json).unwrap().pos_embed_rescale;
        assert_eq!(read(json!({})), Some(2.0));
        assert_eq!(read(json!({"pos_embed_rescale": null})), None);
    }
}
