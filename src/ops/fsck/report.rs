//! The report of a check.

use std::collections::HashSet;

/// Findings that are told; more are only counted.
const FINDINGS_MAX: usize = 1_000;

/// What a check found.
#[derive(Debug, Default, Clone)]
pub struct FsckReport {
    /// Objects in the table.
    pub objects: u64,
    /// Packs in the table.
    pub packs: u64,
    /// Versions.
    pub versions: u64,
    /// What is wrong, a line each, at most a thousand.
    pub findings: Vec<String>,
    /// How much is wrong in all.
    pub problems: u64,
    /// How much of it was put right.
    pub repaired: u64,
    /// Objects that a node or version needs and nobody has: only another copy brings them back.
    pub missing_objects: u64,
    /// Packs in the store that the registry does not know.
    pub unknown_packs: u64,
}

impl FsckReport {
    pub(super) fn finding(&mut self, text: String) {
        self.problems += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(text);
        }
    }

    /// Keeps the findings that an earlier report has too, and the number of those that neither lists.
    pub(super) fn found_before(mut self, earlier: &Self) -> Self {
        let told = self.findings.len();
        let earlier: HashSet<&String> = earlier.findings.iter().collect();
        self.findings.retain(|finding| earlier.contains(finding));
        self.problems -= (told - self.findings.len()) as u64;
        self
    }
}
