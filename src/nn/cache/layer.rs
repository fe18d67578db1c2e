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
    /// The layer's part of the block, [N', C, A, d] each.
    pub(super) room: Option<Room>,
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
    /// So many tokens of the first rows of the room, if all rows' tokens lie at their own places.
    InRoom { rows: i64, tokens: i64 },
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
    pub(super) all: KeyValue,
    pub(super) places: Rc<RefCell<Places>>,
}

impl Room {
    /// Tokens that it can hold of each row.
    fn tokens(&self) -> i64 {
        self.all.key.size()[1]
    }

    /// The first `t` tokens of the first `n` rows, wherever they belong. [N, A, T, d]
    pub(super) fn filled(&self, n: i64, t: i64) -> KeyValue {
        let filled = |xs: &Tensor| xs.narrow(0, 0, n).narrow(1, 0, t).transpose(1, 2);
        KeyValue { key: filled(&self.all.key), value: filled(&self.all.value) }
    }

    /// The tokens of all rows in use, brought together. [N, A, T, d]
    pub(super) fn gathered(&self) -> KeyValue {
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
        let (past, t) = (self.tokens(), key.size()[2]);
        if let (Some(rows), Some(room)) = (self.rows(), &self.room)
            && past + t <= room.tokens()
        {
            write(&room.all.key.narrow(0, 0, rows), past, &key);
            write(&room.all.value.narrow(0, 0, rows), past, &value);
            self.own = Some(Own::InRoom { rows, tokens: past + t });
            return room.filled(rows, past + t);
        }
        let all = match self.kept() {
            None => KeyValue { key, value },
            Some(past) => KeyValue {
                key: Tensor::cat(&[past.key, key], 2),
                value: Tensor::cat(&[past.value, value], 2),
            },
        };
        self.room = None;
        self.own = Some(Own::Apart(all.share()));
        all
    }

    /// The tokens of each row, unless they are scattered. [N, A, T, d]
    pub(super) fn kept(&self) -> Option<KeyValue> {
        match (self.own.as_ref()?, &self.room) {
            (Own::Apart(all), _) => Some(all.share()),
            (Own::InRoom { rows, tokens }, Some(room)) => Some(room.filled(*rows, *tokens)),
            (Own::InRoom { .. }, None) => None,
        }
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
        let (n, past, room) = (self.rows()?, self.tokens(), self.room.as_ref()?);
        let images = self.cross.as_ref().map_or(n, Memory::images);
        let places = room.places.borrow();
        if past + 1 > room.tokens() || !self.reads_in_place {
            return None;
        }
        let (keys, values) = (&room.all.key, &room.all.value);
        let rows_per_image = (n / images.max(1)).max(1) as usize;
        let token = OneToken { new, scale, keys, values, past, rows_per_image };
        let found = one_token(&token, places.rows())?;
        drop(places);
        self.own = Some(Own::InRoom { rows: n, tokens: past + 1 });
        Some(found)
    }

    /// Tokens of a row, those of this step too once self-attention has seen them.
    pub fn tokens(&self) -> i64 {
        match &self.own {
            None => 0,
            Some(Own::Apart(all)) => all.tokens(),
            Some(Own::InRoom { tokens, .. }) => *tokens,
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
            Some(Own::InRoom { tokens, .. }) => *tokens = past,
        }
    }

    pub(super) fn rows(&self) -> Option<i64> {
        Some(match self.own.as_ref()? {
            Own::Apart(all) => all.rows(),
            Own::InRoom { rows, .. } => *rows,
        })
    }

    pub(super) fn place(&self) -> Option<(i64, Device)> {
        let device = match (self.own.as_ref()?, &self.room) {
            (Own::Apart(all), _) => all.key.device(),
            (Own::InRoom { .. }, room) => room.as_ref()?.all.key.device(),
        };
        Some((self.rows()?, device))
    }

    /// True if the next token has no place in the block.
    pub(super) fn lacks_room(&self) -> bool {
        let is_full = |room: &Room| room.tokens() <= self.tokens();
        self.own.is_some() && self.room.as_ref().is_none_or(is_full)
    }

    /// True if rows have tokens at places of others.
    pub(super) fn is_scattered(&self) -> bool {
        self.room.as_ref().is_some_and(|room| !room.places.borrow().are_own())
    }

    /// Its tokens are read where they are, or brought together first, and written elsewhere.
    pub(super) fn loosen(&mut self) {
        let all = match self.is_scattered() {
            true => self.room.as_ref().map(Room::gathered),
            false => self.kept(),
        };
        self.own = all.map(Own::Apart);
        self.room = None;
    }

    /// The rows that `rows` names, apart.
    pub(super) fn select(&mut self, rows: &Tensor) {
        self.loosen();
        self.own = self.kept().map(|all| Own::Apart(all.select(rows)));
    }
}

/// Writes xs [N, A, t, d] into `room` [N, C, A, d], from token `past` on.
pub(super) fn write(room: &Tensor, past: i64, xs: &Tensor) {
    room.narrow(1, past, xs.size()[2]).copy_(&xs.transpose(1, 2));
}
