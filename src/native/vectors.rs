//! Vector units: work that is compiled for each kind of them.

use std::sync::OnceLock;

use super::half::{LARGEST, f32_to_half, half_to_f32};
use super::tiles::Cut;
use super::turn;

/// Arithmetic of one kind of vector unit. Only `vectorize` hands one out, on a CPU that has it.
pub trait Lanes: Cut {
    /// sums += line·x, each in one rounding where the unit has that.
    fn add_product<const P: usize>(sums: &mut [f32; P], line: &[f32; P], x: f32);

    /// a·b + c, in one rounding where the unit has that.
    fn fused(a: f32, b: f32, c: f32) -> f32;

    /// binary16 -> f32
    fn halves<const P: usize>(line: [u16; P]) -> [f32; P];

    /// f32 -> the nearest binary16, ties to even; what is too large becomes the largest finite number.
    fn to_halves<const P: usize>(line: [f32; P]) -> [u16; P];

    /// Columns of a square become rows, each `apart` numbers after the one before.
    #[inline(always)]
    fn turn(square: &[[u32; 16]; 16], to: &mut [u32], apart: usize) {
        turn::plainly(square, to, apart);
    }
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
pub(super) fn has_amx_int8() -> bool {
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

impl Cut for Plain {}

impl Lanes for Plain {
    #[inline(always)]
    fn add_product<const P: usize>(sums: &mut [f32; P], line: &[f32; P], x: f32) {
        for (sum, a) in sums.iter_mut().zip(line) {
            *sum = Self::fused(*a, x, *sum);
        }
    }

    #[inline(always)]
    fn fused(a: f32, b: f32, c: f32) -> f32 {
        // Without such an instruction `mul_add` is a function call.
        if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
    }

    #[inline(always)]
    fn halves<const P: usize>(line: [u16; P]) -> [f32; P] {
        let mut wide = [0f32; P];
        for (wide, half) in wide.iter_mut().zip(line) {
            *wide = half_to_f32(half);
        }
        wide
    }

    #[inline(always)]
    fn to_halves<const P: usize>(line: [f32; P]) -> [u16; P] {
        line.map(f32_to_half)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    // Written with the unit's own instructions: left to itself, the compiler makes vectors of the rows of a
    // product rather than of its outputs, which is ten times slower.
    use std::arch::x86_64::{
        __m128i, __m256i, __m512, __m512i, _mm256_cvtph_ps, _mm256_cvtps_ph, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps, _mm256_set1_ps, _mm256_storeu_ps,
        _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps,
        _mm512_cvtph_ps, _mm512_cvtps_ph, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_max_ps, _mm512_min_ps, _mm512_or_si512, _mm512_permutex2var_epi16,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_srli_epi32, _mm512_storeu_ps,
        _mm512_storeu_si512, _mm512_sub_ps,
    };

    use super::{Cut, LARGEST, Lanes, Vectorized, turn};

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

    /// The next of N parts, as `parts` makes them, and what is left of x without it.
    ///
    /// # Safety
    /// The CPU has AVX-512.
    #[inline(always)]
    unsafe fn next_part<const N: usize>(x: &mut __m512) -> __m512i {
        // SAFETY: the caller's.
        unsafe {
            let mut bits = _mm512_castps_si512(*x);
            if N < 3 {
                bits = _mm512_add_epi32(bits, _mm512_set1_epi32(0x8000));
            }
            let part = _mm512_and_si512(bits, _mm512_set1_epi32(0xffff_0000_u32.cast_signed()));
            *x = _mm512_sub_ps(*x, _mm512_castsi512_ps(part));
            part
        }
    }

    impl Lanes for Avx512 {
        #[inline(always)]
        fn fused(a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
        }

        #[inline(always)]
        fn turn(square: &[[u32; 16]; 16], to: &mut [u32], apart: usize) {
            assert!(to.len() >= 15 * apart + 16, "room for 16 rows");
            // SAFETY: `Avx512` is only handed out inside `avx512`; there is room.
            unsafe { turn::turn(square, to.as_mut_ptr(), apart) };
        }

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

        #[inline(always)]
        fn to_halves<const P: usize>(line: [f32; P]) -> [u16; P] {
            let mut halves = [0u16; P];
            let (parts, _) = line.as_chunks::<16>();
            for (place, part) in halves.as_chunks_mut::<16>().0.iter_mut().zip(parts) {
                // SAFETY: as above. Of NaN and a bound the second operand is taken.
                *place = unsafe {
                    let part = _mm512_loadu_ps(part.as_ptr());
                    let part = _mm512_min_ps(_mm512_set1_ps(LARGEST), part);
                    let part = _mm512_max_ps(_mm512_set1_ps(-LARGEST), part);
                    std::mem::transmute::<__m256i, [u16; 16]>(_mm512_cvtps_ph::<0>(part))
                };
            }
            halves
        }
    }

    impl Cut for Avx512 {
        #[inline(always)]
        fn in_pairs<const N: usize>(inputs: &[f32; 32]) -> [[u32; 16]; N] {
            let mut found = [[0; 16]; N];
            // SAFETY: as above; what is read and written is as long as a vector.
            unsafe {
                let upper: [u16; 32] = std::array::from_fn(|i| 2 * i as u16 + 1);
                let upper = _mm512_loadu_si512(upper.as_ptr().cast());
                let mut left = _mm512_loadu_ps(inputs.as_ptr());
                let mut right = _mm512_loadu_ps(inputs.as_ptr().add(16));
                for place in &mut found {
                    let (first, second) = (next_part::<N>(&mut left), next_part::<N>(&mut right));
                    let pairs = _mm512_permutex2var_epi16(first, upper, second);
                    _mm512_storeu_si512(place.as_mut_ptr().cast(), pairs);
                }
            }
            found
        }

        #[inline(always)]
        fn interleaved<const N: usize>(first: &[f32; 16], second: &[f32; 16]) -> [[u32; 16]; N] {
            let mut found = [[0; 16]; N];
            // SAFETY: as above.
            unsafe {
                let mut first = _mm512_loadu_ps(first.as_ptr());
                let mut second = _mm512_loadu_ps(second.as_ptr());
                for place in &mut found {
                    let lower = _mm512_srli_epi32::<16>(next_part::<N>(&mut first));
                    let pairs = _mm512_or_si512(lower, next_part::<N>(&mut second));
                    _mm512_storeu_si512(place.as_mut_ptr().cast(), pairs);
                }
            }
            found
        }
    }

    impl Cut for Avx2 {}

    impl Lanes for Avx2 {
        #[inline(always)]
        fn fused(a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
        }

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

        #[inline(always)]
        fn to_halves<const P: usize>(line: [f32; P]) -> [u16; P] {
            let mut halves = [0u16; P];
            let (parts, _) = line.as_chunks::<8>();
            for (place, part) in halves.as_chunks_mut::<8>().0.iter_mut().zip(parts) {
                // SAFETY: as above. Of NaN and a bound the second operand is taken.
                *place = unsafe {
                    let part = _mm256_loadu_ps(part.as_ptr());
                    let part = _mm256_min_ps(_mm256_set1_ps(LARGEST), part);
                    let part = _mm256_max_ps(_mm256_set1_ps(-LARGEST), part);
                    std::mem::transmute::<__m128i, [u16; 8]>(_mm256_cvtps_ph::<0>(part))
                };
            }
            halves
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

/// Bytes ahead of those in use that the core is told to fetch: its own foresight ends at a page.
pub const AHEAD: usize = 2048;

/// True for CPUs that read memory from one end to the other sooner without being told: AMD's (measured on Zen 4,
/// where being told costs 10 to 20 % of it).
pub fn reads_ahead() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        static FOUND: OnceLock<bool> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let maker = std::arch::x86_64::__cpuid(0);
            let letters = [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes);
            letters.as_flattened() == b"AuthenticAMD"
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
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
