//! What the weights of a packed matrix are kept as.

use anyhow::{Result, ensure};

use crate::native;

/// What the weights of a packed matrix are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    F32,
    Bf16,
    F16,
    /// Whole numbers of 8 bits with a scale for each output.
    Int8,
}

impl Packing {
    /// The type that is fastest on this CPU of those that leave texts as they are in f32.
    ///
    /// f16 has 11 bits of a weight. Where products of tiles are made here, encoders are as fast so as in f32 or
    /// faster, and a step of the decoder reads half as much; on other CPUs it gains little, and packing takes
    /// longer.
    pub fn auto() -> Self {
        if native::has_tiles() { Packing::F16 } else { Packing::F32 }
    }

    /// Bytes of a weight.
    pub fn bytes(self) -> usize {
        match self {
            Packing::F32 => 4,
            Packing::Bf16 | Packing::F16 => 2,
            Packing::Int8 => 1,
        }
    }

    /// Bytes of a weight that a draft, which is in int8, need not read.
    pub fn spared_by_drafts(self) -> usize {
        self.bytes() - Packing::Int8.bytes()
    }

    /// An error, in a sentence, where this CPU or this build does not serve the type.
    pub fn check(self) -> Result<()> {
        if self == Packing::F32 {
            return Ok(());
        }
        ensure!(
            native::has_operators(),
            "this vedm was built without libtorch's headers, so a CPU is served in f32 alone; use \
             --dtype f32"
        );
        match self {
            Packing::Bf16 => ensure!(
                native::has_bf16(),
                "this CPU does not multiply bf16 itself (it lacks AVX512_BF16) and would be slower than \
                 in f32; use --dtype f16, int8 or f32"
            ),
            _ => ensure!(
                native::has_avx2(),
                "this CPU lacks AVX2, without which f16 and int8 are not served; use --dtype f32"
            ),
        }
        Ok(())
    }
}
