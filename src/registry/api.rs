//! What a registry can be asked: one list, from which come the trait, the calls that cross a
//! socket, and a registry seen through anything that carries calls.

use serde::{Deserialize, Serialize};

use super::groups::{AddedPart, GroupInfo, NewPart, PartInfo, SealRequest};
use super::record::{Maintenance, MaintenanceMode};
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::name::{
    Alias, ArtifactName, ArtifactType, GroupName, ProjectName, RunId, SweepId, Tag, VersionNumber,
};
use crate::model::object::{Extent, Located, NewObject, PackId};
use crate::model::properties::Ttl;
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::run::{Edge, MetricRow, Resume, RunInfo, RunLog, RunStart, RunState, SweepInfo};
use crate::model::version::{
    ArtifactInfo, Change, Committed, Metadata, ProjectInfo, Timestamp, Totals, VersionInfo,
};

/// A lease: while it lives, what it pinned or wrote stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

/// A lease in a listing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// Its id.
    pub id: LeaseId,
    /// Who holds it.
    pub holder: String,
    /// What for.
    pub purpose: String,
    /// Whether its time is over.
    pub expired: bool,
    /// Whether it has committed, or added its part to a group: it only waits to be released.
    pub committed: bool,
}

/// The holder of a lease that ends only by release: a draft, which pins what it stands on.
pub const DRAFT_HOLDER: &str = "draft";
/// The holder of a lease whose writer is gone: packs it had finished are kept for a day, for the next
/// that begins the same.
pub(super) const LEFT_HOLDER: &str = "left";
/// The holder of a lease that is being taken apart; whoever comes goes on with that.
pub(super) const ENDING_HOLDER: &str = "ending";

/// A lease as it was when somebody found that its writer is gone. What follows is done only if the same
/// writer still has it then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The lease.
    pub lease: LeaseId,
    /// Who held it.
    pub holder: String,
    /// Whether that process certainly runs no more; otherwise the lease's time must be over.
    pub dead: bool,
}

impl LeaseInfo {
    /// Whether somebody may be writing under it.
    pub fn writes(&self) -> bool {
        self.holder != DRAFT_HOLDER
    }

    /// Whether its writer is gone and only what it had stored is kept, so that another goes on there.
    pub fn is_left(&self) -> bool {
        self.holder == LEFT_HOLDER
    }

    /// Whether it is being taken apart.
    pub fn is_ending(&self) -> bool {
        self.holder == ENDING_HOLDER
    }
}

/// The repository in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryInfo {
    /// Packs.
    pub packs: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of these objects in the store.
    pub live_bytes: u64,
    /// Length of all packs; the difference waits to be freed.
    pub pack_bytes: u64,
}

/// A part of a listing: as many as were asked for, or fewer when they are large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// What is in it.
    pub items: Vec<T>,
    /// Whether there may be more behind it.
    pub more: bool,
}

/// How much is told of each version in a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detail {
    /// All but the metadata, which stands as an empty object.
    #[default]
    Brief,
    /// All.
    Full,
}

/// A commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommitRequest {
    /// The artifact.
    pub path: ArtifactPath,
    /// Its type; must be the artifact's when that exists. `None`: the artifact's, or `dataset`.
    pub artifact_type: Option<ArtifactType>,
    /// The root tree, which must be registered.
    pub root: Digest,
    /// What is in it.
    pub totals: Totals,
    /// Aliases that move to it, beside `latest`.
    pub aliases: Vec<Alias>,
    /// Set when given, also on a version that has this content already.
    pub description: Option<String>,
    /// Set when given, also on a version that has this content already.
    pub metadata: Option<Metadata>,
    /// The version that must be the newest; otherwise nothing is committed.
    pub expect: Option<VersionNumber>,
    /// The run that logs it, which must be open.
    pub run: Option<RunId>,
    /// Set when given, also on a version that has this content already.
    pub ttl: Option<Ttl>,
    /// Added, also to a version that has this content already.
    pub tags: Vec<Tag>,
}

impl CommitRequest {
    /// A commit of which nothing more is said.
    pub fn plain(path: ArtifactPath, root: Digest) -> Self {
        Self {
            path,
            artifact_type: None,
            root,
            totals: Totals::default(),
            aliases: Vec::new(),
            description: None,
            metadata: None,
            expect: None,
            run: None,
            ttl: None,
            tags: Vec::new(),
        }
    }
}

