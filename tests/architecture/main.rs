//! The rules of the house: imports, walls, lengths, and that documents name what exists.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

mod circles;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A room and what it may import beside itself; `*` is everything.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &["error"]),
    ("error", &[]),
    ("files", &["error"]),
    ("config", &["model", "error"]),
    ("telemetry", &[]),
    ("protocol", &["model", "error"]),
    ("content", &["model", "error", "files"]),
    ("registry", &["model", "error", "files"]),
    ("staging", &["model", "error", "files"]),
    ("client", &["model", "error", "registry", "protocol"]),
    ("ops", &["model", "error", "files", "protocol", "content", "registry", "staging"]),
    ("mount", &["model", "error", "content", "registry", "staging", "ops"]),
    ("server", &["model", "error", "files", "content", "registry", "staging", "ops", "protocol"]),
    (
        "daemon",
        &[
            "model", "error", "files", "config", "content", "registry", "staging", "client", "ops",
            "mount", "server", "protocol",
        ],
    ),
    ("cli", &["*"]),
];

/// The files that use fuser's types; the file systems themselves use none.
const FUSER: &[&str] = &[
    "src/mount/guard.rs",
    "src/mount/kernel.rs",
    "src/mount/read_only/adapter.rs",
    "src/mount/recent_timeouts.rs",
    "src/mount/session.rs",
    "src/mount/staging/adapter.rs",
    "src/mount/staging/backing.rs",
    "src/mount/staging/convert.rs",
    "src/mount/staging/files.rs",
    "src/mount/staging/list.rs",
    "src/mount/staging/publish.rs",
    "src/mount/workers.rs",
];

