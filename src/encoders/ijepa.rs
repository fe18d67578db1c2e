//! I-JEPA (Assran et al. 2023): ViT without a class token. Reference: `modeling_ijepa.py`.

use anyhow::Result;

use super::EncoderArch;
use super::vit::{self, Config, Vit};
use crate::nn::Params;
use crate::nn::params::Init;

pub(super) const IJEPA: EncoderArch = EncoderArch {
    model_type: "ijepa",
    prefix: "ijepa",
    defaults: || vit::defaults("ijepa"),
    build: |json, p| Ok(Box::new(build(p, &Config::from_json(json)?)?)),
    ignore: &["embeddings.mask_token", "pooler."],
};

fn build(p: &Params, config: &Config) -> Result<Vit> {
    let init = Init::TruncNormal(config.initializer_range);
    let positions = (p / "embeddings").var("position_embeddings", &config.positions(0), init)?;
    Vit::new(p, config, Vec::new(), positions, init, init)
}
