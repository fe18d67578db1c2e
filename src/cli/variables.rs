//! What the variables of the environment say, in the place of flags that were not typed.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Id};

use super::typed::boolish;

/// The command with those variables alone that have a say in this command line.
///
/// A variable is as good as not set where it is empty, where it says no to a flag that has no value, where a
/// flag was typed that can't go with it, and where its value belongs to a flag of the same name that another
/// command has (VEDM_DTYPE=int8 is for `ocr`; `init` has no such type).
pub(super) fn settled(command: Command, typed: &[OsString]) -> Command {
    if !std::env::vars_os().any(|(name, _)| name.as_encoded_bytes().starts_with(b"VEDM_")) {
        return command;
    }
    let of_line = Typed::of(&command, typed);
    let all: Vec<Arg> =
        command.get_subcommands().flat_map(Command::get_arguments).cloned().collect();
    command.mut_subcommands(|command| {
        let silent: HashSet<Id> = command
            .get_arguments()
            .filter(|arg| says_nothing(arg, &all) || of_line.speaks_against(&command, arg))
            .map(|arg| arg.get_id().clone())
            .collect();
        command.mut_args(|arg| if silent.contains(arg.get_id()) { deaf(arg) } else { arg })
    })
}

/// The flag without its variable.
fn deaf(arg: Arg) -> Arg {
    arg.env(Resettable::Reset)
}

/// True for variables that are empty, say no, or speak to another command.
fn says_nothing(arg: &Arg, all: &[Arg]) -> bool {
    let Some(name) = arg.get_env() else { return false };
    let Some(value) = std::env::var_os(name) else { return false };
    let no = matches!(arg.get_action(), ArgAction::SetTrue)
        && value.to_str().is_some_and(|word| boolish(word) == Ok(false));
    let mut others = all.iter().filter(|other| other.get_env() == Some(name));
    value.is_empty() || no || (!takes(arg, &value) && others.any(|other| takes(other, &value)))
}

/// True if the flag may have this value.
fn takes(arg: &Arg, value: &OsStr) -> bool {
    let alone = Arg::new("value")
        .value_parser(arg.get_value_parser().clone())
        .ignore_case(arg.is_ignore_case_set())
        .allow_hyphen_values(true);
    Command::new("vedm").no_binary_name(true).arg(alone).try_get_matches_from([value]).is_ok()
}

/// The subcommand that was typed, and its flags.
struct Typed(Option<(String, HashSet<Id>)>);

impl Typed {
    /// Of a faulty line as much as can be understood: the fault is told when it is parsed in earnest.
    fn of(command: &Command, typed: &[OsString]) -> Self {
        let command = command.clone().ignore_errors(true);
        let command = command.mut_subcommands(|command| command.mut_args(deaf));
        let matches = command.try_get_matches_from(typed).ok();
        let found = matches.as_ref().and_then(ArgMatches::subcommand).map(|(name, matches)| {
            let from = |id: &Id| matches.value_source(id.as_str());
            let ids = matches.ids().filter(|id| from(id) == Some(ValueSource::CommandLine));
            (name.to_string(), ids.cloned().collect())
        });
        Typed(found)
    }

    /// True if a typed flag can't go with this one, which was not typed.
    fn speaks_against(&self, command: &Command, arg: &Arg) -> bool {
        let Some((name, ids)) = &self.0 else { return false };
        if name != command.get_name() || ids.contains(arg.get_id()) {
            return false;
        }
        let against = |one: &Arg, other: &Arg| {
            command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
        };
        command
            .get_arguments()
            .filter(|other| ids.contains(other.get_id()))
            .any(|other| against(other, arg) || against(arg, other))
    }
}
