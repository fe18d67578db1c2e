//! ProphetNet's decoder (Qi et al. 2020). Keys and order of operations: the reference's
//! `modeling_prophetnet.py`. Beside the main stream runs a predicting stream, which starts from a
//! vector of its own and the next position, sees the main stream up to its token, and gives the logits.
//! The streams for tokens further ahead change nothing in these logits and are not computed.
//!
//! Over several tokens at once the reference of 4.57 pairs the predicting stream's relative positions
//! with the wrong tokens and heads (`get_predict_relative_pos_embeddings` gathers rows of one order with
//! indices of another); token by token, as in generation, it does not. This file follows the latter.

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::bart::EPS;
use super::block::{Block, Blocks, Order, SelfAttention};
use super::{Decoder, DecoderArch, Limits, check_cross_attention, check_padding};
use crate::nn::attention::{merge_heads, split_heads};
use crate::nn::params::Init;
use crate::nn::position::plain;
use crate::nn::precision::matmul;
use crate::nn::{
    Activation, Cache, CrossAttention, Embedding, FeedForward, LayerCache, LayerNorm, Linear,
    Params, config, dropout, mask,
};

pub(super) const PROPHETNET: DecoderArch = DecoderArch {
    model_type: "prophetnet",
    prefix: "prophetnet",
    defaults,
    aliases: ALIASES,
    build: |json, p| Ok(Box::new(ProphetNet::new(p, &Config::from_json(json)?)?)),
    ignore: &[],
};

const ALIASES: &[(&str, &str)] = &[("num_attention_heads", "num_encoder_attention_heads")];

fn defaults() -> Value {
    json!({
        "model_type": "prophetnet", "vocab_size": 30522, "hidden_size": 1024,
        "num_encoder_layers": 12, "num_encoder_attention_heads": 16, "encoder_ffn_dim": 4096,
        "num_decoder_layers": 12, "num_decoder_attention_heads": 16, "decoder_ffn_dim": 4096,
        "activation_function": "gelu", "max_position_embeddings": 512, "ngram": 2,
        "num_buckets": 32, "relative_max_distance": 128, "disable_ngram_loss": false, "eps": 0.0,
        "attention_dropout": 0.1, "activation_dropout": 0.1, "dropout": 0.1, "init_std": 0.02,
        "use_cache": true, "add_cross_attention": true, "bos_token_id": 1, "pad_token_id": 0,
        "eos_token_id": 2, "decoder_start_token_id": 0, "tie_word_embeddings": true,
    })
}

#[derive(Deserialize)]
struct Config {
    vocab_size: i64,
    hidden_size: i64,
    num_decoder_layers: i64,
    num_decoder_attention_heads: i64,
    decoder_ffn_dim: i64,
    activation_function: String,
    max_position_embeddings: i64,
    ngram: i64,
    num_buckets: i64,
    relative_max_distance: i64,
    attention_dropout: f64,
    activation_dropout: f64,
    dropout: f64,
    init_std: f64,
    pad_token_id: i64,
    tie_word_embeddings: bool,
    #[serde(default)]
    cross_attention_hidden_size: Option<i64>,
}

impl Config {
    fn from_json(json: &Value) -> Result<Self> {
        let config: Config = config::read(defaults(), json, ALIASES)?;
        let (d, heads) = (config.hidden_size, config.num_decoder_attention_heads);
        check_cross_attention(json, config.cross_attention_hidden_size, d)?;
        check_padding(Some(config.pad_token_id), config.vocab_size)?;
        ensure!(
            heads > 0 && d % heads == 0,
            "hidden_size {d} is no multiple of num_decoder_attention_heads {heads}"
        );
        ensure!(config.ngram > 0, "ngram {} leaves no stream that predicts", config.ngram);
        ensure!(
            config.num_buckets >= 2 && config.relative_max_distance > config.num_buckets / 2,
            "num_buckets {} and relative_max_distance {} leave no room for far tokens",
            config.num_buckets,
            config.relative_max_distance
        );
        ensure!(
            config.max_positions() > 0,
            "max_position_embeddings {} leaves no position",
            config.max_position_embeddings
        );
        Ok(config)
    }

    /// Positions start behind the padding's, and the last token needs the one after its own.
    fn max_positions(&self) -> i64 {
        self.max_position_embeddings - self.pad_token_id - 2
    }

    fn init(&self) -> Init {
        Init::Normal(self.init_std)
    }
}

struct ProphetNet {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    /// [ngram, D]
    ngram_embeddings: Tensor,
    embeddings_layer_norm: LayerNorm,
    /// Over both streams.
    layers: Blocks<NgramSelfAttention>,
    lm_head: Linear,
    /// Position of the first token.
    first: i64,
    dropout: f64,
    limits: Limits,
}

/// Self-attention of the main stream and of the predicting stream.
struct NgramSelfAttention {
    query_proj: Linear,
    key_proj: Linear,
    value_proj: Linear,
    out_proj: Linear,
    /// From a token's state to what each bucket of distances adds to each head's scores.
    relative_pos_embeddings: Linear,
    heads: i64,
    buckets: Buckets,
    dropout: f64,
}

