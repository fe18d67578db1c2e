//! What a GPU needs of libtorch beyond its C bindings: settings, and operations on lists of tensors, which
//! take a few launches in place of several for each tensor.

use tch::Tensor;

/// A step of AdamW for several parameters at once, as `torch.optim.AdamW(fused=True)` takes it.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    pub learning_rate: f64,
    pub betas: (f64, f64),
    pub weight_decay: f64,
    pub eps: f64,
    /// Counted from 1.
    pub step: i64,
    /// Multiplies the gradients.
    pub clip: f64,
}

/// Parameter, gradient, and the running means of the gradient and of its square: f32, contiguous, of one
/// size, on the device of all others.
pub type AdamWPart<'a> = [&'a Tensor; 4];

/// From now on products and convolutions of f32 on a GPU take all of its bits, and attention no kernels that
/// are compiled for every length. (Without libtorch's headers its own settings stay: convolutions round
/// their inputs to TF32.)
pub(crate) fn prepare_cuda() {
    #[cfg(vedm_operators)]
    linked::prepare_cuda();
}

impl AdamWStep {
    /// Changes all parts but the gradients in place, the gradients are of no use afterwards. False (and
    /// nothing done) if this build can't.
    pub fn run(&self, parts: &[AdamWPart]) -> bool {
        #[cfg(vedm_operators)]
        linked::adamw(self, parts);
        #[cfg(not(vedm_operators))]
        let _ = parts;
        cfg!(vedm_operators)
    }
}

/// The norm of all tensors together, []; None if this build can't tell it at once.
pub(crate) fn norm_of_all(all: &[&Tensor]) -> Option<Tensor> {
    #[cfg(vedm_operators)]
    return Some(linked::norm(all));
    #[cfg(not(vedm_operators))]
    {
        let _ = all;
        None
    }
}

/// Room for `numbers` f32 in memory that a GPU copies from by itself, [numbers]; None if this build can't
/// make any. The GPU's libraries must be there.
pub(crate) fn pinned(numbers: i64) -> Option<Tensor> {
    #[cfg(vedm_operators)]
    return Some(linked::pinned(numbers));
    #[cfg(not(vedm_operators))]
    {
        let _ = numbers;
        None
    }
}

#[cfg(vedm_operators)]
mod linked {
    use std::ffi::{c_char, c_void};

    use anyhow::Result;
    use tch::{Kind, Tensor};
    use torch_sys::C_tensor;

    use super::{AdamWPart, AdamWStep};
    use crate::native::operators::{made, told};

    unsafe extern "C" {
        fn vedm_prepare_cuda();
        fn vedm_adamw(
            all: *const *const C_tensor,
            n: usize,
            step: *const C_tensor,
            learning_rate: f64,
            beta1: f64,
            beta2: f64,
            weight_decay: f64,
            eps: f64,
            divisor: *const C_tensor,
            error: *mut *mut c_char,
        ) -> *mut c_void;
        fn vedm_norm(
            all: *const *const C_tensor,
            n: usize,
            error: *mut *mut c_char,
        ) -> *mut C_tensor;
        fn vedm_pinned(n: i64, error: *mut *mut c_char) -> *mut C_tensor;
    }

    /// As tch's own operators end where they fail.
    fn sure<T>(found: Result<T>) -> T {
        found.unwrap_or_else(|error| panic!("{error:#}"))
    }

    pub(super) fn pinned(numbers: i64) -> Tensor {
        // SAFETY: nothing but a new tensor is touched.
        sure(made(|error| unsafe { vedm_pinned(numbers, error) }))
    }

    pub(super) fn prepare_cuda() {
        // SAFETY: settings of the process change.
        unsafe { vedm_prepare_cuda() }
    }

    pub(super) fn adamw(settings: &AdamWStep, parts: &[AdamWPart]) {
        let Some([first, ..]) = parts.first() else { return };
        let all: Vec<*const C_tensor> =
            (0..4).flat_map(|which| parts.iter().map(move |part| part[which].as_ptr())).collect();
        let scalar = |value: f64| Tensor::full([0; 0], value, (Kind::Float, first.device()));
        let (step, divisor) = (scalar(settings.step as f64), scalar(1.0 / settings.clip));
        let AdamWStep { learning_rate, betas: (beta1, beta2), weight_decay, eps, .. } = *settings;
        // SAFETY: four lists of `parts.len()` tensors, which live through the call.
        let done = told(|error| unsafe {
            let (all, n) = (all.as_ptr(), parts.len());
            let (step, divisor) = (step.as_ptr(), divisor.as_ptr());
            vedm_adamw(all, n, step, learning_rate, beta1, beta2, weight_decay, eps, divisor, error)
        });
        sure(done);
    }

    pub(super) fn norm(all: &[&Tensor]) -> Tensor {
        let all: Vec<*const C_tensor> = all.iter().map(|tensor| tensor.as_ptr()).collect();
        // SAFETY: the tensors live through the call.
        sure(made(|error| unsafe { vedm_norm(all.as_ptr(), all.len(), error) }))
    }
}
