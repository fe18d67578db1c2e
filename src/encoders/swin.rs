//! Swin (Liu et al. 2021) and Donut's Swin. Reference: `modeling_swin.py`, `modeling_donut_swin.py`.
//! The two differ in the final layer norm, which Donut's has not.

use std::rc::Rc;

use anyhow::{Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use super::{Encoder, EncoderArch, Grid, vit};
use crate::nn::config::{self, Size2};
use crate::nn::params::{Init, ZEROS};
use crate::nn::window::{Windows, merge_squares, relative_bias, relative_index};
use crate::nn::{
    Activation, Attention, FeedForward, LayerNorm, Linear, Params, PatchEmbeddings, drop_path,
    dropout, precision, segment,
};

pub(super) const SWIN: EncoderArch = EncoderArch {
    model_type: "swin",
    prefix: "swin",
    defaults: || {
        let mut defaults = defaults("swin");
        defaults["encoder_stride"] = json!(32);
        defaults
    },
    build: |json, p| Ok(Box::new(Swin::new(p, &Config::read(defaults("swin"), json)?, true)?)),
    ignore: &["embeddings.mask_token"],
};

pub(super) const DONUT_SWIN: EncoderArch = EncoderArch {
    model_type: "donut-swin",
    prefix: "donut",
    defaults: || defaults("donut-swin"),
    build: |json, p| {
        Ok(Box::new(Swin::new(p, &Config::read(defaults("donut-swin"), json)?, false)?))
    },
    ignore: &["embeddings.mask_token"],
};

/// The fields that the Swin types share, under the reference's names.
#[derive(Deserialize)]
pub(super) struct Config {
    pub image_size: Size2,
    pub patch_size: Size2,
    pub num_channels: i64,
    pub embed_dim: i64,
    pub depths: Vec<i64>,
    pub num_heads: Vec<i64>,
    pub window_size: i64,
    pub mlp_ratio: f64,
    pub qkv_bias: bool,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub drop_path_rate: f64,
    pub hidden_act: String,
    pub use_absolute_embeddings: bool,
    pub layer_norm_eps: f64,
    pub initializer_range: f64,
}

/// What all Swin types start from; `hidden_size` follows from `embed_dim` and `depths`.
pub(super) fn defaults(model_type: &str) -> Value {
    json!({
        "model_type": model_type, "image_size": 224, "patch_size": 4, "num_channels": 3,
        "embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7,
        "mlp_ratio": 4.0, "qkv_bias": true, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.1, "hidden_act": "gelu",
        "use_absolute_embeddings": false, "layer_norm_eps": 1e-5, "initializer_range": 0.02,
        "hidden_size": 768,
    })
}

impl Config {
    pub(super) fn read(defaults: Value, json: &Value) -> Result<Self> {
        let config: Config = config::read(defaults, json, &[])?;
        config.check()?;
        Ok(config)
    }

    /// What must hold before a shape is computed.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            !self.use_absolute_embeddings,
            "use_absolute_embeddings = true is not supported (the reference can't run it either: it \
             has one position too many)"
        );
        ensure!(
            !self.depths.is_empty() && self.num_heads.len() == self.depths.len(),
            "depths has {} stages, num_heads has {}",
            self.depths.len(),
            self.num_heads.len()
        );
        for (stage, heads) in self.num_heads.iter().enumerate() {
            let width = self.width(stage);
            ensure!(
                *heads > 0 && width % heads == 0,
                "the width {width} of stage {stage} is no multiple of its {heads} heads"
            );
        }
        ensure!(self.window_size > 0, "window_size {} has no area", self.window_size);
        Ok(())
    }

    /// Channels of a stage.
    pub(super) fn width(&self, stage: usize) -> i64 {
        self.embed_dim << stage
    }

    /// The rate of stochastic depth of every block: from 0 up, evenly.
    pub(super) fn drop_path_rates(&self) -> Vec<f64> {
        let blocks = self.depths.iter().sum::<i64>();
        let step = if blocks > 1 { self.drop_path_rate / (blocks - 1) as f64 } else { 0.0 };
        (0..blocks).map(|i| i as f64 * step).collect()
    }
}

struct Swin {
    embeddings: Embeddings,
    stages: Vec<Stage>,
    layernorm: Option<LayerNorm>,
    window: i64,
}

/// Patches, normalised. The image is padded with black up to whole patches.
pub(super) struct Embeddings {
    pub patches: PatchEmbeddings,
    norm: LayerNorm,
    dropout: f64,
}

struct Stage {
    blocks: Vec<Rc<Block>>,
    downsample: Option<PatchMerging>,
}

struct Block {
    layernorm_before: LayerNorm,
    attention: Attention,
    /// [(2w-1)², A]
    relative_position_bias_table: Tensor,
    layernorm_after: LayerNorm,
    mlp: FeedForward,
    dropouts: Dropouts,
}

