//! Output of clap in place of a verb: help, the version, and errors of the command line.

use std::ffi::OsString;
use std::io::Write;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde_json::Value;

use super::exit;
use super::output::{Output, end_quietly, print_error};
use artifactfs::error::{Error, Kind};

/// Prints what clap found in place of a verb of `command`, and returns the exit code.
pub fn report(mut found: clap::Error, command: &clap::Command) -> u8 {
    let json = wants_json(std::env::args_os().skip(1));
    if found.kind() == ErrorKind::DisplayVersion {
        // clap joins the name with that of the verb.
        let version = command.get_version().unwrap_or_default();
        let line = || vec![format!("{} {version}", command.get_name())];
        Output { json: false, quiet: false }.print(Value::Null, line);
        return exit::DONE;
    }
    if !found.use_stderr() {
        end_quietly(found.print().and_then(|()| std::io::stdout().flush()), json);
        return exit::DONE;
    }
    leave_out_hidden(&mut found, command);
    if json {
        print_error(&as_error(&found), true);
    } else {
        // If printing fails too, there is nothing left to do.
        let _ = found.print();
    }
    exit::USAGE
}

/// Returns whether `--json` is among the arguments; those after `--` belong to another command.
fn wants_json(arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

/// Removes hidden verbs from the lists of verbs in an error.
fn leave_out_hidden(found: &mut clap::Error, command: &clap::Command) {
    let is_hidden = |name: &String| {
        command.get_subcommands().any(|verb| verb.is_hide_set() && verb.get_name() == name)
    };
    for kind in [ContextKind::ValidSubcommand, ContextKind::SuggestedSubcommand] {
        if let Some(ContextValue::Strings(mut names)) = found.remove(kind) {
            names.retain(|name| !is_hidden(name));
            match names.is_empty() {
                true => found.remove(ContextKind::Suggested),
                false => found.insert(kind, ContextValue::Strings(names)),
            };
        }
    }
}

/// Returns clap's error as one of ours: its tips and the usage become hints.
fn as_error(found: &clap::Error) -> Error {
    let text = found.render().to_string();
    let mut message = String::new();
    let mut hints = Vec::new();
    for part in text.split("\n\n") {
        let line = part.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        if let Some(said) = line.strip_prefix("error: ") {
            said.clone_into(&mut message);
        } else if let Some(tip) = line.strip_prefix("tip: ") {
            hints.push(tip.to_owned());
        } else if let Some(usage) = line.strip_prefix("Usage: ") {
            hints.push(format!("usage: {usage}"));
        }
    }
    if message.is_empty() {
        // clap shows the help of a command of which nothing else was given.
        "a command is missing".clone_into(&mut message);
    }
    hints.into_iter().fold(Error::new(Kind::Usage, message), Error::and_hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_a_command_of_a_run_are_not_ours() {
        let wants = |words: &[&str]| wants_json(words.iter().map(OsString::from));
        assert!(wants(&["get", "--json"]));
        assert!(!wants(&["run", "--", "tool", "--json"]));
    }
}
