//! The matrix unit of some CPUs (AMX): products of tiles of 16-bit numbers with f32 sums.
//!
//! Everything here is in the unit's own shapes: 16 rows, 32 inputs a step, and 32 outputs, which are two
//! tiles side by side and as many as a panel has on a CPU with such a unit.
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.

/// Rows of a block.
pub const TILE_ROWS: usize = 16;

/// Inputs of a step.
pub const TILE_INPUTS: usize = 32;

/// Outputs of a block.
pub const TILE_OUTPUTS: usize = 32;

/// A step of the inputs of 16 rows: each number as the sum of two bf16, which keeps 16 bits of it.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct RowsStep {
    upper: [[u16; TILE_INPUTS]; TILE_ROWS],
    rest: [[u16; TILE_INPUTS]; TILE_ROWS],
}

/// A step of a panel: for each pair of inputs the 32 outputs, each as two bf16 (the first input below).
#[derive(Clone)]
#[repr(C, align(64))]
pub struct PanelStep(pub [[u32; TILE_OUTPUTS]; TILE_INPUTS / 2]);

/// Sums of a block.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Sums(pub [[f32; TILE_OUTPUTS]; TILE_ROWS]);

impl RowsStep {
    pub const ZERO: RowsStep =
        RowsStep { upper: [[0; TILE_INPUTS]; TILE_ROWS], rest: [[0; TILE_INPUTS]; TILE_ROWS] };

    /// Sets the inputs of one row, the others of which stay 0.
    #[inline(always)]
    pub fn set(&mut self, row: usize, inputs: &[f32]) {
        let places = self.upper[row].iter_mut().zip(&mut self.rest[row]);
        for ((upper, rest), x) in places.zip(inputs) {
            let rounded = bf16(*x);
            *upper = (rounded >> 16) as u16;
            *rest = (bf16(x - f32::from_bits(rounded)) >> 16) as u16;
        }
    }
}

impl PanelStep {
    pub const ZERO: PanelStep = PanelStep([[0; TILE_OUTPUTS]; TILE_INPUTS / 2]);
}

impl Sums {
    pub const ZERO: Sums = Sums([[0.0; TILE_OUTPUTS]; TILE_ROWS]);
}

/// The bits of the bf16 nearest to x (ties to even), as f32. Not for NaN, which may become infinite.
#[inline(always)]
fn bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000
}

/// True if this CPU has such a unit and the system lets this process use it.
pub fn has_tiles() -> bool {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    return unit::allowed();
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    false
}

