//! Dense layers that learn, with products of our own: libtorch's graph calls them for the results and for the
//! gradients (`dense.cpp`).

use tch::Tensor;

/// A matrix [rows, inner] as it lies in memory.
#[derive(Clone, Copy)]
pub struct Matrix<'a, T> {
    pub values: &'a [T],
    pub rows: usize,
    pub inner: usize,
    /// True: stored as [inner, rows]. False: [rows, inner].
    pub transposed: bool,
    /// From where a stored line begins to the next.
    pub apart: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Its lines one after the other.
    pub fn dense(values: &'a [T], rows: usize, inner: usize, transposed: bool) -> Self {
        let apart = if transposed { rows } else { inner };
        Matrix { values, rows, inner, transposed, apart }
    }

    /// The same numbers as [inner, rows].
    pub fn turned(self) -> Self {
        let Matrix { rows, inner, .. } = self;
        Matrix { rows: inner, inner: rows, transposed: !self.transposed, ..self }
    }
}

/// a·bᵀ + bias; false (and nothing done) where libtorch does it better. a [M, K], b [N, K], bias [N] -> [M, N]
pub type Multiply = fn(Matrix<f32>, Matrix<f32>, Option<&[f32]>, &mut [f32]) -> bool;

/// x·Wᵀ + b for libtorch's graph. [R, out]
#[derive(Clone, Copy)]
pub struct Dense<'a> {
    /// [R, in]
    pub xs: &'a Tensor,
    /// As it is stored: [out, in], or [in, out] where `transposed`.
    pub weight: &'a Tensor,
    /// [out]
    pub bias: Option<&'a Tensor>,
    pub transposed: bool,
}

impl Dense<'_> {
    /// The layer's results, each product by `multiply`, those of the gradients too. None where a tensor is not
    /// contiguous f32 on the CPU, and in a build without libtorch's headers.
    pub fn forward(&self, multiply: Multiply) -> Option<Tensor> {
        #[cfg(vedm_operators)]
        return linked::forward(self, multiply);
        #[cfg(not(vedm_operators))]
        {
            let _ = multiply;
            None
        }
    }
}

#[cfg(vedm_operators)]
mod linked {
    use std::ffi::{c_char, c_void};
    use std::ptr::null;

    use tch::Tensor;
    use torch_sys::C_tensor;

    use super::{Dense, Matrix, Multiply};
    use crate::native::is_f32_on_cpu;
    use crate::native::operators::made;

    unsafe extern "C" {
        fn vedm_dense(
            xs: *const C_tensor,
            weight: *const C_tensor,
            bias: *const C_tensor,
            transposed: bool,
            work: *const c_void,
            error: *mut *mut c_char,
        ) -> *mut C_tensor;
    }

    /// `Matrix` of dense.cpp.
    #[repr(C)]
    struct Place {
        values: *const f32,
        rows: i64,
        transposed: bool,
    }

    /// What the graph calls. A panic ends the process: it must not pass through C++.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn vedm_multiply(
        work: *const c_void,
        a: Place,
        b: Place,
        inner: i64,
        bias: *const f32,
        out: *mut f32,
    ) -> bool {
        // SAFETY: `work` is what `forward` handed over; the tensors behind the pointers are contiguous, of these
        // sizes, and live through the call; the result is fresh memory.
        unsafe {
            let multiply = std::mem::transmute::<*const c_void, Multiply>(work);
            let inner = inner as usize;
            let matrix = |place: &Place| {
                let rows = place.rows as usize;
                let values = std::slice::from_raw_parts(place.values, rows * inner);
                Matrix::dense(values, rows, inner, place.transposed)
            };
            let (a, b) = (matrix(&a), matrix(&b));
            let bias = (!bias.is_null()).then(|| std::slice::from_raw_parts(bias, b.rows));
            multiply(a, b, bias, std::slice::from_raw_parts_mut(out, a.rows * b.rows))
        }
    }

    pub(super) fn forward(layer: &Dense, multiply: Multiply) -> Option<Tensor> {
        let Dense { xs, weight, bias, transposed } = *layer;
        let is_plain = |xs: &Tensor| is_f32_on_cpu(xs) && xs.is_contiguous();
        if !(is_plain(xs) && is_plain(weight) && bias.is_none_or(is_plain)) || xs.numel() == 0 {
            return None;
        }
        debug_assert_eq!(xs.size()[1], weight.size()[if transposed { 0 } else { 1 }]);
        let bias = bias.map_or(null(), Tensor::as_ptr);
        // SAFETY: the tensors are what `vedm_dense` asks for, and live through the call.
        let found = made(|error| unsafe {
            let work = multiply as *const c_void;
            vedm_dense(xs.as_ptr(), weight.as_ptr(), bias, transposed, work, error)
        });
        Some(found.expect("a product of matrices that fit"))
    }
}
