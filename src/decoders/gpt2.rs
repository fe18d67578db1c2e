//! GPT-2 (Radford et al. 2019). Keys and order of operations: the reference's `modeling_gpt2.py`.
//! Dense weights are stored transposed (`Conv1D`), query, key and value in one.

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use super::block::{Block, Blocks, Order};
use super::{Decoder, DecoderArch, Limits, check_cross_attention};
use crate::nn::params::Init;
use crate::nn::position::plain;
use crate::nn::{
    Activation, Attention, Cache, CrossAttention, Embedding, FeedForward, Joined, LayerNorm,
    Linear, Params, config, dropout,
};

pub(super) const GPT2: DecoderArch = DecoderArch {
    model_type: "gpt2",
    prefix: "transformer",
    defaults,
    aliases: ALIASES,
    build: |json, p| Ok(Box::new(Gpt2::new(p, &Config::from_json(json)?)?)),
    // Causal masks that files before 2023 store as buffers.
    ignore: &[
        ".attn.bias",
        ".attn.masked_bias",
        ".crossattention.bias",
        ".crossattention.masked_bias",
    ],
};

const ALIASES: &[(&str, &str)] = &[
    ("hidden_size", "n_embd"),
    ("max_position_embeddings", "n_positions"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
];

#[derive(Deserialize)]
struct Config {
    vocab_size: i64,
    n_positions: i64,
    n_embd: i64,
    n_layer: i64,
    n_head: i64,
    n_inner: Option<i64>,
    activation_function: String,
    resid_pdrop: f64,
    embd_pdrop: f64,
    attn_pdrop: f64,
    layer_norm_epsilon: f64,
    initializer_range: f64,
    scale_attn_weights: bool,
    scale_attn_by_inverse_layer_idx: bool,
    tie_word_embeddings: bool,
    #[serde(default)]
    cross_attention_hidden_size: Option<i64>,
}

fn defaults() -> Value {
    json!({
        "model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_embd": 768,
        "n_layer": 12, "n_head": 12, "n_inner": null, "activation_function": "gelu_new",
        "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1, "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02, "scale_attn_weights": true,
        "scale_attn_by_inverse_layer_idx": false, "reorder_and_upcast_attn": false,
        "bos_token_id": 50256, "eos_token_id": 50256, "tie_word_embeddings": true,
    })
}

impl Config {
    /// `reorder_and_upcast_attn` is accepted: in f32 it changes the order of operations only. The two
    /// `scale_attn` flags are followed as the reference's eager attention does; its fused attention of
    /// 4.57 drops them by mistake.
    fn from_json(json: &Value) -> Result<Self> {
        let config: Config = config::read(defaults(), json, ALIASES)?;
        check_cross_attention(json, config.cross_attention_hidden_size, config.n_embd)?;
        ensure!(
            config.n_head > 0 && config.n_embd % config.n_head == 0,
            "n_embd {} is no multiple of n_head {}",
            config.n_embd,
            config.n_head
        );
        Ok(config)
    }
}

struct Gpt2 {
    wte: Embedding,
    wpe: Embedding,
    layers: Blocks,
    ln_f: LayerNorm,
    lm_head: Linear,
    embd_pdrop: f64,
    cross_attention_size: Option<i64>,
}

impl Gpt2 {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let (v, d) = (config.vocab_size, config.n_embd);
        let init = Init::Normal(config.initializer_range);
        let tie = config.tie_word_embeddings;
        let (wte, lm_head) =
            p.tied("transformer.wte.weight", "lm_head.weight", &[v, d], init, tie)?;
        let lm_head = p.head("lm_head.weight", lm_head, None)?;
        let p = p / "transformer";
        Ok(Gpt2 {
            wte: Embedding::new(wte, None),
            wpe: p.embedding("wpe", config.n_positions, d, init)?,
            layers: Blocks::new(Order::PreNorm, config.n_layer, |i| {
                block(&(&p / "h" / i), config, i)
            })?,
            ln_f: p.layer_norm("ln_f", d, config.layer_norm_epsilon)?,
            lm_head,
            embd_pdrop: config.embd_pdrop,
            cross_attention_size: config.cross_attention_hidden_size,
        })
    }
}

impl Decoder for Gpt2 {
    fn forward(
        &self,
        input_ids: &Tensor,
        encoder_hidden_states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor {
        let t = input_ids.size()[1];
        let positions = plain(t, cache.past(), input_ids.device());
        let xs = self.wte.forward(input_ids) + self.wpe.forward(&positions);
        let xs = dropout(&xs, self.embd_pdrop, train); // [N, t, D]
        self.ln_f.forward(&self.layers.forward(xs, encoder_hidden_states, cache, train))
    }

    fn logits(&self, hidden_states: &Tensor) -> Tensor {
        self.lm_head.forward(hidden_states)
    }

    fn limits(&self) -> Limits {
        Limits {
            hidden_size: self.lm_head.inputs(),
            vocab_size: self.lm_head.outputs(),
            layers: self.layers.len(),
            max_positions: Some(self.wpe.weight.size()[0]),
            cross_attention_size: self.cross_attention_size,
        }
    }
}

/// The keys of layer `index` below `p`.
fn block(p: &Params, config: &Config, index: i64) -> Result<Block> {
    let (d, eps) = (config.n_embd, config.layer_norm_epsilon);
    let inner = config.n_inner.unwrap_or(4 * d);
    let init = Init::Normal(config.initializer_range);
    // Projections into the residual stream are drawn narrower, by the depth of the model.
    let narrow = Init::Normal(config.initializer_range / (2.0 * config.n_layer as f64).sqrt());
    let heads = config.n_head;
    let mut scale = if config.scale_attn_weights { ((d / heads) as f64).powf(-0.5) } else { 1.0 };
    if config.scale_attn_by_inverse_layer_idx {
        scale /= (index + 1) as f64;
    }
    let (own, cross, mlp) = (p / "attn", p / "crossattention", p / "mlp");
    Ok(Block {
        attention_norm: p.layer_norm("ln_1", d, eps)?,
        attention: Attention {
            qkv: Joined::one(own.conv1d("c_attn", d, 3 * d, init)?, 3),
            out: own.conv1d("c_proj", d, d, narrow)?,
            heads,
            scale,
            dropout: config.attn_pdrop,
            relative: None,
        },
        cross_norm: p.layer_norm("ln_cross_attn", d, eps)?,
        crossattention: CrossAttention {
            query: cross.conv1d("q_attn", d, d, init)?,
            packing: cross.packing(),
            key_value: Joined::one(cross.for_many_rows().conv1d("c_attn", d, 2 * d, init)?, 2),
            out: cross.conv1d("c_proj", d, d, narrow)?,
            heads,
            scale,
            dropout: config.attn_pdrop,
        },
        feed_norm: p.layer_norm("ln_2", d, eps)?,
        feed_forward: FeedForward {
            up: mlp.conv1d("c_fc", d, inner, init)?,
            activation: Activation::from_name(&config.activation_function)?,
            activation_dropout: 0.0,
            down: mlp.conv1d("c_proj", inner, d, narrow)?,
        },
        dropout: config.resid_pdrop,
        feed_dropout: config.resid_pdrop,
    })
}
