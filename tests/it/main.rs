//! The one integration test binary: libtorch is linked once.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod commands;
mod completions;
mod convert;
mod dtypes;
mod errors;
mod eval;
mod grid;
mod house;
mod hub;
mod init;
mod lines;
mod outputs;
mod parity;
mod resume;
mod support;
mod train;
