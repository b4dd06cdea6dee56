//! Freezing and sealing of drafts, and the processes that write to them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::drafts::{Drafts, TREE};
use super::freeze::{Change, DraftKey, Frozen};
use crate::error::{DraftHint, Error, Kind, Result};
use crate::model::reference::ArtifactPath;

/// The words in a refusal that ends when a process closes a file.
pub const BEING_WRITTEN: &str = "is being written";

impl Drafts {
    /// Returns whether any draft is frozen.
    pub(crate) fn any_frozen(&self) -> bool {
        self.gates.any_frozen()
    }

    /// Returns whether a change of this node has to wait for a commit.
    pub(crate) fn is_frozen(&self, id: u64) -> bool {
        self.any_frozen() && self.draft_of(id).is_ok_and(|draft| self.gates.is_frozen(&draft))
    }

    /// Begins a change of a draft.
    ///
    /// # Errors
    /// [`Kind::Conflict`] while the draft is being committed, [`Kind::Corrupt`] if it is sealed.
    pub(crate) fn begin_change(&self, key: &ArtifactPath) -> Result<Change<'_>> {
        self.gates.change(&Arc::new(key.clone())).map_err(|e| match e {
            rustix::io::Errno::IO => {
                Error::new(Kind::Corrupt, format!("draft {key} cannot be changed"))
                    .hint(DraftHint::ShowStatus)
            }
            _ => Error::new(Kind::Conflict, format!("draft {key} is being committed"))
                .hint("try again when that is done"),
        })
    }

    /// Returns when this process last saw a change of a draft.
    pub(crate) fn touched(&self, key: &ArtifactPath) -> Option<Instant> {
        self.gates.touched(key)
    }

    /// Refuses every change of a draft until [`Drafts::unseal`].
    pub(crate) fn seal(&self, key: &ArtifactPath) {
        self.gates.seal(&Arc::new(key.clone()));
    }

    /// Allows changes of a sealed draft again.
    pub(crate) fn unseal(&self, key: &ArtifactPath) {
        self.gates.unseal(&Arc::new(key.clone()));
    }

    /// Records that the draft was changed now.
    pub(crate) fn touch(&self, key: &ArtifactPath) {
        self.gates.touch(&Arc::new(key.clone()));
    }

    /// Returns whether a process has a file of the draft open for writing.
    pub(crate) fn has_writers(&self, key: &ArtifactPath) -> bool {
        !self.handles.writers(&Arc::new(key.clone())).is_empty()
    }

    /// Freezes a draft, after waiting up to `wait` for its writers to close their files.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is no such draft; [`Kind::Conflict`], which names the writing
    /// processes, while a file is open for writing or another commit is under way.
    pub(crate) fn freeze(&self, key: &ArtifactPath, wait: Duration) -> Result<Frozen> {
        if !self.exists(key)? {
            return Err(Error::new(Kind::NotFound, format!("no draft {key}")).hint(DraftHint::List));
        }
        let key: DraftKey = Arc::new(key.clone());
        self.gates.wait_quiet(&key, wait);
        self.gates.freeze(&key).map_err(|_| {
            let writers = self.writers(&key);
            let what = match writers.as_slice() {
                [] => format!("draft {key} is being committed"),
                some => format!("draft {key} {BEING_WRITTEN}: {}", some.join(", ")),
            };
            Error::new(Kind::Conflict, what).hint("try again when that is done")
        })
    }

    /// Describes each file that is open for writing: `process 17 (python3) has a/b open`.
    fn writers(&self, key: &DraftKey) -> Vec<String> {
        let skip = [key.project.as_str(), key.artifact.as_str(), TREE].iter().collect::<PathBuf>();
        let writers = self.handles.writers(key).into_iter().map(|(pid, node)| {
            let path = match self.lock_nodes().path(node) {
                Ok(path) => path.strip_prefix(&skip).unwrap_or(&path).display().to_string(),
                Err(_) => "a file that was removed".to_owned(),
            };
            let (pid, name) = process_of(pid);
            format!("process {pid} ({name}) has {path} open")
        });
        writers.collect()
    }
}

/// Returns the process of a thread and its name: the kernel reports threads (proc_pid_status(5)).
fn process_of(thread: u32) -> (u32, String) {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let process = field("Tgid:").and_then(|text| text.parse().ok()).unwrap_or(thread);
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    (process, name.trim().to_owned())
}
