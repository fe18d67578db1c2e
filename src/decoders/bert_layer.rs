//! The layers of BERT, and the parts that its descendants build theirs from.

use anyhow::Result;

use super::bert::{Config, PositionType};
use super::block::{Block, Blocks, Order};
use crate::nn::position::{Relative, RelativeKey};
use crate::nn::{Activation, Attention, CrossAttention, FeedForward, Params};

/// The post-norm layers below `p`.
pub(super) fn stack(p: &Params, config: &Config) -> Result<Blocks> {
    stack_with(p, config, |_| {})
}

/// The same with a change to each.
pub(super) fn stack_with(
    p: &Params,
    config: &Config,
    change: impl Fn(&mut Block),
) -> Result<Blocks> {
    Blocks::new(Order::PostNorm, config.num_hidden_layers, |i| {
        let mut block = block(&(p / i), config)?;
        change(&mut block);
        Ok(block)
    })
}

fn block(p: &Params, config: &Config) -> Result<Block> {
    let norm = |p: &Params| {
        (p / "output").layer_norm("LayerNorm", config.hidden_size, config.layer_norm_eps)
    };
    let (own, cross) = (p / "attention", p / "crossattention");
    Ok(Block {
        attention: self_attention(&own, config)?,
        attention_norm: norm(&own)?,
        crossattention: cross_attention(&cross, config)?,
        cross_norm: norm(&cross)?,
        feed_forward: feed_forward(p, config)?,
        feed_norm: norm(p)?,
        dropout: config.hidden_dropout_prob,
        feed_dropout: config.hidden_dropout_prob,
    })
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
