//! Rules that forbid tokens and leave the scores of the others as they are.

use tch::{Device, Kind, Tensor};

use super::logits::{Effect, LogitsProcessor};

/// A set of tokens. Ids outside the vocabulary are not in it.
pub(super) struct Mask {
    /// [V] bool
    pub(super) members: Tensor,
    /// The same as numbers, if they are few.
    few: Option<Tensor>,
}

/// Tokens up to which writing to each is faster than a pass over the vocabulary.
const FEW: i64 = 256;

impl Mask {
    /// members [V] bool
    pub(super) fn new(members: Tensor) -> Self {
        let ids = members.nonzero().squeeze_dim(1);
        let few = (ids.size()[0] <= FEW).then_some(ids);
        Mask { members, few }
    }

    pub(super) fn of(ids: &[i64], vocab_size: i64, device: Device) -> Self {
        let vocabulary = Tensor::arange(vocab_size, (Kind::Int64, device));
        let ids = Tensor::from_slice(ids).to_device(device);
        Mask::new(Tensor::isin(&vocabulary, &ids, false, false))
    }

    fn forbid(&self, mut scores: Tensor) -> Tensor {
        match &self.few {
            Some(ids) => scores.index_fill_(1, ids, f64::NEG_INFINITY),
            None => scores.masked_fill_(&self.members, f64::NEG_INFINITY),
        }
    }
}

/// `no_repeat_ngram_size`: no n-gram twice, prompt included.
pub(super) struct NoRepeatNgram {
    pub(super) size: i64,
}

impl LogitsProcessor for NoRepeatNgram {
    fn apply(&self, ids: &Tensor, mut scores: Tensor) -> Tensor {
        let length = ids.size()[1];
        if length < self.size {
            return scores;
        }
        let ngrams = ids.unfold(1, self.size, 1); // [N, W, n]
        let begun = ids.narrow(1, length - (self.size - 1), self.size - 1).unsqueeze(1);
        let repeats = ngrams.narrow(2, 0, self.size - 1).eq_tensor(&begun).all_dim(2, false); // [N, W]
        // What must not follow gets the least number there is, the others keep the lesser of two.
        let last = ngrams.select(2, self.size - 1); // [N, W]
        let most = scores.new_full(last.size(), f64::INFINITY, (Kind::Float, scores.device()));
        let most = most.masked_fill(&repeats, f64::NEG_INFINITY);
        scores.internal_scatter_reduce_(1, &last, &most, "amin", true)
    }

    fn effect(&self, length: i64) -> Effect {
        Effect::forbids_if(length >= self.size)
    }
}

/// `min_length` and `min_new_tokens`: no eos before.
pub(super) struct MinLength {
    pub(super) min_length: i64,
    pub(super) eos: Mask,
}

impl LogitsProcessor for MinLength {
    fn apply(&self, ids: &Tensor, scores: Tensor) -> Tensor {
        if ids.size()[1] < self.min_length { self.eos.forbid(scores) } else { scores }
    }

    fn effect(&self, length: i64) -> Effect {
        Effect::forbids_if(length < self.min_length)
    }
}

/// `suppress_tokens`, and all tokens but the allowed ones.
pub(super) struct Suppress {
    pub(super) tokens: Mask,
}

impl LogitsProcessor for Suppress {
    fn apply(&self, _: &Tensor, scores: Tensor) -> Tensor {
        self.tokens.forbid(scores)
    }

    fn effect(&self, _: i64) -> Effect {
        Effect::Forbids
    }
}

/// `begin_suppress_tokens`: not as the first new token.
pub(super) struct SuppressAtBegin {
    pub(super) tokens: Mask,
    pub(super) begin: i64,
}

impl LogitsProcessor for SuppressAtBegin {
    fn apply(&self, ids: &Tensor, scores: Tensor) -> Tensor {
        if ids.size()[1] == self.begin { self.tokens.forbid(scores) } else { scores }
    }

    fn effect(&self, length: i64) -> Effect {
        Effect::forbids_if(length == self.begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_tokens_and_many_are_forbidden_alike() {
        let v = 2 * FEW + 2;
        for ids in [vec![], vec![0, v - 1, v], (0..FEW).collect(), (3..v - 1).collect::<Vec<_>>()] {
            let mask = Mask::of(&ids, v, Device::Cpu);
            assert_eq!(mask.few.is_some(), ids.len() as i64 <= FEW);
            let found = mask.forbid(Tensor::ones([3, v], (Kind::Float, Device::Cpu)));
            for token in 0..v {
                let expected = if ids.contains(&token) { f64::NEG_INFINITY } else { 1.0 };
                for row in 0..3 {
                    assert_eq!(found.double_value(&[row, token]), expected, "{row}, {token}");
                }
            }
        }
    }
}
