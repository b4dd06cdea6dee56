//! Names for what differs from run to run, so that documents stay the same.

use regex::Regex;

use super::sandbox::Sandbox;

/// Patterns and what they become, in order.
const PATTERNS: &[(&str, &str)] = &[
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z", "[TIME]"),
    // A column is as wide as its widest age, so the spaces that fill it differ too.
    (r"\b\d+ (?:second|minute|hour)s? ago( {2})? *", "[AGE] ago$1"),
    (r"\b(in )[\d.]+(?:ns|µs|ms|s)\b", "$1[DURATION]"),
    (r"(?m)^( *slow +)\d+ ms", "$1[DURATION]"),
    (r"(?m)^( *cache hits +)\d+ %", "$1[PERCENT]"),
    (r"\bprocess \d+", "process [PID]"),
    (r#""pid": \d+"#, r#""pid": [PID]"#),
    (r#"(process \[PID\] on )[^",\s]+"#, "$1[HOST]"),
    (r#""holder": "[^"]*""#, r#""holder": "[HOLDER]""#),
    (r#""((?:staging_)?device)": \d+"#, r#""$1": [DEVICE]"#),
    (r#""(free|total)_bytes": \d+"#, r#""${1}_bytes": [BYTES]"#),
    (r"(?m)^(free +)[\d.]+ \S+ of [\d.]+ \S+$", "$1[SIZE] of [SIZE]"),
    // What a cache takes is counted in blocks of the disk. Nothing else in a session is of this size.
    (r"\b[\d.]+ KiB\b", "[SIZE]"),
    (r#""((?:pinned_)?bytes)": \d{4,}"#, r#""$1": [BYTES]"#),
    (r#""modified": "\d{19}""#, r#""modified": "[NANOSECONDS]""#),
    // Repositories and packs have random ids.
    (r"\b[0-9a-f]{32}\b", "[ID]"),
    (r"(?m)^(artifactfs(?:-\S+)?) \d+\.\d+\.\d+$", "$1 [VERSION]"),
];

/// The remark by which a document says that its digests depend on where it runs: external files are digested with
/// their paths.
const DIGESTS_DIFFER: &str = "<!-- digests differ -->";
const DIGEST: (&str, &str) = (r"\b[0-9a-f]{64}\b", "[DIGEST]");

/// The redactions of one session.
pub struct Redaction {
    directories: [(String, &'static str); 2],
    patterns: Vec<(Regex, &'static str)>,
}

impl Redaction {
    pub fn new(sandbox: &Sandbox, document: &str) -> Self {
        let digest = document.contains(DIGESTS_DIFFER).then_some(&DIGEST);
        let compile =
            |(pattern, name): &(&str, &'static str)| (Regex::new(pattern).unwrap(), *name);
        Self {
            directories: [
                (sandbox.here().display().to_string(), "[HERE]"),
                (sandbox.home().display().to_string(), "[HOME]"),
            ],
            patterns: PATTERNS.iter().chain(digest).map(compile).collect(),
        }
    }

    pub fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (directory, name) in &self.directories {
            text = text.replace(directory, name);
        }
        for (pattern, name) in &self.patterns {
            text = pattern.replace_all(&text, *name).into_owned();
        }
        text
    }
}
