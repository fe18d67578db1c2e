//! f32 as they are, in the shapes of tiles.

use std::marker::PhantomData;

use crate::native::vectors::Lanes;

/// The arithmetic of L, but numbers are not cut: two tiles a step hold those of even and of odd inputs
/// (`Parts::Whole`).
pub struct Uncut<L>(PhantomData<L>);

impl<L: Lanes> Lanes for Uncut<L> {
    #[inline(always)]
    fn add_product<const P: usize>(sums: &mut [f32; P], line: &[f32; P], x: f32) {
        L::add_product(sums, line, x);
    }

    #[inline(always)]
    fn fused(a: f32, b: f32, c: f32) -> f32 {
        L::fused(a, b, c)
    }

    #[inline(always)]
    fn halves<const P: usize>(line: [u16; P]) -> [f32; P] {
        L::halves(line)
    }

    #[inline(always)]
    fn to_halves<const P: usize>(line: [f32; P]) -> [u16; P] {
        L::to_halves(line)
    }

    #[inline(always)]
    fn turn(square: &[[u32; 16]; 16], to: &mut [u32], apart: usize) {
        L::turn(square, to, apart);
    }

    #[inline(always)]
    fn in_pairs<const N: usize>(inputs: &[f32; 32]) -> [[u32; 16]; N] {
        let mut found = [[0; 16]; N];
        for (j, pair) in inputs.as_chunks::<2>().0.iter().enumerate() {
            for (tile, x) in found.iter_mut().zip(pair) {
                tile[j] = x.to_bits();
            }
        }
        found
    }

    #[inline(always)]
    fn interleaved<const N: usize>(first: &[f32; 16], second: &[f32; 16]) -> [[u32; 16]; N] {
        let mut found = [[0; 16]; N];
        for (tile, line) in found.iter_mut().zip([first, second]) {
            for (place, x) in tile.iter_mut().zip(line) {
                *place = x.to_bits();
            }
        }
        found
    }
}