/// What registering objects found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Added {
    /// Children that are not there: nothing was registered; write these and try again.
    pub missing: Vec<Digest>,
    /// Objects that somebody else had registered first.
    pub duplicates: u64,
}

/// A change of what is said about a version; what is `None` or empty stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Update {
    /// The whole description.
    pub description: Option<String>,
    /// The whole metadata.
    pub metadata: Option<Metadata>,
    /// Keys to set, with values as JSON.
    pub set: Vec<(String, String)>,
    /// Keys to remove.
    pub unset: Vec<String>,
    /// How long it lives.
    pub ttl: Option<Ttl>,
    /// Tags to add.
    pub tag: Vec<Tag>,
    /// Tags to remove.
    pub untag: Vec<Tag>,
}

/// A change of what is said about an artifact; what is `None` or empty stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactUpdate {
    /// The whole description.
    pub description: Option<String>,
    /// How long versions live that inherit it, in milliseconds; `Some(None)`: for ever.
    pub ttl_milliseconds: Option<Option<u64>>,
    /// Tags to add.
    pub tag: Vec<Tag>,
    /// Tags to remove.
    pub untag: Vec<Tag>,
    /// Aliases to protect, which need not exist yet.
    pub protect: Vec<Alias>,
    /// Aliases to protect no longer.
    pub unprotect: Vec<Alias>,
}

/// A change of the aliases of a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum AliasChange {
    /// These too, taken from whichever version has them.
    Add(Vec<Alias>),
    /// Not these any more; each must be there.
    Remove(Vec<Alias>),
    /// These and no others.
    Set(Vec<Alias>),
}

/// What happened to names since a moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Changes {
    /// Ask with this next time.
    pub last: u64,
    /// What changed, oldest first.
    pub changes: Vec<Change>,
    /// The log no longer reaches back so far: everything may have changed.
    pub lost: bool,
}

/// A pack in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackInfo {
    /// Its id.
    pub id: PackId,
    /// Whether somebody is writing it.
    pub leased: bool,
    /// Objects the registry knows in it.
    pub live_objects: u64,
    /// Bytes of these.
    pub live_bytes: u64,
    /// Its length.
    pub length_bytes: u64,
}

/// One correction of the object table, made only if what was `seen` is still there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Fix {
    /// An object's record. With no references it is dead, unless a lease holds it.
    Object {
        /// The object.
        digest: Digest,
        /// The record this was computed from; `None`: there was none.
        seen: Option<Located>,
        /// What is right. The same as `seen`: only the mark of a dead object is put right.
        now: Located,
    },
    /// A pack's counts and length.
    Pack {
        /// The record this was computed from; `None`: there was none.
        seen: Option<PackInfo>,
        /// What is right.
        now: PackInfo,
    },
    /// The dead bytes of this pack wait to be freed.
    Free(PackId),
}

/// An object of a table that is being made anew; `None`: it is not in it after all.
pub type Rebuilt = (Digest, Option<Located>);

