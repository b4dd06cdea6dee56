//! Sessions of commands with everything they print. Each document of this folder is one, and is read as a manual.
//!
//! In a `console` block, `$ ` begins a command for `sh` and `> ` continues it. What it prints follows: its
//! standard output, its standard error with `2> ` before each line, and its exit status unless that is 0.
//! `SNAPSHOTS=overwrite` writes into the documents what the commands print now.

mod redaction;
mod sandbox;
mod transcript;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use snapbox::assert::DEFAULT_ACTION_ENV;
use snapbox::data::DataFormat;
use snapbox::{Assert, Data};

use redaction::Redaction;
use sandbox::Sandbox;

/// Makes one test of each document, so that they run at the same time.
macro_rules! sessions {
    ($($name:ident),* $(,)?) => {
        const SESSIONS: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                check_session(stringify!($name));
            }
        )*
    };
}

sessions![
    aliases,
    config,
    delete,
    diff,
    drafts,
    errors,
    first_version,
    get_and_verify,
    groups,
    help,
    json,
    lineage,
    maintenance,
    mounts,
    next_version,
    references,
    remote_stores,
    runs,
    stores,
    streams,
    sweeps,
    tables,
    update,
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli")
}

fn check_session(name: &str) {
    let path = folder().join(name).with_extension("md");
    let document = fs::read_to_string(&path).unwrap();
    let sandbox = Sandbox::new(&folder().join("input"));
    let redaction = Redaction::new(&sandbox, &document);
    let replayed = transcript::replay(&document, |command| {
        redaction.apply(&transcript::printed(command, &sandbox.run(command)))
    });
    // Nothing in a document is a pattern: every character must be what is printed.
    let expected = Data::read_from(&path, Some(DataFormat::Text)).raw();
    Assert::new().action_env(DEFAULT_ACTION_ENV).eq(replayed, expected);
    sandbox.assert_nothing_is_left();
}

#[test]
fn every_document_is_a_session() {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let documents: BTreeSet<_> = files
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(documents, SESSIONS.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn the_help_of_every_verb_is_shown() {
    let document = fs::read_to_string(folder().join("help.md")).unwrap();
    let (mut asked, mut lists_verbs, mut verbs) = ("", false, 0);
    for line in document.lines() {
        if let Some(command) = line.strip_prefix("$ ").and_then(|line| line.strip_suffix(" --help"))
        {
            asked = command;
        }
        let row = line.strip_prefix("  ").filter(|row| lists_verbs && !row.starts_with(' '));
        match row.and_then(|row| row.split(' ').next()) {
            Some("help") => {}
            Some(verb) => {
                let command = format!("\n$ {asked} {verb} --help\n");
                assert!(document.contains(&command), "help.md lacks{command}");
                verbs += 1;
            }
            None => lists_verbs = line == "Commands:" || lists_verbs && !line.is_empty(),
        }
    }
    assert!(verbs > 50, "only {verbs} verbs are listed");
}
