//! YOLOS (Fang et al. 2021). Reference: `modeling_yolos.py`. Differs from ViT: detection tokens after the
//! patches, positions again after each layer but the last, all of them following the image.

use std::rc::Rc;

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use super::vit;
use super::{Encoder, EncoderArch, Grid, wrong_size};
use crate::nn::params::{Init, ZEROS};
use crate::nn::position::interpolate_grid;
use crate::nn::{LayerNorm, Params, PatchEmbeddings, PreNorm, config, dropout, segment};

pub(super) const YOLOS: EncoderArch = EncoderArch {
    model_type: "yolos",
    prefix: "vit",
    defaults,
    build: |json, p| Ok(Box::new(Yolos::new(p, &Config::read(json)?)?)),
    ignore: &["pooler."],
};

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    vit: vit::Config,
    num_detection_tokens: i64,
    use_mid_position_embeddings: bool,
}

fn defaults() -> Value {
    let mut defaults = vit::defaults("yolos");
    let own = json!({
        "image_size": [512, 864], "num_detection_tokens": 100,
        "use_mid_position_embeddings": true, "auxiliary_loss": false, "class_cost": 1,
        "bbox_cost": 5, "giou_cost": 2, "bbox_loss_coefficient": 5, "giou_loss_coefficient": 2,
        "eos_coefficient": 0.1,
    });
    if let (Value::Object(all), Value::Object(own)) = (&mut defaults, own) {
        all.extend(own);
    }
    defaults
}

impl Config {
    fn read(json: &Value) -> Result<Self> {
        let config: Config = config::read(defaults(), json, &[])?;
        config.vit.check()?;
        ensure!(
            config.num_detection_tokens > 0,
            "num_detection_tokens {} is not supported",
            config.num_detection_tokens
        );
        let ((height, width), (rows, columns)) =
            (config.vit.image_size.pair(), config.vit.patch_size.pair());
        ensure!(
            rows == columns,
            "patch_size {rows}x{columns} is not supported (the reference can't run it either)"
        );
        // The reference counts the later positions by area, the first ones by whole patches.
        ensure!(
            !config.use_mid_position_embeddings
                || height * width / (rows * rows) == (height / rows) * (width / rows),
            "image_size {height}x{width} is no multiple of patch_size {rows}, which \
             use_mid_position_embeddings needs"
        );
        Ok(config)
    }
}

struct Yolos {
    patches: PatchEmbeddings,
    /// [1, 1, D]
    cls_token: Tensor,
    /// [1, T, D]
    detection_tokens: Tensor,
    /// [1, 1 + P + T, D]
    positions: Tensor,
    /// [L-1, 1, 1 + P + T, D]
    mid_positions: Option<Tensor>,
    layers: Vec<Rc<PreNorm>>,
    layernorm: LayerNorm,
    grid: (i64, i64),
    image_size: (i64, i64),
    dropout: f64,
}

impl Yolos {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let (vit, tokens) = (&config.vit, config.num_detection_tokens);
        let (d, init) = (vit.hidden_size, Init::Normal(vit.initializer_range));
        let own = p / "embeddings";
        let positions = vit.positions(1 + tokens);
        let mid_positions = if config.use_mid_position_embeddings {
            let shape = [vit.num_hidden_layers - 1, 1, positions[1], d];
            Some((p / "encoder").var("mid_position_embeddings", &shape, ZEROS)?)
        } else {
            None
        };
        vit::spare_pooler(p, vit, init)?;
        Ok(Yolos {
            patches: PatchEmbeddings::new(
                &(&own / "patch_embeddings"),
                "projection",
                vit.num_channels,
                d,
                vit.patch_size.pair(),
                true,
                init,
            )?,
            cls_token: own.var("cls_token", &[1, 1, d], ZEROS)?,
            detection_tokens: own.var("detection_tokens", &[1, tokens, d], ZEROS)?,
            positions: own.var("position_embeddings", &positions, ZEROS)?,
            mid_positions,
            layers: vit::stack(&(p / "encoder" / "layer"), vit, init)?,
            layernorm: p.layer_norm("layernorm", d, vit.layer_norm_eps)?,
            grid: vit.grid(),
            image_size: vit.image_size.pair(),
            dropout: vit.hidden_dropout_prob,
        })
    }

    /// Positions with those of the patches resized to a grid. [L, 1 + P + T, D] -> [L, 1 + P' + T, D]
    fn positions_for(&self, positions: &Tensor, grid: (i64, i64)) -> Tensor {
        let count = self.grid.0 * self.grid.1;
        let patches = interpolate_grid(&positions.narrow(1, 1, count), self.grid, grid, false);
        let last = positions.narrow(1, 1 + count, positions.size()[1] - 1 - count);
        Tensor::cat(&[positions.narrow(1, 0, 1), patches, last], 1)
    }
}

impl Encoder for Yolos {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let size = pixel_values.size();
        let grid = (size[2] / self.patches.patch.0, size[3] / self.patches.patch.1);
        let each = |token: &Tensor| token.expand([size[0], -1, -1], false);
        let patches = self.patches.forward(pixel_values);
        let tokens = [each(&self.cls_token), patches, each(&self.detection_tokens)];
        let xs = Tensor::cat(&tokens, 1) + self.positions_for(&self.positions, grid);
        let mut xs = dropout(&xs, self.dropout, train); // [B, 1+P+T, D]
        let mid = self.mid_positions.as_ref();
        let mid = mid.map(|positions| self.positions_for(&positions.squeeze_dim(1), grid));
        for (i, layer) in self.layers.iter().enumerate() {
            xs = segment::encode(layer, &xs, move |layer, xs| layer.forward(xs, train));
            if let Some(mid) = mid.as_ref().filter(|_| i + 1 < self.layers.len()) {
                // Not in place: what a layer gives may be kept for the backward pass.
                xs = &xs + mid.get(i as i64);
            }
        }
        self.layernorm.forward(&xs)
    }

    fn hidden_size(&self) -> i64 {
        self.layernorm.weight.size()[0]
    }

    /// Positions follow the image without being told.
    fn check_size(&self, height: i64, width: i64, _interpolate: bool) -> Result<()> {
        if height >= self.patches.patch.0 && width >= self.patches.patch.1 {
            return Ok(());
        }
        wrong_size((height, width), self.image_size)
    }

    fn grid(&self, height: i64, width: i64) -> Grid {
        Grid::of_patches(1, self.patches.patch, height, width)
    }
}
