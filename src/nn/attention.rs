//! Attention (Vaswani et al. 2017): over a whole sequence, cached, and to an image.

use tch::{Device, Kind, Tensor};

use super::cache::{Cache, KeyValue, LayerCache};
use super::dropout::dropout as thin_out;
use super::linear::{Joined, Linear};
use super::mask;
use super::position::Relative;

/// Self-attention with its output projection (dropout after it belongs to the layer).
pub struct Attention {
    /// Query, key and value.
    pub qkv: Joined,
    pub out: Linear,
    pub heads: i64,
    /// Multiplies the scores: 1/√d, or what the family says.
    pub scale: f64,
    /// Dropout of the attention probabilities.
    pub dropout: f64,
    /// Positions that self-attention knows by itself; None where the embeddings tell them.
    pub relative: Option<Relative>,
}

/// Attention of N rows to the states of B images (N a multiple of B, image-major).
pub struct CrossAttention {
    pub query: Linear,
    /// Key and value of the states.
    pub key_value: Joined,
    pub out: Linear,
    pub heads: i64,
    pub scale: f64,
    pub dropout: f64,
}

/// Scaled dot product attention.
/// q [N, A, t, d], k and v [N, A, S, d], bias added to the scaled scores, broadcast to [N, A, t, S]
/// -> [N, A, t, d]
pub fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: Option<&Tensor>,
    scale: f64,
    dropout: f64,
) -> Tensor {
    if dropout <= 0.0 || q.device() != Device::Cpu {
        return Tensor::scaled_dot_product_attention(q, k, v, bias, dropout, false, scale, false);
    }
    // On a CPU libtorch has no fused attention with dropout; what it does instead is this.
    let scores = (q * scale).matmul(&k.transpose(-2, -1)); // [N, A, t, S]
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    let probabilities = scores.softmax(-1, scores.kind());
    thin_out(&probabilities, dropout, true).matmul(v)
}

/// What `attend` weighs the values by: softmax(q kᵀ · scale), in f32. q [B, A, K·t, d], the queries of
/// `n` = B·K rows, k [B, A, S, d] -> [N, A, t, S]
fn probabilities(q: &Tensor, k: &Tensor, scale: f64, n: i64) -> Tensor {
    let scores = q.to_kind(Kind::Float).matmul(&k.to_kind(Kind::Float).transpose(2, 3)) * scale;
    let size = scores.size();
    let (b, heads, rows, s) = (size[0], size[1], size[2], size[3]);
    let apart = scores.softmax(-1, Kind::Float).reshape([b, heads, n / b, rows * b / n, s]);
    apart.transpose(1, 2).reshape([n, heads, rows * b / n, s])
}

/// [N, t, D] -> [N, A, t, d]
pub fn split_heads(xs: &Tensor, heads: i64) -> Tensor {
    let (n, t, d) = size3(xs);
    xs.reshape([n, t, heads, d / heads]).transpose(1, 2)
}

/// [N, A, t, d] -> [N, t, D]
pub fn merge_heads(xs: &Tensor) -> Tensor {
    xs.transpose(1, 2).flatten(2, 3)
}

/// The three sizes of [N, t, D].
pub fn size3(xs: &Tensor) -> (i64, i64, i64) {
    let size = xs.size();
    (size[0], size[1], size[2])
}

impl Attention {
    /// Every token sees every token. `bias` is added to the scores, broadcast to [B, A, S, S].
    /// [B, S, D] -> [B, S, D]
    pub fn encode(&self, xs: &Tensor, bias: Option<&Tensor>, train: bool) -> Tensor {
        let [q, k, v] = self.project(xs);
        let context = attend(&q, &k, &v, bias, self.scale, self.probability(train));
        self.out.forward(&merge_heads(&context))
    }

    /// Each of t new tokens sees the past and itself; the layer's cache grows.
    /// [N, t, D] -> [N, t, D]
    pub fn decode(&self, xs: &Tensor, cache: &mut LayerCache, past: i64, train: bool) -> Tensor {
        let [mut q, mut k, mut v] = self.project(xs);
        if let Some(Relative::Rotary(rotary)) = &self.relative {
            q = rotary.turn(&q, past);
            k = rotary.turn(&k, past);
            v = if rotary.value { rotary.turn(&v, past) } else { v };
        }
        let all = cache.append(k, v);
        let mut bias = mask::causal(q.size()[2], past, q.kind(), q.device()); // [t, T]
        if let Some(Relative::Key(relative)) = &self.relative {
            let positions = relative.bias(&q, &all.key, past) * self.scale; // [N, A, t, T]
            bias = Some(match bias {
                Some(mask) => positions + mask,
                None => positions,
            });
        }
        let context =
            attend(&q, &all.key, &all.value, bias.as_ref(), self.scale, self.probability(train));
        self.out.forward(&merge_heads(&context))
    }

    /// Query, key and value. [N, t, D] -> three of [N, A, t, d]
    fn project(&self, xs: &Tensor) -> [Tensor; 3] {
        self.qkv.forward::<3>(xs).map(|xs| split_heads(&xs, self.heads))
    }

    fn probability(&self, train: bool) -> f64 {
        if train { self.dropout } else { 0.0 }
    }
}

impl CrossAttention {
    /// [B, S, De] -> keys and values [B, A, S, d]
    fn key_value(&self, states: &Tensor) -> KeyValue {
        let split = |xs: Tensor| split_heads(&xs, self.heads).contiguous();
        let [key, value] = self.key_value.forward::<2>(states).map(split);
        KeyValue { key, value }
    }

    /// xs [N, t, D], encoder_hidden_states [B, S, De] -> [N, t, D]
    ///
    /// Keys and values are computed at the first call and belong to the image: the K rows of an image
    /// line up as K·t queries of one attention, so beams neither copy nor reorder them.
    pub fn forward(
        &self,
        xs: &Tensor,
        encoder_hidden_states: &Tensor,
        cache: &mut LayerCache,
        train: bool,
    ) -> Tensor {
        let q = self.query.forward(xs); // [N, t, D]
        let (n, t, d) = size3(&q);
        let kv = cache.cross.get_or_insert_with(|| self.key_value(encoder_hidden_states));
        let b = kv.key.size()[0];
        let rows = n / b * t;
        let q = q.reshape([b, rows, self.heads, d / self.heads]).transpose(1, 2); // [B, A, K·t, d]
        if let Some(watched) = &mut cache.watched {
            *watched = probabilities(&q, &kv.key, self.scale, n);
        }
        let dropout = if train { self.dropout } else { 0.0 };
        let context = attend(&q, &kv.key, &kv.value, None, self.scale, dropout);
        self.out.forward(&merge_heads(&context).reshape([n, t, d]))
    }
}

impl Cache {
    /// The layer's cache and the number of tokens before this step.
    pub fn layer(&mut self, index: usize) -> (&mut LayerCache, i64) {
        let past = self.past();
        (&mut self.layers[index], past)
    }
}
