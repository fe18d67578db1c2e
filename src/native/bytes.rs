//! Products of bytes with whole numbers of 8 bits and sums of 32, four at a time, on CPUs that have them
//! (AVX512_VNNI).

use super::TILE_OUTPUTS;

/// Inputs whose products are added up by one instruction.
pub const QUAD_INPUTS: usize = 4;

/// A quad of inputs of a panel: output by output.
pub type Quad = [i8; QUAD_INPUTS * TILE_OUTPUTS];

/// Sums of the outputs of a panel.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct WholeSums(pub [i32; TILE_OUTPUTS]);

impl WholeSums {
    pub const ZERO: WholeSums = WholeSums([0; TILE_OUTPUTS]);
}

/// Says that this CPU makes such products; there is no other way to one than `here`.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct ByteProducts(());

impl ByteProducts {
    /// None where this CPU has no such products.
    pub fn here() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if super::panel_width() == TILE_OUTPUTS && is_x86_feature_detected!("avx512vnni") {
            return Some(ByteProducts(()));
        }
        None
    }

    /// Writes the sums of H rows, one after the other, with N panels: those of a panel side by side.
    ///
    /// # Panics
    /// Where the rows and the panels are not of one number of quads, or there is no room for the sums.
    #[inline]
    pub fn sums<const H: usize, const N: usize>(
        self,
        rows: &[[u8; QUAD_INPUTS]],
        panels: [&[Quad]; N],
        sums: &mut [WholeSums],
    ) {
        let quads = panels.first().map_or(0, |panel| panel.len());
        assert!(panels.iter().all(|panel| panel.len() == quads), "panels of one size");
        assert_eq!(rows.len(), H * quads, "rows as long as the panels");
        assert!(sums.len() >= N * H, "room for the sums");
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `here` found what is asked for; rows, panels and sums are as long as is said.
        unsafe {
            let panels = panels.map(|panel| panel.as_ptr().cast());
            x86::sums::<H, N>(rows.as_ptr().cast(), panels, quads, sums.as_mut_ptr());
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("products that this CPU does not make, of {} sums", sums.len());
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop)]
mod x86 {
    use std::arch::x86_64::{
        _MM_HINT_T0, _mm_prefetch, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_setzero_si512, _mm512_store_si512,
    };

    use super::super::{AHEAD, reads_ahead};
    use super::{Quad, WholeSums};

    /// Outputs in a vector.
    const WIDTH: usize = 16;

    /// # Safety
    /// The CPU has AVX512_VNNI; there are H rows of so many quads, panels of as many, and H·N sums.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn sums<const H: usize, const N: usize>(
        rows: *const i32,
        panels: [*const i8; N],
        quads: usize,
        sums: *mut WholeSums,
    ) {
        let mut own = [[[_mm512_setzero_si512(); 2]; H]; N];
        // Behind the end of these panels lie those that are read next.
        let border = quads.saturating_sub(AHEAD / size_of::<Quad>());
        let beyond = (N - 1) * quads * size_of::<Quad>() + AHEAD;
        let told = !reads_ahead();
        // SAFETY: the caller's; what is only fetched may lie anywhere.
        unsafe {
            for quad in 0..quads {
                let ahead = if quad < border { AHEAD } else { beyond };
                for (panel, own) in panels.iter().zip(&mut own) {
                    let panel = panel.add(quad * size_of::<Quad>());
                    if told {
                        _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(ahead));
                        _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(ahead + 64));
                    }
                    let left = _mm512_loadu_si512(panel.cast());
                    let right = _mm512_loadu_si512(panel.add(64).cast());
                    for (row, own) in own.iter_mut().enumerate() {
                        let x = _mm512_set1_epi32(rows.add(row * quads + quad).read());
                        own[0] = _mm512_dpbusd_epi32(own[0], x, left);
                        own[1] = _mm512_dpbusd_epi32(own[1], x, right);
                    }
                }
            }
            // Loops of known length: of others the compiler would keep all sums in memory.
            for panel in 0..N {
                for row in 0..H {
                    let target = sums.add(panel * H + row).cast::<i32>();
                    _mm512_store_si512(target.cast(), own[panel][row][0]);
                    _mm512_store_si512(target.add(WIDTH).cast(), own[panel][row][1]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against sums one by one, with the largest numbers there are and other ones.
    #[test]
    fn sums_are_those_of_whole_numbers() {
        const QUADS: usize = 37;
        let Some(unit) = ByteProducts::here() else { return };
        let number = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7) as u8;
        let rows: Vec<[u8; QUAD_INPUTS]> = (0..3 * QUADS)
            .map(|i| std::array::from_fn(|j| if i < QUADS { 255 } else { number(i * 4 + j) }))
            .collect();
        let panel = |shift: usize| -> Vec<Quad> {
            let weight = |i: usize, j: usize| match j / 8 {
                0 => 127,
                1 => -128,
                _ => number(shift + i * 131 + j * 7).cast_signed(),
            };
            (0..QUADS).map(|i| std::array::from_fn(|j| weight(i, j))).collect()
        };
        let panels = [panel(0), panel(77)];
        let mut found = [WholeSums([7; TILE_OUTPUTS]); 6];
        unit.sums::<3, 2>(&rows, [&panels[0], &panels[1]], &mut found);
        for (panel, found) in panels.iter().zip(found.chunks_exact(3)) {
            for (row, found) in rows.chunks_exact(QUADS).zip(found) {
                for (output, found) in found.0.iter().enumerate() {
                    let product = |(xs, quad): (&[u8; 4], &Quad)| -> i32 {
                        let weights = &quad[output * QUAD_INPUTS..][..QUAD_INPUTS];
                        xs.iter().zip(weights).map(|(x, w)| i32::from(*x) * i32::from(*w)).sum()
                    };
                    let expected: i32 = row.iter().zip(panel).map(product).sum();
                    assert_eq!(*found, expected, "output {output}");
                }
            }
        }
    }
}
