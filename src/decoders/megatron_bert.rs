//! BERT with the norms before the branches, as Megatron trained it (Shoeybi et al. 2019), and two
//! RoBERTas of the same build: XLM-RoBERTa-XL (Goyal et al. 2021) and RoBERTa-PreLayerNorm.
//! References: `modeling_megatron_bert.py`, `modeling_xlm_roberta_xl.py`,
//! `modeling_roberta_prelayernorm.py`.

use std::rc::Rc;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tch::Tensor;

use super::bert::{self, Config, Head, PositionType, Transform};
use super::bert_embeddings::{Embeddings, Positions};
use super::{Decoder, DecoderArch, Limits, bert_layer, roberta};
use crate::nn::{
    Activation, Attention, Cache, CrossAttention, Embedding, FeedForward, LayerCache, LayerNorm,
    Params, dropout, segment,
};

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

struct PreNorm {
    embeddings: Embeddings,
    layers: Vec<Rc<Layer>>,
    layer_norm: LayerNorm,
    head: Head,
    limits: Limits,
}

/// A pre-norm layer.
struct Layer {
    attention_norm: LayerNorm,
    attention: Attention,
    cross_norm: LayerNorm,
    crossattention: CrossAttention,
    inner_norm: LayerNorm,
    feed_forward: FeedForward,
    /// Dropout after the attentions and after the feed-forward.
    dropout: (f64, f64),
}

/// Where the norms of a layer lie: (below each attention, below the layer).
type Norms = (&'static str, &'static str);

fn megatron(p: &Params, config: &Config) -> Result<PreNorm> {
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
    let (head, transform) = (p / "cls" / "predictions", p / "cls" / "predictions" / "transform");
    Ok(PreNorm {
        embeddings: bare(&embeddings, config, word, positions)?,
        layers: Layer::stack(
            &(&encoder / "layer"),
            config,
            ("ln", "ln"),
            config.hidden_dropout_prob,
        )?,
        layer_norm: encoder.layer_norm("ln", d, config.layer_norm_eps)?,
        head: Head {
            transform: Some(Transform {
                dense: transform.linear("dense", d, d, init)?,
                activation: Activation::from_name(&config.hidden_act)?,
                layer_norm: transform.layer_norm("LayerNorm", d, config.layer_norm_eps)?,
            }),
            decoder: head.head(
                "decoder.weight",
                decoder,
                Some(Head::bias(&head, config.vocab_size)?),
            )?,
        },
        limits: config.limits(config.max_position_embeddings),
    })
}

fn xl(p: &Params, config: &Config) -> Result<PreNorm> {
    let (d, eps) = (config.hidden_size, config.layer_norm_eps);
    let (word, decoder) = roberta::words(p, "roberta", config)?;
    let (embeddings, encoder) = (p / "roberta" / "embeddings", p / "roberta" / "encoder");
    let positions = roberta::positions(&embeddings, config)?;
    let norms = ("self_attn_layer_norm", "LayerNorm");
    // This family alone has no dropout after the feed-forward.
    let layers = Layer::stack(&(&encoder / "layer"), config, norms, 0.0)?;
    Ok(PreNorm {
        embeddings: bare(&embeddings, config, word, positions)?,
        layers,
        layer_norm: encoder.layer_norm("LayerNorm", d, eps)?,
        head: roberta::head(&(p / "lm_head"), config, decoder)?,
        limits: config.limits(roberta::max_positions(config)),
    })
}

fn prelayernorm(p: &Params, config: &Config) -> Result<PreNorm> {
    let (d, eps) = (config.hidden_size, config.layer_norm_eps);
    let (word, decoder) = roberta::words(p, "roberta_prelayernorm", config)?;
    let base = p / "roberta_prelayernorm";
    let positions = roberta::positions(&(&base / "embeddings"), config)?;
    let norms = ("LayerNorm", "intermediate.LayerNorm");
    Ok(PreNorm {
        embeddings: Embeddings::new(&(&base / "embeddings"), config, word, positions)?,
        layers: Layer::stack(
            &(&base / "encoder" / "layer"),
            config,
            norms,
            config.hidden_dropout_prob,
        )?,
        layer_norm: base.layer_norm("LayerNorm", d, eps)?,
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

impl Decoder for PreNorm {
    fn forward(
        &self,
        input_ids: &Tensor,
        encoder_hidden_states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor {
        let mut xs = self.embeddings.forward(input_ids, cache, train); // [N, t, D]
        for (i, layer) in self.layers.iter().enumerate() {
            let (cache, past) = cache.layer(i);
            let states = encoder_hidden_states;
            xs = segment::decode(layer, &xs, states, cache, move |layer, xs, states, cache| {
                layer.forward(xs, states, cache, past, train)
            });
        }
        cache.advance(input_ids.size()[1]);
        self.layer_norm.forward(&xs)
    }

    fn logits(&self, hidden_states: &Tensor) -> Tensor {
        self.head.forward(hidden_states)
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

impl Layer {
    /// `fed` is the dropout after the feed-forward.
    fn stack(p: &Params, config: &Config, norms: Norms, fed: f64) -> Result<Vec<Rc<Self>>> {
        let layer = |i| Layer::new(&(p / i), config, norms, fed).map(Rc::new);
        (0..config.num_hidden_layers).map(layer).collect()
    }

    fn new(p: &Params, config: &Config, norms: Norms, fed: f64) -> Result<Self> {
        let norm = |p: &Params, name| p.layer_norm(name, config.hidden_size, config.layer_norm_eps);
        let (own, cross) = (p / "attention", p / "crossattention");
        Ok(Layer {
            attention_norm: norm(&own, norms.0)?,
            attention: bert_layer::self_attention(&own, config)?,
            cross_norm: norm(&cross, norms.0)?,
            crossattention: bert_layer::cross_attention(&cross, config)?,
            inner_norm: norm(p, norms.1)?,
            feed_forward: bert_layer::feed_forward(p, config)?,
            dropout: (config.hidden_dropout_prob, fed),
        })
    }

    /// xs [N, t, D], states [B, S, D] -> [N, t, D]
    fn forward(
        &self,
        xs: &Tensor,
        states: &Tensor,
        cache: &mut LayerCache,
        past: i64,
        train: bool,
    ) -> Tensor {
        let own = self.attention.decode(&self.attention_norm.forward(xs), cache, past, train);
        let [xs, normed] = self.cross_norm.with_sum(xs, &dropout(&own, self.dropout.0, train));
        let cross = self.crossattention.forward(&normed, states, cache, train);
        let [xs, normed] = self.inner_norm.with_sum(&xs, &dropout(&cross, self.dropout.0, train));
        let fed = self.feed_forward.forward(&normed, train);
        xs + dropout(&fed, self.dropout.1, train)
    }
}
