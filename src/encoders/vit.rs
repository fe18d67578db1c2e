//! ViT (Dosovitskiy et al. 2020). Keys and order of operations: the reference's `modeling_vit.py`.

use std::rc::Rc;

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use super::{ByColumns, Encoder, EncoderArch, Grid, wrong_size};
use crate::nn::config::{self, Size2};
use crate::nn::params::{Init, ZEROS};
use crate::nn::position::interpolate_grid;
use crate::nn::{
    Activation, Attention, FeedForward, LayerNorm, Params, PatchEmbeddings, PreNorm, dropout,
    segment,
};

pub(super) const VIT: EncoderArch = EncoderArch {
    model_type: "vit",
    prefix: "vit",
    defaults: || defaults("vit"),
    build: |json, p| Ok(Box::new(build(p, &Config::from_json(json)?)?)),
    ignore: &["embeddings.mask_token", "pooler."],
};

/// The fields that ViT and its descendants share, under the reference's names.
#[derive(Deserialize)]
pub(super) struct Config {
    pub hidden_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub intermediate_size: i64,
    pub hidden_act: String,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub initializer_range: f64,
    pub layer_norm_eps: f64,
    pub image_size: Size2,
    pub patch_size: Size2,
    pub num_channels: i64,
    pub qkv_bias: bool,
    #[serde(default)]
    pub pooler_output_size: Option<i64>,
}

pub(super) fn defaults(model_type: &str) -> Value {
    json!({
        "model_type": model_type, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02, "layer_norm_eps": 1e-12, "image_size": 224, "patch_size": 16,
        "num_channels": 3, "qkv_bias": true,
    })
}

impl Config {
    pub(super) fn from_json(json: &Value) -> Result<Self> {
        let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or("vit");
        Self::read(defaults(model_type), json)
    }

    pub(super) fn read(defaults: Value, json: &Value) -> Result<Self> {
        let config: Config = config::read(defaults, json, &[])?;
        config.check()?;
        Ok(config)
    }

    /// What must hold before a shape is computed.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            self.num_attention_heads > 0 && self.hidden_size % self.num_attention_heads == 0,
            "hidden_size {} is no multiple of num_attention_heads {}",
            self.hidden_size,
            self.num_attention_heads
        );
        let ((height, width), (ph, pw)) = (self.image_size.pair(), self.patch_size.pair());
        ensure!(
            ph > 0 && pw > 0 && height >= ph && width >= pw,
            "patch_size {ph}x{pw} does not fit image_size {height}x{width}"
        );
        Ok(())
    }

    /// Shape of the positions of `leading` special tokens and the patches.
    pub(super) fn positions(&self, leading: i64) -> [i64; 3] {
        let grid = self.grid();
        [1, leading + grid.0 * grid.1, self.hidden_size]
    }

    /// Patches of an image of the configured size, (rows, columns).
    pub(super) fn grid(&self) -> (i64, i64) {
        let ((height, width), (ph, pw)) = (self.image_size.pair(), self.patch_size.pair());
        (height / ph, width / pw)
    }
}

/// The encoder of ViT and of the families that differ in their tokens, positions and first values alone.
pub(super) struct Vit {
    pub embeddings: Embeddings,
    pub layers: Vec<Rc<PreNorm>>,
    pub layernorm: LayerNorm,
}

/// Patches with `leading` special tokens (cls, distillation) and learned positions.
pub(super) struct Embeddings {
    pub patches: PatchEmbeddings,
    /// [1, 1, D] each, kept apart: joined before training starts, they would learn nothing.
    tokens: Vec<Tensor>,
    /// [1, leading + P, D]
    positions: Tensor,
    grid: (i64, i64),
    image_size: (i64, i64),
    pub dropout: f64,
}

fn build(p: &Params, config: &Config) -> Result<Vit> {
    // The reference draws the class token and the positions like the weights.
    let init = Init::TruncNormal(config.initializer_range);
    let own = p / "embeddings";
    let cls_token = own.var("cls_token", &[1, 1, config.hidden_size], init)?;
    let positions = own.var("position_embeddings", &config.positions(1), init)?;
    spare_pooler(p, config, init)?;
    Vit::new(p, config, vec![cls_token], positions, init, init)
}

