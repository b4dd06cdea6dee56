//! Drafts that are committed by themselves.

use std::time::Duration;

use super::service::DraftService;
use crate::error::Kind;
use crate::model::reference::ArtifactPath;
use crate::protocol::drafts::CommitDraft;
use crate::staging::TreeXattr;

impl DraftService {
    /// Commits every draft that changed and was quiet for so long.
    pub fn autocommit(&self, quiet: Duration) {
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
                // A draft that stands on nothing does not show that it is committed.
                Ok(_) if !self.drafts.can_stand() => {
                    self.lock_committed().insert(request.draft, last);
                    continue;
                }
                Ok(_) => {}
                // Somebody has just begun to write: the next round sees.
                Err(e) if e.kind() == Kind::Conflict && self.drafts.has_writers(&request.draft) => {
                }
                Err(e) => self.trouble(format!("draft {} was not committed: {e}", request.draft)),
            }
            // Tried again when it was quiet once more.
            self.drafts.touch(&request.draft);
        }
    }

    /// Whether a draft has something, and something that differs from what it stands on.
    fn is_changed(&self, draft: &ArtifactPath) -> bool {
        let root = self.drafts.tree_path(draft);
        match TreeXattr::of(&root) {
            Ok(Some(mark)) => !mark.clean,
            _ => std::fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_some()),
        }
    }
}
