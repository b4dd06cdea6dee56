//! The handler of the calls of drafts.

use super::commit::{WRITERS_WAIT, no_version};
use super::service::DraftService;
use crate::content::directory::resolve;
use crate::error::{Error, Kind, Result};
use crate::model::difference::Change;
use crate::model::name::EntryName;
use crate::model::reference::ArtifactPath;
use crate::ops::put::PutReport;
use crate::protocol::drafts::{DIFFERENCES_MAX, DraftAnswer, DraftCall, DraftHandler, DraftInfo};
use std::sync::PoisonError;

impl DraftHandler for DraftService {
    fn call(&self, call: DraftCall) -> Result<DraftAnswer> {
        match call {
            DraftCall::List => {
                let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
                let troubles: Vec<String> = troubles.iter().cloned().collect();
                let drafts = self.drafts.list()?.into_iter().map(|draft| {
                    self.info(draft.clone()).unwrap_or_else(|e| DraftInfo::unread(draft, &e))
                });
                Ok(DraftAnswer::Drafts { drafts: drafts.collect(), troubles })
            }
            DraftCall::Commit(request) => {
                let report = self.commit(&request, false)?;
                let committed = report.committed.ok_or_else(no_version)?;
                let PutReport { warnings, stored_bytes, files_read, .. } = report;
                Ok(DraftAnswer::Committed { committed, warnings, stored_bytes, files_read })
            }
            DraftCall::Begin(reference) => {
                let draft = self.begin(&reference)?;
                self.notify_moved(&draft, &[]);
                Ok(DraftAnswer::Begun(draft))
            }
            DraftCall::Discard(draft) => {
                let frozen = self.drafts.freeze(&draft, WRITERS_WAIT)?;
                self.remove(&draft, frozen)?;
                self.notify_moved(&draft, &[]);
                Ok(DraftAnswer::Done)
            }
            DraftCall::Diff(draft) => self.diff(&draft),
            DraftCall::Restore(draft, path) => {
                self.restore(&draft, &path)?;
                self.notify_moved(&draft, &path);
                Ok(DraftAnswer::Done)
            }
        }
    }
}

impl DraftService {
    fn info(&self, draft: ArtifactPath) -> Result<DraftInfo> {
        let record = self.drafts.record(&draft)?;
        let (mut files, mut size_bytes) = (record.totals.files, record.totals.size_bytes);
        let mut changed = 0;
        self.each_difference(&draft, &record, &mut |difference| {
            // A new directory does not count, only what is in it.
            changed += u64::from(!difference.directory || difference.change == Change::Removed);
            let (before, after) = (difference.before_bytes, difference.after_bytes);
            files =
                (files + u64::from(after.is_some())).saturating_sub(u64::from(before.is_some()));
            size_bytes =
                (size_bytes + after.unwrap_or_default()).saturating_sub(before.unwrap_or_default());
            Ok(())
        })?;
        let base = record.base;
        Ok(DraftInfo { path: draft, base, files, size_bytes, changed, unread: None })
    }

    fn diff(&self, draft: &ArtifactPath) -> Result<DraftAnswer> {
        self.must_exist(draft)?;
        let record = self.drafts.record(draft)?;
        let (mut differences, mut count) = (Vec::new(), 0);
        self.each_difference(draft, &record, &mut |difference| {
            count += 1;
            if differences.len() < DIFFERENCES_MAX {
                differences.push(difference);
            }
            Ok(())
        })?;
        Ok(DraftAnswer::Differences { differences, count })
    }

    fn restore(&self, draft: &ArtifactPath, path: &[EntryName]) -> Result<()> {
        self.must_exist(draft)?;
        let Some(root) = self.drafts.record(draft)?.root else {
            return Err(Error::new(Kind::Conflict, format!("draft {draft} stands on no version"))
                .hint("only what was begun from a version, or committed, can be taken back"));
        };
        let Some(entry) = resolve(&self.repository.reader, root, path)? else {
            let shown: Vec<_> =
                path.iter().map(|name| name.as_os_str().to_string_lossy()).collect();
            let what = format!("{draft} stands on a version without {}", shown.join("/"));
            return Err(Error::new(Kind::NotFound, what).hint("`rm` removes what is new"));
        };
        self.drafts.restore(draft, path, &entry.target).map_err(|e| {
            Error::io(format!("cannot restore in draft {draft}"), e.into())
                .hint("a directory above it may be gone: restore that")
        })
    }
}
