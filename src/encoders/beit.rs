//! BEiT (Bao et al. 2021) and data2vec-vision (Baevski et al. 2022). Reference: `modeling_beit.py`,
//! `modeling_data2vec_vision.py`. The two differ in the pooler, which data2vec's model does not make.

use std::rc::Rc;

use anyhow::{Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::{Encoder, EncoderArch, Grid, vit, wrong_size};
use crate::nn::config;
use crate::nn::params::{Init, ONES, ZEROS};
use crate::nn::position::{fits_square, interpolate_square};
use crate::nn::window::{relative_bias, relative_index_with_cls};
use crate::nn::{
    Activation, Attention, FeedForward, LayerNorm, Params, PatchEmbeddings, drop_path, dropout,
    segment,
};

pub(super) const BEIT: EncoderArch = EncoderArch {
    model_type: "beit",
    prefix: "beit",
    defaults: || {
        let mut defaults = defaults("beit");
        defaults["vocab_size"] = json!(8192);
        defaults
    },
    build: |json, p| {
        let config = Config::read(defaults("beit"), json)?;
        // Only classification reads the pooler.
        if config.use_mean_pooling {
            let p = p / "pooler" / "layernorm";
            p.spare("weight", &[config.vit.hidden_size], ONES)?;
            p.spare("bias", &[config.vit.hidden_size], ZEROS)?;
        }
        Ok(Box::new(Beit::new(p, &config)?))
    },
    ignore: IGNORED,
};

pub(super) const DATA2VEC_VISION: EncoderArch = EncoderArch {
    model_type: "data2vec-vision",
    prefix: "data2vec_vision",
    defaults: || defaults("data2vec-vision"),
    build: |json, p| Ok(Box::new(Beit::new(p, &Config::read(defaults("data2vec-vision"), json)?)?)),
    ignore: IGNORED,
};

/// Tokens of another training, and indices that old files keep.
const IGNORED: &[&str] = &["embeddings.mask_token", ".relative_position_index", "pooler."];

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    vit: vit::Config,
    use_mask_token: bool,
    use_absolute_position_embeddings: bool,
    use_relative_position_bias: bool,
    use_shared_relative_position_bias: bool,
    layer_scale_init_value: f64,
    drop_path_rate: f64,
    use_mean_pooling: bool,
}

fn defaults(model_type: &str) -> Value {
    json!({
        "model_type": model_type, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02, "layer_norm_eps": 1e-12, "image_size": 224, "patch_size": 16,
        "num_channels": 3, "use_mask_token": false, "use_absolute_position_embeddings": false,
        "use_relative_position_bias": false, "use_shared_relative_position_bias": false,
        "layer_scale_init_value": 0.1, "drop_path_rate": 0.1, "use_mean_pooling": true,
    })
}

impl Config {
    fn read(mut defaults: Value, json: &Value) -> Result<Self> {
        // Fixed in this family: the key alone has no bias.
        defaults["qkv_bias"] = json!(true);
        let config: Config = config::read(defaults, json, &[])?;
        config.vit.check()?;
        let (rows, columns) = config.vit.patch_size.pair();
        let biased = config.use_relative_position_bias || config.use_shared_relative_position_bias;
        ensure!(
            rows == columns || !biased,
            "relative position biases with patch_size {rows}x{columns} are not supported (the reference \
             can't run them either)"
        );
        Ok(config)
    }

    /// Stochastic depth of layer `i`: from 0 up, evenly.
    fn drop_path_rate(&self, i: i64) -> f64 {
        let last = self.vit.num_hidden_layers - 1;
        if last > 0 { self.drop_path_rate * i as f64 / last as f64 } else { 0.0 }
    }
}

struct Beit {
    embeddings: Embeddings,
    /// The bias that all layers share.
    shared: Option<RelativeBias>,
    layers: Vec<Rc<Layer>>,
    layernorm: Option<LayerNorm>,
    hidden_size: i64,
    image_size: (i64, i64),
}

struct Embeddings {
    patches: PatchEmbeddings,
    /// [1, 1, D]
    cls_token: Tensor,
    /// [1, 1 + P, D]
    positions: Option<Tensor>,
    dropout: f64,
}

struct Layer {
    layernorm_before: LayerNorm,
    attention: Attention,
    own: Option<RelativeBias>,
    layernorm_after: LayerNorm,
    mlp: FeedForward,
    /// Layer scale (Touvron et al. 2021), [D] each.
    lambdas: Option<(Tensor, Tensor)>,
    hidden_dropout: f64,
    drop_path_rate: f64,
}

/// A bias for each pair of tokens by their distance in the patch grid; the last three rows of the
/// table are for cls to patch, patch to cls and cls to cls.
struct RelativeBias {
    /// [(2h-1)·(2w-1) + 3, A]
    table: Tensor,
    window: (i64, i64),
}