/// Foreign crates that live behind walls.
const WALLS: &[(&str, &[&str])] = &[
    ("fuser::", FUSER),
    (
        "reqwest::",
        &["src/client/served.rs", "src/content/remote/", "src/content/external/origin.rs"],
    ),
    (
        "rustls::",
        &[
            "src/client/served.rs",
            "src/content/remote/",
            "src/content/external/origin.rs",
            "src/registry/engine/postgres/",
            "src/server/http/tls.rs",
        ],
    ),
    ("tokio_postgres::", &["src/registry/engine/postgres/"]),
    ("deadpool_postgres::", &["src/registry/engine/postgres/"]),
    ("redb::", &["src/registry/engine/redb.rs"]),
    (
        "postcard::",
        &[
            "src/protocol/",
            "src/registry/engine/mod.rs",
            "src/registry/record.rs",
            "src/registry/subject.rs",
            "src/ops/put/",
        ],
    ),
    ("axum::", &["src/server/"]),
    ("axum_server::", &["src/server/"]),
    ("governor::", &["src/server/"]),
    ("hyper::", &["src/client/"]),
    ("anyhow::", &["src/cli/"]),
    ("object_store::", &["src/content/remote/", "src/content/external/origin.rs"]),
    ("arrow_array::", &["src/ops/table/"]),
    ("csv::", &["src/ops/table/"]),
    ("arrow_schema::", &["src/ops/table/"]),
    ("parquet::", &["src/ops/table/"]),
    ("prometheus_client::", &["src/server/"]),
    ("println!", &["src/cli/"]),
    ("process::exit", &["src/cli/"]),
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Path from the root of the project, and text, of every source file.
fn all() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    sources(&root.join("src"), &mut found);
    let name = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn room_of(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap();
    below.split(['/', '.']).next().unwrap()
}

/// The code without its tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

#[test]
fn rooms_import_only_what_they_may() {
    let mut broken = Vec::new();
    for (path, text) in all() {
        let room = room_of(&path);
        if ["lib", "main"].contains(&room) {
            continue;
        }
        let (_, allowed) = ROOMS.iter().find(|(name, _)| *name == room).expect(&path);
        for (number, line) in code(&text).lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for import in line.split("crate::").skip(1) {
                let name: String =
                    import.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let fine = name == room || name.is_empty() || allowed.contains(&"*");
                if !fine && !allowed.contains(&name.as_str()) {
                    broken.push(format!("{path}:{}: {room} imports {name}", number + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn foreign_crates_stay_behind_their_walls() {
    let mut broken = Vec::new();
    for (path, text) in all() {
        for (number, line) in code(&text).lines().enumerate() {
            let line = line.trim_start();
            for (foreign, homes) in WALLS {
                let used = line.contains(foreign) && !line.starts_with("//");
                let own = line.contains(&format!("::{foreign}"));
                if used && !own && !homes.iter().any(|home| path.starts_with(home)) {
                    broken.push(format!("{path}:{}: {line}", number + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn features_choose_between_whole_modules() {
    let mut broken = Vec::new();
    for (path, text) in all() {
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate() {
            if !line.contains("feature = \"") {
                continue;
            }
            let declares = |line: &&&str| !line.starts_with("#[path");
            let declared = lines[number + 1..].iter().find(declares).copied().unwrap_or_default();
            let module = declared.trim_start_matches("pub ").starts_with("mod ");
            if !line.starts_with("#[cfg(") || !module || !declared.ends_with(';') {
                broken.push(format!("{path}:{}: {line}", number + 1));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn tests_of_a_file_stand_at_its_end() {
    let mut broken = Vec::new();
    for (path, text) in all() {
        let Some((_, tests)) = text.split_once("#[cfg(test)]\n") else { continue };
        let body = tests.strip_prefix("mod tests {\n").and_then(|rest| rest.strip_suffix("\n}\n"));
        let ends_early = |body: &str| body.lines().any(|line| line == "}");
        // Long ones are a file of their own.
        if tests == "mod tests;\n" {
            continue;
        }
        if body.is_none_or(ends_early) {
            broken.push(path);
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Returns whether a line begins a function, of whatever visibility and kind.
fn begins_function(line: &str) -> bool {
    let line = match line.strip_prefix("pub(").and_then(|rest| rest.split_once(") ")) {
        Some((_, rest)) => rest,
        None => line.strip_prefix("pub ").unwrap_or(line),
    };
    let mut words = line.split(' ').skip_while(|word| ["const", "async", "unsafe"].contains(word));
    words.next() == Some("fn")
}

#[test]
fn files_and_functions_are_short() {
    let mut long = Vec::new();
    for (path, text) in all() {
        let lines = code(&text).lines().count();
        if lines > FILE_LINES_MAX {
            long.push(format!("{path}: {lines} lines"));
        }
        let mut begun: Option<(usize, usize, &str)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let begins = begins_function(line.trim_start());
            match begun {
                None if begins && !line.trim_end().ends_with(';') => {
                    begun = Some((number, indent, line.trim()));
                }
                Some((start, at, name)) if indent == at && line.trim() == "}" => {
                    if number - start >= FUNCTION_LINES_MAX {
                        long.push(format!(
                            "{path}:{}: {} lines: {name}",
                            start + 1,
                            number - start + 1
                        ));
                    }
                    begun = None;
                }
                _ => {}
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn every_verb_the_readme_and_the_manual_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(env!("CARGO_BIN_EXE_artifactfs")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let verbs: BTreeSet<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let used = readme.lines().filter_map(|line| line.strip_prefix("artifactfs "));
    for line in used {
        let verb = line.split_whitespace().next().unwrap();
        assert!(verbs.contains(verb), "README: no verb {verb}");
    }
    assert!(readme.contains("cargo run --release -- mount") && readme.contains("cargo test"));
    let manual = fs::read_to_string(root.join("man/artifactfs.1")).unwrap();
    for verb in verbs.iter().filter(|verb| **verb != "help") {
        assert!(manual.contains(&format!("\\fB{verb}")), "man page: no {verb}");
    }
}

#[test]
fn every_file_that_the_documents_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut lost = Vec::new();
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/FORMAT.md", "docs/GLOSSARY.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        for word in text.split(['`', ' ', ',', '(', ')']).filter(|word| word.ends_with(".rs")) {
            // A file without a folder is in one that was named before it.
            let folders = ["src", "", "src/content", "docs"].map(|folder| root.join(folder));
            if word.contains('/') && !folders.iter().any(|folder| folder.join(word).exists()) {
                lost.push(format!("{document}: {word}"));
            }
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

#[test]
fn every_test_that_the_semantics_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("tests/it"), &mut files);
    let mut texts: String =
        files.iter().map(|path| fs::read_to_string(path).unwrap()).collect::<Vec<_>>().join("\n");
    for entry in fs::read_dir(root.join("tests/suites")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "sh") {
            texts.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    let document = fs::read_to_string(root.join("docs/SEMANTICS.md")).unwrap();
    let rows = document.lines().filter(|line| line.starts_with("| ") && !line.contains("---"));
    let (mut lost, mut named) = (Vec::new(), 0);
    for row in rows.filter(|row| !row.ends_with("| shown by |")) {
        let shown = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let tests: Vec<_> = shown.split(", ").map(|name| name.trim_matches('`')).collect();
        named += tests.len();
        lost.extend(tests.into_iter().filter_map(|name| {
            let begins = match name.strip_prefix("suite:") {
                Some(check) => format!("\ncheck_{check}() {{"),
                None => format!("#[test]\nfn {name}() {{"),
            };
            (!texts.contains(&begins)).then(|| name.to_owned())
        }));
    }
    assert!(lost.is_empty() && named > 50, "{named} named, {lost:?} are none");
}

#[test]
fn commands_and_mounts_call_ops_and_never_the_registry_or_the_reader() {
    let calls = |line: &str, what: &str| {
        line.split(what).skip(1).any(|rest| {
            let name = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            name.len() < rest.len() && name.starts_with('(')
        })
    };
    let mut broken = Vec::new();
    for (path, text) in all() {
        let no_registry = path.starts_with("src/cli/") || path.starts_with("src/mount/");
        let no_reader = path.starts_with("src/cli/");
        for (number, line) in code(&text).lines().enumerate() {
            if no_registry && calls(line, "registry.") || no_reader && calls(line, "reader.") {
                broken.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The files with flags of other programs, or of this one as a child; these are not advice.
const FLAGS: &[&str] =
    &["src/content/remote/profile.rs", "src/daemon/watchdog.rs", "src/ops/code.rs"];

#[test]
fn texts_below_the_cli_name_no_flag_and_no_command() {
    let is_flag = |(at, _): (usize, &str), line: &str| {
        let before = line[..at].chars().next_back();
        let after = line[at + 2..].chars().next();
        before.is_some_and(|c| " \"`(".contains(c)) && after.is_some_and(|c| c.is_ascii_lowercase())
    };
    let mut broken = Vec::new();
    for (path, text) in all() {
        if path.starts_with("src/cli/") || FLAGS.contains(&&*path) {
            continue;
        }
        for (number, line) in code(&text).lines().enumerate() {
            let named = line.contains("`artifactfs ")
                || line.match_indices("--").any(|found| is_flag(found, line));
            if named && !line.trim_start().starts_with("//") {
                broken.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
