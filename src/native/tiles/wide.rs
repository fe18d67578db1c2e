//! The same products by vectors of 16 numbers (AVX-512), on CPUs without a matrix unit.

use std::arch::x86_64::{
    __m512, __m512bh, _MM_HINT_T1, _mm_prefetch, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps,
    _mm512_load_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_ps,
};

use super::{Fetch, PanelTile, RowsTile, Sums, TILE_OUTPUTS, TILE_ROWS};

/// Rows whose sums are in registers at a time.
const HEIGHT: usize = 8;

/// Numbers of 32 bits in a row of a tile.
const WIDTH: usize = 16;

/// A function that adds to the sums of the first `height` rows of two blocks the products with a panel of as many
/// tiles as are said: `$add` of a sum, 16 outputs and what a row has for them. `next` is fetched meanwhile.
/// `from_zero`: the sums are not read.
macro_rules! products {
    ($name:ident, $features:literal, $add:expr) => {
        /// # Safety
        /// The CPU has what the function asks for, and each pointer is to so many tiles.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name(
            rows: [*const RowsTile; 2],
            height: usize,
            panel: *const PanelTile,
            tiles: usize,
            next: Fetch,
            sums: [&mut Sums; 2],
            from_zero: bool,
        ) {
            let share = next.share(height.div_ceil(HEIGHT) * tiles);
            let mut ahead = next.lines();
            for (block, (rows, sums)) in rows.into_iter().zip(sums).enumerate() {
                let own = height.saturating_sub(block * TILE_ROWS).min(TILE_ROWS);
                for first in (0..own).step_by(HEIGHT) {
                    let lines = &mut sums.0[first..first + HEIGHT];
                    let mut own = [[_mm512_setzero_ps(); 2]; HEIGHT];
                    // SAFETY: the caller's; the sums are aligned as vectors are, and a line is two of them.
                    unsafe {
                        for tile in 0..tiles {
                            for _ in 0..share {
                                _mm_prefetch::<_MM_HINT_T1>(ahead.next());
                            }
                            let rows = rows.add(tile).cast::<f32>().add(first * WIDTH);
                            let panel = panel.add(tile).cast::<f32>();
                            for place in 0..WIDTH {
                                let left = _mm512_load_ps(panel.add(place * TILE_OUTPUTS));
                                let right = _mm512_load_ps(panel.add(place * TILE_OUTPUTS + WIDTH));
                                for (i, own) in own.iter_mut().enumerate() {
                                    let x = _mm512_set1_ps(*rows.add(i * WIDTH + place));
                                    own[0] = $add(own[0], left, x);
                                    own[1] = $add(own[1], right, x);
                                }
                            }
                        }
                        // Added at the end, so that roundings are those of this part of the inputs alone.
                        for (own, line) in own.iter_mut().zip(lines) {
                            let (left, right) = (line.as_mut_ptr(), line.as_mut_ptr().add(WIDTH));
                            if !from_zero {
                                own[0] = _mm512_add_ps(own[0], _mm512_load_ps(left));
                                own[1] = _mm512_add_ps(own[1], _mm512_load_ps(right));
                            }
                            _mm512_store_ps(left, own[0]);
                            _mm512_store_ps(right, own[1]);
                        }
                    }
                }
            }
        }
    };
}

products!(whole, "avx512f", |sum, outputs, x| _mm512_fmadd_ps(outputs, x, sum));

products!(single, "avx512f,avx512bf16", |sum, outputs, x| {
    // Two bf16 in 32 bits, as they are.
    let bits = |xs: __m512| std::mem::transmute::<__m512, __m512bh>(xs);
    _mm512_dpbf16_ps(sum, bits(outputs), bits(x))
});