/// The grid of an image, and the numbers of its pairs of tokens if a bias needs them.
struct Pairs {
    grid: (i64, i64),
    /// [S, S]
    index: Option<Tensor>,
}

impl Beit {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let (d, heads) = (config.vit.hidden_size, config.vit.num_attention_heads);
        let window = config.vit.grid();
        let shared = if config.use_shared_relative_position_bias {
            let p = p / "encoder" / "relative_position_bias";
            Some(RelativeBias::new(&p, window, heads)?)
        } else {
            None
        };
        let layernorm = if config.use_mean_pooling {
            None
        } else {
            Some(p.layer_norm("layernorm", d, config.vit.layer_norm_eps)?)
        };
        Ok(Beit {
            embeddings: Embeddings::new(&(p / "embeddings"), config)?,
            shared,
            layers: (0..config.vit.num_hidden_layers)
                .map(|i| Layer::new(&(p / "encoder" / "layer" / i), config, i).map(Rc::new))
                .collect::<Result<_>>()?,
            layernorm,
            hidden_size: d,
            image_size: config.vit.image_size.pair(),
        })
    }

    fn biased(&self) -> bool {
        self.shared.is_some() || self.layers.iter().any(|layer| layer.own.is_some())
    }
}

impl Encoder for Beit {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let (mut xs, grid) = self.embeddings.forward(pixel_values, train); // [B, 1+P, D]
        let index = self.biased().then(|| relative_index_with_cls(grid, xs.device()));
        let pairs = Rc::new(Pairs { grid, index });
        let shared = self.shared.as_ref().and_then(|shared| shared.of(&pairs));
        let shared = shared.map(|shared| segment::leaf(&shared));
        for layer in &self.layers {
            let pairs = pairs.clone();
            let inputs: Vec<&Tensor> = [&xs].into_iter().chain(&shared).collect();
            xs = segment::run(layer, &inputs, move |layer, inputs| {
                layer.forward(&inputs[0], &pairs, inputs.get(1), train)
            });
        }
        match &self.layernorm {
            Some(layernorm) => layernorm.forward(&xs),
            None => xs,
        }
    }

    fn hidden_size(&self) -> i64 {
        self.hidden_size
    }

    /// Positions and biases follow the image without being told.
    fn check_size(&self, height: i64, width: i64, _interpolate: bool) -> Result<()> {
        let (rows, columns) = self.embeddings.patches.patch;
        if height < rows || width < columns {
            return wrong_size((height, width), self.image_size);
        }
        if let Some(positions) = &self.embeddings.positions {
            let count = positions.size()[1] - 1;
            if !fits_square(count, (height, width), (height / rows, width / columns)) {
                bail!(
                    "the absolute positions of {count} patches can't be fitted to an image of \
                     {height}x{width} pixels: they are no square (image_size is {}x{})",
                    self.image_size.0,
                    self.image_size.1
                );
            }
        }
        Ok(())
    }

    fn grid(&self, height: i64, width: i64) -> Grid {
        Grid::of_patches(1, self.embeddings.patches.patch, height, width)
    }
}

impl Embeddings {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let (d, grid) = (config.vit.hidden_size, config.vit.grid());
        let cls_token = p.var("cls_token", &[1, 1, d], ZEROS)?;
        if config.use_mask_token {
            p.spare("mask_token", &[1, 1, d], ZEROS)?;
        }
        let positions = if config.use_absolute_position_embeddings {
            Some(p.var("position_embeddings", &[1, 1 + grid.0 * grid.1, d], ZEROS)?)
        } else {
            None
        };
        let patches = PatchEmbeddings::new(
            &(p / "patch_embeddings"),
            "projection",
            config.vit.num_channels,
            d,
            config.vit.patch_size.pair(),
            true,
            Init::Normal(config.vit.initializer_range),
        )?;
        Ok(Embeddings { patches, cls_token, positions, dropout: config.vit.hidden_dropout_prob })
    }

    /// [B, C, H, W] -> [B, 1+P, D] and the grid of its patches
    fn forward(&self, pixel_values: &Tensor, train: bool) -> (Tensor, (i64, i64)) {
        let size = pixel_values.size();
        let grid = (size[2] / self.patches.patch.0, size[3] / self.patches.patch.1);
        let cls_token = self.cls_token.expand([size[0], -1, -1], false);
        let mut xs = Tensor::cat(&[cls_token, self.patches.forward(pixel_values)], 1);
        if let Some(positions) = &self.positions {
            let patches = positions.narrow(1, 1, positions.size()[1] - 1);
            let patches = interpolate_square(&patches, (size[2], size[3]), grid, false);
            xs += Tensor::cat(&[positions.narrow(1, 0, 1), patches], 1);
        }
        (dropout(&xs, self.dropout, train), grid)
    }
}