macro_rules! registry_calls {
    ($($(#[$doc:meta])* $name:ident = $call:ident ($($arg:ident: $type:ty),*) -> $ret:ty;)*) => {
        /// Everything a registry can be asked. Errors have the kinds of [`crate::error::Kind`];
        /// a name that is not there is `NotFound`, a registry that cannot be reached `Unavailable`.
        #[allow(clippy::missing_errors_doc)]
        pub trait Registry: Send + Sync {
            $($(#[$doc])* fn $name(&self, $($arg: $type),*) -> Result<$ret>;)*
        }

        /// A call as it crosses a socket.
        #[derive(Debug, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum Call {
            $($call { $($arg: $type),* },)*
        }

        /// Answers a call; the bytes are what [`Transport::call`] hands back.
        ///
        /// # Errors
        /// Those of the call.
        pub fn dispatch(registry: &dyn Registry, call: Call) -> Result<Vec<u8>> {
            match call {
                $(Call::$call { $($arg),* } => pack(&registry.$name($($arg),*)?),)*
            }
        }

        impl<T: Transport> Registry for T {
            $(fn $name(&self, $($arg: $type),*) -> Result<$ret> {
                unpack(&self.call(Call::$call { $($arg),* })?)
            })*
        }
    };
}

/// Something that brings calls to a registry and answers back.
pub trait Transport: Send + Sync {
    /// The answer of [`dispatch`].
    ///
    /// # Errors
    /// Those of the call, or [`Kind::Unavailable`] when the other side cannot be reached.
    fn call(&self, call: Call) -> Result<Vec<u8>>;
}

fn pack<T: Serialize>(answer: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(answer)
        .map_err(|e| Error::new(Kind::Unavailable, "an answer cannot be written").because(e))
}

fn unpack<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|e| {
        Error::new(Kind::Unsupported, "the registry's answer cannot be read")
            .because(e)
            .hint("daemon and command are of different releases: restart the daemon")
    })
}

registry_calls! {
    /// The repository in numbers.
    info = Info() -> RegistryInfo;
    /// The version a reference stands for now.
    lookup = Lookup(reference: Reference) -> VersionInfo;
    /// All projects.
    projects = Projects() -> Vec<ProjectInfo>;
    /// The artifacts of a project above `after`, in the order of names, at most `limit`.
    artifacts = Artifacts(project: ProjectName, after: Option<ArtifactName>, limit: u32) -> Page<ArtifactInfo>;
    /// The versions of an artifact above `after`, ascending, at most `limit`.
    versions = Versions(path: ArtifactPath, after: Option<VersionNumber>, limit: u32, detail: Detail) -> Page<VersionInfo>;
    /// Whether there is such a project.
    has_project = HasProject(project: ProjectName) -> bool;
    /// Begins a lease. The same holder and purpose are the same lease, unless it is a draft's.
    begin = Begin(purpose: String, holder: String) -> LeaseId;
    /// Gives what a writer that is gone had stored to a lease of the same purpose; the other lease is to be ended
    /// then. Does nothing when that is not as it was judged.
    adopt = Adopt(lease: LeaseId, judged: Judged) -> ();
    /// Moves a lease's end.
    renew = Renew(lease: LeaseId) -> ();
    /// All leases.
    leases = Leases() -> Vec<LeaseInfo>;
    /// Ends a lease: what it pinned and wrote and nothing refers to is dead.
    release = Release(lease: LeaseId) -> ();
    /// Ends a lease but keeps finished packs with objects nothing refers to yet, for a day and for whoever
    /// begins the same; the bytes of their objects.
    leave = Leave(lease: LeaseId) -> u64;
    /// Leaves or goes on ending the lease of a writer that is gone, if it still has it; `wholly` also takes
    /// what is kept of a lease that was left before. The bytes that are kept.
    end_lease = EndLease(judged: Judged, wholly: bool) -> u64;
    /// Which of `digests` are not there; the others are pinned for the lease.
    missing = Missing(lease: LeaseId, digests: Vec<Digest>) -> Vec<Digest>;
    /// Announces a pack before it is written.
    register_pack = RegisterPack(lease: LeaseId, pack: PackId) -> ();
    /// Registers objects of a pack whose bytes are durable; counts their children.
    add_objects = AddObjects(lease: LeaseId, pack: PackId, length_bytes: u64, objects: Vec<NewObject>) -> Added;
    /// Makes a version, in one transaction.
    commit = Commit(lease: LeaseId, request: CommitRequest) -> Committed;
    /// Where objects are.
    locate = LocateObjects(digests: Vec<Digest>) -> Vec<Option<Located>>;
    /// Changes what is said about a version.
    update = UpdateVersion(reference: Reference, update: Update) -> VersionInfo;
    /// Changes the aliases of a version. Taking a protected alias off a version is refused unless `also_protected`.
    change_aliases = ChangeAliases(reference: Reference, change: AliasChange, also_protected: bool) -> VersionInfo;
    /// An artifact.
    artifact = FindArtifact(path: ArtifactPath) -> ArtifactInfo;
    /// Changes what is said about an artifact.
    update_artifact = UpdateArtifact(path: ArtifactPath, update: ArtifactUpdate) -> ArtifactInfo;
    /// Takes a version away; what only it had is dead. With aliases it is refused unless told, with a protected one always.
    delete = Delete(reference: Reference, delete_aliases: bool) -> VersionInfo;
    /// Takes a version away with its aliases if its time is over by now, and no alias protects it.
    expire = Expire(path: ArtifactPath, number: VersionNumber) -> Option<VersionInfo>;
    /// The registry's time.
    now = Now() -> Timestamp;
    /// The registry's time, for those who delete what is over by it: refused when it is far beyond the last time
    /// that the registry was changed, unless `trusted`.
    time_to_expire = TimeToExpire(trusted: bool) -> Timestamp;
    /// Dead objects that still count their children, at most `limit`.
    unreachable = Unreachable(limit: u32) -> Vec<(Digest, Located)>;
    /// Takes dead objects, given with their children, out of the table; how many bytes died.
    collect = Collect(objects: Vec<(Digest, Vec<Digest>)>) -> u64;
    /// Packs above `after` with dead bytes, that nobody writes or purges, in the order of ids, at most
    /// `limit`, each with the number of its mark; with `deferred` also those whose dead bytes may stay.
    reclaimable = Reclaimable(after: Option<PackId>, limit: u32, deferred: bool) -> Vec<(PackInfo, u64)>;
    /// The dead bytes of a pack stay until garbage is collected, or until more of it dies; nothing happens
    /// when that was so since the mark had the number `mark`.
    defer_reclaim = DeferReclaim(pack: PackId, mark: u64) -> ();
    /// Keeps others from purging a pack while the lease lives; the number of its mark, or `None` when
    /// there is nothing to purge or somebody else does.
    claim_reclaim = ClaimReclaim(lease: LeaseId, pack: PackId) -> Option<u64>;
    /// Objects of pack `from` were written to pack `to`, at the offsets given: they are there now. How
    /// many were still alive.
    relocate = Relocate(lease: LeaseId, from: PackId, to: PackId, length_bytes: u64, moved: Vec<(Digest, u64)>) -> u64;
    /// A pack, if there is one.
    pack = FindPack(pack: PackId) -> Option<PackInfo>;
    /// Which of `digests` are alive in this pack.
    live_in = LiveIn(pack: PackId, digests: Vec<Digest>) -> Vec<bool>;
    /// The dead bytes that a pack had when its mark had the number `mark` are gone; `length_bytes` is what
    /// is left (0: the pack is gone).
    reclaimed = Reclaimed(pack: PackId, length_bytes: u64, mark: u64) -> ();
    /// What changed after `after`; waits up to `wait_milliseconds` for something to change.
    changes = ChangesAfter(after: u64, wait_milliseconds: u64) -> Changes;
    /// Objects above `after` in the order of digests, at most `limit`.
    scan_objects = ScanObjects(after: Option<Digest>, limit: u32) -> Vec<(Digest, Located)>;
    /// Packs above `after`, at most `limit`.
    scan_packs = ScanPacks(after: Option<PackId>, limit: u32) -> Vec<PackInfo>;
    /// The maintenance that is under way, or was interrupted.
    maintenance = FindMaintenance() -> Option<Maintenance>;
    /// Sets the maintenance mark, or takes it over from the holder that was `seen` and is gone; a conflict while
    /// somebody else holds it, or while a lease other than those in `idle` writes. A swap that was interrupted stays one.
    begin_maintenance = BeginMaintenance(mode: MaintenanceMode, holder: String, seen: Option<Maintenance>, idle: Vec<LeaseId>) -> ();
    /// Maintenance goes on.
    renew_maintenance = RenewMaintenance(holder: String) -> ();
    /// Takes the mark away; refused in the middle of a swap.
    end_maintenance = EndMaintenance(holder: String) -> ();
    /// Corrects the object table under maintenance; how many corrections changed something.
    repair = Repair(holder: String, fixes: Vec<Fix>) -> u64;
    /// Bytes of these objects were found wrong there: whoever brings them next stores them anew. How many are
    /// absent by this.
    doubt = Doubt(found: Vec<(Digest, Extent)>) -> u64;
    /// How many objects are absent.
    absent = CountAbsent() -> u64;
    /// Begins an empty object table beside the one in use.
    begin_rebuild = BeginRebuild(holder: String) -> ();
    /// Puts objects and packs into the new table; a pack keeps its lease.
    put_rebuilt = PutRebuilt(holder: String, objects: Vec<Rebuilt>, packs: Vec<PackInfo>) -> ();
    /// Objects of the new table above `after`, at most `limit`.
    scan_rebuilt = ScanRebuilt(after: Option<Digest>, limit: u32) -> Vec<(Digest, Located)>;
    /// What the new table has of these.
    locate_rebuilt = LocateRebuilt(digests: Vec<Digest>) -> Vec<Option<Located>>;
    /// Goes a step in putting the new table in the place of the old; whether it was the last.
    swap_rebuilt = SwapRebuilt(holder: String) -> bool;
    /// Begins a run, or goes on with one that has ended.
    begin_run = BeginRun(start: RunStart, resume: Resume) -> RunInfo;
    /// A run as it stands now.
    run = FindRun(id: RunId) -> RunInfo;
    /// The runs of a project after one, in the order of their beginning, at most `limit`.
    runs = Runs(project: ProjectName, after: Option<(Timestamp, RunId)>, limit: u32) -> Page<RunInfo>;
    /// The run goes on.
    heartbeat = Heartbeat(id: RunId) -> ();
    /// Adds to an open run.
    log = Log(id: RunId, log: RunLog) -> RunInfo;
    /// Rows of metrics from row `from` on, at most `limit`.
    rows = Rows(id: RunId, from: u64, limit: u32) -> Page<MetricRow>;
    /// Ends a run whose process, `holder`, is dead, if it is still that process' run.
    crash_run = CrashRun(id: RunId, holder: String) -> RunInfo;
    /// Ends an open run.
    end_run = EndRun(id: RunId, state: RunState, exit_code: Option<i32>) -> RunInfo;
    /// Takes a run that has ended away, with its place among the users of versions.
    remove_run = RemoveRun(id: RunId) -> RunInfo;
    /// The version a reference stands for in a run: an alias stays what it was at the first look-up.
    lookup_for_run = LookupForRun(id: RunId, reference: Reference) -> VersionInfo;
    /// The run uses a version, found by `alias` if by one.
    add_use = AddUse(id: RunId, path: ArtifactPath, number: VersionNumber, alias: Option<Alias>) -> ();
    /// The versions that a run used, or logged, above `after` in the order of names, at most `limit`.
    edges = Edges(id: RunId, logged: bool, after: Option<(ArtifactPath, VersionNumber)>, limit: u32) -> Page<Edge>;
    /// The run that logged a version.
    logger = Logger(path: ArtifactPath, number: VersionNumber) -> Option<RunId>;
    /// The runs that used a version, above `after` in the order of ids, at most `limit`.
    users = Users(path: ArtifactPath, number: VersionNumber, after: Option<RunId>, limit: u32) -> Page<RunId>;
    /// Makes a sweep.
    create_sweep = CreateSweep(sweep: SweepInfo) -> SweepInfo;
    /// A sweep.
    sweep = FindSweep(id: SweepId) -> SweepInfo;
    /// The sweeps of a project above `after`, in the order of ids, at most `limit`.
    sweeps = Sweeps(project: ProjectName, after: Option<SweepId>, limit: u32) -> Page<SweepInfo>;
    /// The runs of a sweep above `after`, in the order of ids, at most `limit`.
    runs_of_sweep = RunsOfSweep(id: SweepId, after: Option<RunId>, limit: u32) -> Page<RunInfo>;
    /// A group; a conflict when a part of type `wanted` could not be added to it.
    group = FindGroup(path: ArtifactPath, group: GroupName, wanted: Option<ArtifactType>) -> Option<GroupInfo>;
    /// A group that has open parts; a conflict when it is sealed.
    open_group = FindOpenGroup(path: ArtifactPath, group: GroupName) -> GroupInfo;
    /// The open groups of an artifact, or all, after one, at most `limit`.
    open_groups = OpenGroups(path: Option<ArtifactPath>, after: Option<(ArtifactPath, GroupName)>, limit: u32) -> Vec<GroupInfo>;
    /// The open parts of a group above `after`, ascending, at most `limit`.
    parts = Parts(path: ArtifactPath, group: GroupName, after: u64, limit: u32) -> Vec<PartInfo>;
    /// Adds a part to a group, which it begins when it is not there; stale when parts came that the
    /// writer wanted to see first.
    add_part = AddPart(lease: LeaseId, part: NewPart) -> AddedPart;
    /// Makes a version of a group and takes its parts away, in one transaction; stale when other parts
    /// are there than those that were merged.
    seal_group = SealGroup(lease: LeaseId, request: SealRequest) -> Committed;
    /// Takes the open parts of a group up to `last` away; what only they had is dead.
    discard_group = DiscardGroup(path: ArtifactPath, group: GroupName, last: u64) -> ();
}

/// The time after which a lease that was not renewed may be ended by others, in milliseconds.
pub(super) const LEASE_MILLISECONDS: u64 = 10 * 60 * 1000;
/// How long finished packs of a writer that is gone are kept, in milliseconds: a day.
pub(super) const LEFT_MILLISECONDS: u64 = 24 * 60 * 60 * 1000;

impl LeaseInfo {
    pub(super) fn new(id: u64, record: &super::record::LeaseRecord, now: Timestamp) -> Self {
        Self {
            id: LeaseId(id),
            holder: record.holder.clone(),
            purpose: record.purpose.clone(),
            expired: record.expires <= now,
            committed: record.is_done(),
        }
    }
}
