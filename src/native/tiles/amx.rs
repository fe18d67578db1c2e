//! What the matrix unit is told, in its own instructions.

use std::arch::asm;
use std::sync::OnceLock;

use super::{PanelTile, RowsTile, Sums};

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

/// Gives the tiles their shapes.
///
/// # Safety
/// The unit is there and allowed.
pub(super) unsafe fn open() {
    // SAFETY: the caller's; what is read is as large as the unit reads.
    unsafe { asm!("ldtilecfg [{shapes}]", shapes = in(reg) &SHAPES, options(nostack, readonly)) };
}

/// Gives the tiles back: a thread's state is small again.
///
/// # Safety
/// The unit is there and allowed.
pub(super) unsafe fn close() {
    // SAFETY: the caller's.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// A function that adds to the sums of two blocks, which lie in tiles 0 to 3, over all steps. The lines in
/// the middle are those of a step, in which tiles 4 and 5 hold a part of the panel and 6 and 7 one of the rows;
/// the numbers are the bytes of a step of the rows and of the panel. `from_zero`: the sums are not read.
macro_rules! products {
    ($name:ident, $rows:literal, $panel:literal, $($line:expr),*) => {
        pub(super) unsafe fn $name(
            [rows, more]: [*const RowsTile; 2],
            panel: *const PanelTile,
            steps: usize,
            [sums, others]: [&mut Sums; 2],
            from_zero: bool,
        ) {
            // SAFETY: the caller's.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "test {from_zero}, {from_zero}",
                    "jnz 2f",
                    "tileloadd tmm0, [{sums} + {line}]",
                    "tileloadd tmm1, [{sums} + {line} + 64]",
                    "tileloadd tmm2, [{others} + {line}]",
                    "tileloadd tmm3, [{others} + {line} + 64]",
                    "2:",
                    $($line,)*
                    concat!("add {panel}, ", $panel),
                    concat!("add {rows}, ", $rows),
                    concat!("add {more}, ", $rows),
                    "dec {count}",
                    "jnz 2b",
                    "tilestored [{sums} + {line}], tmm0",
                    "tilestored [{sums} + {line} + 64], tmm1",
                    "tilestored [{others} + {line}], tmm2",
                    "tilestored [{others} + {line} + 64], tmm3",
                    rows = inout(reg) rows => _,
                    more = inout(reg) more => _,
                    panel = inout(reg) panel => _,
                    count = inout(reg) steps => _,
                    sums = in(reg) sums,
                    others = in(reg) others,
                    from_zero = in(reg) usize::from(from_zero),
                    row = in(reg) ROW,
                    line = in(reg) LINE,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                );
            }
        }
    };
}

/// Takes the part of the panel that begins at so many bytes.
macro_rules! panel {
    ($at:literal, $right:literal) => {
        concat!(
            "tileloadd tmm4, [{panel} + {line} + ",
            $at,
            "]\n",
            "tileloadd tmm5, [{panel} + {line} + ",
            $right,
            "]"
        )
    };
}

/// Takes the part of the rows that begins at so many bytes.
macro_rules! rows {
    ($at:literal) => {
        concat!(
            "tileloadd tmm6, [{rows} + {row} + ",
            $at,
            "]\n",
            "tileloadd tmm7, [{more} + {row} + ",
            $at,
            "]"
        )
    };
}

/// Adds the products of the parts that were taken.
macro_rules! add {
    () => {
        "tdpbf16ps tmm0, tmm6, tmm4
         tdpbf16ps tmm1, tmm6, tmm5
         tdpbf16ps tmm2, tmm7, tmm4
         tdpbf16ps tmm3, tmm7, tmm5"
    };
}

products!(single, 1024, 2048, panel!(0, 64), rows!(0), add!());

products!(bf16, 2048, 2048, panel!(0, 64), rows!(0), add!(), rows!(1024), add!());

products!(
    f16,
    2048,
    4096,
    panel!(0, 64),
    rows!(1024),
    add!(),
    rows!(0),
    add!(),
    panel!(2048, 2112),
    add!()
);

// Parts of the rows times the first of the panel, then the second, then the third: as few loads as can be.
products!(
    f32,
    3072,
    6144,
    panel!(0, 64),
    rows!(0),
    add!(),
    rows!(2048),
    add!(),
    rows!(1024),
    add!(),
    panel!(2048, 2112),
    add!(),
    rows!(0),
    add!(),
    panel!(4096, 4160),
    add!()
);