impl Layer {
    fn new(p: &Params, config: &Config, i: i64) -> Result<Self> {
        let vit = &config.vit;
        let (d, inner, heads) = (vit.hidden_size, vit.intermediate_size, vit.num_attention_heads);
        let (init, eps) = (Init::Normal(vit.initializer_range), vit.layer_norm_eps);
        let own = p / "attention" / "attention";
        let dropout = vit.attention_probs_dropout_prob;
        let biases = [true, false, true];
        let attention = vit::attention(p, "attention", (d, heads), biases, dropout, init)?;
        let own = if config.use_relative_position_bias {
            Some(RelativeBias::new(&(own / "relative_position_bias"), vit.grid(), heads)?)
        } else {
            None
        };
        let mlp = FeedForward {
            up: (p / "intermediate").linear("dense", d, inner, init)?,
            activation: Activation::from_name(&vit.hidden_act)?,
            activation_dropout: 0.0,
            down: (p / "output").linear("dense", inner, d, init)?,
        };
        let lambdas = if config.layer_scale_init_value > 0.0 {
            let init = Init::Constant(config.layer_scale_init_value);
            Some((p.var("lambda_1", &[d], init)?, p.var("lambda_2", &[d], init)?))
        } else {
            None
        };
        Ok(Layer {
            layernorm_before: p.layer_norm("layernorm_before", d, eps)?,
            attention,
            own,
            layernorm_after: p.layer_norm("layernorm_after", d, eps)?,
            mlp,
            lambdas,
            hidden_dropout: vit.hidden_dropout_prob,
            drop_path_rate: config.drop_path_rate(i),
        })
    }

    /// shared [1, A, S, S]; [B, S, D] -> [B, S, D]
    fn forward(&self, xs: &Tensor, pairs: &Pairs, shared: Option<&Tensor>, train: bool) -> Tensor {
        let own = self.own.as_ref().and_then(|own| own.of(pairs));
        let bias = match (own, shared) {
            (Some(own), Some(shared)) => Some(own + shared),
            (Some(own), None) => Some(own),
            (None, shared) => shared.map(Tensor::shallow_clone),
        };
        let normed = self.layernorm_before.forward(xs);
        let attended = self.attention.encode(&normed, bias.as_ref(), train);
        let mut attended = dropout(&attended, self.hidden_dropout, train);
        if let Some((lambda, _)) = &self.lambdas {
            attended = lambda * attended;
        }
        let attended = drop_path(&attended, self.drop_path_rate, train);
        let [xs, normed] = self.layernorm_after.with_sum(xs, &attended);
        let fed = self.mlp.forward(&normed, train);
        let mut fed = dropout(&fed, self.hidden_dropout, train);
        if let Some((_, lambda)) = &self.lambdas {
            fed = lambda * fed;
        }
        xs + drop_path(&fed, self.drop_path_rate, train)
    }
}

impl RelativeBias {
    fn new(p: &Params, window: (i64, i64), heads: i64) -> Result<Self> {
        let relations = (2 * window.0 - 1) * (2 * window.1 - 1) + 3;
        let table = p.var("relative_position_bias_table", &[relations, heads], ZEROS)?;
        Ok(RelativeBias { table, window })
    }

    /// The bias of an image's pairs. -> [1, A, S, S]
    fn of(&self, pairs: &Pairs) -> Option<Tensor> {
        pairs.index.as_ref().map(|index| relative_bias(&self.table_for(pairs.grid), index))
    }

    /// The table resized to a grid. Like the reference it is read with its axes exchanged, so that
    /// only a square window at its own size stays as it is.
    fn table_for(&self, grid: (i64, i64)) -> Tensor {
        let old = (2 * self.window.1 - 1, 2 * self.window.0 - 1);
        let new = (2 * grid.0 - 1, 2 * grid.1 - 1);
        if old == new {
            return self.table.shallow_clone();
        }
        let distances = old.0 * old.1;
        let kind = self.table.kind();
        let resized = self
            .table
            .narrow(0, 0, distances)
            .to_kind(Kind::Float)
            .reshape([1, old.0, old.1, -1])
            .permute([0, 3, 1, 2])
            .upsample_bilinear2d([new.0, new.1], false, None, None)
            .permute([0, 2, 3, 1])
            .reshape([new.0 * new.1, -1])
            .to_kind(kind);
        Tensor::cat(&[resized, self.table.narrow(0, distances, 3)], 0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_biased_patch_must_be_square() {
        let json = json!({"patch_size": [16, 8], "use_relative_position_bias": true});
        let error = Config::read(defaults("beit"), &json).err().unwrap().to_string();
        assert_eq!(
            error,
            "relative position biases with patch_size 16x8 are not supported (the reference can't run \
             them either)"
        );
    }
}
