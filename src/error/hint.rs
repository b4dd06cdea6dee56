//! Advice that follows an error, as data: each face renders it in its own words.
//!
//! Below the faces no text names a flag or a command, since a web page has neither. Advice that needs one is a
//! variant here, and the `cli` renders it by an exhaustive match.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Advice about the next step after an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hint {
    /// Advice that reads the same in every face.
    Text(Cow<'static, str>),
    /// Advice about projects, artifacts, versions and aliases.
    Names(NamesHint),
    /// Advice about the repository itself.
    Repository(RepositoryHint),
    /// Advice about damage.
    Damage(DamageHint),
    /// Advice about what becomes a version.
    Put(PutHint),
    /// Advice about drafts.
    Draft(DraftHint),
    /// Advice about reading and writing out versions.
    Get(GetHint),
    /// Advice about runs and sweeps.
    Run(RunHint),
    /// Advice about stores.
    Store(StoreHint),
    /// Advice about mounts.
    Mount(MountHint),
    /// Advice about servers, users and keys.
    Access(AccessHint),
}

/// Advice about projects, artifacts, versions and aliases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamesHint {
    /// List projects and artifacts.
    List,
    /// List the versions of an artifact.
    ListVersions(String),
    /// List the versions of an artifact to find the one with an alias.
    FindAlias(String),
    /// Move a protected alias on purpose.
    MoveProtected {
        /// The artifact.
        path: String,
        /// The alias.
        name: String,
    },
    /// Take the protection of an alias away.
    Unprotect {
        /// The artifact.
        path: String,
        /// The alias.
        name: String,
    },
    /// Delete versions together with their aliases.
    DeleteAliases,
    /// List the artifacts of this project.
    ListArtifacts(String),
    /// List the files of this version.
    ListFiles(String),
}

/// Advice about the repository itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RepositoryHint {
    /// Name the repository's directory.
    Locate,
    /// Make a repository in this directory.
    Init(String),
    /// Listen on another address.
    ListenElsewhere,
    /// Confirm that the clock of this machine is right.
    TrustClock,
    /// Wait for maintenance, or finish it if it was interrupted.
    AwaitMaintenance(Maintenance),
    /// Wait for a copy of the store.
    AwaitCopy,
    /// Name a store that all hosts of a shared registry reach.
    SharedStore,
    /// Check the address of a shared registry, or make a new one.
    MakeShared,
    /// Make a repository in which each project is a zone, and copy what is needed.
    Zoned,
    /// Copy the files themselves.
    CopyFiles,
}

/// Work on a whole repository that excludes changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Maintenance {
    /// A repair of what a check found.
    Repair,
    /// A rebuild of the object table.
    Rebuild,
    /// A copy to another store.
    CopyStore,
}

/// Advice about damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DamageHint {
    /// Verify content, to learn which files and versions are hurt.
    Verify,
    /// Verify content, then put good copies.
    VerifyAndPut,
    /// Verify content, delete what is hurt, copy again.
    VerifyAndDelete,
    /// Put a good copy of the files that an object belongs to.
    PutGoodCopy,
    /// Check the repository.
    Check,
    /// Repair the repository.
    Repair,
    /// Rebuild the object table.
    Rebuild,
    /// Finish the swap of a rebuild.
    FinishRebuild,
    /// Collect garbage again.
    CollectGarbage,
}

/// Advice about what becomes a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PutHint {
    /// Exclude a file.
    Exclude,
    /// Exclude a file of this name, or rename it.
    ExcludeOrRename(String),
    /// Exclude a symlink, or follow symlinks.
    ExcludeOrFollow,
    /// Exclude a symlink, or do not follow symlinks.
    ExcludeOrKeepSymlink,
    /// Exclude a symlink that leads nowhere, or remove it.
    ExcludeOrRemoveSymlink,
    /// Exclude a file, or put it when its writer has finished.
    ExcludeOrWait,
    /// Give one of two references another name.
    NameReference,
    /// Give a web reference a name.
    NameWebReference,
    /// Record an external file without a checksum.
    RecordByLength,
    /// Allow a reference more objects.
    AllowObjects,
    /// Put again, which goes on from what is stored.
    GoOn,
    /// Leave the program's code out.
    LeaveCode,
    /// Add to the next version of a group.
    Upsert,
    /// List open groups, of one artifact if one is named.
    ListGroups(Option<String>),
    /// Allow a part to replace files, or rename them.
    AllowOverwrite,
    /// Compare with the newest version, then make one on top of that.
    Expect,
}

