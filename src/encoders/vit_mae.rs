//! The encoder of ViT-MAE (He et al. 2022): ViT with fixed positions. Reference: `modeling_vit_mae.py`.
//! What it was trained by, hiding patches at random, is of no use here: `mask_ratio` must be 0. Then the
//! reference shuffles all patches; here they keep their order, which a decoder can't tell apart.

use super::EncoderArch;
use super::vit::{self, Vit};
use crate::nn::params::Init;
use crate::nn::position::sinusoidal_grid;
use crate::nn::{Params, config};
use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) const VIT_MAE: EncoderArch = EncoderArch {
    model_type: "vit_mae",
    prefix: "vit",
    // An encoder made from these must see the whole image; the class's own ratio is 0.75.
    defaults: || {
        let mut defaults = defaults();
        prepare(&mut defaults);
        defaults
    },
    build: |json, p| Ok(Box::new(build(p, json)?)),
    ignore: &[],
};

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    vit: vit::Config,
    mask_ratio: f64,
}

fn defaults() -> Value {
    let mut defaults = vit::defaults("vit_mae");
    let own = json!({
        "decoder_num_attention_heads": 16, "decoder_hidden_size": 512,
        "decoder_num_hidden_layers": 8, "decoder_intermediate_size": 2048, "mask_ratio": 0.75,
        "norm_pix_loss": false,
    });
    if let (Value::Object(all), Value::Object(own)) = (&mut defaults, own) {
        all.extend(own);
    }
    defaults
}

/// Lets the encoder see every patch.
pub(super) fn prepare(config: &mut Value) {
    config["mask_ratio"] = json!(0.0);
}

fn build(p: &Params, json: &Value) -> Result<Vit> {
    let config: Config = config::read(defaults(), json, &[])?;
    ensure!(
        config.mask_ratio == 0.0,
        "mask_ratio {} hides that share of every image at random; set mask_ratio to 0.0 in the \
         encoder's config",
        config.mask_ratio
    );
    let config = config.vit;
    config.check()?;
    let (init, d, grid) =
        (Init::Normal(config.initializer_range), config.hidden_size, config.grid());
    ensure!(d % 4 == 0, "hidden_size {d} is no multiple of 4, which the fixed positions need");
    let own = p / "embeddings";
    let cls_token = own.var("cls_token", &[1, 1, d], init)?;
    // The reference lays its positions out as a square, whatever the shape of the image.
    let side = (grid.0 * grid.1).isqrt();
    ensure!(
        side * side == grid.0 * grid.1,
        "the fixed positions form a square, {}x{} patches do not",
        grid.0,
        grid.1
    );
    let positions = own.table("position_embeddings", &config.positions(1), || {
        // The class token has none.
        sinusoidal_grid((side, side), d).constant_pad_nd([0, 0, 1, 0]).unsqueeze(0)
    })?;
    // The embeddings have no dropout, the layers have.
    let mut vit = Vit::new(p, &config, vec![cls_token], positions, Init::XavierUniform, init)?;
    vit.embeddings.dropout = 0.0;
    Ok(vit)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;

    use tch::{Device, Kind};

    use super::*;
    use crate::nn::Store;

    #[test]
    fn a_mask_is_refused_and_defaults_have_none() {
        let params = Params::root(Rc::new(Store::fresh(Device::Cpu, Kind::Float)));
        let error = (VIT_MAE.build)(&json!({"model_type": "vit_mae"}), &params).err().unwrap();
        assert_eq!(
            error.to_string(),
            "mask_ratio 0.75 hides that share of every image at random; set mask_ratio to 0.0 in the \
             encoder's config"
        );
        assert_eq!((VIT_MAE.defaults)()["mask_ratio"], json!(0.0));
    }
}
