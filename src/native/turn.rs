//! Squares of 16 by 16 numbers turned over.

/// Columns become rows, each `apart` numbers after the one before.
#[inline(always)]
pub(super) fn plainly(square: &[[u32; 16]; 16], to: &mut [u32], apart: usize) {
    for (column, to) in to.chunks_mut(apart).take(16).enumerate() {
        for (place, row) in to.iter_mut().zip(square) {
            *place = row[column];
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use avx512::turn;

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, _mm512_castpd_ps, _mm512_castps_pd, _mm512_loadu_ps, _mm512_shuffle_f32x4,
        _mm512_storeu_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd,
        _mm512_unpacklo_ps,
    };

    /// Columns become rows, each `apart` numbers after the one before.
    ///
    /// # Safety
    /// The CPU has AVX-512, and there is room for the 16 rows.
    #[target_feature(enable = "avx512f")]
    pub(in crate::native) unsafe fn turn(square: &[[u32; 16]; 16], to: *mut u32, apart: usize) {
        // Each step puts together what is 1, 2, 4 and then 8 rows apart.
        // SAFETY: the rows are as long as what is read and written; the numbers are moved as they are.
        unsafe {
            let rows: [__m512; 16] =
                std::array::from_fn(|i| _mm512_loadu_ps(square[i].as_ptr().cast()));
            let ones: [__m512; 16] = std::array::from_fn(|i| {
                let (first, second) = (rows[i & !1], rows[i | 1]);
                if i & 1 == 0 {
                    _mm512_unpacklo_ps(first, second)
                } else {
                    _mm512_unpackhi_ps(first, second)
                }
            });
            // Vector i holds, in each quarter, 4 rows of a column of it.
            let twos: [__m512; 16] = std::array::from_fn(|i| {
                let place = (i & !3) | (i >> 1 & 1);
                let (first, second) =
                    (_mm512_castps_pd(ones[place]), _mm512_castps_pd(ones[place | 2]));
                _mm512_castpd_ps(if i & 1 == 0 {
                    _mm512_unpacklo_pd(first, second)
                } else {
                    _mm512_unpackhi_pd(first, second)
                })
            });
            for column in 0..4 {
                let [a, b, c, d] = [0, 4, 8, 12].map(|first| twos[first | column]);
                let (even, odd) =
                    (_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
                let (more, rest) =
                    (_mm512_shuffle_f32x4(c, d, 0x88), _mm512_shuffle_f32x4(c, d, 0xdd));
                let columns = [
                    _mm512_shuffle_f32x4(even, more, 0x88),
                    _mm512_shuffle_f32x4(odd, rest, 0x88),
                    _mm512_shuffle_f32x4(even, more, 0xdd),
                    _mm512_shuffle_f32x4(odd, rest, 0xdd),
                ];
                for (quarter, numbers) in columns.into_iter().enumerate() {
                    _mm512_storeu_ps(to.add((quarter * 4 + column) * apart).cast(), numbers);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::native::{Lanes, Vectorized, vectorize};

    struct Turn<'a>(&'a [[u32; 16]; 16], &'a mut [u32], usize);

    impl Vectorized for Turn<'_> {
        #[inline(always)]
        fn run<L: Lanes, const P: usize>(self) {
            L::turn(self.0, self.1, self.2);
        }
    }

    #[test]
    fn squares_are_turned_over() {
        let square =
            std::array::from_fn(|row| std::array::from_fn(|column| (row * 16 + column) as u32));
        for apart in [16, 32] {
            let mut all = vec![999; 15 * apart + 16];
            vectorize(Turn(&square, &mut all, apart));
            let mut plain = vec![999; all.len()];
            super::plainly(&square, &mut plain, apart);
            assert_eq!(all, plain);
            for (i, number) in all.iter().enumerate() {
                let (row, column) = (i / apart, i % apart);
                let expected = if column < 16 { square[column][row] } else { 999 };
                assert_eq!(*number, expected, "{row}, {column}");
            }
        }
    }
}
