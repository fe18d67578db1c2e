//! Numbers narrower than f32, as packed matrices keep them.
#![allow(clippy::needless_range_loop)] // plain loops over fixed sizes become vectors, closures need not

use std::ops::{Deref, DerefMut};

use crate::native::{Bf16, F16, Lanes, Pages, PairedBf16, PanelTile, Parts, Plain};

/// A number that a panel is made of.
pub(in crate::nn) trait Number: Plain + Default {
    /// What a product of several rows takes it, and the inputs, as.
    const PARTS: Parts;

    /// So many zeros. Their memory is zero as the system gives it: nobody writes them.
    fn zeros(len: usize) -> Vec<Self>;

    /// A line of a panel as f32.
    fn widen<L: Lanes, const P: usize>(line: &[Self; P]) -> [f32; P];

    /// Line `k` of a panel as f32.
    #[inline(always)]
    fn line<L: Lanes, const P: usize>(lines: &[[Self; P]], k: usize) -> [f32; P] {
        Self::widen::<L, P>(&lines[k])
    }

    /// Arranges the lines of a whole panel as `line` reads them.
    #[inline(always)]
    fn arrange<const P: usize>(_: &mut [[Self; P]]) {}

    /// Lines of a panel, from the beginning of a step on, as tiles of these parts, if they lie in memory so.
    #[inline(always)]
    fn as_tiles<const P: usize>(_: Parts, _: &[[Self; P]]) -> Option<&[PanelTile]> {
        None
    }

    /// The nearest such numbers, ties to even. Whole numbers: |x| <= 127
    fn narrow<L: Lanes, const P: usize>(line: [f32; P]) -> [Self; P];
}

/// Numbers as f32, followed by zeros.
#[inline(always)]
pub(super) fn wide<T: Number, L: Lanes, const W: usize>(numbers: &[T]) -> [f32; W] {
    if let Ok(all) = <&[T; W]>::try_from(numbers) {
        return T::widen::<L, W>(all);
    }
    let mut all = [T::default(); W];
    all[..numbers.len()].copy_from_slice(numbers);
    T::widen::<L, W>(&all)
}

/// `number` of each, narrowed into `target`.
#[inline(always)]
pub(super) fn narrow_all<T: Number, L: Lanes, const P: usize>(
    numbers: &[f32],
    target: &mut [T],
    number: impl Fn(f32) -> f32,
) {
    for (numbers, target) in numbers.chunks(P).zip(target.chunks_mut(P)) {
        let mut all = wide::<f32, L, P>(numbers);
        for j in 0..P {
            all[j] = number(all[j]);
        }
        let narrow = T::narrow::<L, P>(all);
        target.copy_from_slice(&narrow[..target.len()]);
    }
}

impl Number for f32 {
    const PARTS: Parts = Parts::F32;

    fn zeros(len: usize) -> Vec<f32> {
        vec![0.0; len]
    }

    #[inline(always)]
    fn widen<L: Lanes, const P: usize>(line: &[f32; P]) -> [f32; P] {
        *line
    }

    #[inline(always)]
    fn as_tiles<const P: usize>(parts: Parts, lines: &[[f32; P]]) -> Option<&[PanelTile]> {
        PanelTile::of_lines(parts, lines)
    }

    #[inline(always)]
    fn narrow<L: Lanes, const P: usize>(line: [f32; P]) -> [f32; P] {
        line
    }
}

impl Number for Bf16 {
    /// Inputs are no more than the weights.
    const PARTS: Parts = Parts::Single;

    fn zeros(len: usize) -> Vec<Bf16> {
        vec![0u16; len].into_iter().map(Bf16).collect() // in place
    }

    #[inline(always)]
    fn widen<L: Lanes, const P: usize>(line: &[Bf16; P]) -> [f32; P] {
        let mut wide = [0f32; P];
        for j in 0..P {
            wide[j] = from_bf16(line[j].0);
        }
        wide
    }

