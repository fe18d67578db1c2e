//! Swin v2 (Liu et al. 2022). Reference: `modeling_swinv2.py`. Differs from Swin: norms after each
//! branch, cosine attention, position biases from a small network, windows fixed by `image_size`.

use std::rc::Rc;

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::swin::{self, Dropouts, Embeddings, feed, feed_forward};
use super::{Encoder, EncoderArch, Grid};
use crate::nn::attention::{attend, merge_heads, split_heads};
use crate::nn::config;
use crate::nn::params::Init;
use crate::nn::window::{Windows, merge_squares, relative_bias, relative_index};
use crate::nn::{FeedForward, LayerNorm, Linear, Params, drop_path, dropout, segment};

pub(super) const SWINV2: EncoderArch = EncoderArch {
    model_type: "swinv2",
    prefix: "swinv2",
    defaults,
    build: |json, p| Ok(Box::new(Swinv2::new(p, &Config::read(json)?)?)),
    ignore: &["embeddings.mask_token", ".relative_position_index", ".relative_coords_table"],
};

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    swin: swin::Config,
    pretrained_window_sizes: Vec<i64>,
}

fn defaults() -> Value {
    let mut defaults = swin::defaults("swinv2");
    defaults["pretrained_window_sizes"] = json!([0, 0, 0, 0]);
    defaults["encoder_stride"] = json!(32);
    defaults
}

impl Config {
    fn read(json: &Value) -> Result<Self> {
        let config: Config = config::read(defaults(), json, &[])?;
        config.swin.check()?;
        let stages = config.swin.depths.len();
        ensure!(
            config.pretrained_window_sizes.len() >= stages,
            "pretrained_window_sizes has {} entries for {stages} stages",
            config.pretrained_window_sizes.len()
        );
        for (stage, size) in config.pretrained_window_sizes.iter().enumerate() {
            ensure!(*size != 1, "pretrained_window_sizes: 1 in stage {stage} divides by zero");
        }
        let rows = config.rows(stages - 1);
        ensure!(rows > 0, "image_size leaves no token for stage {} of depths", stages - 1);
        Ok(config)
    }

    /// Rows of a stage's map for an image of the configured size.
    fn rows(&self, stage: usize) -> i64 {
        (self.swin.image_size.pair().0 / self.swin.patch_size.pair().0) >> stage
    }

    /// Window and shift of a stage. The reference looks at the rows alone.
    fn window(&self, stage: usize) -> (i64, i64) {
        let (rows, window) = (self.rows(stage), self.swin.window_size);
        if rows <= window { (rows, 0) } else { (window, window / 2) }
    }
}

struct Swinv2 {
    embeddings: Embeddings,
    stages: Vec<Stage>,
    layernorm: LayerNorm,
}

struct Stage {
    blocks: Vec<Rc<Block>>,
    downsample: Option<PatchMerging>,
    window: i64,
    shift: i64,
    /// Distances within a window on a logarithmic scale, [(2w-1)², 2].
    coords: Tensor,
}

struct Block {
    attention: Attention,
    layernorm_before: LayerNorm,
    mlp: FeedForward,
    layernorm_after: LayerNorm,
    dropouts: Dropouts,
}

/// Cosine attention.
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: i64,
    /// [A, 1, 1]
    logit_scale: Tensor,
    /// `continuous_position_bias_mlp`: its two layers have ReLU between them.
    bias_in: Linear,
    bias_out: Linear,
    dropout: f64,
}

struct PatchMerging {
    reduction: Linear,
    norm: LayerNorm,
}

impl Swinv2 {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let swin = &config.swin;
        let rates = swin.drop_path_rates();
        let mut rates = rates.iter().copied();
        let stages = (0..swin.depths.len())
            .map(|stage| Stage::new(&(p / "encoder" / "layers" / stage), config, stage, &mut rates))
            .collect::<Result<_>>()?;
        let width = swin.width(swin.depths.len() - 1);
        Ok(Swinv2 {
            embeddings: Embeddings::new(&(p / "embeddings"), swin)?,
            stages,
            layernorm: p.layer_norm("layernorm", width, swin.layer_norm_eps)?,
        })
    }
}

