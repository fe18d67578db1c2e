//! What one layer remembers: its part of the block, and its images.

use std::cell::RefCell;
use std::rc::Rc;

use tch::{Device, Tensor};

use super::KeyValue;
use super::places::Places;
use crate::native;
use crate::nn::flash::States;
use crate::nn::memory::Memory;
use crate::nn::one_token::{New, OneToken, one_token};

/// What one decoder layer remembers.
#[derive(Default)]
pub struct LayerCache {
    /// One entry a row; grows with every token.
    pub(super) own: Option<Own>,
    /// Attention reads the tokens where they lie: `attend_one`.
    pub(super) reads_in_place: bool,
    /// One entry an image, computed at the first call; its beams share it.
    pub cross: Option<Memory>,
    /// Where somebody looks on: the probabilities of the last cross-attention, [N, A, t, S] f32.
    pub watched: Option<Tensor>,
    /// The states of the images, for all layers.
    pub(super) states: Rc<RefCell<Shared>>,
}

/// The tokens of a layer's rows.
pub(super) enum Own {
    /// [N, A, T, d] each.
    Apart(KeyValue),
    InRoom(Room),
}

/// The states of images as cross-attention reads them where its projections are absorbed.
#[derive(Default)]
pub(super) enum Shared {
    /// There are more queries an image than that pays for.
    #[default]
    Unwanted,
    Wanted,
    Cut(Vec<Rc<States>>),
}

/// A layer's part of the block, and where the tokens lie in it.
pub(super) struct Room {
    /// [N', C, A, d] each.
    pub(super) all: KeyValue,
    pub(super) places: Rc<RefCell<Places>>,
    /// Of the first so many rows so many tokens are in use, if all tokens lie at their rows' own places.
    pub(super) rows: i64,
    pub(super) tokens: i64,
}

impl Room {
    /// Tokens that it can hold of each row.
    fn capacity(&self) -> i64 {
        self.all.key.size()[1]
    }

    fn is_scattered(&self) -> bool {
        !self.places.borrow().are_own()
    }

    /// The tokens of the rows in use where they lie, wherever they belong. [N, A, T, d]
    fn filled(&self) -> KeyValue {
        let filled =
            |xs: &Tensor| xs.narrow(0, 0, self.rows).narrow(1, 0, self.tokens).transpose(1, 2);
        KeyValue { key: filled(&self.all.key), value: filled(&self.all.value) }
    }

    /// The same, brought together. [N, A, T, d]
    fn gathered(&self) -> KeyValue {
        let (rows, tokens) = self.places.borrow().index();
        let index = [Some(rows), Some(tokens)]
            .map(|index| index.map(|index| index.to_device(self.all.key.device())));
        let gathered = |xs: &Tensor| xs.index(&index).transpose(1, 2);
        KeyValue { key: gathered(&self.all.key), value: gathered(&self.all.value) }
    }
}

impl LayerCache {
    /// Appends the keys and values of t new tokens, [N, A, t, d] each, and gives all of them,
    /// [N, A, T, d].
    pub fn append(&mut self, key: Tensor, value: Tensor) -> KeyValue {
        if self.is_scattered() {
            self.loosen();
        }
        let t = key.size()[2];
        if let Some(Own::InRoom(room)) = &mut self.own
            && room.tokens + t <= room.capacity()
        {
            write(&room.all.key.narrow(0, 0, room.rows), room.tokens, &key);
            write(&room.all.value.narrow(0, 0, room.rows), room.tokens, &value);
            room.tokens += t;
            return room.filled();
        }
        let all = match self.kept() {
            None => KeyValue { key, value },
            Some(past) => KeyValue {
                key: Tensor::cat(&[past.key, key], 2),
                value: Tensor::cat(&[past.value, value], 2),
            },
        };
        self.own = Some(Own::Apart(all.share()));
        all
    }

    /// The tokens of each row, which are brought together if they are scattered. [N, A, T, d]
    pub(super) fn kept(&self) -> Option<KeyValue> {
        Some(match self.own.as_ref()? {
            Own::Apart(all) => all.share(),
            Own::InRoom(room) if room.is_scattered() => room.gathered(),
            Own::InRoom(room) => room.filled(),
        })
    }

