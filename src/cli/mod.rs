//! The command line: arguments become options, results become lines.

mod args;
mod convert;
mod doctor;
mod download;
mod eval;
mod explain;
mod generate;
mod init;
mod inputs;
mod ledger;
mod output;
mod progress;
mod read;
mod session;
mod sidecar;
mod train;
mod train_args;
mod typed;

use std::ffi::OsString;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

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
pub enum Verdict {
    /// 0: everything was done.
    Done,
    /// 2: the run ended, but some inputs failed.
    SomeFailed,
    /// 130: somebody asked the run to stop.
    Interrupted,
}

/// The command, for completions and help pages.
pub fn command() -> clap::Command {
    typed::booleans(Cli::command())
}

/// Parses the process's arguments and runs them. An error means that the run could not start.
pub fn run() -> Result<Verdict> {
    let typed = typed::arguments(std::env::args_os());
    let matches = command().try_get_matches_from(&typed);
    let cli = match matches.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches)) {
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

/// Help and version go to standard output with status 0; everything else is status 1, not clap's 2,
/// which here means that some inputs failed.
fn usage(error: clap::Error, typed: &[OsString]) -> Result<Verdict> {
    let error = typed::suggest(error);
    let acts = |word: &OsString| word.to_string_lossy().contains(char::is_control);
    if typed.iter().any(acts) {
        // What was typed must not act on the terminal: no colours then.
        eprint!("{}", stderr::visible(&error.render().to_string(), true));
    } else {
        error.print()?;
    }
    if error.use_stderr() {
        std::process::exit(1);
    }
    Ok(Verdict::Done)
}
