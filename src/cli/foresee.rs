//! What a command line needs, begun before the libraries are ready: nothing here may call them.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;

use super::args::ModelArgs;
use super::read::Task;
use super::{Command, parse, status, typed};
use crate::device::DeviceChoice;
use crate::models::{self, Access, Need};
use crate::{native, ved};

/// Answers a command line that asks for help or the version, or is wrong, and ends the process; of others tells
/// what may go on beside `main`.
pub fn foresee(args: Vec<OsString>) -> Option<Box<dyn FnOnce()>> {
    let (task, model) = match parse(&typed::arguments(args.clone().into_iter())) {
        Ok(cli) => match cli.command {
            Command::Caption(args) => (Task::Caption, args.model),
            Command::Ocr(args) => (Task::Ocr, args.read.model),
            _ => return None,
        },
        Err(_) => native::exit_at_once(status(args)),
    };
    // Whatever is wrong with the model, `main` comes upon it.
    Some(Box::new(move || {
        let _ = get_ready(task, &model);
    }))
}

/// Looks for memory for the model's matrices, if it is here and will compute on a CPU.
fn get_ready(task: Task, args: &ModelArgs) -> Result<()> {
    /// Made by the driver of the GPUs that libtorch computes on.
    const DRIVER: &str = "/dev/nvidiactl";
    let on_cpu = match args.device {
        DeviceChoice::Cpu => true,
        DeviceChoice::Auto => !Path::new(DRIVER).exists(),
        DeviceChoice::Cuda(_) => false,
    };
    if on_cpu {
        let packing = ved::cpu_packing(args.dtype)?;
        let access = Access { revision: args.revision.as_deref(), offline: true, tell: &|_| {} };
        let dir = models::find(task.model(args), Need::Model, &access)?;
        native::get_ready(ved::packed_bytes(&dir, packing)?);
    }
    Ok(())
}
