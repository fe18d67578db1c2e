//! Numbers cut into their parts, in the shapes of tiles.

use super::{pair, parts};

/// One way to cut, into N parts. Each kind of vector unit has one that is what the default says.
pub trait Cut {
    /// The inputs of a step, of which a number at place `place` of 16 has parts.
    #[inline(always)]
    fn pair(place: usize) -> [usize; 2] {
        [2 * place, 2 * place + 1]
    }

    /// The parts of 32 inputs of a row (`parts`), two inputs to a number.
    #[inline(always)]
    fn in_pairs<const N: usize>(inputs: &[f32; 32]) -> [[u32; 16]; N] {
        let mut found = [[0; 16]; N];
        for (j, xs) in inputs.as_chunks::<2>().0.iter().enumerate() {
            let (first, second) = (parts::<N>(xs[0]), parts::<N>(xs[1]));
            for part in 0..N {
                found[part][j] = pair(first[part], second[part]);
            }
        }
        found
    }

    /// The parts of two lines, each with that of the other line.
    #[inline(always)]
    fn interleaved<const N: usize>(first: &[f32; 16], second: &[f32; 16]) -> [[u32; 16]; N] {
        let mut found = [[0; 16]; N];
        for j in 0..16 {
            let (first, second) = (parts::<N>(first[j]), parts::<N>(second[j]));
            for part in 0..N {
                found[part][j] = pair(first[part], second[part]);
            }
        }
        found
    }
}

/// Not at all: f32 as they are. Of two tiles a step each holds those of half of its inputs (`Parts::Whole`).
pub struct Uncut;

impl Cut for Uncut {
    #[inline(always)]
    fn pair(place: usize) -> [usize; 2] {
        [place, 16 + place]
    }

    #[inline(always)]
    fn in_pairs<const N: usize>(inputs: &[f32; 32]) -> [[u32; 16]; N] {
        let mut found = [[0; 16]; N];
        for (tile, half) in found.iter_mut().zip(inputs.as_chunks::<16>().0) {
            for (place, x) in tile.iter_mut().zip(half) {
                *place = x.to_bits();
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