/// Distances in buckets: near ones each its own, far ones together on a logarithmic scale.
#[derive(Clone, Copy)]
struct Buckets {
    count: i64,
    max_distance: i64,
}

impl ProphetNet {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let (v, d, padding_idx) = (config.vocab_size, config.hidden_size, config.pad_token_id);
        let init = Init::NormalExceptRow(config.init_std, padding_idx);
        // The wrapper owns the table and lends it to the decoder, and to the output layer if tied.
        let mut names =
            vec!["prophetnet.word_embeddings.weight", "prophetnet.decoder.word_embeddings.weight"];
        if config.tie_word_embeddings {
            names.push("lm_head.weight");
        }
        let words = p.shared(&names, &[v, d], init)?;
        let lm_head = if config.tie_word_embeddings {
            words.shallow_clone()
        } else {
            p.var("lm_head.weight", &[v, d], config.init())?
        };
        let lm_head = p.head("lm_head.weight", lm_head, None)?;
        let p = p / "prophetnet" / "decoder";
        let positions = (&p / "position_embeddings").var(
            "weight",
            &[config.max_position_embeddings, d],
            init,
        )?;
        Ok(ProphetNet {
            word_embeddings: Embedding::new(words, Some(padding_idx)),
            position_embeddings: Embedding::new(positions, Some(padding_idx)),
            ngram_embeddings: p.var(
                "ngram_embeddings.weight",
                &[config.ngram, d],
                config.init(),
            )?,
            layers: Blocks::new(Order::PostNorm, config.num_decoder_layers, |i| {
                block(&(&p / "layers" / i), config)
            })?,
            embeddings_layer_norm: p.layer_norm("embeddings_layer_norm", d, EPS)?,
            lm_head,
            first: padding_idx + 1,
            dropout: config.dropout,
            limits: Limits {
                hidden_size: d,
                vocab_size: v,
                layers: config.num_decoder_layers.max(0) as usize,
                max_positions: Some(config.max_positions()),
                cross_attention_size: config.cross_attention_hidden_size,
            },
        })
    }
}