impl Encoder for Swinv2 {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let mut xs = self.embeddings.forward(pixel_values, train); // [B, h, w, E]
        for stage in &self.stages {
            xs = stage.forward(&xs, train);
        }
        self.layernorm.forward(&xs.flatten(1, 2))
    }

    fn hidden_size(&self) -> i64 {
        self.layernorm.weight.size()[0]
    }

    /// Every size will do: maps are padded up to whole windows.
    fn check_size(&self, _height: i64, _width: i64, _interpolate: bool) -> Result<()> {
        Ok(())
    }

    fn grid(&self, height: i64, width: i64) -> Grid {
        Grid::of_merged(self.embeddings.patches.patch, self.stages.len(), height, width)
    }
}

impl Stage {
    fn new(
        p: &Params,
        config: &Config,
        stage: usize,
        rates: &mut impl Iterator<Item = f64>,
    ) -> Result<Self> {
        let blocks = (0..config.swin.depths[stage])
            .zip(rates)
            .map(|(i, rate)| {
                Block::new(&(p / "blocks" / i), &config.swin, stage, rate).map(Rc::new)
            })
            .collect::<Result<_>>()?;
        let last = stage + 1 == config.swin.depths.len();
        let downsample = if last {
            None
        } else {
            Some(PatchMerging::new(&(p / "downsample"), &config.swin, stage)?)
        };
        let (window, shift) = config.window(stage);
        let trained = config.pretrained_window_sizes[stage];
        let coords = log_distances(window, if trained > 0 { trained } else { window }, p.device());
        Ok(Stage { blocks, downsample, window, shift, coords: coords.to_kind(p.kind()) })
    }

    /// [B, h, w, C] -> [B, ⌈h/2⌉, ⌈w/2⌉, 2C], in the last stage [B, h, w, C]
    fn forward(&self, xs: &Tensor, train: bool) -> Tensor {
        let size = xs.size();
        // The reference adds the mask of a shift twice.
        let windows = [0, self.shift]
            .map(|shift| Rc::new(Windows::new((size[1], size[2]), self.window, shift, 2.0, xs)));
        let index = relative_index((self.window, self.window), xs.device());
        let mut xs = xs.shallow_clone();
        for (block, windows) in self.blocks.iter().zip(windows.iter().cycle()) {
            let (windows, coords, index) =
                (windows.clone(), self.coords.shallow_clone(), index.shallow_clone());
            xs = segment::encode(block, &xs, move |block, xs| {
                let bias = relative_bias(&block.attention.bias_table(&coords), &index);
                block.forward(xs, &windows, &bias, train)
            });
        }
        match &self.downsample {
            Some(downsample) => downsample.forward(&xs),
            None => xs,
        }
    }
}

impl Block {
    fn new(p: &Params, config: &swin::Config, stage: usize, path: f64) -> Result<Self> {
        let d = config.width(stage);
        Ok(Block {
            attention: Attention::new(&(p / "attention"), config, stage)?,
            layernorm_before: p.layer_norm("layernorm_before", d, config.layer_norm_eps)?,
            mlp: feed_forward(p, config, d)?,
            layernorm_after: p.layer_norm("layernorm_after", d, config.layer_norm_eps)?,
            dropouts: Dropouts {
                attended: config.attention_probs_dropout_prob,
                hidden: config.hidden_dropout_prob,
                path,
            },
        })
    }

    /// Norms come last in each branch. [B, h, w, C] -> [B, h, w, C]
    fn forward(&self, xs: &Tensor, windows: &Windows, bias: &Tensor, train: bool) -> Tensor {
        let Dropouts { attended: p, hidden, path } = self.dropouts;
        let attention =
            |tokens: &Tensor, bias: &Tensor| self.attention.forward(tokens, bias, train);
        windows.apply(xs, bias, train, attention, |xs, attend| {
            let attended = self.layernorm_before.forward(&dropout(&attend(xs), p, train));
            let xs = xs + drop_path(&attended, path, train);
            let fed = dropout(&feed(&self.mlp, &xs, train), hidden, train);
            &xs + drop_path(&self.layernorm_after.forward(&fed), path, train)
        })
    }
}

impl Attention {
    fn new(p: &Params, config: &swin::Config, stage: usize) -> Result<Self> {
        const INNER: i64 = 512;
        let (d, heads) = (config.width(stage), config.num_heads[stage]);
        let init = Init::Normal(config.initializer_range);
        let own = p / "self";
        let mlp = &own / "continuous_position_bias_mlp";
        Ok(Attention {
            query: own.linear_if("query", d, d, config.qkv_bias, init)?,
            key: own.linear_if("key", d, d, false, init)?,
            value: own.linear_if("value", d, d, config.qkv_bias, init)?,
            out: (p / "output").linear("dense", d, d, init)?,
            heads,
            logit_scale: own.var("logit_scale", &[heads, 1, 1], Init::Constant(10f64.ln()))?,
            bias_in: mlp.linear("0", 2, INNER, init)?,
            bias_out: mlp.linear_if("2", INNER, heads, false, init)?,
            dropout: config.attention_probs_dropout_prob,
        })
    }

