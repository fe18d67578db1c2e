//! Mixed precision: what products, convolutions and attention are computed in while a model trains,
//! under the rules of `torch.autocast`.
//!
//! Weights, norms, softmax outside of fused attention, residual sums and losses stay in f32; a tensor is
//! cast where it enters one of the operations named above. (libtorch's own switch, as far as it can be
//! reached from here, knows GPUs and f16 alone.)

use std::cell::Cell;

use tch::{Kind, Tensor};

thread_local! {
    static LOW: Cell<Option<Kind>> = const { Cell::new(None) };
}

/// While it lives, this thread computes the operations above in a kind of 16 bits.
pub struct Autocast {
    before: Option<Kind>,
}

impl Autocast {
    /// `Kind::BFloat16`, `Kind::Half`, or None for the kind that the tensors have.
    pub fn new(kind: Option<Kind>) -> Self {
        Autocast { before: LOW.replace(kind) }
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        LOW.set(self.before);
    }
}

/// True inside an `Autocast`.
pub fn is_mixed() -> bool {
    LOW.get().is_some()
}

/// As an operation above takes it: f32 becomes the kind of 16 bits. [..] -> [..]
pub fn low(xs: &Tensor) -> Tensor {
    match LOW.get() {
        Some(kind) if xs.kind() == Kind::Float => xs.to_kind(kind),
        _ => xs.shallow_clone(),
    }
}

/// As a norm takes it: a kind of 16 bits becomes f32. [..] -> [..]
pub fn full(xs: &Tensor) -> Tensor {
    if is_mixed() { xs.to_kind(Kind::Float) } else { xs.shallow_clone() }
}

/// A number of rows, rounded up to a multiple of `unit` inside an `Autocast`.
///
/// The products of 16 bits on a CPU are compiled for every shape that they meet, which takes as long as
/// tens of them. Batches of lines differ in each of their sizes: in steps, few shapes serve them all.
pub fn in_steps(rows: i64, unit: i64) -> i64 {
    if is_mixed() { (rows + unit - 1) / unit * unit } else { rows }
}

/// Matrix product. [.., n, k], [.., k, m] -> [.., n, m]
pub fn matmul(a: &Tensor, b: &Tensor) -> Tensor {
    low(a).matmul(&low(b))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn operations_follow_the_guard() {
        let xs = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
        let ids = Tensor::ones([2, 2], (Kind::Int64, Device::Cpu));
        assert_eq!(matmul(&xs, &xs).kind(), Kind::Float);
        assert_eq!(in_steps(9, 8), 9);
        {
            let _outer = Autocast::new(Some(Kind::BFloat16));
            assert_eq!([8, 9].map(|rows| in_steps(rows, 8)), [8, 16]);
            assert_eq!(matmul(&xs, &xs).kind(), Kind::BFloat16);
            assert_eq!((low(&ids).kind(), full(&low(&xs)).kind()), (Kind::Int64, Kind::Float));
            {
                let _inner = Autocast::new(None);
                assert_eq!(low(&xs).kind(), Kind::Float);
            }
            assert_eq!(low(&xs).kind(), Kind::BFloat16);
        }
        assert!(!is_mixed());
    }
}
