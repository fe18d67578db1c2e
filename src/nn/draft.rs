//! Drafts: what a model says with its weights rounded to 8 bits.
//!
//! A step of one row reads every weight once and waits for memory all the while. Weights of 8 bits are read in a
//! quarter of the time of f32, and say the same in most steps: what they write ahead is then checked in one
//! step of several tokens, which reads the weights no more often than one of a single token.
//! Source: Leviathan, Kalman and Matias, Fast Inference from Transformers via Speculative Decoding (2023).

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, packed layers of this thread compute with weights of 8 bits, which they make when they are
/// first asked for them.
pub struct Draft {
    before: bool,
    /// It is the thread's own.
    _thread: PhantomData<*const ()>,
}

impl Draft {
    pub fn begin() -> Self {
        Draft { before: ON.replace(true), _thread: PhantomData }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        ON.set(self.before);
    }
}

/// True inside a `Draft`.
pub fn is_draft() -> bool {
    ON.get()
}