    /// The bias of every distance. coords [R, 2] -> [R, A]
    fn bias_table(&self, coords: &Tensor) -> Tensor {
        self.bias_out.forward(&self.bias_in.forward(coords).relu()).sigmoid() * 16.0
    }

    /// xs [n, w², C], bias [1, A, w², w²] -> [n, w², C]
    fn forward(&self, xs: &Tensor, bias: &Tensor, train: bool) -> Tensor {
        let heads = |xs: Tensor| split_heads(&xs, self.heads);
        // In f32, because 1e-12 is 0 in f16 and the zeros of a padded map would become 0 / 0.
        let unit = |xs: Tensor| {
            let (xs, kind) = (xs.to_kind(Kind::Float), xs.kind());
            let norm = xs.norm_scalaropt_dim(2.0, [-1i64], true).clamp_min(1e-12);
            (xs / norm).to_kind(kind)
        };
        let scale = self.logit_scale.clamp_max(100f64.ln()).exp();
        let q = unit(heads(self.query.forward(xs))) * scale;
        let k = unit(heads(self.key.forward(xs)));
        let v = heads(self.value.forward(xs));
        let p = if train { self.dropout } else { 0.0 };
        self.out.forward(&merge_heads(&attend(&q, &k, &v, Some(bias), 1.0, p)))
    }
}

impl PatchMerging {
    fn new(p: &Params, config: &swin::Config, stage: usize) -> Result<Self> {
        let d = config.width(stage);
        let init = Init::Normal(config.initializer_range);
        Ok(PatchMerging {
            reduction: p.linear_if("reduction", 4 * d, 2 * d, false, init)?,
            norm: p.layer_norm("norm", 2 * d, 1e-5)?,
        })
    }

    /// [B, h, w, C] -> [B, ⌈h/2⌉, ⌈w/2⌉, 2C]
    fn forward(&self, xs: &Tensor) -> Tensor {
        self.norm.forward(&self.reduction.forward(&merge_squares(xs)))
    }
}

/// sign(x)·log2(|x| + 1) / log2(8) of row and column distances, x = 8·Δ / (trained - 1), in the order
/// of `relative_index`. -> [(2w-1)², 2]
fn log_distances(window: i64, trained: i64, device: Device) -> Tensor {
    let length = 2 * window - 1;
    let steps = Tensor::arange_start(1 - window, window, (Kind::Float, device));
    // A window of one token has the distance 0 alone.
    let x = steps / (trained - 1).max(1) as f64 * 8.0;
    let x = x.sign() * (x.abs() + 1.0).log2() / 3.0;
    let rows = x.unsqueeze(1).expand([length, length], false);
    let columns = x.unsqueeze(0).expand([length, length], false);
    Tensor::stack(&[rows, columns], -1).reshape([-1, 2])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn distances_grow_slower_than_steps() {
        let found: Vec<f64> =
            Vec::try_from(log_distances(2, 3, Device::Cpu).flatten(0, 1)).unwrap();
        // log2(8·1/2 + 1) / 3
        let step = 0.773_976_0;
        let expected = [
            [-step, -step],
            [-step, 0.0],
            [-step, step],
            [0.0, -step],
            [0.0, 0.0],
            [0.0, step],
            [step, -step],
            [step, 0.0],
            [step, step],
        ];
        for (found, expected) in found.iter().zip(expected.as_flattened()) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }

    #[test]
    fn the_windows_follow_the_configured_rows() {
        let config = |json: Value| Config::read(&json);
        let swin = config(json!({"image_size": [48, 256], "patch_size": 4})).unwrap();
        let windows: Vec<_> = (0..4).map(|stage| swin.window(stage)).collect();
        assert_eq!(windows, [(7, 3), (6, 0), (3, 0), (1, 0)]);
        let error = config(json!({"image_size": 16})).err().unwrap().to_string();
        assert_eq!(error, "image_size leaves no token for stage 3 of depths");
        let error = config(json!({"pretrained_window_sizes": [12]})).err().unwrap().to_string();
        assert_eq!(error, "pretrained_window_sizes has 1 entries for 4 stages");
    }
}
