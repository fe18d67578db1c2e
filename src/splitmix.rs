//! SplitMix64 (Steele, Lea and Flood 2014): a counter through a mixer. Generation, augmentation and the
//! seeds of dropout draw their numbers from it.

/// What the counter grows by.
pub const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The mixer.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A mixed number as one of [0, 1), 53 bits of it.
pub fn unit(mixed: u64) -> f64 {
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}