/// Adds to the sums of one or two blocks of rows the products of their inputs with those of a panel.
///
/// # Panics
/// Where there is no such unit, where there are no rows or those of more than two blocks, and where the
/// rows have another number of steps than the panel.
pub fn add_tiles(rows: &[&[RowsStep]], panel: &[PanelStep], sums: &mut [Sums]) {
    assert!(has_tiles(), "this CPU has no matrix unit");
    assert!(rows.iter().all(|rows| rows.len() == panel.len()), "as many steps as the panel has");
    assert_eq!(rows.len(), sums.len());
    if panel.is_empty() {
        return;
    }
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    // SAFETY: the unit is there and allowed; each pointer is to as many steps as the panel has, and the
    // sums are of one block each.
    unsafe {
        match (rows, sums) {
            ([rows], [sums]) => unit::one(rows, panel, sums),
            ([rows, more], [sums, others]) => unit::two([rows, more], panel, [sums, others]),
            _ => panic!("one block of rows or two"),
        }
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod unit {
    use std::arch::asm;
    use std::sync::OnceLock;

    use super::{PanelStep, RowsStep, Sums};

    /// What a tile's rows are apart in memory: those of rows, those of panels and sums.
    const ROW: usize = 64;
    const LINE: usize = 128;

    /// The shapes of the eight tiles: all are 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        start: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    static SHAPES: Shapes = Shapes {
        palette: 1,
        start: 0,
        reserved: [0; 14],
        bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    pub(super) fn allowed() -> bool {
        /// arch_prctl: asks for a state that is not given to a process by itself (Linux,
        /// Documentation/arch/x86/xstate.rst); 18 is that of the tiles.
        const REQUEST: libc::c_int = 0x1023;
        const TILES: libc::c_ulong = 18;
        static FOUND: OnceLock<bool> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let there = std::arch::x86_64::__cpuid_count(7, 0).edx;
            let (bf16, tiles) = (there >> 22 & 1 == 1, there >> 24 & 1 == 1);
            // SAFETY: a request that a kernel without such states answers with an error.
            let granted = || unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILES) } == 0;
            std::arch::is_x86_feature_detected!("avx512f") && bf16 && tiles && granted()
        })
    }

    /// Sums of the uppers lie in tiles 0 and 1, those of the rests in 2 and 3: one sum waits for the last.
    pub(super) unsafe fn one(rows: &[RowsStep], panel: &[PanelStep], sums: &mut Sums) {
        let mut rests = Sums::ZERO;
        // SAFETY: the caller's.
        unsafe {
            asm!(
                "ldtilecfg [{shapes}]",
                "tileloadd tmm0, [{sums} + {line}]",
                "tileloadd tmm1, [{sums} + {line} + 64]",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{panel} + {line}]",
                "tileloadd tmm5, [{panel} + {line} + 64]",
                "tileloadd tmm6, [{rows} + {row}]",
                "tileloadd tmm7, [{rows} + {row} + 1024]",
                "tdpbf16ps tmm0, tmm6, tmm4",
                "tdpbf16ps tmm1, tmm6, tmm5",
                "tdpbf16ps tmm2, tmm7, tmm4",
                "tdpbf16ps tmm3, tmm7, tmm5",
                "add {panel}, 2048",
                "add {rows}, 2048",
                "dec {count}",
                "jnz 2b",
                "tilestored [{sums} + {line}], tmm0",
                "tilestored [{sums} + {line} + 64], tmm1",
                "tilestored [{rests} + {line}], tmm2",
                "tilestored [{rests} + {line} + 64], tmm3",
                "tilerelease",
                shapes = in(reg) &SHAPES,
                rows = inout(reg) rows.as_ptr() => _,
                panel = inout(reg) panel.as_ptr() => _,
                count = inout(reg) panel.len() => _,
                sums = in(reg) sums,
                rests = in(reg) &mut rests,
                row = in(reg) ROW,
                line = in(reg) LINE,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
        for (sums, rests) in sums.0.as_flattened_mut().iter_mut().zip(rests.0.as_flattened()) {
            *sums += rests;
        }
    }

    /// Sums of the first block lie in tiles 0 and 1, those of the second in 2 and 3.
    pub(super) unsafe fn two(
        [rows, more]: [&[RowsStep]; 2],
        panel: &[PanelStep],
        [sums, others]: [&mut Sums; 2],
    ) {
        // SAFETY: the caller's.
        unsafe {
            asm!(
                "ldtilecfg [{shapes}]",
                "tileloadd tmm0, [{sums} + {line}]",
                "tileloadd tmm1, [{sums} + {line} + 64]",
                "tileloadd tmm2, [{others} + {line}]",
                "tileloadd tmm3, [{others} + {line} + 64]",
                "2:",
                "tileloadd tmm4, [{panel} + {line}]",
                "tileloadd tmm5, [{panel} + {line} + 64]",
                "tileloadd tmm6, [{rows} + {row}]",
                "tileloadd tmm7, [{more} + {row}]",
                "tdpbf16ps tmm0, tmm6, tmm4",
                "tdpbf16ps tmm1, tmm6, tmm5",
                "tdpbf16ps tmm2, tmm7, tmm4",
                "tdpbf16ps tmm3, tmm7, tmm5",
                "tileloadd tmm6, [{rows} + {row} + 1024]",
                "tileloadd tmm7, [{more} + {row} + 1024]",
                "tdpbf16ps tmm0, tmm6, tmm4",
                "tdpbf16ps tmm1, tmm6, tmm5",
                "tdpbf16ps tmm2, tmm7, tmm4",
                "tdpbf16ps tmm3, tmm7, tmm5",
                "add {panel}, 2048",
                "add {rows}, 2048",
                "add {more}, 2048",
                "dec {count}",
                "jnz 2b",
                "tilestored [{sums} + {line}], tmm0",
                "tilestored [{sums} + {line} + 64], tmm1",
                "tilestored [{others} + {line}], tmm2",
                "tilestored [{others} + {line} + 64], tmm3",
                "tilerelease",
                shapes = in(reg) &SHAPES,
                rows = inout(reg) rows.as_ptr() => _,
                more = inout(reg) more.as_ptr() => _,
                panel = inout(reg) panel.as_ptr() => _,
                count = inout(reg) panel.len() => _,
                sums = in(reg) sums,
                others = in(reg) others,
                row = in(reg) ROW,
                line = in(reg) LINE,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a sum of two bf16 keeps of x.
    fn kept(x: f32) -> f32 {
        let upper = f32::from_bits(bf16(x));
        upper + f32::from_bits(bf16(x - upper))
    }

    /// Small whole numbers, whose products and sums are exact in any order.
    #[test]
    fn tiles_add_up_what_rows_and_panels_hold() {
        if !has_tiles() {
            return; // what it does instead is tested with the panels
        }
        const STEPS: usize = 3;
        let x = |row: usize, input: usize| ((row * 31 + input * 7) % 1001) as f32 - 500.0;
        let weight = |output: usize, input: usize| ((output * 5 + input * 3) % 127) as f32 - 63.0;
        let block = |first: usize| {
            let mut steps = vec![RowsStep::ZERO; STEPS];
            for (step, place) in steps.iter_mut().enumerate() {
                for row in 0..TILE_ROWS {
                    let inputs: [f32; TILE_INPUTS] =
                        std::array::from_fn(|input| x(first + row, step * TILE_INPUTS + input));
                    place.set(row, &inputs);
                }
            }
            steps
        };
        let (rows, more) = (block(0), block(TILE_ROWS));
        let mut panel = vec![PanelStep::ZERO; STEPS];
        for (step, place) in panel.iter_mut().enumerate() {
            for (pair, line) in place.0.iter_mut().enumerate() {
                for (output, place) in line.iter_mut().enumerate() {
                    let number = |of| weight(output, step * TILE_INPUTS + pair * 2 + of).to_bits();
                    *place = (number(0) >> 16) | (number(1) & 0xffff_0000);
                }
            }
        }
        let mut sums = [Sums::ZERO, Sums::ZERO];
        add_tiles(&[&rows, &more], &panel, &mut sums);
        let mut alone = [Sums::ZERO];
        alone[0].0[2][5] = 1000.0;
        add_tiles(&[&more], &panel, &mut alone);
        for row in 0..2 * TILE_ROWS {
            for output in 0..TILE_OUTPUTS {
                let inputs = 0..STEPS * TILE_INPUTS;
                let expected: f32 = inputs.map(|input| x(row, input) * weight(output, input)).sum();
                let found = sums[row / TILE_ROWS].0[row % TILE_ROWS][output];
                assert_eq!(found, expected, "row {row}, output {output}");
                if row >= TILE_ROWS {
                    let first = if (row, output) == (18, 5) { 1000.0 } else { 0.0 };
                    assert_eq!(alone[0].0[row - TILE_ROWS][output], expected + first);
                }
            }
        }
    }

    #[test]
    fn two_halves_keep_16_bits() {
        for i in 1..10_000u32 {
            let x = f32::from_bits(0x3a00_0000 + i.wrapping_mul(2_654_435_761) % 0x0a00_0000);
            for x in [x, -x] {
                assert!((kept(x) - x).abs() <= x.abs() * 2f32.powi(-17), "{x} became {}", kept(x));
            }
        }
        assert_eq!(kept(0.0), 0.0);
    }
}
