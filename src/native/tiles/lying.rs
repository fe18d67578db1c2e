//! Lines of panels that are tiles where they lie.

use super::{PanelTile, Parts, TILE_INPUTS, TILE_OUTPUTS};

/// bfloat16, the upper half of an f32, of two lines that lie side by side, number by number.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct PairedBf16(pub u16);

/// Numbers that tiles are made of as they are.
///
/// # Safety
/// They are 16 or 32 bits, all of which belong to the number.
pub unsafe trait Bits: Copy {
    /// Of what the tiles are.
    const PARTS: Parts;
}

// SAFETY: they are.
unsafe impl Bits for f32 {
    const PARTS: Parts = Parts::Whole;
}

// SAFETY: they are.
unsafe impl Bits for PairedBf16 {
    const PARTS: Parts = Parts::Single;
}

impl PanelTile {
    /// Lines of a panel as tiles of such parts, where they lie; None unless they are of whole steps and lie as tiles of
    /// these parts do.
    pub fn of_lines<T: Bits, const P: usize>(
        parts: Parts,
        lines: &[[T; P]],
    ) -> Option<&[PanelTile]> {
        let start = lines.as_ptr().cast::<PanelTile>();
        let are_steps = P == TILE_OUTPUTS && lines.len().is_multiple_of(TILE_INPUTS);
        if parts != T::PARTS || !are_steps || !start.is_aligned() {
            return None;
        }
        // SAFETY: a step of either is one or two whole tiles, and any bits are a tile; they are aligned, and live
        // as long.
        Some(unsafe { std::slice::from_raw_parts(start, size_of_val(lines) / size_of::<Self>()) })
    }
}
