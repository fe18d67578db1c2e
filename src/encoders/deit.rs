//! DeiT (Touvron et al. 2021): ViT with a distillation token after the class token.
//! Reference: `modeling_deit.py`; the special tokens and positions start at zero there.

use anyhow::Result;

use super::EncoderArch;
use super::vit::{self, Config, Vit};
use crate::nn::Params;
use crate::nn::params::{Init, ZEROS};

pub(super) const DEIT: EncoderArch = EncoderArch {
    model_type: "deit",
    prefix: "deit",
    defaults: || vit::defaults("deit"),
    build: |json, p| Ok(Box::new(build(p, &Config::from_json(json)?)?)),
    ignore: &["embeddings.mask_token", "pooler."],
};

fn build(p: &Params, config: &Config) -> Result<Vit> {
    let init = Init::TruncNormal(config.initializer_range);
    let own = p / "embeddings";
    let tokens = ["cls_token", "distillation_token"]
        .iter()
        .map(|name| own.var(name, &[1, 1, config.hidden_size], ZEROS))
        .collect::<Result<_>>()?;
    let positions = own.var("position_embeddings", &config.positions(2), ZEROS)?;
    vit::spare_pooler(p, config, init)?;
    Vit::new(p, config, tokens, positions, init, init)
}
