//! How far reading may run ahead: so many inputs, so many bytes.
//!
//! Inputs are admitted in order, and the oldest one that is not used up, the head, always may go on:
//! the model waits for it. All others wait for room, so that the sum of what lies in memory does not
//! depend on how many inputs there are, nor on how large they are.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What may be in memory at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Inputs being read and decoded.
    pub(super) workers: usize,
    /// Inputs that are begun and not used up.
    pub(super) inputs: usize,
    /// Bytes of pictures while they are decoded and processed.
    pub(super) decoding: u64,
    /// Bytes of pixels that wait for the model.
    pub(super) waiting: u64,
}

pub(super) struct Gate {
    limits: Limits,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The number of the oldest input that is not used up.
    head: u64,
    workers: usize,
    inputs: usize,
    decoding: u64,
    waiting: u64,
    /// How many pictures of an input wait for the model; no entry is none.
    pictures: HashMap<u64, usize>,
    closed: bool,
}

/// Room for decoding, given back when it is dropped.
pub(super) struct Room<'a> {
    gate: &'a Gate,
    bytes: u64,
}

impl Gate {
    pub(super) fn new(limits: Limits) -> Self {
        Gate { limits, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits until another input may be begun. False if nobody wants more.
    pub(super) fn admit(&self) -> bool {
        let mut state = self
            .wait(|state| state.workers < self.limits.workers && state.inputs < self.limits.inputs);
        state.workers += 1;
        state.inputs += 1;
        !state.closed
    }

    /// An input's worker has ended.
    pub(super) fn release(&self) {
        self.change(|state| state.workers -= 1);
    }

    /// Waits for room to decode `bytes` of input `number`; what is larger than all room goes alone.
    pub(super) fn decode(&self, number: u64, bytes: u64) -> Room<'_> {
        let mut state = self.wait(|state| {
            number == state.head
                || state.decoding == 0
                || state.decoding + bytes <= self.limits.decoding
        });
        state.decoding += bytes;
        Room { gate: self, bytes }
    }

    /// Waits until a picture of input `number`, processed to `bytes`, may wait for the model. False
    /// if nobody wants more.
    pub(super) fn queue(&self, number: u64, bytes: u64) -> bool {
        let mut state = self.wait(|state| {
            let starved = number == state.head && !state.pictures.contains_key(&number);
            starved || state.waiting + bytes <= self.limits.waiting
        });
        state.waiting += bytes;
        *state.pictures.entry(number).or_default() += 1;
        !state.closed
    }

    /// The model takes a picture of the head.
    pub(super) fn take(&self, bytes: u64) {
        self.change(|state| {
            state.waiting -= bytes;
            let head = state.head;
            if let Some(count) = state.pictures.get_mut(&head) {
                *count -= 1;
                if *count == 0 {
                    state.pictures.remove(&head);
                }
            }
        });
    }

    /// The head is used up: the next input is the head.
    pub(super) fn advance(&self) {
        self.change(|state| {
            state.head += 1;
            state.inputs -= 1;
        });
    }

    /// Nobody wants more: whoever waits goes on, to end.
    pub(super) fn close(&self) {
        self.change(|state| state.closed = true);
    }

    fn wait(&self, ready: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed
            .wait_while(state, |state| !state.closed && !ready(state))
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.gate.change(|state| state.decoding -= self.bytes);
    }
}
