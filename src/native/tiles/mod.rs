//! Products of tiles with f32 sums: of 16-bit numbers by the matrix unit of some CPUs (AMX), and of those or of
//! f32 by the vectors of others (AVX-512).
//!
//! To the matrix unit a number of more bits is a sum of numbers of 16, its parts, and a product of sums one of
//! several products. Everything here is in that unit's shapes: 16 rows, 32 inputs a step, and 32 outputs, which
//! are two tiles side by side and as many as a panel has on a CPU with such vectors.
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18; Henry, Tang
//! and Heinecke, Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations
//! (2019).

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod amx;
mod cut;
mod fetch;
mod lying;
#[cfg(target_arch = "x86_64")]
mod wide;

use std::marker::PhantomData;

use super::vectors::{has_bf16, panel_width};
pub use cut::{Cut, Uncut};
pub use fetch::Fetch;
pub use lying::PairedBf16;

/// Rows of a block.
pub const TILE_ROWS: usize = 16;

/// Inputs of a step.
pub const TILE_INPUTS: usize = 32;

/// Outputs of a block.
pub const TILE_OUTPUTS: usize = 32;

/// What stands for a number of the rows and for one of a panel: so many bf16, or itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// One each: what bf16 holds of a number. One product.
    Single,
    /// Panels that bf16 holds; two for the rows, which keep 17 bits of them. Two products.
    Bf16,
    /// Two each, which hold binary16 and 17 bits of the rows. Three products.
    F16,
    /// Three each, which hold f32. Six products: what is left out is below f32's own rounding.
    F32,
    /// None: f32 as they are, of half of the inputs in one tile and of the others in the next. One product each.
    Whole,
}

/// Who makes the products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
enum Unit {
    Matrix,
    /// AVX-512, with products of bf16 or without.
    Vectors {
        bf16: bool,
    },
}

fn unit() -> Option<Unit> {
    #[cfg(target_arch = "x86_64")]
    {
        if has_matrix_unit() {
            return Some(Unit::Matrix);
        }
        if panel_width() == TILE_OUTPUTS {
            return Some(Unit::Vectors { bf16: has_bf16() });
        }
    }
    None
}

impl Parts {
    /// What is taken on this CPU for what a matrix unit would take as these.
    pub fn here(self) -> Parts {
        match (unit(), self) {
            (Some(Unit::Vectors { bf16: true }), Parts::Single) => Parts::Single,
            (Some(Unit::Vectors { .. }), _) => Parts::Whole,
            _ => self,
        }
    }

    /// Of a number of the rows.
    pub const fn of_rows(self) -> usize {
        match self {
            Parts::Single => 1,
            Parts::Bf16 | Parts::F16 | Parts::Whole => 2,
            Parts::F32 => 3,
        }
    }

    /// Of a number of a panel.
    pub const fn of_panel(self) -> usize {
        match self {
            Parts::Single | Parts::Bf16 => 1,
            Parts::F16 | Parts::Whole => 2,
            Parts::F32 => 3,
        }
    }
}

/// One part of a step of the inputs of 16 rows.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct RowsTile(pub [[u32; TILE_INPUTS / 2]; TILE_ROWS]);

/// One part of a step of a panel: for each pair of inputs the 32 outputs, each as two bf16 (the first input
/// below) or, uncut, as one of the pair.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct PanelTile(pub [[u32; TILE_OUTPUTS]; TILE_INPUTS / 2]);

/// Sums of a block.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Sums(pub [[f32; TILE_OUTPUTS]; TILE_ROWS]);

/// Two blocks of rows and a panel, each with all parts of a step one after the other, the largest first.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    pub rows: [&'a [RowsTile]; 2],
    /// Of the two blocks, those that are there.
    pub height: usize,
    pub panel: &'a [PanelTile],
    /// What is read soon after it. (The matrix unit leaves it where it is.)
    pub next: Fetch,
}

impl RowsTile {
    pub const ZERO: RowsTile = RowsTile([[0; TILE_INPUTS / 2]; TILE_ROWS]);
}

impl PanelTile {
    pub const ZERO: PanelTile = PanelTile([[0; TILE_OUTPUTS]; TILE_INPUTS / 2]);
}

impl Sums {
    pub const ZERO: Sums = Sums([[0.0; TILE_OUTPUTS]; TILE_ROWS]);
}

/// The bits of the bf16 nearest to x (ties away from 0, which takes one addition), as f32. Not for NaN, which may
/// become another number.
#[inline(always)]
fn bf16(x: f32) -> u32 {
    x.to_bits().wrapping_add(0x8000) & 0xffff_0000
}