impl Decoder for ProphetNet {
    fn forward(
        &self,
        input_ids: &Tensor,
        encoder_hidden_states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor {
        let (n, t) = (input_ids.size()[0], input_ids.size()[1]);
        let positions = plain(t, cache.past() + self.first, input_ids.device());
        let main =
            self.word_embeddings.forward(input_ids) + self.position_embeddings.forward(&positions);
        // The nearest stream has the last vector of the table: the reference counts from -1.
        let predicting =
            self.position_embeddings.forward(&(positions + 1)) + self.ngram_embeddings.get(-1);
        let predicting = predicting.unsqueeze(0).expand([n, -1, -1], false);
        let xs = self.embeddings_layer_norm.forward(&Tensor::cat(&[main, predicting], 1));
        let xs = dropout(&xs, self.dropout, train); // [N, 2t, D], main stream first
        let xs = self.layers.over(xs, encoder_hidden_states, cache, train);
        cache.advance(t);
        xs.narrow(1, t, t)
    }

    fn logits(&self, hidden_states: &Tensor) -> Tensor {
        self.lm_head.forward(hidden_states)
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

/// The keys of a layer below `p`.
fn block(p: &Params, config: &Config) -> Result<Block<NgramSelfAttention>> {
    let (d, inner, init) = (config.hidden_size, config.decoder_ffn_dim, config.init());
    let heads = config.num_decoder_attention_heads;
    let (cross, fed) = (p / "cross_attn", p / "feed_forward");
    Ok(Block {
        attention: NgramSelfAttention::new(&(p / "self_attn"), config)?,
        attention_norm: p.layer_norm("self_attn_layer_norm", d, EPS)?,
        crossattention: CrossAttention {
            query: cross.linear("query_proj", d, d, init)?,
            packing: cross.packing(),
            key_value: cross.for_many_rows().joined(
                &[("key_proj", true), ("value_proj", true)],
                d,
                d,
                init,
            )?,
            out: cross.linear("out_proj", d, d, init)?,
            heads,
            scale: ((d / heads) as f64).powf(-0.5),
            dropout: config.attention_dropout,
        },
        cross_norm: p.layer_norm("cross_attn_layer_norm", d, EPS)?,
        feed_forward: FeedForward {
            up: fed.linear("intermediate", d, inner, init)?,
            activation: Activation::from_name(&config.activation_function)?,
            activation_dropout: config.activation_dropout,
            down: fed.linear("output", inner, d, init)?,
        },
        feed_norm: p.layer_norm("feed_forward_layer_norm", d, EPS)?,
        dropout: config.dropout,
        feed_dropout: config.dropout,
    })
}

impl NgramSelfAttention {
    fn new(p: &Params, config: &Config) -> Result<Self> {
        let (d, init) = (config.hidden_size, config.init());
        let (heads, count) = (config.num_decoder_attention_heads, config.num_buckets);
        Ok(NgramSelfAttention {
            key_proj: p.linear("key_proj", d, d, init)?,
            value_proj: p.linear("value_proj", d, d, init)?,
            query_proj: p.linear("query_proj", d, d, init)?,
            out_proj: p.linear("out_proj", d, d, init)?,
            relative_pos_embeddings: p.linear("relative_pos_embeddings", d, count * heads, init)?,
            heads,
            buckets: Buckets { count, max_distance: config.relative_max_distance },
            dropout: config.attention_dropout,
        })
    }
}

impl SelfAttention for NgramSelfAttention {
    /// xs [N, 2t, D], main stream first -> [N, 2t, D]
    fn attend(&self, xs: &Tensor, cache: &mut LayerCache, past: i64, train: bool) -> Tensor {
        let t = xs.size()[1] / 2;
        let scale = ((xs.size()[2] / self.heads) as f64).powf(-0.5);
        let query = split_heads(&(self.query_proj.forward(xs) * scale), self.heads); // [N, A, 2t, d]
        let key = split_heads(&self.key_proj.forward(xs), self.heads);
        let value = split_heads(&self.value_proj.forward(xs), self.heads);
        let relative = self.relative(xs); // [N, A, 2t, buckets]
        let main = |xs: &Tensor| xs.narrow(2, 0, t);
        let ahead = |xs: &Tensor| xs.narrow(2, t, t);
        let all = cache.append(main(&key), main(&value));
        let keys = all.key.transpose(2, 3);
        let bias = mask::causal(t, past, xs.kind(), xs.device()); // [t, T]
        let masked = |scores: Tensor| match &bias {
            Some(bias) => scores + bias,
            None => scores,
        };
        let probabilities = |scores: Tensor| {
            let p = scores.softmax(-1, Kind::Float).to_kind(xs.kind());
            dropout(&p, self.dropout, train)
        };

        let distances = self.buckets.table(t, past, 0, xs.device());
        let scores = matmul(&main(&query), &keys) + gather(&main(&relative), &distances);
        let own = matmul(&probabilities(masked(scores)), &all.value); // [N, A, t, d]

        // The predicting stream stands one position further, and sees itself beside the main stream.
        let distances = self.buckets.table(t, past, 1, xs.device());
        let scores = matmul(&ahead(&query), &keys) + gather(&ahead(&relative), &distances);
        let itself = (ahead(&query) * ahead(&key)).sum_dim_intlist(-1, true, xs.kind())
            + ahead(&relative).narrow(3, 0, 1); // [N, A, t, 1]
        let p = probabilities(Tensor::cat(&[masked(scores), itself], 3)); // [N, A, t, T + 1]
        let total = past + t;
        let predicted =
            matmul(&p.narrow(3, 0, total), &all.value) + p.narrow(3, total, 1) * ahead(&value);
        self.out_proj.forward(&merge_heads(&Tensor::cat(&[own, predicted], 2)))
    }
}

impl NgramSelfAttention {
    /// What each bucket adds to each token's scores. [N, t, D] -> [N, A, t, buckets]
    fn relative(&self, xs: &Tensor) -> Tensor {
        self.relative_pos_embeddings
            .forward(xs)
            .unflatten(2, [self.buckets.count, self.heads])
            .permute([0, 3, 1, 2])
    }
}

/// The numbers of the buckets. relative [N, A, t, buckets], table [t, T] -> [N, A, t, T]
fn gather(relative: &Tensor, table: &Tensor) -> Tensor {
    let size = relative.size();
    relative.gather(3, &table.expand([size[0], size[1], -1, -1], false), false)
}

impl Buckets {
    /// Buckets of the distances from t new tokens, `ahead` positions further, to all. -> [t, T]
    fn table(self, t: i64, past: i64, ahead: i64, device: Device) -> Tensor {
        let rows = (past..past + t).map(|token| token + ahead);
        let all: Vec<i64> =
            rows.flat_map(|from| (0..past + t).map(move |to| self.bucket(from - to))).collect();
        Tensor::from_slice(&all).reshape([t, past + t]).to_device(device)
    }

    /// Bucket of a distance; later tokens count as distance 0.
    fn bucket(self, distance: i64) -> i64 {
        let distance = distance.max(0);
        let exact = self.count / 2;
        if distance < exact {
            return distance;
        }
        let scale = (self.max_distance as f64 / exact as f64).ln() as f32;
        let far = (distance as f32 / exact as f32).ln() / scale * (self.count - exact) as f32;
        (exact + far as i64).min(self.count - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_distances_share_buckets() {
        // From the reference's compute_relative_buckets.
        let buckets = Buckets { count: 32, max_distance: 128 };
        let table = [(-3, 0), (0, 0), (15, 15), (16, 16), (20, 17), (33, 21), (90, 29), (500, 31)];
        for (distance, expected) in table {
            assert_eq!(buckets.bucket(distance), expected, "{distance}");
        }
    }
}
