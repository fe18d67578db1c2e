//! The few things that need `unsafe`: memory maps, the numbers of tensors, the allocator's settings,
//! libraries at run time; in the rooms beside it what comes before `main`, pages of memory, vector units (with
//! an exponential, halves and squares turned over for them), libtorch's threads, its operators, attention and a
//! dense layer in its graph and what it does on GPUs.
#![allow(unsafe_code)]

mod attention;
mod bytes;
mod dense;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod early;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod environment;
mod exp;
mod gpu;
mod half;
mod inference;
mod operators;
mod pages;
mod threads;
mod tiles;
mod turn;
mod vectors;

use std::ffi::CString;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

pub use attention::{Attend, AttendBack, Heads, Passes, attention};
pub use bytes::{ByteProducts, QUAD_INPUTS, Quad, WholeSums};
pub use dense::{Dense, Matrix, Multiply};
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use early::{Foresee, start_early, wait_for_foresight};
pub use exp::{exp, exp_near};
pub use gpu::{AdamWPart, AdamWStep};
pub(crate) use gpu::{norm_of_all, pinned, prepare_cuda};
pub use half::{Bf16, F16, f32_to_half, half_to_f32};
pub use inference::Inference;
pub use operators::{Layout, PackedMatrix, Then, has_operators};
pub use pages::{Pages, Plain, get_ready, none_needed};
pub use threads::{parallel, thread_count};
pub use tiles::{
    Cut, Fetch, PairedBf16, PanelTile, Parts, Product, RowsTile, Sums, TILE_INPUTS, TILE_OUTPUTS,
    TILE_ROWS, Tiles, Uncut, has_matrix_unit, has_tiles, pair, parts,
};
pub use vectors::{
    AHEAD, Lanes, Vectorized, across, has_avx2, has_bf16, panel_width, prefetch, reads_ahead,
    vectorize,
};

/// Elsewhere no program looks at its command line before its libraries are ready.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn wait_for_foresight() {}

/// Maps a file for reading.
///
/// The file must not be truncated while it is mapped (another process doing so ends this one by
/// SIGBUS); that holds for every reader of large files by memory map.
pub fn map_file(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the map is read-only; the caveat above is the documented one of memmap2.
    unsafe { memmap2::Mmap::map(file) }
}

/// The pages of a map within `range` may leave the memory; touched again, they come from the file.
pub(crate) fn release_map(map: &memmap2::Mmap, range: &Range<usize>) {
    #[cfg(unix)]
    if range.start < range.end && range.end <= map.len() {
        use memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: the map is of a file and read-only: its pages come back with the same bytes. Failure
        // leaves them where they are.
        let _ = unsafe { map.unchecked_advise_range(DontNeed, range.start, range.len()) };
    }
}

/// The same for the pages that lie wholly within a tensor that libtorch maps from a file
/// (`Tensor::from_file`, not shared). Such a tensor must not have been written to: the file's numbers
/// would return. Any other contiguous tensor would lose its numbers.
pub(crate) fn release_pages(tensor: &Tensor) {
    #[cfg(unix)]
    if tensor.device() == Device::Cpu {
        let page = pages::page();
        let start = tensor.data_ptr() as usize;
        let end = start + tensor.numel() * tensor.kind().elt_size_in_bytes();
        let (start, end) = (start.next_multiple_of(page), end / page * page);
        if start < end {
            // SAFETY: the pages belong to the tensor. What they hold changes at most to other numbers,
            // as it does by any operation in place.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
}

/// Keeps freed blocks of up to a gigabyte in the process, to be called before the first tensor.
///
/// glibc maps each activation afresh otherwise, and the page faults cost as much as the arithmetic. And small blocks
/// are joined as they are freed, not all of them whenever a large one is asked for, as each step of a decoder does.
pub fn tune_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets limits of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_MXFAST, 0);
    }
}

