//! `past_key_values` as a value in the caller's hand: self-attention a row, cross-attention an image.
//!
//! While gradients are wanted, keys and values are concatenated. Otherwise they lie in one block for all
//! layers, [L, 2, N, C, A, d], with room for tokens to come: a step writes its own tokens and nothing
//! else. Rows that exchange their pasts (beams) move nothing either where attention reads tokens in place
//! (`one_token`): `Places` knows where they lie. Elsewhere rows copy what they do not have in common, which
//! `Origins` knows.

use std::cell::RefCell;
use std::rc::Rc;

use tch::Tensor;

use super::memory::Memory;
use layer::{Own, Room, Shared, write};
use origins::Origins;
use places::Places;

mod layer;
mod origins;
mod places;

pub use layer::LayerCache;

/// Keys and values of one attention, both [N, A, T, d].
pub struct KeyValue {
    pub key: Tensor,
    pub value: Tensor,
}

/// What a decoder remembers between calls.
pub struct Cache {
    layers: Vec<LayerCache>,
    /// [L, 2, N', C, A, d] with N' >= N
    block: Option<Tensor>,
    /// Where the tokens lie in the block.
    places: Rc<RefCell<Places>>,
    origins: Origins,
    /// A fork reads the same cross-attention.
    lent: bool,
    past: i64,
    /// For families whose positions skip padding: tokens so far that are not padding, [N, 1].
    pub counted: Option<Tensor>,
    /// True: a step sees its position through the cache's length, as the reference does with
    /// `use_cache`. False: through the whole sequence. They differ only after padding.
    pub counts_padding: bool,
}

/// Tokens for which there is room at first.
const ROOM: i64 = 32;

impl Cache {
    /// Nothing remembered yet.
    pub fn new(layers: usize) -> Self {
        Cache {
            layers: (0..layers).map(|_| LayerCache::default()).collect(),
            block: None,
            places: Rc::default(),
            origins: Origins::default(),
            lent: false,
            past: 0,
            counted: None,
            counts_padding: true,
        }
    }

    /// Tokens so far.
    pub fn past(&self) -> i64 {
        self.past
    }

    /// Each image has one row, so that cross-attention may have few queries to answer. To be said before the first
    /// step.
    pub fn expect_one_row_per_image(&mut self) {
        let states = Rc::new(RefCell::new(Shared::Wanted));
        for layer in &mut self.layers {
            layer.states = states.clone();
        }
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

    /// The layer's cache and the number of tokens before this step.
    pub fn layer(&mut self, index: usize) -> (&mut LayerCache, i64) {
        if self.layers[index].lacks_room() {
            self.make_room();
        }
        (&mut self.layers[index], self.past)
    }

    /// A decoder calls this at the end of a step of `t` tokens.
    pub fn advance(&mut self, t: i64) {
        let rows = self.layers.iter().find_map(LayerCache::rows).unwrap_or(0);
        self.origins.write(rows as usize, self.past as usize, t as usize);
        self.places.borrow_mut().write(rows as usize, t as usize);
        self.past += t;
        // All layers have them now.
        if let Some(layer) = self.layers.first() {
            layer.states.take();
        }
    }

    /// Rows become copies of the rows that `rows` [N'] names; the images must stay in place.
    pub fn reorder(&mut self, rows: &[i64]) {
        let Some((from, device)) = self.layers.iter().find_map(LayerCache::place) else { return };
        if rows.len() as i64 == from && rows.iter().zip(0..).all(|(a, b)| *a == b) {
            return;
        }
        let index = Tensor::from_slice(rows).to_device(device);
        self.counted = self.counted.as_ref().map(|counted| counted.index_select(0, &index));
        let n = rows.len() as i64;
        let whole = self.layers.iter().all(|layer| layer.room().is_some());
        match &self.block {
            Some(block) if n <= block.size()[2] && whole && self.reads_in_place() => {
                self.places.borrow_mut().select(rows);
                self.origins = Origins::default();
                self.divide(n);
            }
            Some(block) if n <= block.size()[2] && whole && self.places.borrow().are_own() => {
                let starts = self.origins.differences(rows, self.past as usize);
                move_rows(block, rows, &starts, self.past);
                self.origins.select(rows, self.past as usize, true);
                if n != from {
                    self.divide(n);
                }
            }
            _ => {
                for layer in &mut self.layers {
                    layer.select(&index);
                }
                self.block = None;
                self.origins.select(rows, self.past as usize, false);
            }
        }
    }

    /// Forgets all tokens of each row but the first `past`.
    pub fn rewind(&mut self, past: i64) {
        for layer in &mut self.layers {
            layer.rewind(past);
        }
        self.places.borrow_mut().truncate(past as usize);
        self.past = past;
    }

    /// True if `rewind` forgets everything: it does not know how many of some tokens were padding.
    pub fn rewinds(&self) -> bool {
        self.counted.is_none()
    }

    /// Keeps the images named by `images` [B'] and the rows named by `rows` [N'].
    pub fn keep(&mut self, images: &[i64], rows: &[i64]) {
        for cross in self.layers.iter_mut().filter_map(|layer| layer.cross.as_mut()) {
            cross.keep(images, self.lent);
        }
        self.lent = false;
        self.reorder(rows);
    }

    /// A second cache with the same contents. Tensors are shared; whoever goes on first copies its own.
    pub fn fork(&mut self) -> Self {
        self.block = None;
        self.layers.iter_mut().for_each(LayerCache::loosen);
        self.lent = true;
        let layer = |layer: &LayerCache| LayerCache {
            own: layer.kept().map(Own::Apart),
            reads_in_place: layer.reads_in_place,
            cross: layer.cross.as_ref().map(Memory::share),
            watched: None,
            states: Rc::default(),
        };
        Cache {
            layers: self.layers.iter().map(layer).collect(),
            block: None,
            places: Rc::default(),
            origins: self.origins.clone(),
            lent: true,
            past: self.past,
            counted: self.counted.as_ref().map(Tensor::shallow_clone),
            counts_padding: self.counts_padding,
        }
    }

    /// True if no layer needs its tokens anywhere else than where they were written.
    fn reads_in_place(&self) -> bool {
        self.layers.iter().all(|layer| layer.reads_in_place)
    }

    /// Moves all that is remembered into a block with room for more tokens, unless gradients are wanted.
    fn make_room(&mut self) {
        let past = self.past;
        if !self.places.borrow().are_own() {
            self.layers.iter_mut().for_each(LayerCache::loosen);
        }
        let all: Vec<KeyValue> = self.layers.iter().filter_map(LayerCache::kept).collect();
        let Some(first) = all.first() else { return };
        let size = first.key.size(); // [N, A, T, d]
        let fits = |xs: &Tensor| xs.size() == size && !xs.requires_grad();
        let whole = all.len() == self.layers.len() && size[2] == past;
        if !whole || !all.iter().all(|kv| fits(&kv.key) && fits(&kv.value)) {
            return;
        }
        let capacity = past + past.max(ROOM);
        let shape = [all.len() as i64, 2, size[0], capacity, size[1], size[3]];
        let block = Tensor::empty(shape, (first.key.kind(), first.key.device()));
        for (i, kv) in all.iter().enumerate() {
            let layer = block.get(i as i64);
            write(&layer.get(0), 0, &kv.key);
            write(&layer.get(1), 0, &kv.value);
        }
        self.block = Some(block);
        self.places = Rc::new(RefCell::new(Places::own(size[0] as usize, past as usize)));
        self.origins.forget_beyond(size[0] as usize);
        self.divide(size[0]);
    }

    /// Gives each layer its part of the block, of which `n` rows are in use.
    fn divide(&mut self, n: i64) {
        let Some(block) = &self.block else { return };
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let part = |which| block.get(i as i64).get(which);
            layer.own = Some(Own::InRoom(Room {
                all: KeyValue { key: part(0), value: part(1) },
                places: self.places.clone(),
                rows: n,
                tokens: self.past,
            }));
        }
    }
}

