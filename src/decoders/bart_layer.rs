//! What the decoders of BART and its descendants have in common: tokens, layers, output layer.

use anyhow::Result;
use tch::Tensor;

use super::bart::{Config, EPS};
use super::block::{Block, Blocks, Order};
use super::{Decoder, Limits};
use crate::nn::params::Init;
use crate::nn::position::plain;
use crate::nn::{
    Activation, Attention, Cache, CrossAttention, Embedding, FeedForward, LayerNorm, Linear,
    Params, dropout,
};

/// Tokens, layers and output layer: what these families have in common. Positions and the norms
/// around the layers are theirs.
pub(super) struct Core {
    pub embed_tokens: Embedding,
    /// √D if the config says so, else 1.
    embed_scale: f64,
    layers: Blocks,
    lm_head: Linear,
    dropout: f64,
    cross_attention_size: Option<i64>,
}

impl Core {
    /// `base` holds `embed_tokens` and `layers`, `head` is the key of the output layer.
    pub(super) fn new(
        p: &Params,
        config: &Config,
        order: Order,
        base: &str,
        head: &str,
    ) -> Result<Self> {
        let (v, d) = (config.rows(), config.d_model);
        let embed = format!("{base}.embed_tokens.weight");
        let init = Init::normal_padded(config.init_std, config.pad_token_id);
        let (embed_tokens, lm_head) = if config.tie_word_embeddings {
            p.tied(&embed, head, &[v, d], init, true)?
        } else {
            (p.var(&embed, &[v, d], init)?, p.var(head, &[config.vocab_size, d], config.init())?)
        };
        let layers = p / base / "layers";
        Ok(Core {
            embed_tokens: Embedding::new(embed_tokens, config.pad_token_id),
            embed_scale: if config.scale_embedding { (d as f64).sqrt() } else { 1.0 },
            layers: Blocks::new(order, config.decoder_layers, |i| block(&(&layers / i), config))?
                .with_layerdrop(config.decoder_layerdrop),
            lm_head: p.head(head, lm_head, None)?,
            dropout: config.dropout,
            cross_attention_size: config.cross_attention_hidden_size,
        })
    }

    /// ids [N, t] -> [N, t, D]
    pub(super) fn tokens(&self, ids: &Tensor) -> Tensor {
        let xs = self.embed_tokens.forward(ids);
        if self.embed_scale == 1.0 { xs } else { xs * self.embed_scale }
    }

    /// Dropout, then the layers. xs [N, t, D] -> [N, t, D]
    pub(super) fn layers(
        &self,
        xs: &Tensor,
        states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor {
        self.layers.forward(dropout(xs, self.dropout, train), states, cache, train)
    }

    /// [N, t, D] -> [N, t, V]
    pub(super) fn logits(&self, hidden_states: &Tensor) -> Tensor {
        self.lm_head.forward(hidden_states)
    }

    pub(super) fn limits(&self, max_positions: Option<i64>) -> Limits {
        Limits {
            hidden_size: self.lm_head.inputs(),
            vocab_size: self.lm_head.outputs(),
            layers: self.layers.len(),
            max_positions,
            cross_attention_size: self.cross_attention_size,
        }
    }
}

/// A decoder whose layers take the sum of tokens and positions, counted from 0, as it is.
pub(super) struct Plain {
    pub core: Core,
    /// [P, D]
    pub embed_positions: Embedding,
    /// Behind layers that have their norms before their parts.
    pub layer_norm: Option<LayerNorm>,
}

impl Plain {
    /// Layers in mBART's order, and a norm of this name behind them; `positions` reads those below `p`.
    pub(super) fn pre_norm(
        p: &Params,
        config: &Config,
        positions: fn(&Params, &Config) -> Result<Embedding>,
        norm: &str,
    ) -> Result<Self> {
        let core = Core::new(p, config, Order::PreNorm, "model.decoder", "lm_head.weight")?;
        let p = p / "model" / "decoder";
        let embed_positions = positions(&p, config)?;
        let layer_norm = Some(p.layer_norm(norm, config.d_model, EPS)?);
        Ok(Plain { core, embed_positions, layer_norm })
    }
}

impl Decoder for Plain {
    fn forward(
        &self,
        input_ids: &Tensor,
        encoder_hidden_states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor {
        let positions = plain(input_ids.size()[1], cache.past(), input_ids.device());
        let xs = self.core.tokens(input_ids) + self.embed_positions.forward(&positions);
        let xs = self.core.layers(&xs, encoder_hidden_states, cache, train);
        match &self.layer_norm {
            Some(norm) => norm.forward(&xs),
            None => xs,
        }
    }

    fn logits(&self, hidden_states: &Tensor) -> Tensor {
        self.core.logits(hidden_states)
    }

    fn limits(&self) -> Limits {
        self.core.limits(Some(self.embed_positions.weight.size()[0]))
    }
}

/// Key `embed_positions.weight` [P, D] below `p`, learned, from position 0 on.
pub(super) fn learned_positions(p: &Params, config: &Config) -> Result<Embedding> {
    let (rows, d) = (config.max_position_embeddings, config.d_model);
    p.embedding("embed_positions", rows, d, config.init())
}

/// The keys of a layer below `p`.
fn block(p: &Params, config: &Config) -> Result<Block> {
    let (d, inner, init) = (config.d_model, config.decoder_ffn_dim, config.init());
    let heads = config.decoder_attention_heads;
    let scale = ((d / heads) as f64).powf(-0.5);
    let states = config.cross_attention_hidden_size.unwrap_or(d);
    let linear = |p: &Params, name, inputs| p.linear_if(name, inputs, d, config.use_bias, init);
    let joined = |p: &Params, names: &[&str], inputs| {
        let layers: Vec<_> = names.iter().map(|name| (*name, config.use_bias)).collect();
        p.joined(&layers, inputs, d, init)
    };
    let norm = |name| p.layer_norm(name, d, EPS);
    let (own, cross) = (p / "self_attn", p / "encoder_attn");
    Ok(Block {
        attention: Attention {
            qkv: joined(&own, &["q_proj", "k_proj", "v_proj"], d)?,
            out: linear(&own, "out_proj", d)?,
            heads,
            scale,
            dropout: config.attention_dropout,
            relative: None,
        },
        attention_norm: norm("self_attn_layer_norm")?,
        crossattention: CrossAttention {
            query: linear(&cross, "q_proj", d)?,
            packing: cross.packing(),
            key_value: joined(&cross.for_many_rows(), &["k_proj", "v_proj"], states)?,
            out: linear(&cross, "out_proj", d)?,
            heads,
            scale,
            dropout: config.attention_dropout,
        },
        cross_norm: norm("encoder_attn_layer_norm")?,
        feed_forward: FeedForward {
            up: p.linear("fc1", d, inner, init)?,
            activation: Activation::from_name(&config.activation_function)?,
            activation_dropout: config.activation_dropout,
            down: p.linear("fc2", inner, d, init)?,
        },
        feed_norm: norm("final_layer_norm")?,
        dropout: config.dropout,
        feed_dropout: config.dropout,
    })
}
