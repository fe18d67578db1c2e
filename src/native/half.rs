//! IEEE 754 binary16 without the CPU's own instructions.

/// The upper half of an f32.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct Bf16(pub u16);

/// IEEE 754 binary16.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct F16(pub u16);

/// The largest finite binary16.
pub(super) const LARGEST: f32 = 65504.0;

/// f32 -> binary16 as `Lanes::to_halves` says.
#[inline(always)]
pub fn f32_to_half(x: f32) -> u16 {
    let sign = ((x.to_bits() >> 16) & 0x8000) as u16;
    if x.is_nan() {
        return sign | 0x7e00;
    }
    let size = x.abs().min(LARGEST);
    // Below 2^-14 the steps are those of a whole number of 2^-24.
    if size < 2f32.powi(-14) {
        return sign | (size * 2f32.powi(24)).round_ties_even() as u16;
    }
    let bits = size.to_bits();
    let rounded = bits + 0xfff + ((bits >> 13) & 1);
    sign | ((rounded >> 13) - (112 << 10)) as u16
}

/// binary16 -> f32, exact.
#[inline(always)]
pub fn half_to_f32(half: u16) -> f32 {
    let (sign, size) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7fff) << 13);
    // The exponent of f32 counts from 112 lower; the product sets it right, for the smallest numbers too.
    let value = f32::from_bits(size) * f32::from_bits(0x7780_0000);
    let value = if half & 0x7c00 == 0x7c00 { f32::from_bits(size | 0x7f80_0000) } else { value };
    f32::from_bits(value.to_bits() | sign)
}
