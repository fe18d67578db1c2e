//! The layer that decoders are stacks of: self-attention, attention to the picture and two dense layers, each added
//! to what it was given, with a norm of each sum (Vaswani et al. 2017) or of what goes into each of them.

use std::rc::Rc;

use anyhow::Result;
use tch::Tensor;

use crate::nn::{
    Attention, Cache, CrossAttention, FeedForward, LayerCache, LayerNorm, drop_layer, dropout,
    segment,
};

/// The parts of a layer, the same under either order of norms.
pub(super) struct Block<A = Attention> {
    pub attention: A,
    pub attention_norm: LayerNorm,
    pub crossattention: CrossAttention,
    pub cross_norm: LayerNorm,
    pub feed_forward: FeedForward,
    pub feed_norm: LayerNorm,
    /// After each attention.
    pub dropout: f64,
    /// After the dense layers.
    pub feed_dropout: f64,
}

/// What a layer does with its own tokens.
pub(super) trait SelfAttention: 'static {
    /// xs [N, t, D] behind `past` tokens, which the cache has -> [N, t, D]
    fn attend(&self, xs: &Tensor, cache: &mut LayerCache, past: i64, train: bool) -> Tensor;
}

impl SelfAttention for Attention {
    fn attend(&self, xs: &Tensor, cache: &mut LayerCache, past: i64, train: bool) -> Tensor {
        self.decode(xs, cache, past, train)
    }
}

/// Where the norms of a layer are.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// After each sum: BERT, BART.
    PostNorm,
    /// Before each part: GPT-2, mBART.
    PreNorm,
}

/// Layers, one after the other.
pub(super) struct Blocks<A = Attention> {
    blocks: Vec<Rc<Block<A>>>,
    order: Order,
    /// How often a layer is left out in training.
    layerdrop: f64,
}

impl<A: SelfAttention> Blocks<A> {
    /// So many layers, each as `block` reads it.
    pub(super) fn new(
        order: Order,
        count: i64,
        block: impl Fn(i64) -> Result<Block<A>>,
    ) -> Result<Self> {
        let blocks = (0..count).map(|i| block(i).map(Rc::new)).collect::<Result<_>>()?;
        Ok(Blocks { blocks, order, layerdrop: 0.0 })
    }

    /// The same, of which training leaves some out (LayerDrop, Fan et al. 2019).
    pub(super) fn with_layerdrop(self, layerdrop: f64) -> Self {
        Blocks { layerdrop, ..self }
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// All of them over new tokens, which the cache then holds. xs [N, t, D], states [B, S, De] -> [N, t, D]
    pub(super) fn forward(
        &self,
        xs: Tensor,
        states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor {
        let tokens = xs.size()[1];
        let xs = self.over(xs, states, cache, train);
        cache.advance(tokens);
        xs
    }

    /// The same, without counting the tokens: `xs` may hold more than these.
    pub(super) fn over(
        &self,
        xs: Tensor,
        states: &Tensor,
        cache: &mut Cache,
        train: bool,
    ) -> Tensor {
        let (mut xs, order) = (xs, self.order);
        for (i, block) in self.blocks.iter().enumerate() {
            if drop_layer(self.layerdrop, train) {
                continue;
            }
            let (cache, past) = cache.layer(i);
            xs = segment::decode(block, &xs, states, cache, move |block, xs, states, cache| {
                match order {
                    Order::PostNorm => block.post_norm(xs, states, cache, past, train),
                    Order::PreNorm => block.pre_norm(xs, states, cache, past, train),
                }
            });
        }
        xs
    }
}

impl<A: SelfAttention> Block<A> {
    /// xs [N, t, D], states [B, S, De], `past` tokens before -> [N, t, D]
    fn post_norm(
        &self,
        xs: &Tensor,
        states: &Tensor,
        cache: &mut LayerCache,
        past: i64,
        train: bool,
    ) -> Tensor {
        let p = self.dropout;
        let own = self.attention.attend(xs, cache, past, train);
        let xs = self.attention_norm.of_sum(xs, &dropout(&own, p, train));
        let cross = self.crossattention.forward(&xs, states, cache, train);
        let xs = self.cross_norm.of_sum(&xs, &dropout(&cross, p, train));
        let fed = self.feed_forward.forward(&xs, train);
        self.feed_norm.of_sum(&xs, &dropout(&fed, self.feed_dropout, train))
    }

    /// xs [N, t, D], states [B, S, De], `past` tokens before -> [N, t, D]
    fn pre_norm(
        &self,
        xs: &Tensor,
        states: &Tensor,
        cache: &mut LayerCache,
        past: i64,
        train: bool,
    ) -> Tensor {
        let p = self.dropout;
        let own = self.attention.attend(&self.attention_norm.forward(xs), cache, past, train);
        let [xs, normed] = self.cross_norm.with_sum(xs, &dropout(&own, p, train));
        let cross = self.crossattention.forward(&normed, states, cache, train);
        let [xs, normed] = self.feed_norm.with_sum(&xs, &dropout(&cross, p, train));
        let fed = self.feed_forward.forward(&normed, train);
        xs + dropout(&fed, self.feed_dropout, train)
    }
}
