//! The one integration test binary: libtorch is linked once.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod commands;
mod completions;
mod errors;
mod grid;
mod house;
mod parity;
mod support;
