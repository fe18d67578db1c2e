//! RoBERTa as a decoder (Liu et al. 2019), and the families with the same code under other names:
//! XLM-RoBERTa, CamemBERT, data2vec-text. Reference: `modeling_roberta.py`.
//! Differs from BERT: positions skip padding; the head has names of its own and always gelu.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tch::Tensor;

use super::bert::{self, Bert, Config, Head, PositionType, Transform};
use super::bert_embeddings::{Embeddings, Positions};
use super::{DecoderArch, bert_layer};
use crate::nn::params::Init;
use crate::nn::{Activation, Embedding, Params};

pub(super) const ROBERTA: DecoderArch = DecoderArch {
    model_type: "roberta",
    prefix: "roberta",
    defaults: || defaults("roberta", 50265),
    aliases: &[],
    build: |json, p| Ok(Box::new(new(p, "roberta", &read(defaults("roberta", 50265), json)?)?)),
    ignore: bert::IGNORE,
};

pub(super) const XLM_ROBERTA: DecoderArch = DecoderArch {
    model_type: "xlm-roberta",
    prefix: "roberta",
    defaults: || defaults("xlm-roberta", 30522),
    aliases: &[],
    build: |json, p| Ok(Box::new(new(p, "roberta", &read(defaults("xlm-roberta", 30522), json)?)?)),
    ignore: bert::IGNORE,
};

pub(super) const CAMEMBERT: DecoderArch = DecoderArch {
    model_type: "camembert",
    prefix: "roberta",
    defaults: || defaults("camembert", 30522),
    aliases: &[],
    build: |json, p| Ok(Box::new(new(p, "roberta", &read(defaults("camembert", 30522), json)?)?)),
    ignore: bert::IGNORE,
};

pub(super) const DATA2VEC_TEXT: DecoderArch = DecoderArch {
    model_type: "data2vec-text",
    prefix: "data2vec_text",
    defaults: || defaults("data2vec-text", 30522),
    aliases: &[],
    build: |json, p| {
        let config = read(defaults("data2vec-text", 30522), json)?;
        Ok(Box::new(new(p, "data2vec_text", &config)?))
    },
    ignore: bert::IGNORE,
};

/// BERT's defaults with RoBERTa's special ids.
pub(super) fn defaults(model_type: &str, vocab_size: i64) -> Value {
    let mut json = bert::defaults(model_type);
    json["vocab_size"] = json!(vocab_size);
    json["bos_token_id"] = json!(0);
    json["pad_token_id"] = json!(1);
    json["eos_token_id"] = json!(2);
    json
}

/// BERT's config, with room for the positions before the first.
pub(super) fn read(defaults: Value, json: &Value) -> Result<Config> {
    let config = Config::read(defaults, json)?;
    let (rows, padding_idx) = (config.max_position_embeddings, padding_idx(&config));
    ensure!(
        rows > padding_idx + 1,
        "max_position_embeddings {rows} leaves no position after that of padding, {padding_idx}"
    );
    Ok(config)
}

/// Row of the padding in both tables; the reference's class always has one.
fn padding_idx(config: &Config) -> i64 {
    config.pad_token_id.unwrap_or(1)
}

/// The tokens' table below `base` and the output layer's, [V, D] each.
pub(super) fn words(p: &Params, base: &str, config: &Config) -> Result<(Tensor, Tensor)> {
    p.tied(
        &format!("{base}.embeddings.word_embeddings.weight"),
        "lm_head.decoder.weight",
        &[config.vocab_size, config.hidden_size],
        config.word_init(),
        config.tie_word_embeddings,
    )
}

fn new(p: &Params, base: &str, config: &Config) -> Result<Bert> {
    let (word, decoder) = words(p, base, config)?;
    let base = p / base;
    let positions = positions(&(&base / "embeddings"), config)?;
    Ok(Bert {
        embeddings: Embeddings::new(&(&base / "embeddings"), config, word, positions)?,
        project: None,
        layers: bert_layer::stack(&(&base / "encoder" / "layer"), config)?,
        layer_norm: None,
        head: head(&(p / "lm_head"), config, decoder)?,
        limits: config.limits(max_positions(config)),
    })
}

/// Key `position_embeddings.weight` [P, D], the padding's row without gradient.
pub(super) fn positions(p: &Params, config: &Config) -> Result<Positions> {
    let (rows, d, row) = (config.max_position_embeddings, config.hidden_size, padding_idx(config));
    let init = Init::NormalExceptRow(config.initializer_range, row);
    let p = p / "position_embeddings";
    if config.position_embedding_type != PositionType::Absolute {
        p.spare("weight", &[rows, d], init)?;
        return Ok(Positions::None);
    }
    let weight = p.var("weight", &[rows, d], init)?;
    Ok(Positions::SkippingPadding(Embedding::new(weight, Some(row)), row))
}

/// Positions start behind that of padding.
pub(super) fn max_positions(config: &Config) -> i64 {
    config.max_position_embeddings - padding_idx(config) - 1
}

/// Keys `bias`, `dense`, `layer_norm` below `p`; the activation is gelu whatever `hidden_act` says.
pub(super) fn head(p: &Params, config: &Config, decoder: Tensor) -> Result<Head> {
    let d = config.hidden_size;
    Ok(Head {
        transform: Some(Transform {
            dense: p.linear("dense", d, d, config.init())?,
            activation: Activation::Gelu,
            layer_norm: p.layer_norm("layer_norm", d, config.layer_norm_eps)?,
        }),
        decoder: p.head("decoder.weight", decoder, Some(Head::bias(p, config.vocab_size)?))?,
    })
}
