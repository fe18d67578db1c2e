//! The one integration test binary: libtorch is linked once.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod commands;
mod completions;
mod convert;
mod curves;
mod errors;
mod eval;
mod fuzz;
mod explain;
mod grid;
mod house;
mod hub;
mod init;
mod inputs;
mod killed;
mod lines;
mod odd;
mod outputs;
mod parity;
mod resume;
mod streams;
mod small;
mod support;
mod train;
mod training;