    #[inline(always)]
    fn narrow<L: Lanes, const P: usize>(line: [f32; P]) -> [Bf16; P] {
        let mut narrow = [Bf16(0); P];
        for j in 0..P {
            narrow[j] = Bf16(to_bf16(line[j]));
        }
        narrow
    }
}

/// As products of many rows take them (`Parts::Single`), in panels of an even number of lines.
impl Number for PairedBf16 {
    const PARTS: Parts = Bf16::PARTS;

    fn zeros(len: usize) -> Vec<PairedBf16> {
        vec![0u16; len].into_iter().map(PairedBf16).collect() // in place
    }

    #[inline(always)]
    fn widen<L: Lanes, const P: usize>(line: &[PairedBf16; P]) -> [f32; P] {
        let mut wide = [0f32; P];
        for j in 0..P {
            wide[j] = from_bf16(line[j].0);
        }
        wide
    }

    #[inline(always)]
    fn line<L: Lanes, const P: usize>(lines: &[[PairedBf16; P]], k: usize) -> [f32; P] {
        let mut wide = [0f32; P];
        let pairs = lines[k / 2 * 2..][..2].as_flattened().as_chunks::<2>().0;
        for (wide, both) in wide.iter_mut().zip(pairs) {
            *wide = from_bf16(both[k % 2].0);
        }
        wide
    }

    #[inline(always)]
    fn arrange<const P: usize>(lines: &mut [[PairedBf16; P]]) {
        for pair in lines.as_chunks_mut::<2>().0 {
            let [first, second] = *pair;
            for (j, place) in pair.as_flattened_mut().as_chunks_mut::<2>().0.iter_mut().enumerate()
            {
                *place = [first[j], second[j]];
            }
        }
    }

    #[inline(always)]
    fn as_tiles<const P: usize>(parts: Parts, lines: &[[PairedBf16; P]]) -> Option<&[PanelTile]> {
        PanelTile::of_lines(parts, lines)
    }

    #[inline(always)]
    fn narrow<L: Lanes, const P: usize>(line: [f32; P]) -> [PairedBf16; P] {
        let mut narrow = [PairedBf16(0); P];
        for j in 0..P {
            narrow[j] = PairedBf16(to_bf16(line[j]));
        }
        narrow
    }
}

impl Number for F16 {
    const PARTS: Parts = Parts::F16;

    fn zeros(len: usize) -> Vec<F16> {
        vec![0u16; len].into_iter().map(F16).collect() // in place
    }

    #[inline(always)]
    fn widen<L: Lanes, const P: usize>(line: &[F16; P]) -> [f32; P] {
        let mut halves = [0u16; P];
        for j in 0..P {
            halves[j] = line[j].0;
        }
        L::halves(halves)
    }

    #[inline(always)]
    fn narrow<L: Lanes, const P: usize>(line: [f32; P]) -> [F16; P] {
        // A weight that became infinite would spoil every sum.
        let halves = L::to_halves(line);
        let mut narrow = [F16(0); P];
        for j in 0..P {
            narrow[j] = F16(halves[j]);
        }
        narrow
    }
}

impl Number for i8 {
    const PARTS: Parts = Parts::Bf16;

    fn zeros(len: usize) -> Vec<i8> {
        vec![0; len]
    }

    #[inline(always)]
    fn widen<L: Lanes, const P: usize>(line: &[i8; P]) -> [f32; P] {
        let mut wide = [0f32; P];
        for j in 0..P {
            wide[j] = f32::from(line[j]);
        }
        wide
    }

    #[inline(always)]
    fn narrow<L: Lanes, const P: usize>(line: [f32; P]) -> [i8; P] {
        let mut narrow = [0i8; P];
        for j in 0..P {
            narrow[j] = nearest(line[j]) as i8;
        }
        narrow
    }
}

/// The f32 whose upper half they are.
#[inline(always)]
fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bf16, ties to even.
#[inline(always)]
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let no_number = bits >> 16 | 0x40;
    (if x.is_nan() { no_number } else { nearest }) as u16
}