/// Probabilities of what training leaves out.
#[derive(Clone, Copy)]
pub(super) struct Dropouts {
    /// After the attention's output projection; the reference takes the attention's own probability.
    pub attended: f64,
    pub hidden: f64,
    pub path: f64,
}

struct PatchMerging {
    norm: LayerNorm,
    reduction: Linear,
}

impl Swin {
    fn new(p: &Params, config: &Config, normed: bool) -> Result<Self> {
        let embeddings = Embeddings::new(&(p / "embeddings"), config)?;
        let rates = config.drop_path_rates();
        let mut rates = rates.iter().copied();
        let stages = (0..config.depths.len())
            .map(|stage| Stage::new(&(p / "encoder" / "layers" / stage), config, stage, &mut rates))
            .collect::<Result<_>>()?;
        let width = config.width(config.depths.len() - 1);
        let layernorm = if normed {
            Some(p.layer_norm("layernorm", width, config.layer_norm_eps)?)
        } else {
            None
        };
        Ok(Swin { embeddings, stages, layernorm, window: config.window_size })
    }
}

impl Encoder for Swin {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let mut xs = self.embeddings.forward(pixel_values, train); // [B, h, w, E]
        let index = relative_index((self.window, self.window), xs.device());
        for stage in &self.stages {
            xs = stage.forward(&xs, self.window, &index, train);
        }
        let xs = xs.flatten(1, 2); // [B, S, D]
        match &self.layernorm {
            Some(layernorm) => layernorm.forward(&xs),
            None => xs,
        }
    }

    fn hidden_size(&self) -> i64 {
        self.embeddings.norm.weight.size()[0] << (self.stages.len() - 1)
    }

    /// Every size will do whose last map is no smaller than a window: the reference shrinks the window
    /// to the map, and then its bias does not fit.
    fn check_size(&self, height: i64, width: i64, _interpolate: bool) -> Result<()> {
        let (rows, columns) = self.embeddings.patches.patch;
        // The smallest length that halves, rounded up, to one window.
        let least = ((self.window - 1) << (self.stages.len() - 1)) + 1;
        let (least_height, least_width) = ((least - 1) * rows + 1, (least - 1) * columns + 1);
        if height >= least_height && width >= least_width {
            return Ok(());
        }
        bail!(
            "the image processor gives {height}x{width} pixels (height x width), the encoder's windows \
             of {0}x{0} tokens ask for at least {least_height}x{least_width}; correct `size` in \
             preprocessor_config.json",
            self.window
        )
    }

    fn grid(&self, height: i64, width: i64) -> Grid {
        Grid::of_merged(self.embeddings.patches.patch, self.stages.len(), height, width)
    }
}

impl Embeddings {
    pub(super) fn new(p: &Params, config: &Config) -> Result<Self> {
        let patches = PatchEmbeddings::new(
            &(p / "patch_embeddings"),
            "projection",
            config.num_channels,
            config.embed_dim,
            config.patch_size.pair(),
            true,
            Init::Normal(config.initializer_range),
        )?;
        // Not the config's epsilon: the reference leaves this norm at torch's default.
        let norm = p.layer_norm("norm", config.embed_dim, 1e-5)?;
        Ok(Embeddings { patches, norm, dropout: config.hidden_dropout_prob })
    }

    /// [B, C, H, W] -> [B, h, w, E]
    pub(super) fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let size = pixel_values.size();
        let (rows, columns) = self.patches.patch;
        let missing = |length: i64, patch: i64| (patch - length % patch) % patch;
        let (bottom, right) = (missing(size[2], rows), missing(size[3], columns));
        let padded = pixel_values.constant_pad_nd([0, right, 0, bottom]);
        let xs = self.norm.forward(&self.patches.forward(&padded)); // [B, P, E]
        dropout(&xs, self.dropout, train).reshape([
            size[0],
            (size[2] + bottom) / rows,
            (size[3] + right) / columns,
            -1,
        ])
    }
}

impl Stage {
    fn new(
        p: &Params,
        config: &Config,
        stage: usize,
        rates: &mut impl Iterator<Item = f64>,
    ) -> Result<Self> {
        let blocks = (0..config.depths[stage])
            .zip(rates)
            .map(|(i, rate)| Block::new(&(p / "blocks" / i), config, stage, rate).map(Rc::new))
            .collect::<Result<_>>()?;
        let last = stage + 1 == config.depths.len();
        let downsample =
            if last { None } else { Some(PatchMerging::new(&(p / "downsample"), config, stage)?) };
        Ok(Stage { blocks, downsample })
    }

