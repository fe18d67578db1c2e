//! Attention (Vaswani et al. 2017): over a whole sequence, cached, and to an image.

use tch::{Device, Tensor};

use super::cache::{KeyValue, LayerCache};
use super::dropout::dropout as thin_out;
use super::flash::{States, flash};
use super::linear::{Joined, Linear, Packing};
use super::mask;
use super::memory::Memory;
use super::one_token::New;
use super::position::Relative;
use super::precision::{full, low};
use crate::native;

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

/// Width of a head from which on projections are absorbed (measured): with narrower ones there are too few tokens
/// before keys and values cost less.
const WIDE: i64 = 64;

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
        self.out.forward(&self.context(self.qkv.for_attention(xs), bias, train))
    }

    /// `encode` without the projections. [B, S, A·d] each -> [B, S, A·d]
    pub fn context(&self, qkv: [Tensor; 3], bias: Option<&Tensor>, train: bool) -> Tensor {
        let [q, k, v] = qkv.map(|xs| split_heads(&xs, self.heads));
        let bias = bias.map(|bias| bias.to_kind(q.kind()));
        let dropout = self.probability(train);
        let context = match bias {
            None if dropout <= 0.0 => flash(&q, &k, &v, self.scale, self.qkv.parts()),
            _ => None,
        }
        .unwrap_or_else(|| attend(&q, &k, &v, bias.as_ref(), self.scale, dropout));
        merge_heads(&context)
    }

    /// Each of t new tokens sees the past and itself; the layer's cache grows.
    /// [N, t, D] -> [N, t, D]
    pub fn decode(&self, xs: &Tensor, cache: &mut LayerCache, past: i64, train: bool) -> Tensor {
        let reads = !train && self.relative.is_none() && xs.size()[1] == 1;
        let joined = if reads { self.qkv.at_once(xs) } else { None };
        if let Some(all) = &joined {
            let new = New::Joined { all, heads: self.heads };
            if let Some(context) = cache.attend_one(&new, self.scale) {
                return self.out.forward(&context);
            }
        }
        let parts = match &joined {
            Some(all) => Joined::apart(all),
            None => self.qkv.forward::<3>(xs),
        };
        let [mut q, mut k, mut v] = parts.map(|xs| split_heads(&xs, self.heads));
        if let Some(Relative::Rotary(rotary)) = &self.relative {
            q = rotary.turn(&q, past);
            k = rotary.turn(&k, past);
            v = if rotary.value { rotary.turn(&v, past) } else { v };
        }
        if joined.is_none() && !train && !matches!(self.relative, Some(Relative::Key(_))) {
            let new = New::Apart { q: &q, key: &k, value: &v };
            if let Some(context) = cache.attend_one(&new, self.scale) {
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
            _ => attend_causally(&q, &all, past, self.scale, dropout),
        };
        self.out.forward(&merge_heads(&context))
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
        let width = d / self.heads;
        let few = width >= WIDE && cache.tokens() <= width / 2;
        if cache.cross.is_none() || (!few && matches!(cache.cross, Some(Memory::Absorbed(..)))) {
            let absorbed = if few { self.absorbed(encoder_hidden_states, cache) } else { None };
            cache.cross = Some(absorbed.unwrap_or_else(|| self.key_value(encoder_hidden_states)));
        }
        let memory = cache.cross.as_ref().expect("made above");
        let b = memory.images();
        let q = q.reshape([b, n / b * t, self.heads, width]); // [B, K·t, A, d]
        if let Some(watched) = &mut cache.watched {
            // [B, K·t, A, S] -> [N, A, t, S]
            let seen = memory.probabilities(&q, self.scale).unflatten(1, [n / b, t]);
            *watched = seen.transpose(2, 3).flatten(0, 1);
        }
        let dropout = if train { self.dropout } else { 0.0 };
        let context = memory.attend(&q, self.scale, dropout);
        self.out.forward(&context.reshape([n, t, d]))
    }

    /// What is remembered where projections are absorbed, in a search that says it has few queries: a query of A
    /// heads takes A times De products a state where one of keys takes D, and keys and values 2·De·D to make. So it
    /// takes less up to d queries, and half of that is where it ends, for nobody knows how many are to come. (For
    /// one image, where a step reads the projections for itself alone, it takes less up to about that half.)
    fn absorbed(&self, states: &Tensor, cache: &LayerCache) -> Option<Memory> {
        let packing = self.packing?;
        if cache.watched.is_some() || !native::has_tiles() {
            return None;
        }
        let (parts, queries) = (self.key_value.parts(), self.heads as usize);
        let weights = || self.key_value.absorbed(self.heads, packing);
        let images =
            cache.states(|| weights().and_then(|_| States::cut(states, parts, queries)))?;
        Some(Memory::Absorbed(images, weights()?))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::rc::Rc;

    use tch::Kind;

    use super::*;
    use crate::nn::params::Init;
    use crate::nn::{Cache, Params, Store};

    pub(in crate::nn) fn waves(size: [i64; 4], step: f64) -> Tensor {
        let count = size.iter().product::<i64>();
        let numbers = Tensor::arange(count, (Kind::Double, Device::Cpu)) * step;
        numbers.sin().reshape(size).to_kind(Kind::Float) * 2.0
    }

    /// Of heads of this width, over states of 40 channels.
    fn cross_attention(packing: Packing, width: i64) -> CrossAttention {
        let d = 2 * width;
        let store = Store::fresh(Device::Cpu, Kind::Float).packing(packing);
        let p = Params::root(Rc::new(store));
        let init = Init::Normal(0.1);
        let layers = [("k_proj", true), ("v_proj", true)];
        CrossAttention {
            query: p.linear("q_proj", d, d, init).expect("a layer"),
            packing: p.packing(),
            key_value: p.for_many_rows().joined(&layers, 40, d, init).expect("layers"),
            out: p.linear("out_proj", d, d, init).expect("a layer"),
            heads: 2,
            scale: (width as f64).powf(-0.5),
            dropout: 0.0,
        }
    }

    /// One step of both caches. -> how far apart the results are, and whether projections are absorbed
    fn far_apart(
        layer: &CrossAttention,
        caches: &mut [Cache; 2],
        xs: &Tensor,
        states: &Tensor,
    ) -> (f64, bool) {
        let found = caches.each_mut().map(|cache| {
            let (own, _) = cache.layer(0);
            let token = split_heads(xs, 1);
            own.append(token.copy(), token.copy());
            let found = layer.forward(xs, states, own, false);
            cache.advance(xs.size()[1]);
            found
        });
        let far = (&found[0] - &found[1]).abs().max();
        let absorbed = caches
            .each_mut()
            .map(|cache| matches!(cache.layer(0).0.cross, Some(Memory::Absorbed(..))));
        assert!(!absorbed[1], "nobody said that there are few queries");
        (f64::try_from(far).expect("a number"), absorbed[0])
    }

    /// Against keys and values that are made at once: some tokens, an image that leaves, and more tokens than
    /// absorbing pays for.
    #[test]
    fn projections_are_absorbed_for_the_first_tokens_of_a_text() {
        for (packing, bound) in [(Packing::F32, 1e-5), (Packing::Bf16, 2e-2), (Packing::Int8, 2e-2)]
        {
            if packing.check().is_err() {
                continue; // a CPU that would be refused with a sentence
            }
            let _guard = tch::no_grad_guard();
            let layer = cross_attention(packing, 64);
            let is_served = native::has_tiles() && layer.key_value.absorbed(2, packing).is_some();
            let states = waves([3, 1, 50, 40], 0.37).squeeze_dim(1);
            let tokens = waves([3, 1, 40, 128], 0.23).squeeze_dim(1);
            let mut caches = [(); 2].map(|()| Cache::new(1));
            caches[0].expect_one_row_per_image();
            let (far, absorbed) = far_apart(&layer, &mut caches, &tokens.narrow(1, 0, 2), &states);
            assert!(far < bound, "{packing:?}: {far:e}");
            assert_eq!(absorbed, is_served);
            let kept = [2i64, 0];
            caches.iter_mut().for_each(|cache| cache.keep(&kept, &kept));
            let index = Tensor::from_slice(&kept);
            let [states, tokens] = [&states, &tokens].map(|xs| xs.index_select(0, &index));
            for t in 2..40 {
                let (far, absorbed) =
                    far_apart(&layer, &mut caches, &tokens.narrow(1, t, 1), &states);
                assert!(far < bound, "{packing:?}, token {t}: {far:e}");
                assert_eq!(absorbed, is_served && t < 32, "token {t}");
            }
        }
    }

    /// Several rows an image, somebody who looks on, narrow heads, many tokens at once.
    #[test]
    fn keys_and_values_are_made_where_absorbing_does_not_pay() {
        let _guard = tch::no_grad_guard();
        let absorbs = |width: i64, images: i64, tokens: i64, say: fn(&mut Cache)| {
            let layer = cross_attention(Packing::F32, width);
            let mut caches = [(); 2].map(|()| Cache::new(1));
            say(&mut caches[0]);
            let xs = waves([images, 1, tokens, 2 * width], 0.23).squeeze_dim(1);
            let states = waves([images, 1, 50, 40], 0.37).squeeze_dim(1);
            far_apart(&layer, &mut caches, &xs, &states).1
        };
        let few = Cache::expect_one_row_per_image;
        for (images, tokens) in [(1, 1), (2, 32)] {
            assert_eq!(absorbs(64, images, tokens, few), native::has_tiles());
        }
        assert!(!absorbs(64, 1, 33, few) && !absorbs(64, 2, 33, few) && !absorbs(32, 2, 1, few));
        assert!(!absorbs(64, 2, 1, |_| ()));
        assert!(!absorbs(64, 2, 1, |cache| {
            cache.expect_one_row_per_image();
            cache.watch();
        }));
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