/// The whole number nearest to x, ties to even; |x| < 2²², and of what is no number any whose last 8 bits are 0.
/// (`round` is a call on CPUs as old as builds are made for, and a cast looks at each number for itself.)
#[inline(always)]
pub(super) fn nearest(x: f32) -> i32 {
    const FIRST_WITHOUT_FRACTION: f32 = 12_582_912.0; // 3·2²², where floats are a whole number apart
    let bits = |x: f32| x.to_bits().cast_signed();
    bits(x + FIRST_WITHOUT_FRACTION).wrapping_sub(bits(FIRST_WITHOUT_FRACTION))
}

/// Numbers whose first lies at the beginning of a cache line.
pub(super) enum Aligned<T> {
    /// From the allocator: the numbers from `start` on.
    Allocated {
        values: Vec<T>,
        start: usize,
        len: usize,
    },
    Pages(Pages<T>),
}

const LINE: usize = 64;

/// Bytes from which on what lasts has pages of its own.
const LARGE: usize = 64 << 10;

impl<T: Number> Aligned<T> {
    /// So many zeros, for a while: their memory may be some that has been used before.
    pub(super) fn zeros(len: usize) -> Self {
        let spare = LINE / size_of::<T>();
        let values = T::zeros(len + spare);
        let start = values.as_ptr().align_offset(LINE).min(spare);
        Aligned::Allocated { values, start, len }
    }

    /// So many zeros, for as long as the model is there.
    pub(super) fn lasting(len: usize) -> Self {
        let large = len * size_of::<T>() >= LARGE;
        let pages = large.then(|| Pages::zeros(len)).flatten();
        pages.map_or_else(|| Aligned::zeros(len), Aligned::Pages)
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Aligned::Allocated { values, start, len } => &values[*start..start + len],
            Aligned::Pages(pages) => pages,
        }
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Aligned::Allocated { values, start, len } => &mut values[*start..*start + *len],
            Aligned::Pages(pages) => pages,
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::*;
    use crate::native::{Vectorized, f32_to_half, half_to_f32};

    /// Both roundings give the numbers of libtorch's.
    #[test]
    fn halves_are_rounded_as_libtorch_does() {
        let values: Vec<f32> = (0..4000u32)
            .map(|i| {
                let size = 2f32.powi((i % 40) as i32 - 26);
                let value =
                    size * (1.0 + (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0);
                if i % 2 == 0 { value } else { -value }
            })
            .chain([0.0, -0.0, 65504.0, 2f32.powi(-14), 2f32.powi(-25), 1.5 * 2f32.powi(-24)])
            .filter(|value| value.abs() <= 65504.0)
            .collect();
        let tensor = Tensor::from_slice(&values);
        let back = |kind| Vec::<f32>::try_from(tensor.to_kind(kind).to_kind(Kind::Float));
        for (value, expected) in values.iter().zip(back(Kind::BFloat16).expect("numbers")) {
            assert_eq!(from_bf16(to_bf16(*value)), expected, "{value}");
        }
        for (value, expected) in values.iter().zip(back(Kind::Half).expect("numbers")) {
            assert_eq!(half_to_f32(f32_to_half(*value)), expected, "{value}");
        }
        let all: Vec<f32> = values.into_iter().chain([1e9, -1e9, f32::INFINITY]).collect();
        let mut halves = vec![F16::default(); all.len()];
        crate::native::vectorize(Halves { values: &all, halves: &mut halves });
        let halves: Vec<u16> = halves.into_iter().map(|half| half.0).collect();
        let apart: Vec<u16> = all.iter().map(|value| f32_to_half(*value)).collect();
        assert_eq!(halves, apart);
        assert_eq!(half_to_f32(f32_to_half(1e9)), 65504.0);
    }

    struct Halves<'a> {
        values: &'a [f32],
        halves: &'a mut [F16],
    }

    impl Vectorized for Halves<'_> {
        #[inline(always)]
        fn run<L: Lanes, const P: usize>(self) {
            narrow_all::<F16, L, P>(self.values, self.halves, |x| x);
        }
    }
}
