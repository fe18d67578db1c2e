//! Attention (Vaswani et al. 2017): over a whole sequence, cached, and to an image.

use tch::{Device, Tensor};

use super::cache::{KeyValue, LayerCache};
use super::dropout::dropout as thin_out;
use super::flash::flash;
use super::linear::{Joined, Linear, Packing};
use super::mask;
use super::memory::Memory;
use super::position::Relative;
use super::precision::{full, low};

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
    /// How keys and values are kept, as the weights of the model are.
    pub packing: Option<Packing>,
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
    let (q, k, v, bias) = (&low(q), &low(k), &low(v), bias.map(low));
    let bias = bias.as_ref();
    if dropout <= 0.0 || q.device() != Device::Cpu {
        return Tensor::scaled_dot_product_attention(q, k, v, bias, dropout, false, scale, false);
    }
    // On a CPU libtorch has no fused attention with dropout; what it does instead is this.
    let scores = (q * scale).matmul(&k.transpose(-2, -1)); // [N, A, t, S]
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    let probabilities = full(&scores).softmax(-1, None);
    low(&thin_out(&probabilities, dropout, true)).matmul(v)
}

/// Each of t new tokens sees the past and those up to itself.
/// q [N, A, t, d], keys and values [N, A, T, d] -> [N, A, t, d]
fn attend_causally(q: &Tensor, all: &KeyValue, past: i64, scale: f64, dropout: f64) -> Tensor {
    let (k, v, t) = (&all.key, &all.value, q.size()[2]);
    // Where `attend` has no fused attention, it needs the mask itself.
    if past == 0 && t > 1 && (dropout <= 0.0 || q.device() != Device::Cpu) {
        let mask = None::<&Tensor>;
        return Tensor::scaled_dot_product_attention(q, k, v, mask, dropout, true, scale, false);
    }
    let mask = mask::causal(t, past, q.kind(), q.device()); // [t, T]
    attend(q, k, v, mask.as_ref(), scale, dropout)
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
        let [q, k, v] = self.qkv.for_attention::<3>(xs).map(|xs| split_heads(&xs, self.heads));
        let bias = bias.map(|bias| bias.to_kind(q.kind()));
        let dropout = self.probability(train);
        let context = match bias {
            None if dropout <= 0.0 => flash(&q, &k, &v, self.scale, self.qkv.parts()),
            _ => None,
        }
        .unwrap_or_else(|| attend(&q, &k, &v, bias.as_ref(), self.scale, dropout));
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
        if !matches!(self.relative, Some(Relative::Key(_))) {
            let found = if train { None } else { cache.attend_one(&q, &k, &v, self.scale) };
            if let Some(context) = found {
                return self.out.forward(&context);
            }
        }
        let all = cache.append(k, v);
        let dropout = self.probability(train);
        let context = match &self.relative {
            Some(Relative::Key(relative)) => {
                let mask = mask::causal(q.size()[2], past, q.kind(), q.device()); // [t, T]
                let bias = relative.bias(&q, &all.key, past) * self.scale; // [N, A, t, T]
                let bias = mask.iter().fold(bias, |bias, mask| bias + mask);
                attend(&q, &all.key, &all.value, Some(&bias), self.scale, dropout)
            }
            _ => attend_causally(&q, all, past, self.scale, dropout),
        };
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
    /// encoder_hidden_states [B, S, De]
    fn key_value(&self, states: &Tensor) -> Memory {
        let [key, value] =
            self.key_value.forward::<2>(states).map(|xs| split_heads(&xs, self.heads));
        Memory::new(&key, &value, self.packing)
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
        let memory = cache.cross.get_or_insert_with(|| self.key_value(encoder_hidden_states));
        let b = memory.images();
        let rows = n / b * t;
        let q = q.reshape([b, rows, self.heads, d / self.heads]).transpose(1, 2); // [B, A, K·t, d]
        if let Some(watched) = &mut cache.watched {
            // [B, A, K·t, S] -> [N, A, t, S]
            let seen = memory.probabilities(&q, self.scale).unflatten(2, [n / b, t]);
            *watched = seen.transpose(1, 2).flatten(0, 1);
        }
        let dropout = if train { self.dropout } else { 0.0 };
        let context = memory.attend(&q, self.scale, dropout);
        self.out.forward(&merge_heads(&context).reshape([n, t, d]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tch::Kind;

    pub(in crate::nn) fn waves(size: [i64; 4], step: f64) -> Tensor {
        let count = size.iter().product::<i64>();
        let numbers = Tensor::arange(count, (Kind::Double, Device::Cpu)) * step;
        numbers.sin().reshape(size).to_kind(Kind::Float) * 2.0
    }

    #[test]
    fn no_token_sees_those_after_it() {
        let (q, k, v) =
            (waves([2, 2, 5, 4], 0.7), waves([2, 2, 5, 4], 0.3), waves([2, 2, 5, 4], 0.2));
        let bias = mask::causal(5, 0, Kind::Float, Device::Cpu);
        let expected = attend(&q, &k, &v, bias.as_ref(), 0.5, 0.0);
        let all = KeyValue { key: k, value: v };
        let found = attend_causally(&q, &all, 0, 0.5, 0.0);
        let error = f64::try_from((&found - &expected).abs().max()).expect("a number");
        assert!(error < 1e-6, "{error}");
        // The last two, after three that are cached.
        let found = attend_causally(&q.narrow(2, 3, 2), &all, 3, 0.5, 0.0);
        let error =
            f64::try_from((found - expected.narrow(2, 3, 2)).abs().max()).expect("a number");
        assert!(error < 1e-6, "{error}");
    }
}