    /// Attention of one new token a row to those so far and itself, read where they lie; the token is
    /// remembered as by `append`. -> [N, 1, A·d]
    ///
    /// None (and nothing remembered) if there is no room yet, several tokens are new, gradients are wanted, or
    /// the numbers are other ones than f32 on a CPU. Whoever asks does so at every step.
    pub fn attend_one(&mut self, new: &New, scale: f64) -> Option<Tensor> {
        let is_served = |xs: &&Tensor| native::is_f32_on_cpu(xs) && !xs.requires_grad();
        self.reads_in_place = match new {
            New::Apart { q, key, value } => [*q, *key, *value].iter().all(is_served),
            New::Joined { all, .. } => is_served(all),
        };
        let Some(Own::InRoom(room)) = &mut self.own else { return None };
        let (n, past) = (room.rows, room.tokens);
        let images = self.cross.as_ref().map_or(n, Memory::images);
        let places = room.places.borrow();
        if past + 1 > room.capacity() || !self.reads_in_place {
            return None;
        }
        let (keys, values) = (&room.all.key, &room.all.value);
        let rows_per_image = (n / images.max(1)).max(1) as usize;
        let token = OneToken { new, scale, keys, values, past, rows_per_image };
        let found = one_token(&token, places.rows())?;
        drop(places);
        room.tokens += 1;
        Some(found)
    }

    /// Tokens of a row, those of this step too once self-attention has seen them.
    pub fn tokens(&self) -> i64 {
        match &self.own {
            None => 0,
            Some(Own::Apart(all)) => all.tokens(),
            Some(Own::InRoom(room)) => room.tokens,
        }
    }

    /// The states that all layers read, cut by the first of them; None where nobody wants them so.
    pub fn states(&self, cut: impl FnOnce() -> Option<Vec<Rc<States>>>) -> Option<Vec<Rc<States>>> {
        let mut shared = self.states.borrow_mut();
        if let Shared::Wanted = *shared {
            *shared = Shared::Cut(cut()?);
        }
        match &*shared {
            Shared::Cut(states) => Some(states.clone()),
            _ => None,
        }
    }

    /// Keeps the first `past` tokens of each row.
    pub(super) fn rewind(&mut self, past: i64) {
        match &mut self.own {
            None => {}
            Some(Own::Apart(all)) => {
                let first = |xs: &Tensor| xs.narrow(2, 0, past);
                *all = KeyValue { key: first(&all.key), value: first(&all.value) };
            }
            Some(Own::InRoom(room)) => room.tokens = past,
        }
    }

    pub(super) fn rows(&self) -> Option<i64> {
        Some(match self.own.as_ref()? {
            Own::Apart(all) => all.rows(),
            Own::InRoom(room) => room.rows,
        })
    }

    pub(super) fn place(&self) -> Option<(i64, Device)> {
        let device = match self.own.as_ref()? {
            Own::Apart(all) | Own::InRoom(Room { all, .. }) => all.key.device(),
        };
        Some((self.rows()?, device))
    }

    /// Where the tokens lie, if that is the block.
    pub(super) fn room(&self) -> Option<&Room> {
        match &self.own {
            Some(Own::InRoom(room)) => Some(room),
            _ => None,
        }
    }

    /// True if the next token has no place in the block.
    pub(super) fn lacks_room(&self) -> bool {
        self.own.is_some() && self.room().is_none_or(|room| room.capacity() <= room.tokens)
    }

    /// True if rows have tokens at places of others.
    pub(super) fn is_scattered(&self) -> bool {
        self.room().is_some_and(Room::is_scattered)
    }

    /// Its tokens are read where they are, or brought together first, and written elsewhere.
    pub(super) fn loosen(&mut self) {
        self.own = self.kept().map(Own::Apart);
    }

    /// The rows that `rows` names, apart.
    pub(super) fn select(&mut self, rows: &Tensor) {
        self.own = self.kept().map(|all| Own::Apart(all.select(rows)));
    }
}

/// Writes xs [N, A, t, d] into `room` [N, C, A, d], from token `past` on.
pub(super) fn write(room: &Tensor, past: i64, xs: &Tensor) {
    room.narrow(1, past, xs.size()[2]).copy_(&xs.transpose(1, 2));
}