impl Vit {
    /// `tokens` [1, 1, D] come before the patches, `positions` [1, tokens + P, D] are for both;
    /// `patches` and `layers` draw the weights.
    pub(super) fn new(
        p: &Params,
        config: &Config,
        tokens: Vec<Tensor>,
        positions: Tensor,
        patches: Init,
        layers: Init,
    ) -> Result<Self> {
        Ok(Vit {
            embeddings: Embeddings::new(&(p / "embeddings"), config, tokens, positions, patches)?,
            layers: stack(&(p / "encoder" / "layer"), config, layers)?,
            layernorm: p.layer_norm("layernorm", config.hidden_size, config.layer_norm_eps)?,
        })
    }
}

impl Vit {
    /// What all layers make of embeddings. [B, S, D] -> [B, S, D]
    fn layers(&self, mut xs: Tensor, train: bool) -> Tensor {
        for layer in &self.layers {
            xs = segment::encode(layer, &xs, move |layer, xs| layer.forward(xs, train));
        }
        self.layernorm.forward(&xs)
    }
}

impl Encoder for Vit {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.layers(self.embeddings.forward(pixel_values, train), train)
    }

    fn hidden_size(&self) -> i64 {
        self.layernorm.weight.size()[0]
    }

    fn check_size(&self, height: i64, width: i64, interpolate: bool) -> Result<()> {
        self.embeddings.check_size(height, width, interpolate)
    }

    fn grid(&self, height: i64, width: i64) -> Grid {
        self.embeddings.place(height, width)
    }

    fn by_columns(&self) -> Option<&dyn ByColumns> {
        Some(self)
    }
}

impl ByColumns for Vit {
    fn forward_columns(&self, pixel_values: &Tensor, first: i64, train: bool) -> Tensor {
        self.layers(self.embeddings.forward_columns(pixel_values, first, train), train)
    }
}

/// The pooler, which only classification reads.
pub(super) fn spare_pooler(p: &Params, config: &Config, init: Init) -> Result<()> {
    let pooled = config.pooler_output_size.unwrap_or(config.hidden_size);
    let p = p / "pooler" / "dense";
    p.spare("weight", &[pooled, config.hidden_size], init)?;
    p.spare("bias", &[pooled], ZEROS)
}

impl Embeddings {
    /// See `Vit::new`.
    pub(super) fn new(
        p: &Params,
        config: &Config,
        tokens: Vec<Tensor>,
        positions: Tensor,
        init: Init,
    ) -> Result<Self> {
        let patches = PatchEmbeddings::new(
            &(p / "patch_embeddings"),
            "projection",
            config.num_channels,
            config.hidden_size,
            config.patch_size.pair(),
            true,
            init,
        )?;
        Ok(Embeddings {
            patches,
            tokens,
            positions,
            grid: config.grid(),
            image_size: config.image_size.pair(),
            dropout: config.hidden_dropout_prob,
        })
    }

    /// [B, C, H, W] -> [B, leading + P, D]
    pub(super) fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let size = pixel_values.size();
        let grid = (size[2] / self.patches.patch.0, size[3] / self.patches.patch.1);
        self.embed(pixel_values, &self.positions_for(grid), train)
    }

    /// [B, C, H, W'] -> [B, leading + P', D]; see `ByColumns`.
    fn forward_columns(&self, pixel_values: &Tensor, first: i64, train: bool) -> Tensor {
        let (leading, columns) =
            (self.tokens.len() as i64, pixel_values.size()[3] / self.patches.patch.1);
        let (rows, all) = self.grid;
        let d = self.positions.size()[2];
        let patches = self.positions.narrow(1, leading, rows * all).reshape([1, rows, all, d]);
        let patches = patches.narrow(2, first, columns).reshape([1, rows * columns, d]);
        let positions = Tensor::cat(&[self.positions.narrow(1, 0, leading), patches], 1);
        self.embed(pixel_values, &positions, train)
    }

    fn embed(&self, pixel_values: &Tensor, positions: &Tensor, train: bool) -> Tensor {
        let patches = self.patches.forward(pixel_values); // [B, P, D]
        let batch = patches.size()[0];
        let tokens = self.tokens.iter().map(|token| token.expand([batch, -1, -1], false));
        let xs: Vec<Tensor> = tokens.chain([patches]).collect();
        dropout(&(Tensor::cat(&xs, 1) + positions), self.dropout, train)
    }

    /// The positions of the special tokens as they are, those of the patches resized if need be.
    fn positions_for(&self, grid: (i64, i64)) -> Tensor {
        if grid == self.grid {
            return self.positions.shallow_clone();
        }
        let leading = self.tokens.len() as i64;
        let patches = self.positions.narrow(1, leading, self.grid.0 * self.grid.1);
        let patches = interpolate_grid(&patches, self.grid, grid, false);
        Tensor::cat(&[self.positions.narrow(1, 0, leading), patches], 1)
    }

    pub(super) fn place(&self, height: i64, width: i64) -> Grid {
        Grid::of_patches(self.tokens.len() as i64, self.patches.patch, height, width)
    }

    pub(super) fn check_size(&self, height: i64, width: i64, interpolate: bool) -> Result<()> {
        let fits = height >= self.patches.patch.0 && width >= self.patches.patch.1;
        if (height, width) == self.image_size || (interpolate && fits) {
            return Ok(());
        }
        wrong_size((height, width), self.image_size)
    }
}