/// Gives the freed blocks that `tune_allocator` keeps back to the system.
///
/// While a model is loaded, each matrix passes through blocks of its own size, which nobody needs again.
pub(crate) fn trim_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: only touches what has been freed.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Tries to open a shared library for the whole process; the error is the loader's sentence.
pub fn open_library(name: &str) -> Result<(), String> {
    #[cfg(unix)]
    {
        let name = CString::new(name).map_err(|error| error.to_string())?;
        // SAFETY: initialisers of the library run, as they would had the program been linked to it.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if !handle.is_null() {
            return Ok(());
        }
        // SAFETY: dlerror gives a string that is valid until the next call of the same thread.
        let message = unsafe {
            let message = libc::dlerror();
            if message.is_null() {
                "unknown reason".to_string()
            } else {
                std::ffi::CStr::from_ptr(message).to_string_lossy().into_owned()
            }
        };
        Err(message)
    }
    #[cfg(not(unix))]
    Err(format!("{name}: libraries are opened at run time on Unix only"))
}

/// Ends a process that leads a group of its own, and everything that it has started.
#[cfg(unix)]
pub fn kill_group(leader: u32) {
    if let Ok(group) = libc::pid_t::try_from(leader)
        && group > 1
    {
        // SAFETY: a signal is sent; a group that is gone already is an error without consequence.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}

/// Ends the process without running destructors, from any thread: those of libtorch must not run while
/// another thread computes.
pub fn exit_at_once(status: i32) -> ! {
    // SAFETY: _exit only ends the process.
    unsafe { libc::_exit(status) }
}

/// The folder of the libtorch that this process runs with.
pub fn libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
    let path = &line[line.find('/')?..];
    Path::new(path).parent().map(Path::to_path_buf)
}

/// True for the numbers that our own products and passes are for.
pub fn is_f32_on_cpu(xs: &Tensor) -> bool {
    xs.device() == Device::Cpu && xs.kind() == Kind::Float
}

/// Rows of numbers that need not lie next to each other.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    numbers: &'a [f32],
    stride: usize,
}

impl<'a> Rows<'a> {
    /// Rows of `numbers` that begin so far apart.
    pub fn new(numbers: &'a [f32], stride: usize) -> Self {
        Rows { numbers, stride }
    }

    /// The row and what lies behind it.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.numbers[row * self.stride..]
    }
}

/// Lends tensors to read whose first axis alone may be strided: [N, ..] as N rows. None (and no call) unless
/// all of them are such and f32 on the CPU. Nobody may write to them meanwhile, through another tensor either.
pub fn with_rows<const N: usize, R>(
    tensors: [&Tensor; N],
    f: impl FnOnce([Rows; N]) -> R,
) -> Option<R> {
    let plain = |xs: &&Tensor| {
        is_f32_on_cpu(xs)
            && xs.numel() > 0
            && xs.dim() > 1
            && xs.get(0).is_contiguous()
            && xs.stride()[0] >= 0
    };
    if !tensors.iter().all(plain) {
        return None;
    }
    Some(f(tensors.map(|xs| {
        let (rows, stride) = (xs.size()[0] as usize, xs.stride()[0] as usize);
        let length = (rows - 1) * stride + xs.numel() / rows;
        // SAFETY: f32 numbers of the tensor's storage, from its first to its last; the borrow of the tensor
        // outlives the slice.
        let numbers = unsafe { std::slice::from_raw_parts(xs.data_ptr().cast::<f32>(), length) };
        Rows { numbers, stride }
    })))
}

/// Lends the numbers of tensors to `f`; None (and no call) unless all of them are contiguous f32 on the
/// CPU and no two share memory.
pub fn with_floats<const N: usize, R>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&mut [f32]; N]) -> R,
) -> Option<R> {
    let plain = |xs: &&Tensor| is_f32_on_cpu(xs) && xs.is_contiguous();
    if !tensors.iter().all(plain) {
        return None;
    }
    let mut ranges = tensors.map(|xs| {
        let start = xs.data_ptr() as usize;
        (start, start + xs.numel() * size_of::<f32>())
    });
    ranges.sort_unstable();
    if ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) || ranges.iter().any(|r| r.0 == 0) {
        return None;
    }
    // SAFETY: each tensor owns `numel` f32 from its pointer on, the ranges are disjoint, and the borrows
    // of the tensors outlive the slices. A tensor is not `Sync`: nobody else computes with it meanwhile.
    Some(f(tensors.map(|xs| unsafe {
        std::slice::from_raw_parts_mut(xs.data_ptr().cast::<f32>(), xs.numel())
    })))
}