/// x as the sum of N bf16, the largest first, each in the upper half of its bits. Three hold every x, and
/// are its bits cut in three; two come nearest to it.
#[inline(always)]
pub fn parts<const N: usize>(x: f32) -> [u32; N] {
    let mut rest = x;
    let mut found = [0; N];
    for part in &mut found {
        *part = if N < 3 { bf16(rest) } else { rest.to_bits() & 0xffff_0000 };
        rest -= f32::from_bits(*part);
    }
    found
}

/// Two bf16, each in the upper half of its bits, as the unit takes a pair of inputs.
#[inline(always)]
pub fn pair(first: u32, second: u32) -> u32 {
    (first >> 16) | (second & 0xffff_0000)
}

/// True if this CPU makes products of tiles.
pub fn has_tiles() -> bool {
    unit().is_some()
}

/// True if this CPU has a matrix unit and the system lets this process use it.
pub fn has_matrix_unit() -> bool {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    return amx::allowed();
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    false
}

/// The unit, ready for this thread until it is dropped. Nothing else that the thread does meanwhile may use
/// a matrix unit: libtorch's products may.
pub struct Tiles {
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    unit: Unit,
    /// It is the thread's own.
    _thread: PhantomData<*const ()>,
}

impl Tiles {
    /// # Panics
    /// Where there is none.
    pub fn open() -> Self {
        let unit = unit().expect("tiles on this CPU");
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        if unit == Unit::Matrix {
            // SAFETY: the unit is there and allowed.
            unsafe { amx::open() };
        }
        Tiles { unit, _thread: PhantomData }
    }