/// Advice about drafts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DraftHint {
    /// List drafts.
    List,
    /// Commit this draft, or discard it.
    CommitOrDiscard(String),
    /// Commit and leave out what no version holds.
    CommitLeniently,
    /// Commit symlinks that leave the draft.
    CommitExternalSymlinks,
    /// Restore the record of a draft, or discard the draft.
    RestoreRecord,
    /// Read in the status why a draft is frozen.
    ShowStatus,
    /// Find the one staging mount in the status.
    FindMount,
}

/// Advice about reading and writing out versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GetHint {
    /// Write out links in place of external content.
    FetchReferences,
    /// Write out to another directory.
    ChooseRoot,
    /// Write a file out in place of reading it into memory.
    WriteOut,
    /// Write an array out and load it from there.
    WriteOutArray,
    /// Name another cache directory.
    CacheDirectory,
    /// Make the cache larger.
    EnlargeCache,
}

/// Advice about runs and sweeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunHint {
    /// List the runs of a project.
    List,
    /// List the sweeps of a project.
    ListSweeps,
    /// Resume this run.
    Resume(String),
    /// Finish this run.
    Finish(String),
    /// Resume a run that ended, or choose another id.
    ResumeOrRename,
    /// Begin a run if there is none to resume.
    ResumeOrBegin,
    /// Put within a run, so that it is logged by it.
    PutInside,
    /// Give a run a value of this metric.
    LogSummary(String),
    /// Record a value that is no number in the summary.
    UseSummary,
    /// Record long texts in the configuration.
    UseConfig,
    /// Resume a run without naming a sweep.
    LeaveSweep,
}

/// Advice about stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreHint {
    /// Set this region.
    Region(String),
    /// Correct the URL, endpoint or options.
    Correct,
    /// Check the URL, the options and the credentials.
    Check,
    /// Name a file with the service account.
    ServiceAccountFile,
    /// Give credentials by the environment, and options as options.
    Options,
    /// Give no options.
    LeaveOptions,
}

/// Advice about mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountHint {
    /// End what uses a mount, or unmount it lazily.
    UnmountLazily,
    /// Unmount this directory, or choose another.
    UnmountOrChoose(String),
}

/// Advice about servers, users and keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessHint {
    /// Sign in to a server.
    SignIn(String),
    /// List the users.
    ListUsers,
    /// List the keys.
    ListKeys,
    /// Make another key for a user.
    MakeKey,
    /// Revoke keys that are not used any more.
    RevokeKeys,
    /// Make the first admin of a repository.
    MakeAdmin,
    /// Run the command on the server, or on a host that opens registry and store itself.
    RunAtServer,
    /// Listen on another address.
    ListenElsewhere,
    /// Give the repository a name that a team can have.
    NameTeam,
    /// Use a certificate, or listen on this machine only, or allow plain HTTP.
    Encrypt,
}

/// Lets `Error::hint` take a text, or advice about one subject.
macro_rules! from {
    ($($from:ty => $variant:ident),* $(,)?) => {
        $(impl From<$from> for Hint {
            fn from(hint: $from) -> Self {
                Self::$variant(hint.into())
            }
        })*
    };
}

from! {
    &'static str => Text,
    String => Text,
    NamesHint => Names,
    RepositoryHint => Repository,
    DamageHint => Damage,
    PutHint => Put,
    DraftHint => Draft,
    GetHint => Get,
    RunHint => Run,
    StoreHint => Store,
    MountHint => Mount,
    AccessHint => Access,
}
