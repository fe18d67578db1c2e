//! What the parser alone would not understand of a command line.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Command};

use crate::models::edit_distance;

/// Endings that text files beside pictures have. Only these, or what begins with a dot, is taken for the
/// value of a `--sidecar` before it: everything else may be the name of an image.
const EXTENSIONS: [&str; 11] =
    ["txt", "text", "md", "cap", "caption", "captions", "ocr", "lab", "tags", "gt.txt", "box.txt"];

/// `--sidecar txt a.png` means `--sidecar=txt a.png`, unless there is a file `txt`.
pub(super) fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut out: Vec<OsString> = Vec::new();
    let mut ended = false;
    for word in given {
        ended |= word == "--";
        match out.last_mut().filter(|last| !ended && *last == "--sidecar") {
            Some(last) if is_extension(&word) && !Path::new(&word).exists() => {
                last.push("=");
                last.push(word);
            }
            _ => out.push(word),
        }
    }
    out
}

fn is_extension(word: &OsString) -> bool {
    let Some(word) = word.to_str() else { return false };
    let dotted = word.strip_prefix('.').is_some_and(|rest| {
        !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
    });
    EXTENSIONS.contains(&word) || (dotted && !word.contains(".."))
}

/// Names the command that was meant, where the parser finds none like it: it thinks little of letters that
/// changed places.
pub(super) fn suggest(mut error: clap::Error) -> clap::Error {
    if error.kind() != ErrorKind::InvalidSubcommand
        || error.get(ContextKind::SuggestedSubcommand).is_some()
    {
        return error;
    }
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    let command = super::command();
    let near = command
        .get_subcommands()
        .map(|command| (edit_distance(typed, command.get_name()), command.get_name()))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    if let Some((_, name)) = near {
        let names = ContextValue::Strings(vec![name.to_string()]);
        error.insert(ContextKind::SuggestedSubcommand, names);
    }
    error
}

/// Lets the variables of flags that are given without a value say yes and no in all the usual words, and
/// lets every value begin with a minus where that makes it a number: the flag's own sentence tells then why
/// it doesn't take it.
pub(super) fn lenient(command: Command) -> Command {
    let command = command.mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg.value_parser(boolish),
        ArgAction::Set | ArgAction::Append if !arg.is_positional() => {
            arg.allow_negative_numbers(true)
        }
        _ => arg,
    });
    command.mut_subcommands(lenient)
}

/// A number that can be reckoned with; NaN and the infinities are none.
pub(super) fn finite(word: &str) -> Result<f64, String> {
    let number = word.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| "expected a finite number".to_string())
}

/// So many beams or texts fit into no memory, and nobody has a use for them.
const MOST_BEAMS: i64 = 1000;

/// A number of beams, or of texts an image. What is too few is told with the other settings.
pub(super) fn beams(word: &str) -> Result<i64, String> {
    at_most(word, MOST_BEAMS)
}

/// More threads than any machine has cores to run them.
const MOST_THREADS: usize = 1024;

/// A number of threads; 0 has a sentence of its own.
pub(super) fn threads(word: &str) -> Result<usize, String> {
    at_most(word, MOST_THREADS)
}

fn at_most<T: FromStr + PartialOrd + Display>(word: &str, most: T) -> Result<T, String> {
    let number = word.parse().ok().filter(|number| *number <= most);
    number.ok_or_else(|| format!("expected a number from 1 to {most}"))
}

/// Yes or no.
pub(super) fn boolish(word: &str) -> Result<bool, String> {
    match word.to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
        _ => Err("expected true, false, 1, 0, yes, no, on or off".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_may_follow_its_flag() {
        let table: &[(&[&str], &[&str])] = &[
            (&["--sidecar", "txt", "a.png"], &["--sidecar=txt", "a.png"]),
            (&["--sidecar", ".gt.txt", "a.png"], &["--sidecar=.gt.txt", "a.png"]),
            (&["--sidecar", "a.png"], &["--sidecar", "a.png"]),
            (&["--sidecar", "scans"], &["--sidecar", "scans"]),
            (&["--sidecar", "."], &["--sidecar", "."]),
            (&["--sidecar", "../x"], &["--sidecar", "../x"]),
            (&["--sidecar", "..", "a"], &["--sidecar", "..", "a"]),
            (&["--sidecar=txt", "txt"], &["--sidecar=txt", "txt"]),
            (&["--sidecar", "txt", "txt"], &["--sidecar=txt", "txt"]),
            (&["--", "--sidecar", "txt"], &["--", "--sidecar", "txt"]),
        ];
        for (given, expected) in table {
            let found = arguments(given.iter().map(OsString::from));
            assert_eq!(found, *expected, "{given:?}");
        }
    }
}
