//! The autocommit of drafts.

use std::time::Duration;

use super::service::DraftService;
use crate::error::Kind;
use crate::model::reference::ArtifactPath;
use crate::protocol::drafts::CommitDraft;
use crate::staging::TreeXattr;

impl DraftService {
    /// Commits every draft that changed and was then unchanged for `quiet`.
    pub(crate) fn autocommit(&self, quiet: Duration) {
        let drafts = self.drafts.list().unwrap_or_else(|e| {
            self.trouble(format!("drafts are not committed: {e}"));
            Vec::new()
        });
        for draft in drafts {
            let last = self.drafts.touched(&draft).unwrap_or(self.opened);
            let done = self.lock_committed().get(&draft) == Some(&last);
            if done || last.elapsed() < quiet || !self.is_changed(&draft) {
                continue;
            }
            let request = CommitDraft { wait_milliseconds: Some(0), ..CommitDraft::plain(draft) };
            match self.commit(&request, false) {
                // A draft that cannot have a lower does not show that it is committed.
                Ok(_) if !self.drafts.can_stand() => {
                    self.lock_committed().insert(request.draft, last);
                    continue;
                }
                Ok(_) => {}
                // A process has just begun to write: a later round tries again.
                Err(e) if e.kind() == Kind::Conflict && self.drafts.has_writers(&request.draft) => {
                }
                Err(e) => self.trouble(format!("draft {} was not committed: {e}", request.draft)),
            }
            // The next try comes after another quiet period.
            self.drafts.touch(&request.draft);
        }
    }

    /// Returns whether a draft differs from its lower or, without one, is not empty.
    fn is_changed(&self, draft: &ArtifactPath) -> bool {
        let root = self.drafts.tree_path(draft);
        match TreeXattr::of(&root) {
            Ok(Some(mark)) => !mark.clean,
            _ => std::fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_some()),
        }
    }
}
