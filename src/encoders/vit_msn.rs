//! ViT-MSN (Assran et al. 2022): ViT without a pooler. Reference: `modeling_vit_msn.py`.

use anyhow::Result;
use serde_json::{Value, json};

use super::EncoderArch;
use super::vit::{self, Config, Vit};
use crate::nn::Params;
use crate::nn::params::{Init, ZEROS};

pub(super) const VIT_MSN: EncoderArch = EncoderArch {
    model_type: "vit_msn",
    prefix: "vit",
    defaults,
    build: |json, p| Ok(Box::new(build(p, &Config::read(defaults(), json)?)?)),
    ignore: &["embeddings.mask_token"],
};

fn defaults() -> Value {
    let mut defaults = vit::defaults("vit_msn");
    defaults["layer_norm_eps"] = json!(1e-6);
    defaults
}

fn build(p: &Params, config: &Config) -> Result<Vit> {
    let init = Init::Normal(config.initializer_range);
    let own = p / "embeddings";
    let cls_token = own.var("cls_token", &[1, 1, config.hidden_size], ZEROS)?;
    let positions = own.var("position_embeddings", &config.positions(1), ZEROS)?;
    Vit::new(p, config, vec![cls_token], positions, init, init)
}
