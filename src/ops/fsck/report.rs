//! The report of a check.

use std::collections::HashSet;

/// The maximum number of findings that are listed; more are only counted.
const FINDINGS_MAX: usize = 1_000;

/// The result of a check.
#[derive(Debug, Default, Clone)]
pub struct FsckReport {
    /// Objects in the table.
    pub objects: u64,
    /// Packs in the table.
    pub packs: u64,
    /// Versions.
    pub versions: u64,
    /// The findings, a line each, at most a thousand.
    pub findings: Vec<String>,
    /// The number of all problems.
    pub problems: u64,
    /// The number of problems that were repaired.
    pub repaired: u64,
    /// Objects that a node or version needs and that are lost: only another copy brings them back.
    pub missing_objects: u64,
    /// Packs in the store that the registry does not have.
    pub unknown_packs: u64,
}

impl FsckReport {
    pub(super) fn finding(&mut self, text: String) {
        self.problems += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(text);
        }
    }

    /// Keeps the findings that an earlier report has too, and the number of those that neither
    /// lists.
    pub(super) fn found_before(mut self, earlier: &Self) -> Self {
        let before = self.findings.len();
        let earlier: HashSet<&String> = earlier.findings.iter().collect();
        self.findings.retain(|finding| earlier.contains(finding));
        self.problems -= (before - self.findings.len()) as u64;
        self
    }
}
