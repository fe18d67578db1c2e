//! libtorch's inference mode, which its C bindings leave out.

use std::marker::PhantomData;

/// While it lives, this thread computes without gradients, and (where this build reaches libtorch's own
/// inference mode) tensors don't count their versions either, which small models spend a twentieth of their time
/// on. Tensors made meanwhile can't take part in training afterwards.
pub struct Inference {
    #[cfg(vedm_operators)]
    mode: *mut std::ffi::c_void,
    #[cfg(not(vedm_operators))]
    _no_grad: tch::NoGradGuard,
    /// It belongs to its thread.
    _thread: PhantomData<*const ()>,
}

#[cfg(vedm_operators)]
unsafe extern "C" {
    fn vedm_enter() -> *mut std::ffi::c_void;
    fn vedm_leave(mode: *mut std::ffi::c_void);
}

impl Inference {
    #[allow(clippy::new_without_default)] // It is made for its effect.
    pub fn new() -> Self {
        Inference {
            // SAFETY: a switch of this thread, which `drop` turns back on the same.
            #[cfg(vedm_operators)]
            mode: unsafe { vedm_enter() },
            #[cfg(not(vedm_operators))]
            _no_grad: tch::no_grad_guard(),
            _thread: PhantomData,
        }
    }
}

impl Drop for Inference {
    fn drop(&mut self) {
        #[cfg(vedm_operators)]
        // SAFETY: came from `vedm_enter`, on this thread, and is left once.
        unsafe {
            vedm_leave(self.mode);
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn gradients_are_back_afterwards() {
        let leaf = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        {
            let _inference = Inference::new();
            let _another = Inference::new();
            assert!(!(&leaf * 2).requires_grad());
        }
        assert!((&leaf * 2).requires_grad());
    }
}
