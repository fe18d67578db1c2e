//! Vision encoders: pixel values in, hidden states out. One file a family, one row an architecture.

mod aimv2;
mod beit;
mod clip;
mod deit;
mod dinov2;
mod dinov3_vit;
mod grid;
mod ijepa;
mod siglip;
mod swin;
mod swinv2;
mod vit;
mod vit_mae;
mod vit_msn;
mod yolos;

use anyhow::{Result, bail};
use serde_json::Value;
use tch::Tensor;

pub use grid::Grid;

use crate::nn::Params;

/// A vision Transformer.
pub trait Encoder {
    /// The last hidden state (after the final norm, where the family has one).
    /// pixel_values [B, C, H, W] -> [B, S, D]. The size must have passed `check_size`.
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor;

    /// D
    fn hidden_size(&self) -> i64;

    /// An error if images of this height and width can't be encoded; with `interpolate` the family's
    /// position embeddings may be resized to fit (the reference's `interpolate_pos_encoding`).
    fn check_size(&self, height: i64, width: i64, interpolate: bool) -> Result<()>;

    /// Where the states of an image of this height and width lie in it.
    fn grid(&self, height: i64, width: i64) -> Grid;

    /// The encoder as one that can do without columns of an image, if its family can.
    fn by_columns(&self) -> Option<&dyn ByColumns> {
        None
    }
}

/// An encoder whose states keep the patches' columns in order.
pub trait ByColumns {
    /// As `Encoder::forward`, for images of which the columns of patches before `first` and those behind the
    /// end of pixel_values were left out: every patch keeps the position that it has in the whole image.
    /// pixel_values [B, C, H, W'], W' a multiple of the grid's cell -> [B, S', D]
    fn forward_columns(&self, pixel_values: &Tensor, first: i64, train: bool) -> Tensor;
}

/// A row of the table: an architecture under its `model_type`.
pub struct EncoderArch {
    pub model_type: &'static str,
    /// What checkpoints with a head put before the base model's keys (`base_model_prefix`).
    pub prefix: &'static str,
    /// The config class's defaults, `model_type` included.
    pub defaults: fn() -> Value,
    /// Constructor: the config (as in config.json) and the place of its tensors.
    pub build: fn(&Value, &Params) -> Result<Box<dyn Encoder>>,
    /// Keys that real files have and the computation does not; see `ignored`.
    pub ignore: &'static [&'static str],
}

/// Every encoder that can be built.
pub const ENCODERS: &[EncoderArch] = &[
    vit::VIT,
    deit::DEIT,
    beit::BEIT,
    beit::DATA2VEC_VISION,
    swin::SWIN,
    swin::DONUT_SWIN,
    swinv2::SWINV2,
    dinov2::DINOV2,
    dinov2::DINOV2_WITH_REGISTERS,
    dinov3_vit::DINOV3_VIT,
    vit_mae::VIT_MAE,
    vit_msn::VIT_MSN,
    ijepa::IJEPA,
    clip::CLIP_VISION,
    clip::CHINESE_CLIP_VISION,
    siglip::SIGLIP_VISION,
    aimv2::AIMV2_VISION,
    yolos::YOLOS,
];

/// The row of a config's `model_type`; an unknown one is refused by name.
pub fn find(model_type: &str) -> Result<&'static EncoderArch> {
    match ENCODERS.iter().find(|arch| arch.model_type == model_type) {
        Some(arch) => Ok(arch),
        None => bail!("encoder type {model_type:?} is not supported (supported: {})", names()),
    }
}

/// The supported types, for messages and help.
pub fn names() -> String {
    ENCODERS.iter().map(|arch| arch.model_type).collect::<Vec<_>>().join(", ")
}

/// Changes the config of a model that is about to become an encoder so that it sees whole images: ViT-MAE
/// was trained to hide most of them. `init` calls this for the encoder's own config.
pub fn prepare(config: &mut Value) {
    if config.get("model_type").and_then(Value::as_str) == Some(vit_mae::VIT_MAE.model_type) {
        vit_mae::prepare(config);
    }
}

/// True if `key` matches one of the row's patterns: `pooler.` is a beginning, `.position_ids` an end,
/// anything else a whole key.
pub fn ignored(patterns: &[&str], key: &str) -> bool {
    patterns.iter().any(|pattern| match (pattern.strip_prefix('.'), pattern.strip_suffix('.')) {
        (Some(_), _) => key.ends_with(pattern),
        (None, Some(_)) => key.starts_with(pattern),
        (None, None) => key == *pattern,
    })
}

/// The sentence for an image whose size the position embeddings don't fit.
fn wrong_size(found: (i64, i64), expected: (i64, i64)) -> Result<()> {
    bail!(
        "the image processor gives {}x{} pixels (height x width), the encoder's image_size is {}x{}; \
         correct `size` in preprocessor_config.json or pass --interpolate-pos-encoding",
        found.0,
        found.1,
        expected.0,
        expected.1
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
