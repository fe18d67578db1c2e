//! Vector units: work that is compiled for each kind of them.

use std::sync::OnceLock;

/// Arithmetic of one kind of vector unit. Only `vectorize` hands one out, on a CPU that has it.
pub trait Lanes {
    /// sums += line·x, each in one rounding where the unit has that.
    fn add_product<const P: usize>(sums: &mut [f32; P], line: &[f32; P], x: f32);

    /// binary16 -> f32
    fn halves<const P: usize>(line: [u16; P]) -> [f32; P];
}

/// Work that is compiled once for each kind of vector unit; `P` is `panel_width()`.
///
/// `run` and all it calls have to be `#[inline(always)]`, else they are compiled for the oldest CPU.
pub trait Vectorized {
    fn run<L: Lanes, const P: usize>(self);
}

/// The vector units that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Plain,
}

fn unit() -> Unit {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if avx2 && avx512 {
            return Unit::Avx512;
        }
        if avx2 {
            return Unit::Avx2;
        }
    }
    Unit::Plain
}

/// True if this CPU has AVX2, which FBGEMM asks for.
pub fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// True if this CPU multiplies bf16 itself.
pub fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// True if this CPU has a matrix unit for whole numbers (AMX), which oneDNN uses and FBGEMM does not.
pub(super) fn has_matrix_unit() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        flags.split_whitespace().any(|flag| flag == "amx_int8")
    })
}

/// Numbers of a line that suits this CPU's registers.
pub fn panel_width() -> usize {
    match unit() {
        #[cfg(target_arch = "x86_64")]
        Unit::Avx512 => 32,
        _ => 16,
    }
}

/// Runs `work` as compiled for the widest vectors that this CPU has.
pub fn vectorize(work: impl Vectorized) {
    match unit() {
        // SAFETY: `unit` found what these two ask for.
        #[cfg(target_arch = "x86_64")]
        Unit::Avx512 => unsafe { x86::avx512(work) },
        #[cfg(target_arch = "x86_64")]
        Unit::Avx2 => unsafe { x86::avx2(work) },
        Unit::Plain => work.run::<Plain, 16>(),
    }
}

struct Plain;

impl Lanes for Plain {
    #[inline(always)]
    fn add_product<const P: usize>(sums: &mut [f32; P], line: &[f32; P], x: f32) {
        for (sum, a) in sums.iter_mut().zip(line) {
            // Without such an instruction `mul_add` is a function call.
            *sum = if cfg!(target_arch = "aarch64") { a.mul_add(x, *sum) } else { a * x + *sum };
        }
    }

    #[inline(always)]
    fn halves<const P: usize>(line: [u16; P]) -> [f32; P] {
        let mut wide = [0f32; P];
        for (wide, half) in wide.iter_mut().zip(line) {
            *wide = half_to_f32(half);
        }
        wide
    }
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

#[cfg(target_arch = "x86_64")]
mod x86 {
    // Written with the unit's own instructions: left to itself, the compiler makes vectors of the rows of a
    // product rather than of its outputs, which is ten times slower.
    use std::arch::x86_64::{
        __m128i, __m256i, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps,
        _mm256_storeu_ps, _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps,
        _mm512_storeu_ps,
    };

    use super::{Lanes, Vectorized};

    struct Avx512;
    struct Avx2;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(super) fn avx512(work: impl Vectorized) {
        work.run::<Avx512, 32>();
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn avx2(work: impl Vectorized) {
        work.run::<Avx2, 16>();
    }

    impl Lanes for Avx512 {
        #[inline(always)]
        fn add_product<const P: usize>(sums: &mut [f32; P], line: &[f32; P], x: f32) {
            let (sums, _) = sums.as_chunks_mut::<16>();
            let (line, _) = line.as_chunks::<16>();
            for (sums, line) in sums.iter_mut().zip(line) {
                // SAFETY: as below; the chunks are as long as what is read and written.
                unsafe {
                    let line = _mm512_loadu_ps(line.as_ptr());
                    let sum = _mm512_loadu_ps(sums.as_ptr());
                    let sum = _mm512_fmadd_ps(line, _mm512_set1_ps(x), sum);
                    _mm512_storeu_ps(sums.as_mut_ptr(), sum);
                }
            }
        }

        #[inline(always)]
        fn halves<const P: usize>(line: [u16; P]) -> [f32; P] {
            let (parts, _) = line.as_chunks::<16>();
            // SAFETY: `Avx512` is only handed out inside `avx512`; the types have the same size, and
            // every bit pattern is a number.
            let mut wide = [0f32; P];
            for (i, part) in parts.iter().enumerate() {
                let found: [f32; 16] = unsafe {
                    let part = std::mem::transmute::<[u16; 16], __m256i>(*part);
                    std::mem::transmute(_mm512_cvtph_ps(part))
                };
                wide[i * 16..][..16].copy_from_slice(&found);
            }
            wide
        }
    }

    impl Lanes for Avx2 {
        #[inline(always)]
        fn add_product<const P: usize>(sums: &mut [f32; P], line: &[f32; P], x: f32) {
            let (sums, _) = sums.as_chunks_mut::<8>();
            let (line, _) = line.as_chunks::<8>();
            for (sums, line) in sums.iter_mut().zip(line) {
                // SAFETY: as below; the chunks are as long as what is read and written.
                unsafe {
                    let line = _mm256_loadu_ps(line.as_ptr());
                    let sum = _mm256_loadu_ps(sums.as_ptr());
                    let sum = _mm256_fmadd_ps(line, _mm256_set1_ps(x), sum);
                    _mm256_storeu_ps(sums.as_mut_ptr(), sum);
                }
            }
        }

        #[inline(always)]
        fn halves<const P: usize>(line: [u16; P]) -> [f32; P] {
            let (parts, _) = line.as_chunks::<8>();
            // SAFETY: as above, inside `avx2`.
            let mut wide = [0f32; P];
            for (i, part) in parts.iter().enumerate() {
                let found: [f32; 8] = unsafe {
                    let part = std::mem::transmute::<[u16; 8], __m128i>(*part);
                    std::mem::transmute(_mm256_cvtph_ps(part))
                };
                wide[i * 8..][..8].copy_from_slice(&found);
            }
            wide
        }
    }
}

/// The numbers of a vector made one, half by half.
#[inline(always)]
pub fn across<const P: usize>(mut numbers: [f32; P], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = P / 2;
    while half > 0 {
        for i in 0..half {
            numbers[i] = join(numbers[i], numbers[i + half]);
        }
        half /= 2;
    }
    numbers[0]
}

/// Asks the CPU to fetch the cache lines of `lines[index]`; past the end nothing happens.
#[inline(always)]
pub fn prefetch<T>(lines: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = lines.as_ptr().wrapping_add(index).cast::<i8>();
        for offset in (0..size_of::<T>()).step_by(64) {
            // SAFETY: a hint that reads nothing, allowed on any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (lines, index);
}