    /// [B, h, w, C] -> [B, ⌈h/2⌉, ⌈w/2⌉, 2C], in the last stage [B, h, w, C]
    fn forward(&self, xs: &Tensor, window: i64, index: &Tensor, train: bool) -> Tensor {
        let size = xs.size();
        let map = (size[1], size[2]);
        // Every other block shifts, unless one side of the map is a single window.
        let shift = if map.0.min(map.1) <= window { 0 } else { window / 2 };
        let windows = [0, shift].map(|shift| Rc::new(Windows::new(map, window, shift, 1.0, xs)));
        let mut xs = xs.shallow_clone();
        for (block, windows) in self.blocks.iter().zip(windows.iter().cycle()) {
            let (windows, index) = (windows.clone(), index.shallow_clone());
            xs = segment::encode(block, &xs, move |block, xs| {
                block.forward(xs, &windows, &index, train)
            });
        }
        match &self.downsample {
            Some(downsample) => downsample.forward(&xs),
            None => xs,
        }
    }
}

impl Block {
    fn new(p: &Params, config: &Config, stage: usize, path: f64) -> Result<Self> {
        let (d, heads) = (config.width(stage), config.num_heads[stage]);
        let (window, init) = (config.window_size, Init::Normal(config.initializer_range));
        let own = p / "attention" / "self";
        let dropout = config.attention_probs_dropout_prob;
        let attention = vit::attention(p, "self", (d, heads), [config.qkv_bias; 3], dropout, init)?;
        let relations = (2 * window - 1) * (2 * window - 1);
        let table = own.var("relative_position_bias_table", &[relations, heads], ZEROS)?;
        own.buffer("relative_position_index", &relative_index((window, window), p.device()))?;
        Ok(Block {
            layernorm_before: p.layer_norm("layernorm_before", d, config.layer_norm_eps)?,
            attention,
            relative_position_bias_table: table,
            layernorm_after: p.layer_norm("layernorm_after", d, config.layer_norm_eps)?,
            mlp: feed_forward(p, config, d)?,
            dropouts: Dropouts { attended: dropout, hidden: config.hidden_dropout_prob, path },
        })
    }

    /// Stochastic depth acts on the attention alone. [B, h, w, C] -> [B, h, w, C]
    fn forward(&self, xs: &Tensor, windows: &Windows, index: &Tensor, train: bool) -> Tensor {
        let bias = relative_bias(&self.relative_position_bias_table, index);
        let attention =
            |tokens: &Tensor, bias: &Tensor| self.attention.encode(tokens, Some(bias), train);
        windows.apply(xs, &bias, train, attention, |xs, attend| {
            let attended = attend(&self.layernorm_before.forward(xs));
            let attended = dropout(&attended, self.dropouts.attended, train);
            let attended = drop_path(&attended, self.dropouts.path, train);
            let [xs, normed] = self.layernorm_after.with_sum(xs, &attended);
            let fed = feed(&self.mlp, &normed, train);
            xs + dropout(&fed, self.dropouts.hidden, train)
        })
    }
}

/// Keys `intermediate.dense` and `output.dense`.
pub(super) fn feed_forward(p: &Params, config: &Config, d: i64) -> Result<FeedForward> {
    let (inner, init) =
        ((config.mlp_ratio * d as f64) as i64, Init::Normal(config.initializer_range));
    Ok(FeedForward {
        up: (p / "intermediate").linear("dense", d, inner, init)?,
        activation: Activation::from_name(&config.hidden_act)?,
        activation_dropout: 0.0,
        down: (p / "output").linear("dense", inner, d, init)?,
    })
}

/// Applies the feed-forward, to a large map piece by piece: its inner layer would be the largest tensor
/// of all. [B, h, w, C] -> [B, h, w, C]
pub(super) fn feed(mlp: &FeedForward, xs: &Tensor, train: bool) -> Tensor {
    // Donut's first stage has 157 M values in there, other models and their first stages far fewer. What a
    // strip of windows makes is left whole.
    const WIDEST: i64 = 1 << 25;
    let size = xs.size();
    let (tokens, c) = (size[0] * size[1] * size[2], size[3]);
    let inner = mlp.up.outputs();
    if train || tokens * inner <= WIDEST {
        return mlp.forward(xs, train);
    }
    let pieces = xs.reshape([tokens, c]).split(WIDEST / inner, 0);
    let fed: Vec<Tensor> = pieces.iter().map(|piece| mlp.forward(piece, train)).collect();
    Tensor::cat(&fed, 0).reshape(size)
}

impl PatchMerging {
    fn new(p: &Params, config: &Config, stage: usize) -> Result<Self> {
        let d = config.width(stage);
        let init = Init::Normal(config.initializer_range);
        Ok(PatchMerging {
            norm: p.layer_norm("norm", 4 * d, 1e-5)?,
            reduction: p.linear_if("reduction", 4 * d, 2 * d, false, init)?,
        })
    }

    /// [B, h, w, C] -> [B, ⌈h/2⌉, ⌈w/2⌉, 2C]
    fn forward(&self, xs: &Tensor) -> Tensor {
        precision::full(&self.reduction.forward(&self.norm.forward(&merge_squares(xs))))
    }
}