/// The layers of ViT and of the families that have the same.
pub(super) fn stack(p: &Params, config: &Config, init: Init) -> Result<Vec<Rc<PreNorm>>> {
    (0..config.num_hidden_layers).map(|i| layer(&(p / i), config, init).map(Rc::new)).collect()
}

/// The attention of ViT and of the families that name it so: keys `attention.{own}.query`, `key` and `value`, each
/// with a bias or without, and `attention.output.dense`.
pub(super) fn attention(
    p: &Params,
    own: &str,
    (d, heads): (i64, i64),
    biases: [bool; 3],
    dropout: f64,
    init: Init,
) -> Result<Attention> {
    let [query, key, value] = biases;
    let layers = [("query", query), ("key", key), ("value", value)];
    let p = p / "attention";
    Ok(Attention {
        qkv: (&p / own).joined(&layers, d, d, init)?,
        out: (&p / "output").linear("dense", d, d, init)?,
        heads,
        scale: ((d / heads) as f64).powf(-0.5),
        dropout,
        relative: None,
    })
}

fn layer(p: &Params, config: &Config, init: Init) -> Result<PreNorm> {
    let (d, inner) = (config.hidden_size, config.intermediate_size);
    let (heads, dropout) = (config.num_attention_heads, config.attention_probs_dropout_prob);
    let attention = attention(p, "attention", (d, heads), [config.qkv_bias; 3], dropout, init)?;
    let feed_forward = FeedForward {
        up: (p / "intermediate").linear("dense", d, inner, init)?,
        activation: Activation::from_name(&config.hidden_act)?,
        activation_dropout: 0.0,
        down: (p / "output").linear("dense", inner, d, init)?,
    };
    Ok(PreNorm {
        attention_norm: p.layer_norm("layernorm_before", d, config.layer_norm_eps)?,
        attention,
        feed_norm: p.layer_norm("layernorm_after", d, config.layer_norm_eps)?,
        feed_forward,
        dropout: config.hidden_dropout_prob,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;

    use tch::{Device, Kind};

    use super::*;
    use crate::nn::Store;

    fn small() -> Vit {
        let config = json!({
            "model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "image_size": [8, 16], "patch_size": 4,
        });
        let store = Rc::new(Store::fresh(Device::Cpu, Kind::Float));
        build(&Params::root(store), &Config::from_json(&json!(config)).unwrap()).unwrap()
    }

    #[test]
    fn patches_keep_their_positions_where_columns_are_left_out() {
        let vit = small();
        let pixels = Tensor::rand([2, 3, 8, 16], (Kind::Float, Device::Cpu));
        let close = |a: &Tensor, b: &Tensor| a.allclose(b, 1e-5, 1e-6, false);
        let whole = vit.forward(&pixels, false);
        assert!(close(&vit.forward_columns(&pixels, 0, false), &whole));

        // Embeddings see no neighbours: those of the columns 1 and 2 are the same patches' as before.
        let grid = |xs: &Tensor, columns| xs.narrow(1, 1, 2 * columns).reshape([2, 2, columns, 8]);
        let all = grid(&vit.embeddings.forward(&pixels, false), 4).narrow(2, 1, 2);
        let some = vit.embeddings.forward_columns(&pixels.narrow(3, 4, 8), 1, false);
        assert_eq!(some.size(), [2, 5, 8]);
        assert!(close(&grid(&some, 2), &all));

        let columns = vit.grid(8, 16).columns(&whole);
        assert_eq!(columns.size(), [2, 4, 8]);
        let first = (whole.narrow(1, 1, 1) + whole.narrow(1, 5, 1)) / 2.0;
        assert!(close(&columns.narrow(1, 0, 1), &first));
    }
}
