//! The one integration test binary: libtorch is linked once.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod commands;
mod completions;
mod convert;
mod curves;
mod errors;
mod eval;
mod explain;
mod fuzz;
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
mod precision;
mod resume;
mod small;
mod streams;
mod support;
mod train;
mod training;
