//! Attention that learns, with passes of our own: libtorch's graph calls them for the result and for the
//! gradients (`attention.cpp`).

use std::marker::PhantomData;

use tch::Tensor;

use super::dense::Matrix;
use super::is_f32_on_cpu;

/// The numbers of all heads, [N, A, t, d], as they lie in memory; those of a token lie side by side.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    values: *const f32,
    size: [usize; 4],
    apart: [usize; 3],
    _lent: PhantomData<&'a [f32]>,
}

// SAFETY: it is read alone, as a slice is.
unsafe impl Send for Heads<'_> {}
// SAFETY: as above.
unsafe impl Sync for Heads<'_> {}

impl<'a> Heads<'a> {
    /// Lends a tensor [N, A, t, d]; None unless it is f32 on the CPU, has numbers, and those of a token lie side
    /// by side. Nobody may write to it meanwhile.
    pub fn of(xs: &'a Tensor) -> Option<Self> {
        let (size, stride) = (xs.size(), xs.stride());
        if !is_f32_on_cpu(xs) || xs.numel() == 0 || size.len() != 4 || stride[3] != 1 {
            return None;
        }
        let plain = |numbers: &[i64]| numbers.iter().map(|x| usize::try_from(*x).ok()).collect();
        let (size, apart): (Option<Vec<usize>>, Option<Vec<usize>>) =
            (plain(&size), plain(&stride[..3]));
        let (size, apart) = (size?.try_into().ok()?, apart?.try_into().ok()?);
        Some(Heads {
            values: xs.data_ptr().cast::<f32>().cast_const(),
            size,
            apart,
            _lent: PhantomData,
        })
    }

    /// [N, A, t, d]
    pub fn size(&self) -> [usize; 4] {
        self.size
    }

    /// One head of one row. [t, d]
    ///
    /// # Panics
    /// Where there is no such row or head.
    pub fn head(&self, row: usize, head: usize) -> Matrix<'a, f32> {
        let ([n, heads, rows, inner], [far, middle, apart]) = (self.size, self.apart);
        assert!(row < n && head < heads, "a head that is there");
        // SAFETY: the tensor lends its numbers for as long; the last of these is that of the last token.
        let values = unsafe {
            let start = self.values.add(row * far + head * middle);
            std::slice::from_raw_parts(start, (rows - 1) * apart + inner)
        };
        Matrix { values, rows, inner, transposed: false, apart }
    }
}

/// The two passes.
pub struct Passes {
    pub forward: fn(&Attend, &mut [f32], &mut [f32]),
    pub backward: fn(&AttendBack, [&mut [f32]; 3]),
}

/// softmax(q kᵀ · scale) v -> [N, t, A, d], and for each query the logarithm of the sum of its exponentials,
/// [N, A, t]
pub struct Attend<'a> {
    /// [N, A, t, d]
    pub query: Heads<'a>,
    /// [N, A, S, d]
    pub key: Heads<'a>,
    /// [N, A, S, d]
    pub value: Heads<'a>,
    pub scale: f64,
}

impl<'a> Attend<'a> {
    /// Lends query, key and value; None where `Heads` are not, and where their sizes don't fit.
    pub fn of([query, key, value]: [&'a Tensor; 3], scale: f64) -> Option<Self> {
        let [query, key, value] = [Heads::of(query)?, Heads::of(key)?, Heads::of(value)?];
        let ([n, heads, _, d], [rows, others, _, width]) = (query.size, key.size);
        let fit = (n, heads, d) == (rows, others, width) && key.size == value.size;
        fit.then_some(Attend { query, key, value, scale })
    }
}

/// -> the gradients of query, key and value, each [N, t or S, A, d]
pub struct AttendBack<'a> {
    pub given: Attend<'a>,
    /// What `forward` made, and its gradient. [N, A, t, d]
    pub out: Heads<'a>,
    pub gradient: Heads<'a>,
    /// [N, A, t]
    pub logs: &'a [f32],
}

