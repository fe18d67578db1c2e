//! The command line: arguments become options, results become lines.

mod args;
mod convert;
mod doctor;
mod download;
mod eval;
mod explain;
mod foresee;
mod generate;
mod ids;
mod init;
mod inputs;
mod ledger;
mod open;
mod output;
mod places;
mod progress;
mod read;
mod session;
mod sidecar;
mod train;
mod train_args;
mod typed;
mod variables;

pub use foresee::foresee;

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::panic::{self, AssertUnwindSafe};

use anyhow::{Result, bail};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::pipeline::Reader;
use crate::stderr;

/// Caption images and read text in them with VisionEncoderDecoder checkpoints.
#[derive(Parser)]
#[command(name = "vedm", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say what is in a picture
    Caption(Box<args::ReadArgs>),
    /// Read the text in a picture
    Ocr(Box<args::OcrArgs>),
    /// Assemble a new checkpoint from an encoder and a decoder
    Init(init::InitArgs),
    /// Fine-tune a checkpoint on images and their texts
    Train(Box<train::TrainArgs>),
    /// Write a checkpoint in another format, number type or split
    Convert(convert::ConvertArgs),
    /// Score a checkpoint on images with known texts
    Eval(Box<eval::EvalArgs>),
    /// Tell whether this installation, its libraries and a model are sound
    Doctor(doctor::DoctorArgs),
}

/// What a run came to, as an exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// 0: everything was done.
    Done,
    /// 2: the run ended, but some inputs failed.
    SomeFailed,
    /// 130: somebody asked the run to stop.
    Interrupted,
    /// 1: the arguments were wrong, and that has been told.
    Misused,
}

/// The command, for completions and help pages.
pub fn command() -> clap::Command {
    typed::lenient(Cli::command())
}

/// Runs a command line, the program's name first, and gives the exit status. What stopped the run is told
/// on standard error.
pub fn status(args: impl IntoIterator<Item = OsString>) -> i32 {
    // A panic is a bug of ours: one sentence tells it, not a stack trace.
    panic::set_hook(Box::new(|_| {}));
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| run(args)));
    let status = match outcome {
        Ok(Ok(Verdict::Done)) => 0,
        Ok(Ok(Verdict::SomeFailed)) => 2,
        Ok(Ok(Verdict::Interrupted)) => 130,
        Ok(Ok(Verdict::Misused)) => 1,
        Ok(Err(error)) if is_broken_pipe(&error) => 0,
        Ok(Err(error)) => {
            stderr::say(format_args!(
                "vedm: error: {}",
                stderr::visible(&format!("{error:#}"), true)
            ));
            1
        }
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            let bug = "internal error (please report it)";
            stderr::say(format_args!("vedm: error: {bug}: {}", first_line(text)));
            1
        }
    };
    // Whoever closed standard output has seen enough.
    let _ = std::io::stdout().flush();
    status
}

/// The reader that a command line of `caption` or `ocr` would read with, for those who measure it.
pub fn reader(args: impl IntoIterator<Item = OsString>) -> Result<Reader> {
    match parse(&typed::arguments(args.into_iter()))?.command {
        Command::Caption(args) => read::caption_reader(&args),
        Command::Ocr(args) => read::ocr_reader(&args),
        _ => bail!("only caption and ocr have readers"),
    }
}

/// Parses the arguments and runs them. An error means that the run could not start.
fn run(args: impl IntoIterator<Item = OsString>) -> Result<Verdict> {
    let typed = typed::arguments(args.into_iter());
    let cli = match parse(&typed) {
        Ok(cli) => cli,
        Err(error) => return usage(error, &typed),
    };
    match cli.command {
        Command::Caption(args) => read::caption(&args),
        Command::Ocr(args) => read::ocr(&args),
        Command::Init(args) => init::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    }
}

fn parse(typed: &[OsString]) -> Result<Cli, clap::Error> {
    let command = variables::settled(command(), typed);
    Cli::from_arg_matches_mut(&mut command.try_get_matches_from(typed)?)
}

/// Help and version go to standard output with status 0; everything else is status 1, not clap's 2,
/// which here means that some inputs failed.
fn usage(error: clap::Error, typed: &[OsString]) -> Result<Verdict> {
    let error = typed::suggest(error);
    let acts = |word: &OsString| word.to_string_lossy().contains(char::is_control);
    if typed.iter().any(acts) {
        // What was typed must not act on the terminal: no colours then.
        stderr::say(stderr::visible(error.render().to_string().trim_end(), true));
    } else if error.use_stderr() {
        // Who doesn't hear of a mistake has still made it.
        let _ = error.print();
    } else {
        error.print()?;
    }
    Ok(if error.use_stderr() { Verdict::Misused } else { Verdict::Done })
}

/// Whoever read our output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let json =
            cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        io == Some(ErrorKind::BrokenPipe) || json == Some(ErrorKind::BrokenPipe)
    })
}

/// libtorch's messages carry its C++ stack below the first line.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