    /// Adds to the sums of two blocks of rows (to 0, if `from_zero`) the products of their inputs with those
    /// of a panel. What becomes of the sums of rows that are not there is left open.
    ///
    /// # Panics
    /// Where the three are not of one number of whole steps, or of none, or the unit does not take such parts.
    #[inline]
    pub fn add(&self, parts: Parts, product: Product, sums: [&mut Sums; 2], from_zero: bool) {
        let Product { rows, height, panel, next } = product;
        let steps = panel.len() / parts.of_panel();
        assert_eq!(panel.len(), steps * parts.of_panel(), "whole steps");
        let fit = |rows: &[RowsTile]| rows.len() == steps * parts.of_rows();
        assert!(rows.into_iter().all(fit), "as many as the panel");
        assert!(steps > 0, "a product of something");
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the unit is there and open; each pointer is to as many steps as the panel has, and the
        // sums are of one block each.
        unsafe {
            let (rows, panel) = (rows.map(<[RowsTile]>::as_ptr), panel.as_ptr());
            match (self.unit, parts) {
                #[cfg(target_os = "linux")]
                (Unit::Matrix, Parts::Single) => amx::single(rows, panel, steps, sums, from_zero),
                #[cfg(target_os = "linux")]
                (Unit::Matrix, Parts::Bf16) => amx::bf16(rows, panel, steps, sums, from_zero),
                #[cfg(target_os = "linux")]
                (Unit::Matrix, Parts::F16) => amx::f16(rows, panel, steps, sums, from_zero),
                #[cfg(target_os = "linux")]
                (Unit::Matrix, Parts::F32) => amx::f32(rows, panel, steps, sums, from_zero),
                (Unit::Vectors { bf16: true }, Parts::Single) => {
                    wide::single(rows, height, panel, steps, next, sums, from_zero);
                }
                // Whoever has a matrix unit has such vectors too.
                (_, Parts::Whole) => {
                    wide::whole(rows, height, panel, 2 * steps, next, sums, from_zero);
                }
                (unit, parts) => panic!("{unit:?} does not take {parts:?}"),
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        if self.unit == Unit::Matrix {
            // SAFETY: the unit is there and allowed.
            unsafe { amx::close() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: usize = 3;
    const ALL: [Parts; 5] = [Parts::Single, Parts::Bf16, Parts::F16, Parts::F32, Parts::Whole];

    /// Two inputs as the tiles of a step hold them, a number a tile.
    fn split(kind: Parts, count: usize, [first, second]: [f32; 2]) -> Vec<u32> {
        let join = |first: &[u32], second: &[u32]| -> Vec<u32> {
            first.iter().zip(second).map(|(first, second)| pair(*first, *second)).collect()
        };
        match (kind, count) {
            (Parts::Whole, _) => vec![first.to_bits(), second.to_bits()],
            (_, 1) => join(&parts::<1>(first), &parts::<1>(second)),
            (_, 2) => join(&parts::<2>(first), &parts::<2>(second)),
            _ => join(&parts::<3>(first), &parts::<3>(second)),
        }
    }

    fn block(kind: Parts, x: impl Fn(usize, usize) -> f32) -> Vec<RowsTile> {
        let count = kind.of_rows();
        let mut tiles = vec![RowsTile::ZERO; STEPS * count];
        for (input, row) in
            (0..STEPS * 16).flat_map(|pair| (0..TILE_ROWS).map(move |row| (pair, row)))
        {
            let both = [x(row, input * 2), x(row, input * 2 + 1)];
            for (part, number) in split(kind, count, both).into_iter().enumerate() {
                tiles[input / 16 * count + part].0[row][input % 16] = number;
            }
        }
        tiles
    }

    fn panel(kind: Parts, weight: impl Fn(usize, usize) -> f32) -> Vec<PanelTile> {
        let count = kind.of_panel();
        let mut tiles = vec![PanelTile::ZERO; STEPS * count];
        for (input, output) in
            (0..STEPS * 16).flat_map(|pair| (0..TILE_OUTPUTS).map(move |output| (pair, output)))
        {
            let both = [weight(output, input * 2), weight(output, input * 2 + 1)];
            for (part, number) in split(kind, count, both).into_iter().enumerate() {
                tiles[input / 16 * count + part].0[input % 16][output] = number;
            }
        }
        tiles
    }

    /// Numbers of as many bits as each type holds, against sums in f64.
    #[test]
    fn tiles_add_up_what_rows_and_panels_hold() {
        if !has_tiles() {
            return; // what it does instead is tested with the panels
        }
        // What a unit takes here of all that it is asked for.
        let taken = |parts: &Parts| parts.here() == *parts || *parts == Parts::Whole;
        for parts in ALL.into_iter().filter(taken) {
            // So many bits of a weight are not 0.
            let bits = match parts {
                Parts::Single | Parts::Bf16 => 8,
                Parts::F16 => 11,
                Parts::F32 | Parts::Whole => 24,
            };
            let wave = |i: usize| (i as f64 * 0.7312).sin() as f32;
            let kept = |x: f32| match parts {
                Parts::Single => f32::from_bits(bf16(x)),
                _ => x,
            };
            let x = |row: usize, input: usize| kept(wave(row * 131 + input * 7));
            let weight = |output: usize, input: usize| {
                let places = 2f32.powi(bits - 1);
                (wave(output * 57 + input * 3) * places).round() / places
            };
            let rows = block(parts, x);
            let more = block(parts, |row, input| x(row + TILE_ROWS, input));
            let panel = panel(parts, weight);
            let mut sums = [Sums::ZERO, Sums::ZERO];
            sums[1].0[2][5] = 1000.0;
            let [first, second] = &mut sums;
            let unit = Tiles::open();
            let product = |height| Product {
                rows: [&rows, &more],
                height,
                panel: &panel,
                next: Fetch::of(&rows),
            };
            unit.add(parts, product(2 * TILE_ROWS), [first, second], false);
            let mut others = [Sums([[7.0; TILE_OUTPUTS]; TILE_ROWS]), sums[1].clone()];
            unit.add(parts, product(TILE_ROWS), others.each_mut(), true);
            let mut few = [Sums::ZERO, Sums::ZERO];
            unit.add(parts, product(TILE_ROWS + 3), few.each_mut(), true);
            drop(unit);
            assert_eq!(others[0].0, sums[0].0);
            assert_eq!((&few[0].0, &few[1].0[..2]), (&sums[0].0, &sums[1].0[..2]));
            let bound = if parts == Parts::F32 { 4e-6 } else { 1e-4 };
            for row in 0..2 * TILE_ROWS {
                for output in 0..TILE_OUTPUTS {
                    let product =
                        |input| f64::from(x(row, input)) * f64::from(weight(output, input));
                    let mut expected: f64 = (0..STEPS * TILE_INPUTS).map(product).sum();
                    let found = sums[row / TILE_ROWS].0[row % TILE_ROWS][output];
                    let mut bound = bound;
                    if (row, output) == (18, 5) {
                        (expected, bound) = (expected + 1000.0, 1e-3);
                    }
                    let error = (f64::from(found) - expected).abs();
                    assert!(error < bound, "{parts:?}, row {row}, output {output}: {error:e}");
                }
            }
        }
    }

    #[test]
    fn three_parts_keep_all_bits_and_two_17() {
        let sum = |parts: &[u32]| parts.iter().map(|part| f32::from_bits(*part)).sum::<f32>();
        for i in 1..10_000u32 {
            let x = f32::from_bits(0x3a00_0000 + i.wrapping_mul(2_654_435_761) % 0x0a00_0000);
            for x in [x, -x] {
                let two = sum(&parts::<2>(x));
                assert!((two - x).abs() <= x.abs() * 2f32.powi(-17), "{x} became {two}");
                assert_eq!(sum(&parts::<3>(x)), x);
            }
        }
        assert_eq!(parts::<3>(0.0), [0; 3]);
        assert!(f32::from_bits(parts::<3>(f32::NAN)[0]).is_nan());
    }
}
