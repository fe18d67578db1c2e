//! The post-norm layer of BERT, and the blocks that its descendants build theirs from.

use std::rc::Rc;

use anyhow::Result;
use tch::Tensor;

use super::bert::{Config, PositionType};
use crate::nn::position::{Relative, RelativeKey, Rotary};
use crate::nn::{
    Activation, Attention, CrossAttention, FeedForward, LayerCache, LayerNorm, Params, dropout,
};

/// A post-norm layer.
pub(super) struct Layer {
    attention: Attention,
    attention_norm: LayerNorm,
    crossattention: CrossAttention,
    cross_norm: LayerNorm,
    feed_forward: FeedForward,
    output_norm: LayerNorm,
    hidden_dropout: f64,
}

impl Layer {
    pub(super) fn stack(p: &Params, config: &Config) -> Result<Vec<Rc<Self>>> {
        Layer::stack_with(p, config, |_| {})
    }

    /// Layers with a change to each.
    pub(super) fn stack_with(
        p: &Params,
        config: &Config,
        change: impl Fn(&mut Layer),
    ) -> Result<Vec<Rc<Self>>> {
        let layers = (0..config.num_hidden_layers).map(|i| {
            let mut layer = Layer::new(&(p / i), config)?;
            change(&mut layer);
            Ok(Rc::new(layer))
        });
        layers.collect()
    }

    fn new(p: &Params, config: &Config) -> Result<Self> {
        let norm = |p: &Params| {
            (p / "output").layer_norm("LayerNorm", config.hidden_size, config.layer_norm_eps)
        };
        let (own, cross) = (p / "attention", p / "crossattention");
        Ok(Layer {
            attention: self_attention(&own, config)?,
            attention_norm: norm(&own)?,
            crossattention: cross_attention(&cross, config)?,
            cross_norm: norm(&cross)?,
            feed_forward: feed_forward(p, config)?,
            output_norm: norm(p)?,
            hidden_dropout: config.hidden_dropout_prob,
        })
    }

    /// Turns the queries and keys of self-attention (RoFormer).
    pub(super) fn rotate(&mut self, rotary: Rotary) {
        self.attention.relative = Some(Relative::Rotary(rotary));
    }

    /// xs [N, t, D], states [B, S, D] -> [N, t, D]
    pub(super) fn forward(
        &self,
        xs: &Tensor,
        states: &Tensor,
        cache: &mut LayerCache,
        past: i64,
        train: bool,
    ) -> Tensor {
        let p = self.hidden_dropout;
        let own = self.attention.decode(xs, cache, past, train);
        let xs = self.attention_norm.of_sum(xs, &dropout(&own, p, train));
        let cross = self.crossattention.forward(&xs, states, cache, train);
        let xs = self.cross_norm.of_sum(&xs, &dropout(&cross, p, train));
        let fed = self.feed_forward.forward(&xs, train);
        self.output_norm.of_sum(&xs, &dropout(&fed, p, train))
    }
}

/// Keys `self.{query,key,value}` and `output.dense` below `p`.
pub(super) fn self_attention(p: &Params, config: &Config) -> Result<Attention> {
    let (d, heads, init) = (config.hidden_size, config.num_attention_heads, config.init());
    let own = p / "self";
    let relative = match config.position_embedding_type {
        PositionType::Absolute => None,
        kind => Some(Relative::Key(RelativeKey {
            distance_embedding: (&own / "distance_embedding").var(
                "weight",
                &[2 * config.max_position_embeddings - 1, d / heads],
                init,
            )?,
            with_key: kind == PositionType::RelativeKeyQuery,
        })),
    };
    Ok(Attention {
        qkv: own.joined(&["query", "key", "value"].map(|name| (name, true)), d, d, init)?,
        out: (p / "output").linear("dense", d, d, init)?,
        heads,
        scale: ((d / heads) as f64).powf(-0.5),
        dropout: config.attention_probs_dropout_prob,
        relative,
    })
}

/// Keys `self.{query,key,value}` and `output.dense` below `p`; never relative positions.
pub(super) fn cross_attention(p: &Params, config: &Config) -> Result<CrossAttention> {
    let (d, heads, init) = (config.hidden_size, config.num_attention_heads, config.init());
    let own = p / "self";
    Ok(CrossAttention {
        query: own.linear("query", d, d, init)?,
        packing: own.packing(),
        key_value: own.for_many_rows().joined(&[("key", true), ("value", true)], d, d, init)?,
        out: (p / "output").linear("dense", d, d, init)?,
        heads,
        scale: ((d / heads) as f64).powf(-0.5),
        dropout: config.attention_probs_dropout_prob,
    })
}

/// Keys `intermediate.dense` and `output.dense` below `p`.
pub(super) fn feed_forward(p: &Params, config: &Config) -> Result<FeedForward> {
    let (d, inner, init) = (config.hidden_size, config.intermediate_size, config.init());
    Ok(FeedForward {
        up: (p / "intermediate").linear("dense", d, inner, init)?,
        activation: Activation::from_name(&config.hidden_act)?,
        activation_dropout: 0.0,
        down: (p / "output").linear("dense", inner, d, init)?,
    })
}
