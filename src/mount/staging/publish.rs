//! A rename of a draft to a version's name, which commits it.
//!
//! While the kernel waits for a rename, it holds the locks of the directories. So every look-up in
//! the project waits as well, and nothing can interrupt that. Therefore the reply comes within
//! [`ANSWER_WITHIN`]. A commit that takes longer goes on, and the rename fails with EINPROGRESS, so
//! that it does not pass for done.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::Builder;
use std::time::Duration;

use fuser::ReplyEmpty;
use rustix::io::Errno;

use crate::model::name::Alias;
use crate::model::new_version::NewVersion;
use crate::model::reference::{ArtifactPath, Selector};
use crate::mount::errno;
use crate::mount::kernel::host;
use crate::mount::staging::convert::empty;
use crate::mount::staging::fs::{Place, StagingFs};
use crate::mount::workers::on_own_thread;
use crate::ops::drafts::CommitDraft;
use crate::ops::runs;

/// The time that a rename waits for its commit.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Replies to a rename by process `pid` of one name, in the root or in a project, to another.
pub(crate) fn publish(
    fs: &Arc<StagingFs>,
    from: (u64, &OsStr),
    to: (u64, &OsStr),
    pid: u32,
    reply: ReplyEmpty,
) {
    let (from, to) = match (fs.resolve(from.0, from.1), fs.resolve(to.0, to.1)) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(e), _) | (_, Err(e)) => return reply.error(host(e)),
    };
    let (Place::Draft(draft), Place::Version(path, selector)) = (from, to) else {
        // EXDEV makes `mv` copy.
        return reply.error(host(Errno::XDEV));
    };
    let Selector::Alias(alias) = selector else {
        fs.service
            .trouble(format!("mv {draft}: the registry numbers versions; rename it to an alias"));
        return reply.error(host(Errno::PERM));
    };
    let fs = Arc::clone(fs);
    // A thread of its own: no thread that serves requests waits for a commit.
    on_own_thread(reply, move |reply| empty(commit_within(fs, draft, path, alias, pid), reply));
}

/// Commits a draft in a new thread, and waits for that at most [`ANSWER_WITHIN`].
fn commit_within(
    fs: Arc<StagingFs>,
    draft: ArtifactPath,
    path: ArtifactPath,
    alias: Alias,
    pid: u32,
) -> Result<(), Errno> {
    let (sender, outcome) = sync_channel(1);
    let waiting = (Arc::clone(&fs), draft.clone(), path.clone(), alias.clone());
    let spawned = Builder::new()
        .name("commit".to_owned())
        .spawn(move || commit(&fs, &draft, path, alias, pid, &sender));
    if let Err(e) = spawned {
        tracing::error!("cannot start a thread to commit a draft: {e}");
        return Err(Errno::AGAIN);
    }
    match outcome.recv_timeout(ANSWER_WITHIN) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => {
            let (fs, draft, path, alias) = waiting;
            fs.service.trouble(goes_on(&draft, &path, &alias));
            Err(Errno::INPROGRESS)
        }
        Err(RecvTimeoutError::Disconnected) => Err(Errno::IO),
    }
}

fn goes_on(draft: &ArtifactPath, path: &ArtifactPath, alias: &Alias) -> String {
    format!(
        "mv {draft} {path}:{alias}: the commit goes on, and mv does not wait for it; \
         to wait, commit the draft by name"
    )
}

fn commit(
    fs: &StagingFs,
    draft: &ArtifactPath,
    path: ArtifactPath,
    alias: Alias,
    pid: u32,
    sender: &SyncSender<Result<(), Errno>>,
) {
    let told_of = goes_on(draft, &path, &alias);
    let aliases = if alias == Alias::latest() { Vec::new() } else { vec![alias] };
    let run = runs::of_process(pid);
    let version = NewVersion { aliases, run, ..NewVersion::plain(path) };
    let request = CommitDraft { version, ..CommitDraft::plain(draft.clone()) };
    let done = fs.service.commit(&request, true);
    let outcome = done.map(|_| ()).map_err(|e| {
        fs.service.trouble(format!("draft {draft} was not committed by mv: {e}"));
        match errno::of(e.kind()) {
            // For EINVAL `mv` would print that a directory cannot be moved into itself.
            Errno::INVAL => Errno::PERM,
            other => other,
        }
    });
    // The reply was sent already: the kernel still has the draft under its name, which is gone.
    if sender.send(outcome).is_err() && outcome.is_ok() {
        tracing::info!("draft {draft} was committed; mv did not wait for it");
        fs.service.no_trouble(&told_of);
        fs.service.notify_moved(draft, &[]);
    }
}
