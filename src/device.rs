//! `--device`, `--dtype` and `--threads` become what libtorch understands.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, anyhow, bail, ensure};
use tch::{Cuda, Device};

use crate::native;

/// What `--device` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA where it works, else the CPU.
    Auto,
    Cpu,
    Cuda(usize),
}

/// What `--dtype` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Dtype {
    /// f16 on CUDA and on a CPU with AVX-512, f32 on others
    Auto,
    F32,
    /// On a CPU: weights of bf16
    Bf16,
    /// On a CPU: weights of f16, all else in f32
    F16,
    /// On a CPU: weights of 8 bits with a scale for each output
    Int8,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(DeviceChoice::Cuda)
                .ok_or_else(|| "expected auto, cpu, cuda or cuda:N".to_string()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    /// As it is given on a command line.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl DeviceChoice {
    /// The device to compute on. CUDA's libraries are opened only if they are asked for.
    pub fn resolve(self) -> Result<Device> {
        match self {
            DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Auto => match cuda() {
                Ok(_) => Ok(on_cuda(0)),
                Err(_) => Ok(Device::Cpu),
            },
            DeviceChoice::Cuda(index) => {
                let count = cuda().map_err(|reason| {
                    anyhow!("--device cuda: {reason}; use --device cpu, or see `vedm doctor`")
                })?;
                ensure!(
                    index < count,
                    "--device cuda:{index}: there {} {count} CUDA device{}",
                    if count == 1 { "is" } else { "are" },
                    if count == 1 { "" } else { "s" }
                );
                Ok(on_cuda(index))
            }
        }
    }
}

/// A GPU, and libtorch's settings for it: its convolutions would take f32 as TF32, of 10 bits, and on some GPUs
/// its attention would compile a kernel for every length of a text.
fn on_cuda(index: usize) -> Device {
    native::prepare_cuda();
    Device::Cuda(index)
}

/// The memory of a device does not suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the memory does not suffice")
    }
}

impl std::error::Error for OutOfMemory {}

/// What the messages of libtorch's allocators say.
const SIGNS: &[&str] = &[
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "bad_alloc",
    "CUBLAS_STATUS_ALLOC",
    // The whole of what oneDNN says; where it has no kernel, it says "a primitive descriptor".
    "could not create a primitive\"",
];

/// Runs work on a model.
///
/// Operators of libtorch panic in this crate, once shapes are checked; memory alone is not ours to check.
/// Any other panic goes on.
pub fn within_memory<T>(work: impl FnOnce() -> T) -> Result<T, OutOfMemory> {
    let panic = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => return Ok(done),
        Err(panic) => panic,
    };
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let text = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    if !SIGNS.iter().any(|sign| text.contains(sign)) {
        resume_unwind(panic);
    }
    Err(OutOfMemory)
}

/// The number of usable CUDA devices, or why there is none.
pub fn cuda() -> Result<usize, String> {
    native::open_library("libcuda.so.1")
        .map_err(|_| "no NVIDIA driver is installed (libcuda.so.1 was not found)".to_string())?;
    let mut tried = Vec::new();
    let opened = cuda_candidates().into_iter().any(|path| {
        let name = path.to_string_lossy().into_owned();
        native::open_library(&name).map_err(|reason| tried.push(reason)).is_ok()
    });
    if !opened {
        return Err(format!("libtorch_cuda.so can't be opened ({})", tried.join("; ")));
    }
    let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
    if count == 0 || !Cuda::is_available() {
        return Err("libtorch finds no usable CUDA device (driver too old, or none visible)".into());
    }
    Ok(count)
}

/// Where libtorch_cuda.so may lie: beside the libtorch in use, in LIBTORCH, on the loader's path.
fn cuda_candidates() -> Vec<PathBuf> {
    let beside = native::libtorch_folder();
    let own = std::env::var_os("LIBTORCH").map(|dir| PathBuf::from(dir).join("lib"));
    let mut paths: Vec<PathBuf> = beside
        .into_iter()
        .chain(own)
        .map(|folder| folder.join("libtorch_cuda.so"))
        .filter(|path| path.exists())
        .collect();
    paths.push(PathBuf::from("libtorch_cuda.so"));
    paths
}

/// Threads for one operation of libtorch; None leaves its own choice (one a core).
pub fn set_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    if threads == 0 {
        bail!("--threads 0: at least one thread is needed");
    }
    let threads = i32::try_from(threads)?;
    // Told even what it does already, libtorch starts another pool, which looks for work for 30 milliseconds.
    if tch::get_num_threads() != threads {
        tch::set_num_threads(threads);
    }
    Ok(())
}

/// Threads that read and decode while the model computes on `device` with `threads` threads: the
/// cores that it leaves, and beside a model that takes all cores half as many, which it gives up for
/// as long as pictures are decoded.
pub fn decoding_threads(threads: Option<usize>, device: Device) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let free = cores.saturating_sub(threads.unwrap_or(cores));
    if device.is_cuda() { cores } else { free.max(cores.div_ceil(2)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read() {
        let table = [
            ("auto", Ok(DeviceChoice::Auto)),
            ("cpu", Ok(DeviceChoice::Cpu)),
            ("cuda", Ok(DeviceChoice::Cuda(0))),
            ("cuda:3", Ok(DeviceChoice::Cuda(3))),
            ("cuda:x", Err("expected auto, cpu, cuda or cuda:N".to_string())),
            ("gpu", Err("expected auto, cpu, cuda or cuda:N".to_string())),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<DeviceChoice>(), expected, "{text}");
        }
    }
}
