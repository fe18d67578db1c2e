//! Reading pickles of state dicts without executing anything.
//!
//! A pickle is a program for a stack machine that may call any Python function. This machine
//! knows the opcodes of a state dict and a dozen names, each of which merely describes a tensor;
//! whatever else a file asks for is refused by its name.

mod calls;
mod machine;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod value;

pub(super) use machine::load;
pub(super) use value::{Object, Pickle, Storage, TensorRef, storage_name};
