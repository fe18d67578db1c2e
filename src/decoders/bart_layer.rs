//! What the decoders of BART and its descendants have in common: tokens, layers, output layer.

use std::rc::Rc;

use anyhow::Result;
use tch::Tensor;

use super::Limits;
use super::bart::{Config, EPS};
use crate::nn::params::Init;
use crate::nn::{
    Activation, Attention, Cache, CrossAttention, Embedding, FeedForward, LayerCache, LayerNorm,
    Linear, Params, drop_layer, dropout, segment,
};

/// Tokens, layers and output layer: what these families have in common. Positions and the norms
/// around the layers are theirs.
pub(super) struct Core {
    pub embed_tokens: Embedding,
    /// √D if the config says so, else 1.
    embed_scale: f64,
    layers: Vec<Rc<Layer>>,
    lm_head: Linear,
    dropout: f64,
    layerdrop: f64,
    cross_attention_size: Option<i64>,
}

/// The parts of a layer, the same under either order of norms.
pub(super) struct Layer {
    pub self_attn: Attention,
    pub self_attn_layer_norm: LayerNorm,
    pub encoder_attn: CrossAttention,
    pub encoder_attn_layer_norm: LayerNorm,
    pub feed_forward: FeedForward,
    pub final_layer_norm: LayerNorm,
    pub dropout: f64,
}

/// A layer's order of operations: xs [N, t, D], states [B, S, D], tokens before -> [N, t, D]
pub(super) type Order = fn(&Layer, &Tensor, &Tensor, &mut LayerCache, i64, bool) -> Tensor;

impl Core {
    /// `base` holds `embed_tokens` and `layers`, `head` is the key of the output layer.
    pub(super) fn new(p: &Params, config: &Config, base: &str, head: &str) -> Result<Self> {
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
            layers: (0..config.decoder_layers)
                .map(|i| Layer::new(&(&layers / i), config).map(Rc::new))
                .collect::<Result<_>>()?,
            lm_head: p.head(head, lm_head, None)?,
            dropout: config.dropout,
            layerdrop: config.decoder_layerdrop,
            cross_attention_size: config.cross_attention_hidden_size,
        })
    }

    /// ids [N, t] -> [N, t, D]
    pub(super) fn tokens(&self, ids: &Tensor) -> Tensor {
        let xs = self.embed_tokens.forward(ids);
        if self.embed_scale == 1.0 { xs } else { xs * self.embed_scale }
    }

    /// Dropout, then the layers in this order of operations. xs [N, t, D] -> [N, t, D]
    pub(super) fn layers(
        &self,
        xs: &Tensor,
        states: &Tensor,
        cache: &mut Cache,
        train: bool,
        order: Order,
    ) -> Tensor {
        let mut xs = dropout(xs, self.dropout, train);
        for (i, layer) in self.layers.iter().enumerate() {
            if drop_layer(self.layerdrop, train) {
                continue;
            }
            let (cache, past) = cache.layer(i);
            xs = segment::decode(layer, &xs, states, cache, move |layer, xs, states, cache| {
                order(layer, xs, states, cache, past, train)
            });
        }
        cache.advance(xs.size()[1]);
        xs
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

impl Layer {
    fn new(p: &Params, config: &Config) -> Result<Self> {
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
        Ok(Layer {
            self_attn: Attention {
                qkv: joined(&own, &["q_proj", "k_proj", "v_proj"], d)?,
                out: linear(&own, "out_proj", d)?,
                heads,
                scale,
                dropout: config.attention_dropout,
                relative: None,
            },
            self_attn_layer_norm: norm("self_attn_layer_norm")?,
            encoder_attn: CrossAttention {
                query: linear(&cross, "q_proj", d)?,
                packing: cross.packing(),
                key_value: joined(&cross.for_many_rows(), &["k_proj", "v_proj"], states)?,
                out: linear(&cross, "out_proj", d)?,
                heads,
                scale,
                dropout: config.attention_dropout,
            },
            encoder_attn_layer_norm: norm("encoder_attn_layer_norm")?,
            feed_forward: FeedForward {
                up: p.linear("fc1", d, inner, init)?,
                activation: Activation::from_name(&config.activation_function)?,
                activation_dropout: config.activation_dropout,
                down: p.linear("fc2", inner, d, init)?,
            },
            final_layer_norm: norm("final_layer_norm")?,
            dropout: config.dropout,
        })
    }

    /// BART's order: a norm after each sum.
    pub(super) fn post_norm(
        &self,
        xs: &Tensor,
        states: &Tensor,
        cache: &mut LayerCache,
        past: i64,
        train: bool,
    ) -> Tensor {
        let p = self.dropout;
        let own = self.self_attn.decode(xs, cache, past, train);
        let xs = self.self_attn_layer_norm.of_sum(xs, &dropout(&own, p, train));
        let cross = self.encoder_attn.forward(&xs, states, cache, train);
        let xs = self.encoder_attn_layer_norm.of_sum(&xs, &dropout(&cross, p, train));
        let fed = self.feed_forward.forward(&xs, train);
        self.final_layer_norm.of_sum(&xs, &dropout(&fed, p, train))
    }
}