/// Attention in libtorch's graph. query [N, A, t, d], key and value [N, A, S, d] -> [N, A, t, d], which lies as
/// [N, t, A, d]. None where `Attend` is not, and in a build without libtorch's headers.
pub fn attention(given: [&Tensor; 3], scale: f64, passes: &'static Passes) -> Option<Tensor> {
    Attend::of(given, scale)?;
    #[cfg(vedm_operators)]
    return Some(linked::attention(given, scale, passes));
    #[cfg(not(vedm_operators))]
    {
        let _ = passes;
        None
    }
}

#[cfg(vedm_operators)]
mod linked {
    use std::ffi::{c_char, c_void};
    use std::slice::{from_raw_parts, from_raw_parts_mut};

    use torch_sys::C_tensor;

    use super::{Attend, AttendBack, Heads, Passes, PhantomData, Tensor};
    use crate::native::operators::made;

    unsafe extern "C" {
        fn vedm_attention(
            query: *const C_tensor,
            key: *const C_tensor,
            value: *const C_tensor,
            scale: f64,
            work: *const c_void,
            error: *mut *mut c_char,
        ) -> *mut C_tensor;
    }

    /// `Heads` of attention.cpp.
    #[repr(C)]
    struct Place {
        values: *const f32,
        size: [i64; 4],
        apart: [i64; 3],
    }

    impl Place {
        fn heads(&self) -> Heads<'_> {
            let (size, apart) = (self.size.map(|x| x as usize), self.apart.map(|x| x as usize));
            Heads { values: self.values, size, apart, _lent: PhantomData }
        }
    }

    fn attend<'a>(given: &'a [Place], scale: f64) -> Attend<'a> {
        let [query, key, value] = [0, 1, 2].map(|i| given[i].heads());
        Attend { query, key, value, scale }
    }

    /// Numbers of all heads.
    fn count(heads: &Heads) -> usize {
        heads.size.iter().product()
    }

    /// What the graph calls. A panic ends the process: it must not pass through C++.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn vedm_attend(
        work: *const c_void,
        given: *const Place,
        scale: f64,
        out: *mut f32,
        logs: *mut f32,
    ) {
        // SAFETY: `work` is what `attention` handed over; the tensors behind the pointers are of these sizes and
        // live through the call; the results are fresh memory.
        unsafe {
            let passes = &*work.cast::<Passes>();
            let given = attend(from_raw_parts(given, 3), scale);
            let count = count(&given.query);
            let tokens = count / given.query.size[3];
            (passes.forward)(
                &given,
                from_raw_parts_mut(out, count),
                from_raw_parts_mut(logs, tokens),
            );
        }
    }

    /// As `vedm_attend`.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn vedm_attend_back(
        work: *const c_void,
        given: *const Place,
        scale: f64,
        logs: *const f32,
        query: *mut f32,
        key: *mut f32,
        value: *mut f32,
    ) {
        // SAFETY: as above.
        unsafe {
            let passes = &*work.cast::<Passes>();
            let places = from_raw_parts(given, 5);
            let given = attend(places, scale);
            let (queries, keys) = (count(&given.query), count(&given.key));
            let logs = from_raw_parts(logs, queries / given.query.size[3]);
            let (out, gradient) = (places[3].heads(), places[4].heads());
            let targets = [(query, queries), (key, keys), (value, keys)];
            let targets = targets.map(|(start, count)| from_raw_parts_mut(start, count));
            (passes.backward)(&AttendBack { given, out, gradient, logs }, targets);
        }
    }

    pub(super) fn attention(
        [query, key, value]: [&Tensor; 3],
        scale: f64,
        passes: &'static Passes,
    ) -> Tensor {
        // SAFETY: the tensors are what `vedm_attention` asks for, and live through the call.
        let found = made(|error| unsafe {
            let work = std::ptr::from_ref(passes).cast::<c_void>();
            vedm_attention(query.as_ptr(), key.as_ptr(), value.as_ptr(), scale, work, error)
        });
        found.expect("attention of tensors that fit")
    }
}
