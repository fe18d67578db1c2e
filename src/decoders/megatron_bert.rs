//! BERT with the norms before the branches, as Megatron trained it (Shoeybi et al. 2019), and two
//! RoBERTas of the same build: XLM-RoBERTa-XL (Goyal et al. 2021) and RoBERTa-PreLayerNorm.
//! References: `modeling_megatron_bert.py`, `modeling_xlm_roberta_xl.py`,
//! `modeling_roberta_prelayernorm.py`.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tch::Tensor;

use super::bert::{self, Bert, Config, Head, PositionType};
use super::bert_embeddings::{Embeddings, Positions};
use super::block::{Block, Blocks, Order};
use super::{DecoderArch, bert_layer, roberta};
use crate::nn::{Embedding, Params};

pub(super) const MEGATRON_BERT: DecoderArch = DecoderArch {
    model_type: "megatron-bert",
    prefix: "bert",
    defaults: megatron_defaults,
    aliases: &[],
    build: |json, p| Ok(Box::new(megatron(p, &Config::read(megatron_defaults(), json)?)?)),
    ignore: bert::IGNORE,
};

pub(super) const XLM_ROBERTA_XL: DecoderArch = DecoderArch {
    model_type: "xlm-roberta-xl",
    prefix: "roberta",
    defaults: xl_defaults,
    aliases: &[],
    build: |json, p| Ok(Box::new(xl(p, &roberta::read(xl_defaults(), json)?)?)),
    ignore: bert::IGNORE,
};

pub(super) const ROBERTA_PRELAYERNORM: DecoderArch = DecoderArch {
    model_type: "roberta-prelayernorm",
    prefix: "roberta_prelayernorm",
    defaults: || roberta::defaults("roberta-prelayernorm", 50265),
    aliases: &[],
    build: |json, p| {
        let defaults = roberta::defaults("roberta-prelayernorm", 50265);
        Ok(Box::new(prelayernorm(p, &roberta::read(defaults, json)?)?))
    },
    ignore: bert::IGNORE,
};

fn megatron_defaults() -> Value {
    let mut json = bert::defaults("megatron-bert");
    json["vocab_size"] = json!(29056);
    json["hidden_size"] = json!(1024);
    json["num_hidden_layers"] = json!(24);
    json["num_attention_heads"] = json!(16);
    json["intermediate_size"] = json!(4096);
    json
}

fn xl_defaults() -> Value {
    let mut json = roberta::defaults("xlm-roberta-xl", 250880);
    json["hidden_size"] = json!(2560);
    json["num_hidden_layers"] = json!(36);
    json["num_attention_heads"] = json!(32);
    json["intermediate_size"] = json!(10240);
    json["max_position_embeddings"] = json!(514);
    json["type_vocab_size"] = json!(1);
    json["layer_norm_eps"] = json!(1e-5);
    json
}

/// Where the norms of a layer lie: (below each attention, below the layer).
type Norms = (&'static str, &'static str);

fn megatron(p: &Params, config: &Config) -> Result<Bert> {
    ensure!(
        config.position_embedding_type == PositionType::Absolute,
        "position_embedding_type other than absolute is not supported in \"megatron-bert\": the \
         reference would measure distances to the image too"
    );
    let (d, init) = (config.hidden_size, config.init());
    // No row of the tokens' table is left at zero here.
    let (word, decoder) = p.tied(
        "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.weight",
        &[config.vocab_size, d],
        init,
        config.tie_word_embeddings,
    )?;
    let (embeddings, encoder) = (p / "bert" / "embeddings", p / "bert" / "encoder");
    let positions = Positions::plain(&embeddings, config, d)?;
    Ok(Bert {
        embeddings: bare(&embeddings, config, word, positions)?,
        project: None,
        layers: stack(&(&encoder / "layer"), config, ("ln", "ln"), config.hidden_dropout_prob)?,
        layer_norm: Some(encoder.layer_norm("ln", d, config.layer_norm_eps)?),
        head: Head::predictions(&(p / "cls" / "predictions"), config, decoder)?,
        limits: config.limits(config.max_position_embeddings),
    })
}

fn xl(p: &Params, config: &Config) -> Result<Bert> {
    let (d, eps) = (config.hidden_size, config.layer_norm_eps);
    let (word, decoder) = roberta::words(p, "roberta", config)?;
    let (embeddings, encoder) = (p / "roberta" / "embeddings", p / "roberta" / "encoder");
    let positions = roberta::positions(&embeddings, config)?;
    let norms = ("self_attn_layer_norm", "LayerNorm");
    // This family alone has no dropout after the feed-forward.
    let layers = stack(&(&encoder / "layer"), config, norms, 0.0)?;
    Ok(Bert {
        embeddings: bare(&embeddings, config, word, positions)?,
        project: None,
        layers,
        layer_norm: Some(encoder.layer_norm("LayerNorm", d, eps)?),
        head: roberta::head(&(p / "lm_head"), config, decoder)?,
        limits: config.limits(roberta::max_positions(config)),
    })
}

fn prelayernorm(p: &Params, config: &Config) -> Result<Bert> {
    let (d, eps) = (config.hidden_size, config.layer_norm_eps);
    let (word, decoder) = roberta::words(p, "roberta_prelayernorm", config)?;
    let base = p / "roberta_prelayernorm";
    let positions = roberta::positions(&(&base / "embeddings"), config)?;
    let norms = ("LayerNorm", "intermediate.LayerNorm");
    Ok(Bert {
        embeddings: Embeddings::new(&(&base / "embeddings"), config, word, positions)?,
        project: None,
        layers: stack(&(&base / "encoder" / "layer"), config, norms, config.hidden_dropout_prob)?,
        layer_norm: Some(base.layer_norm("LayerNorm", d, eps)?),
        head: roberta::head(&(p / "lm_head"), config, decoder)?,
        limits: config.limits(roberta::max_positions(config)),
    })
}

/// Embeddings without a norm.
fn bare(p: &Params, config: &Config, word: Tensor, positions: Positions) -> Result<Embeddings> {
    Ok(Embeddings {
        token_type: Some(Embeddings::token_type(p, config, config.hidden_size)?),
        task_type: None,
        word: Embedding::new(word, config.pad_token_id),
        positions,
        layer_norm: None,
        dropout: config.hidden_dropout_prob,
    })
}

/// Pre-norm layers; `fed` is the dropout after the dense part.
fn stack(p: &Params, config: &Config, norms: Norms, fed: f64) -> Result<Blocks> {
    Blocks::new(Order::PreNorm, config.num_hidden_layers, |i| {
        let p = p / i;
        let norm = |p: &Params, name| p.layer_norm(name, config.hidden_size, config.layer_norm_eps);
        let (own, cross) = (&p / "attention", &p / "crossattention");
        Ok(Block {
            attention_norm: norm(&own, norms.0)?,
            attention: bert_layer::self_attention(&own, config)?,
            cross_norm: norm(&cross, norms.0)?,
            crossattention: bert_layer::cross_attention(&cross, config)?,
            feed_norm: norm(&p, norms.1)?,
            feed_forward: bert_layer::feed_forward(&p, config)?,
            dropout: config.hidden_dropout_prob,
            feed_dropout: fed,
        })
    })
}
