//! Rows of inputs as whole numbers: of 16 bits in two digits, or of 8 in one.

#![allow(clippy::needless_range_loop)] // plain loops over fixed sizes become vectors

use super::number::{nearest, wide};
use crate::native::{self, Lanes, QUAD_INPUTS, Vectorized, across};

/// Numbers below which a second thread costs more than it brings.
const WORTH_A_THREAD: usize = 1 << 15;

/// What an input is rounded to.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Inputs {
    Bits16,
    Bits8,
}

impl Inputs {
    const fn digits(self) -> usize {
        match self {
            Inputs::Bits16 => 2,
            Inputs::Bits8 => 1,
        }
    }
}

/// Rows of whole numbers, in digits.
pub(super) struct Rows<'a> {
    /// [row][digit, the upper first][quad]
    pub digits: &'a [[u8; QUAD_INPUTS]],
    /// What a whole number stands for.
    pub scales: Vec<f32>,
    /// The upper digit of 0.
    pub zeros: Vec<i32>,
    /// Digits of a row, and quads of a digit.
    pub count: usize,
    pub quads: usize,
}

impl<'a> Rows<'a> {
    /// xs [M, in], divided among the threads, or rounded by this one `alone`; `room` for the digits, which grows if
    /// need be.
    pub(super) fn new(
        inputs: Inputs,
        xs: &[f32],
        width: usize,
        room: &'a mut Vec<[u8; QUAD_INPUTS]>,
        alone: bool,
    ) -> Self {
        let (rows, quads) = (xs.len() / width, width.div_ceil(QUAD_INPUTS));
        let count = inputs.digits();
        // What is left there of another product meets weights of 0, behind the end of a row.
        room.resize(room.len().max(rows * count * quads), [0; QUAD_INPUTS]);
        let digits = &mut room[..rows * count * quads];
        let (mut scales, mut zeros) = (vec![0.0; rows], vec![0; rows]);
        let share = if alone { rows } else { WORTH_A_THREAD / width }.max(1);
        let tasks = xs.chunks(share * width).zip(digits.chunks_mut(share * count * quads));
        let places = scales.chunks_mut(share).zip(zeros.chunks_mut(share));
        let tasks = tasks.zip(places).map(|((xs, digits), (scales, zeros))| Round {
            inputs,
            xs,
            width,
            digits: digits.as_flattened_mut(),
            scales,
            zeros,
        });
        native::parallel(tasks.collect(), native::vectorize);
        Rows { digits, scales, zeros, count, quads }
    }
}

/// Rounds some rows.
struct Round<'a> {
    inputs: Inputs,
    xs: &'a [f32],
    width: usize,
    digits: &'a mut [u8],
    scales: &'a mut [f32],
    zeros: &'a mut [i32],
}

impl Vectorized for Round<'_> {
    #[inline(always)]
    fn run<L: Lanes, const P: usize>(self) {
        let own = self.width.next_multiple_of(QUAD_INPUTS) * self.inputs.digits();
        let rows = self.xs.chunks_exact(self.width).zip(self.digits.chunks_exact_mut(own));
        for ((xs, digits), (scale, zero)) in
            rows.zip(self.scales.iter_mut().zip(self.zeros.iter_mut()))
        {
            let (least, most, nothing) = range::<L, P>(xs);
            match self.inputs {
                Inputs::Bits8 => {
                    *scale = positive((most - least) / 255.0);
                    // By a factor: division takes several times as long.
                    let factor = 1.0 / *scale;
                    let first = nearest(-least * factor);
                    *zero = first;
                    for (x, digit) in xs.iter().zip(digits) {
                        *digit = nearest(x * factor).wrapping_add(first).clamp(0, 255) as u8;
                    }
                }
                Inputs::Bits16 => {
                    *scale = positive(most.max(-least) / 32767.0);
                    *zero = 128;
                    let factor = 1.0 / *scale;
                    let (upper, lower) = digits.split_at_mut(own / 2);
                    let places = upper.chunks_mut(P).zip(lower.chunks_mut(P));
                    // Line by line: the compiler makes no vectors of what goes to two places.
                    for (xs, (upper, lower)) in xs.chunks(P).zip(places) {
                        let xs = wide::<f32, L, P>(xs);
                        let mut both = [[0u8; P]; 2];
                        for i in 0..P {
                            let number = nearest(xs[i] * factor).wrapping_add(32768);
                            both[0][i] = (number >> 8) as u8;
                            both[1][i] = number as u8;
                        }
                        upper.copy_from_slice(&both[0][..upper.len()]);
                        lower.copy_from_slice(&both[1][..lower.len()]);
                    }
                }
            }
            *scale += nothing;
        }
    }
}

/// The least and the largest of some numbers and 0, and 0, or NaN where one of them is not finite.
#[inline(always)]
fn range<L: Lanes, const P: usize>(xs: &[f32]) -> (f32, f32, f32) {
    let (mut least, mut most, mut nothing) = ([0f32; P], [0f32; P], [0f32; P]);
    for xs in xs.chunks(P) {
        let xs = wide::<f32, L, P>(xs);
        for i in 0..P {
            least[i] = if xs[i] < least[i] { xs[i] } else { least[i] };
            most[i] = if xs[i] > most[i] { xs[i] } else { most[i] };
            nothing[i] += xs[i] * 0.0;
        }
    }
    (across(least, f32::min), across(most, f32::max), across(nothing, |a, b| a + b))
}

/// A scale that can be divided by.
#[inline(always)]
fn positive(scale: f32) -> f32 {
    if scale > f32::MIN_POSITIVE && scale.is_finite() { scale } else { 1.0 }
}
