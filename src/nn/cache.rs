//! `past_key_values` as a value in the caller's hand: self-attention a row, cross-attention an image.

use tch::Tensor;

/// Keys and values of one attention, both [N, A, T, d].
pub struct KeyValue {
    pub key: Tensor,
    pub value: Tensor,
}

/// What one decoder layer remembers.
#[derive(Default)]
pub struct LayerCache {
    /// One entry a row; grows with every token.
    pub own: Option<KeyValue>,
    /// One entry an image, computed at the first call; its beams share it.
    pub cross: Option<KeyValue>,
    /// Where somebody looks on: the probabilities of the last cross-attention, [N, A, t, S] f32.
    pub watched: Option<Tensor>,
}

/// What a decoder remembers between calls.
pub struct Cache {
    pub layers: Vec<LayerCache>,
    past: i64,
    /// For families whose positions skip padding: tokens so far that are not padding, [N, 1].
    pub counted: Option<Tensor>,
    /// True: a step sees its position through the cache's length, as the reference does with
    /// `use_cache`. False: through the whole sequence. They differ only after padding.
    pub counts_padding: bool,
}

impl Cache {
    /// Nothing remembered yet.
    pub fn new(layers: usize) -> Self {
        Cache {
            layers: (0..layers).map(|_| LayerCache::default()).collect(),
            past: 0,
            counted: None,
            counts_padding: true,
        }
    }

    /// Tokens so far.
    pub fn past(&self) -> i64 {
        self.past
    }

    /// From now on each layer keeps the probabilities of its last cross-attention.
    pub fn watch(&mut self) {
        for layer in &mut self.layers {
            layer.watched = Some(Tensor::new());
        }
    }

    /// Of a watched cache, layer by layer: the probabilities of the last cross-attention,
    /// [N, A, t, S] f32.
    pub fn attentions(&self) -> Vec<&Tensor> {
        self.layers.iter().filter_map(|layer| layer.watched.as_ref()).collect()
    }

    /// A decoder calls this at the end of a step of `t` tokens.
    pub fn advance(&mut self, t: i64) {
        self.past += t;
    }

    /// Rows become copies of the rows that `beam_idx` [N'] names; the images must stay in place.
    pub fn reorder(&mut self, beam_idx: &Tensor) {
        for own in self.layers.iter_mut().filter_map(|layer| layer.own.as_mut()) {
            own.select(beam_idx);
        }
        self.counted = self.counted.as_ref().map(|counted| counted.index_select(0, beam_idx));
    }

    /// Keeps the images named by `images` [B'] and the rows named by `rows` [N'].
    pub fn keep(&mut self, images: &Tensor, rows: &Tensor) {
        self.reorder(rows);
        for cross in self.layers.iter_mut().filter_map(|layer| layer.cross.as_mut()) {
            cross.select(images);
        }
    }

    /// A second cache with the same contents; tensors are shared, not copied.
    pub fn fork(&self) -> Self {
        let fork = |kv: &Option<KeyValue>| kv.as_ref().map(KeyValue::share);
        Cache {
            layers: self
                .layers
                .iter()
                .map(|layer| LayerCache {
                    own: fork(&layer.own),
                    cross: fork(&layer.cross),
                    watched: None,
                })
                .collect(),
            past: self.past,
            counted: self.counted.as_ref().map(Tensor::shallow_clone),
            counts_padding: self.counts_padding,
        }
    }
}

impl KeyValue {
    fn share(&self) -> Self {
        KeyValue { key: self.key.shallow_clone(), value: self.value.shallow_clone() }
    }

    fn select(&mut self, rows: &Tensor) {
        self.key = self.key.index_select(0, rows);
        self.value = self.value.index_select(0, rows);
    }
}

impl LayerCache {
    /// Appends the keys and values of t new tokens, [N, A, t, d] each, and gives all of them,
    /// [N, A, T, d].
    pub fn append(&mut self, key: Tensor, value: Tensor) -> &KeyValue {
        let all = match self.own.take() {
            None => KeyValue { key, value },
            Some(past) => KeyValue {
                key: Tensor::cat(&[past.key, key], 2),
                value: Tensor::cat(&[past.value, value], 2),
            },
        };
        self.own.insert(all)
    }
}
