//! Products of many rows with matrices that oneDNN and FBGEMM pack: operators of libtorch that its C
//! bindings leave out, reached through `operators.cpp`.

use anyhow::Result;
use tch::Tensor;

use super::vectors::has_amx_int8;

/// Who packs a matrix, and what its numbers become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Layout {
    /// oneDNN, in the number type of the matrix, which inputs and results have too
    OneDnn = 0,
    /// FBGEMM, f16 with f32 inputs and sums
    F16 = 1,
    /// FBGEMM, whole numbers of 8 bits with a scale for each output; inputs are rounded to 8 bits by one
    /// scale a call
    Int8Fbgemm = 2,
    /// The same by oneDNN
    Int8OneDnn = 3,
}

impl Layout {
    /// Whole numbers of 8 bits by the engine that is faster on this CPU.
    pub fn int8() -> Self {
        if has_amx_int8() { Layout::Int8OneDnn } else { Layout::Int8Fbgemm }
    }
}

/// A matrix [out, in] in the form of one of libtorch's engines.
pub struct PackedMatrix {
    #[cfg(vedm_operators)]
    packed: std::ptr::NonNull<std::ffi::c_void>,
    layout: Layout,
    /// [out]; oneDNN alone is handed it at each product.
    #[cfg_attr(not(vedm_operators), allow(dead_code))]
    bias: Option<Tensor>,
}

/// What becomes of a product in the same pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Nothing,
    Gelu,
    GeluTanh,
}

/// True if this build reaches the operators at all: its build script found libtorch's headers.
pub const fn has_operators() -> bool {
    cfg!(vedm_operators)
}

#[cfg(vedm_operators)]
pub(super) use linked::{made, told};

#[cfg(vedm_operators)]
mod linked {
    use std::ffi::{CStr, c_char, c_int, c_void};
    use std::ptr::{NonNull, null};

    use anyhow::{Context, Result, anyhow};
    use tch::Tensor;
    use torch_sys::C_tensor;

    use super::{Layout, PackedMatrix, Then};

    unsafe extern "C" {
        fn vedm_pack(
            layout: c_int,
            weight: *const C_tensor,
            scales: *const C_tensor,
            bias: *const C_tensor,
            error: *mut *mut c_char,
        ) -> *mut c_void;
        fn vedm_product(
            layout: c_int,
            packed: *const c_void,
            xs: *const C_tensor,
            bias: *const C_tensor,
            activation: *const c_char,
            algorithm: *const c_char,
            error: *mut *mut c_char,
        ) -> *mut C_tensor;
        fn vedm_let_go(packed: *mut c_void);
    }

    fn pointer(tensor: Option<&Tensor>) -> *const C_tensor {
        tensor.map_or(null(), Tensor::as_ptr)
    }

    /// Calls `f` with the place of its error.
    pub(in crate::native) fn told<T>(
        f: impl FnOnce(*mut *mut c_char) -> *mut T,
    ) -> Result<NonNull<T>> {
        let mut error = std::ptr::null_mut();
        let found = f(&raw mut error);
        if error.is_null() {
            return NonNull::new(found).context("libtorch gave nothing");
        }
        // SAFETY: `guarded` made it by strdup.
        let sentence = unsafe {
            let sentence = CStr::from_ptr(error).to_string_lossy().into_owned();
            libc::free(error.cast());
            sentence
        };
        let first = sentence.lines().next().unwrap_or_default();
        Err(anyhow!("libtorch: {first}"))
    }

    /// The tensor that `f` makes, given the place of its error.
    pub(in crate::native) fn made(
        f: impl FnOnce(*mut *mut c_char) -> *mut C_tensor,
    ) -> Result<Tensor> {
        let found = told(f)?;
        // SAFETY: a handle that C++ made for us.
        Ok(unsafe { Tensor::from_ptr(found.as_ptr()) })
    }

    impl PackedMatrix {
        pub(super) fn linked(
            layout: Layout,
            weight: &Tensor,
            scales: Option<&Tensor>,
            bias: Option<&Tensor>,
        ) -> Result<Self> {
            // SAFETY: the tensors live through the call, which keeps what it needs by its own handles.
            let packed = told(|error| unsafe {
                let (scales, bias) = (pointer(scales), pointer(bias));
                vedm_pack(layout as c_int, weight.as_ptr(), scales, bias, error)
            })?;
            Ok(PackedMatrix { packed, layout, bias: bias.map(Tensor::shallow_clone) })
        }

        /// x·Wᵀ + b, then `then` (which is for oneDNN alone). [.., in] -> [.., out]
        pub fn product(&self, xs: &Tensor, then: Then) -> Result<Tensor> {
            let (activation, algorithm) = match then {
                Then::Nothing => (c"none", None),
                Then::Gelu => (c"gelu", Some(c"none")),
                Then::GeluTanh => (c"gelu", Some(c"tanh")),
            };
            // SAFETY: `packed` came from vedm_pack with this layout; the tensors live through the call.
            made(|error| unsafe {
                vedm_product(
                    self.layout as c_int,
                    self.packed.as_ptr(),
                    xs.as_ptr(),
                    pointer(self.bias.as_ref()),
                    activation.as_ptr(),
                    algorithm.map_or(null(), CStr::as_ptr),
                    error,
                )
            })
        }
    }

    impl Drop for PackedMatrix {
        fn drop(&mut self) {
            // SAFETY: made by vedm_pack, let go once.
            unsafe { vedm_let_go(self.packed.as_ptr()) }
        }
    }
}

#[cfg(not(vedm_operators))]
impl PackedMatrix {
    pub fn product(&self, _: &Tensor, _: Then) -> Result<Tensor> {
        Err(missing())
    }
}

#[cfg(not(vedm_operators))]
fn missing() -> anyhow::Error {
    anyhow::anyhow!(
        "this vedm was built without libtorch's headers, so a CPU is served in f32 alone; use --dtype f32"
    )
}

impl PackedMatrix {
    /// True for whole numbers of 8 bits.
    pub fn is_int8(&self) -> bool {
        matches!(self.layout, Layout::Int8Fbgemm | Layout::Int8OneDnn)
    }

    /// Packs W [out, in] with b [out]. `scales` [out], f64, are for int8 alone, whose W are whole numbers of
    /// 8 bits already.
    pub fn pack(
        layout: Layout,
        weight: &Tensor,
        scales: Option<&Tensor>,
        bias: Option<&Tensor>,
    ) -> Result<Self> {
        #[cfg(vedm_operators)]
        return Self::linked(layout, weight, scales, bias);
        #[cfg(not(vedm_operators))]
        {
            let _ = (layout, weight, scales, bias);
            Err(missing())
        }
    }
}