impl KeyValue {
    pub(super) fn share(&self) -> Self {
        KeyValue { key: self.key.shallow_clone(), value: self.value.shallow_clone() }
    }

    fn select(&self, rows: &Tensor) -> Self {
        KeyValue { key: self.key.index_select(0, rows), value: self.value.index_select(0, rows) }
    }

    /// Keeps `images`. Where a later one takes the place of one that has left, only it is moved.
    pub(super) fn keep(&mut self, images: &[i64], lent: bool) {
        let kept = images.len() as i64;
        let moves: Vec<(i64, i64)> =
            (0..kept).zip(images.iter().copied()).filter(|(to, from)| to != from).collect();
        let in_place = !lent
            && kept <= self.key.size()[0]
            && !self.key.requires_grad()
            && moves.iter().all(|(_, from)| *from >= kept);
        if !in_place {
            *self = self.select(&Tensor::from_slice(images).to_device(self.key.device()));
            return;
        }
        for xs in [&mut self.key, &mut self.value] {
            for (to, from) in &moves {
                xs.get(*to).copy_(&xs.get(*from));
            }
            *xs = xs.narrow(0, 0, kept);
        }
    }

    fn tokens(&self) -> i64 {
        self.key.size()[2]
    }

    fn rows(&self) -> i64 {
        self.key.size()[0]
    }
}

/// Row i of the block [L, 2, N', C, A, d] becomes a copy of row `rows[i]`, whose first `starts[i]` tokens
/// it has already.
fn move_rows(block: &Tensor, rows: &[i64], starts: &[usize], past: i64) {
    // An image's row that takes another's place moves as a whole, beams only since they parted.
    let (whole, parts): (Vec<usize>, Vec<usize>) = (0..rows.len())
        .filter(|row| (starts[*row] as i64) < past)
        .partition(|row| starts[*row] == 0);
    let mut moved = Vec::new();
    for group in [whole, parts] {
        let Some(start) = group.iter().map(|row| starts[*row] as i64).min() else { continue };
        let place = block.narrow(3, start, past - start);
        let from: Vec<i64> = group.iter().map(|row| rows[*row]).collect();
        let from = Tensor::from_slice(&from).to_device(block.device());
        moved.push((place.index_select(2, &from), place, group));
    }
    // All is read before anything is overwritten.
    for (values, mut place, group) in moved {
        if group.len() == rows.len() {
            place.narrow(2, 0, rows.len() as i64).copy_(&values);
        } else {
            let to: Vec<i64> = group.iter().map(|row| *row as i64).collect();
            let to = Tensor::from_slice(&to).to_device(block.device());
            let _ = place.index_copy_(2, &to, &values);
        }
    }
}

#[cfg(test)]
mod tests;
