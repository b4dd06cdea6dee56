//! The registry over an engine in this process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::api::*;
use super::clock::Clock;
pub(super) use super::counter::{next_counter, read_counter};
use super::engine::{self, Durability, Engine, Transaction, View};
use super::groups::{AddedPart, GroupInfo, NewPart, PartInfo, SealRequest};
use super::keys::{self, Key, Space};
use super::maintenance::refuse_under_maintenance;
use super::paging::page;
use super::record::{self, Maintenance, MaintenanceMode};
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::name::{
    Alias, ArtifactName, ArtifactType, GroupName, ProjectName, RunId, SweepId, VersionNumber,
};
use crate::model::object::{Extent, Located, NewObject, PackId};
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::run::{Edge, MetricRow, Resume, RunInfo, RunLog, RunStart, RunState, SweepInfo};
use crate::model::version::{ArtifactInfo, Change, Committed, ProjectInfo, Timestamp, VersionInfo};

/// Entries of the change log that are kept: a mount that missed more forgets everything.
const CHANGES_KEPT: u64 = 10_000;
/// Entries handed out at once.
const CHANGES_PAGE: usize = 1_000;
/// The longest wait for a change in milliseconds, whatever was asked.
pub const CHANGES_WAIT_MAX: u64 = 60_000;

/// How far the change log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastChange {
    /// The newest entry.
    pub last: u64,
    /// Whether nobody is to wait any more.
    pub ending: bool,
}

impl LastChange {
    /// Whether who has seen everything up to `after` waits no longer.
    pub fn is_news(&self, after: u64) -> bool {
        self.last > after || self.ending
    }
}

/// A registry in this process.
pub struct EngineRegistry {
    pub(super) engine: Box<dyn Engine>,
    pub(super) clock: Clock,
    changed: (Mutex<u64>, Condvar),
    ending: AtomicBool,
    told: watch::Sender<LastChange>,
}

impl EngineRegistry {
    /// The registry in `engine`, which may be empty.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn open(engine: Box<dyn Engine>, clock: Clock) -> Result<Self> {
        let last = engine::read(&*engine, |view| read_counter(view, "change"))?;
        Ok(Self {
            engine,
            clock,
            changed: (Mutex::new(last), Condvar::new()),
            ending: AtomicBool::new(false),
            told: watch::Sender::new(LastChange { last, ending: false }),
        })
    }

    /// The newest change, for those who wait without a thread.
    pub fn changed(&self) -> watch::Receiver<LastChange> {
        self.told.subscribe()
    }

    /// Nobody waits for changes any more: this process is about to close the registry.
    pub fn finish_waits(&self) {
        self.ending.store(true, Ordering::SeqCst);
        let _last = self.changed.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.1.notify_all();
        self.told.send_modify(|told| told.ending = true);
    }

    pub(super) fn read<T>(&self, body: impl FnMut(&dyn View) -> Result<T>) -> Result<T> {
        engine::read(&*self.engine, body)
    }

    /// A transaction, refused while the repository is under maintenance.
    pub(super) fn write<T>(
        &self,
        durability: Durability,
        mut body: impl FnMut(&mut dyn Transaction) -> Result<T>,
    ) -> Result<T> {
        engine::write(&*self.engine, durability, |transaction| {
            refuse_under_maintenance(&*transaction)?;
            body(transaction)
        })
    }

    /// A transaction that touches neither versions nor counts nor parts, or belongs to maintenance itself.
    pub(super) fn write_aside<T>(
        &self,
        durability: Durability,
        body: impl FnMut(&mut dyn Transaction) -> Result<T>,
    ) -> Result<T> {
        engine::write(&*self.engine, durability, body)
    }

    /// A durable transaction that moves names of `path`: it goes into the change log, and those
    /// who wait for changes are woken.
    pub(super) fn write_names<T>(
        &self,
        path: &ArtifactPath,
        body: impl FnMut(&mut dyn Transaction) -> Result<T>,
    ) -> Result<T> {
        self.write_change(&Change::Artifact(path.clone()), body)
    }

    /// The same, for any change that a mount has to hear of.
    pub(super) fn write_change<T>(
        &self,
        change: &Change,
        mut body: impl FnMut(&mut dyn Transaction) -> Result<T>,
    ) -> Result<T> {
        let (value, sequence) = self.write_aside(Durability::Immediate, |transaction| {
            // What a training run says of itself waits for nothing.
            if !matches!(change, Change::Runs) {
                refuse_under_maintenance(&*transaction)?;
            }
            let value = body(transaction)?;
            super::properties::note_time(transaction, (self.clock)())?;
            let sequence = next_counter(transaction, "change")?;
            let key = Key::of(Space::Change).number(sequence).done();
            transaction.put(&key, &record::encode(change))?;
            if let Some(old) = sequence.checked_sub(CHANGES_KEPT) {
                transaction.delete(&Key::of(Space::Change).number(old).done())?;
            }
            Ok((value, sequence))
        })?;
        let (last, waiters) = &self.changed;
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (*last).max(sequence);
        waiters.notify_all();
        self.told.send_modify(|told| told.last = *last);
        Ok(value)
    }

    fn wait_for_change(&self, after: u64, wait: Duration) {
        let (last, waiters) = &self.changed;
        let deadline = Instant::now() + wait;
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        while *last <= after && !self.ending.load(Ordering::SeqCst) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return;
            };
            last = waiters.wait_timeout(last, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn changes_now(&self, after: u64) -> Result<Changes> {
        self.read(|view| {
            let newest = read_counter(view, "change")?;
            let from = Key::of(Space::Change).number(after.saturating_add(1)).done();
            let (_, to) = Key::of(Space::Change).range();
            let pairs = view.scan(&from, &to, CHANGES_PAGE)?;
            let first = pairs.first().and_then(|(key, _)| keys::number_of(key));
            let lost = after > newest || first.is_some_and(|first| first > after + 1);
            let last = pairs.last().and_then(|(key, _)| keys::number_of(key));
            let changes = pairs.iter().map(|(_, value)| record::decode(value));
            Ok(Changes {
                last: last.unwrap_or(newest),
                changes: changes.collect::<Result<_>>()?,
                lost,
            })
        })
    }
}

/// What is done with a key and its value.
type EachPair<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'a;

/// All pairs below a key, in pages, so that memory does not depend on how many and how long they are.
pub(super) fn each_below(view: &dyn View, prefix: Key, each: &mut EachPair<'_>) -> Result<()> {
    const PAGE: usize = 1_000;
    let (mut from, to) = prefix.range();
    loop {
        let page = page(view, &from, &to, PAGE)?;
        for (key, value) in &page.items {
            each(key, value)?;
        }
        match page.items.last() {
            Some((key, _)) if page.more => from = keys::next(key),
            _ => return Ok(()),
        }
    }
}

impl Registry for EngineRegistry {
    fn info(&self) -> Result<RegistryInfo> {
        self.info()
    }

    fn lookup(&self, reference: Reference) -> Result<VersionInfo> {
        self.read(|view| super::naming::lookup(view, &reference))
    }

    fn projects(&self) -> Result<Vec<ProjectInfo>> {
        self.projects()
    }

    fn artifacts(
        &self,
        project: ProjectName,
        after: Option<ArtifactName>,
        limit: u32,
    ) -> Result<Page<ArtifactInfo>> {
        self.artifacts(&project, after.as_ref(), limit)
    }

    fn versions(
        &self,
        path: ArtifactPath,
        after: Option<VersionNumber>,
        limit: u32,
        detail: Detail,
    ) -> Result<Page<VersionInfo>> {
        self.versions(&path, after, limit, detail)
    }

    fn has_project(&self, project: ProjectName) -> Result<bool> {
        self.read(|view| Ok(view.get(&keys::project(&project))?.is_some()))
    }

    fn begin(&self, purpose: String, holder: String) -> Result<LeaseId> {
        self.begin(&purpose, &holder)
    }
    fn adopt(&self, lease: LeaseId, judged: Judged) -> Result<()> {
        self.adopt(lease, &judged)
    }

    fn renew(&self, lease: LeaseId) -> Result<()> {
        self.renew(lease)
    }

    fn leases(&self) -> Result<Vec<LeaseInfo>> {
        self.leases()
    }

    fn release(&self, lease: LeaseId) -> Result<()> {
        self.release(lease)
    }

    fn leave(&self, lease: LeaseId) -> Result<u64> {
        self.leave(lease)
    }

    fn end_lease(&self, judged: Judged, wholly: bool) -> Result<u64> {
        self.end_lease(&judged, wholly)
    }

    fn missing(&self, lease: LeaseId, digests: Vec<Digest>) -> Result<Vec<Digest>> {
        self.missing(lease, digests)
    }

    fn register_pack(&self, lease: LeaseId, pack: PackId) -> Result<()> {
        self.register_pack(lease, pack)
    }

    fn add_objects(
        &self,
        lease: LeaseId,
        pack: PackId,
        length_bytes: u64,
        objects: Vec<NewObject>,
    ) -> Result<Added> {
        self.add_objects(lease, pack, length_bytes, objects)
    }

    fn commit(&self, lease: LeaseId, request: CommitRequest) -> Result<Committed> {
        self.commit(lease, &request)
    }

    fn pack(&self, pack: PackId) -> Result<Option<PackInfo>> {
        self.pack(pack)
    }

    fn locate(&self, digests: Vec<Digest>) -> Result<Vec<Option<Located>>> {
        self.locate(&digests)
    }

    fn update(&self, reference: Reference, update: Update) -> Result<VersionInfo> {
        self.update(&reference, &update)
    }

    fn change_aliases(
        &self,
        reference: Reference,
        change: AliasChange,
        also_protected: bool,
    ) -> Result<VersionInfo> {
        self.change_aliases(&reference, &change, also_protected)
    }

    fn artifact(&self, path: ArtifactPath) -> Result<ArtifactInfo> {
        self.artifact(&path)
    }

    fn update_artifact(&self, path: ArtifactPath, update: ArtifactUpdate) -> Result<ArtifactInfo> {
        self.update_artifact(&path, &update)
    }

    fn expire(&self, path: ArtifactPath, number: VersionNumber) -> Result<Option<VersionInfo>> {
        self.expire(&path, number)
    }

    fn now(&self) -> Result<Timestamp> {
        Ok((self.clock)())
    }

    fn time_to_expire(&self, trusted: bool) -> Result<Timestamp> {
        self.time_to_expire(trusted)
    }

    fn delete(&self, reference: Reference, delete_aliases: bool) -> Result<VersionInfo> {
        self.delete(&reference, delete_aliases)
    }

    fn unreachable(&self, limit: u32) -> Result<Vec<(Digest, Located)>> {
        self.unreachable(limit)
    }

    fn collect(&self, objects: Vec<(Digest, Vec<Digest>)>) -> Result<u64> {
        self.collect(&objects)
    }

    fn reclaimable(
        &self,
        after: Option<PackId>,
        limit: u32,
        deferred: bool,
    ) -> Result<Vec<(PackInfo, u64)>> {
        self.reclaimable(after, limit, deferred)
    }

    fn live_in(&self, pack: PackId, digests: Vec<Digest>) -> Result<Vec<bool>> {
        let found = self.locate(&digests)?;
        Ok(found.iter().map(|at| at.is_some_and(|l| l.extent.pack == pack)).collect())
    }

    fn defer_reclaim(&self, pack: PackId, mark: u64) -> Result<()> {
        self.defer_reclaim(pack, mark)
    }

    fn claim_reclaim(&self, lease: LeaseId, pack: PackId) -> Result<Option<u64>> {
        self.claim_reclaim(lease, pack)
    }

    fn relocate(
        &self,
        lease: LeaseId,
        from: PackId,
        to: PackId,
        length_bytes: u64,
        moved: Vec<(Digest, u64)>,
    ) -> Result<u64> {
        self.relocate(lease, (from, to), length_bytes, moved)
    }

    fn reclaimed(&self, pack: PackId, length_bytes: u64, mark: u64) -> Result<()> {
        self.reclaimed(pack, length_bytes, mark)
    }

    fn changes(&self, after: u64, wait_milliseconds: u64) -> Result<Changes> {
        let wait = Duration::from_millis(wait_milliseconds.min(CHANGES_WAIT_MAX));
        self.wait_for_change(after, wait);
        self.changes_now(after)
    }

    fn scan_objects(&self, after: Option<Digest>, limit: u32) -> Result<Vec<(Digest, Located)>> {
        self.page_of_objects(Space::Object, after, limit)
    }

    fn scan_packs(&self, after: Option<PackId>, limit: u32) -> Result<Vec<PackInfo>> {
        self.scan_packs(after, limit)
    }

    fn maintenance(&self) -> Result<Option<Maintenance>> {
        self.maintenance()
    }

    fn begin_maintenance(
        &self,
        mode: MaintenanceMode,
        holder: String,
        seen: Option<Maintenance>,
        idle: Vec<LeaseId>,
    ) -> Result<()> {
        self.begin_maintenance(mode, &holder, seen.as_ref(), &idle)
    }

    fn renew_maintenance(&self, holder: String) -> Result<()> {
        self.renew_maintenance(&holder)
    }

    fn end_maintenance(&self, holder: String) -> Result<()> {
        self.end_maintenance(&holder)
    }

    fn repair(&self, holder: String, fixes: Vec<Fix>) -> Result<u64> {
        self.repair(&holder, &fixes)
    }

    fn doubt(&self, found: Vec<(Digest, Extent)>) -> Result<u64> {
        self.doubt(&found)
    }

    fn absent(&self) -> Result<u64> {
        self.absent()
    }

    fn begin_rebuild(&self, holder: String) -> Result<()> {
        self.begin_rebuild(&holder)
    }

    fn put_rebuilt(
        &self,
        holder: String,
        objects: Vec<Rebuilt>,
        packs: Vec<PackInfo>,
    ) -> Result<()> {
        self.put_rebuilt(&holder, &objects, &packs)
    }

    fn scan_rebuilt(&self, after: Option<Digest>, limit: u32) -> Result<Vec<(Digest, Located)>> {
        self.page_of_objects(Space::RebuiltObject, after, limit)
    }

    fn locate_rebuilt(&self, digests: Vec<Digest>) -> Result<Vec<Option<Located>>> {
        self.locate_rebuilt(&digests)
    }

    fn swap_rebuilt(&self, holder: String) -> Result<bool> {
        self.swap_rebuilt(&holder)
    }

    fn begin_run(&self, start: RunStart, resume: Resume) -> Result<RunInfo> {
        self.begin_run(&start, resume)
    }

    fn run(&self, id: RunId) -> Result<RunInfo> {
        self.run(&id)
    }

    fn runs(
        &self,
        project: ProjectName,
        after: Option<(Timestamp, RunId)>,
        limit: u32,
    ) -> Result<Page<RunInfo>> {
        self.runs(&project, after.as_ref(), limit)
    }

    fn heartbeat(&self, id: RunId) -> Result<()> {
        self.heartbeat(&id)
    }

    fn log(&self, id: RunId, log: RunLog) -> Result<RunInfo> {
        self.log(&id, &log)
    }

    fn rows(&self, id: RunId, from: u64, limit: u32) -> Result<Page<MetricRow>> {
        self.rows(&id, from, limit)
    }

    fn crash_run(&self, id: RunId, holder: String) -> Result<RunInfo> {
        self.crash_run(&id, &holder)
    }

    fn end_run(&self, id: RunId, state: RunState, exit_code: Option<i32>) -> Result<RunInfo> {
        self.end_run(&id, state, exit_code)
    }

    fn remove_run(&self, id: RunId) -> Result<RunInfo> {
        self.remove_run(&id)
    }

    fn lookup_for_run(&self, id: RunId, reference: Reference) -> Result<VersionInfo> {
        self.lookup_for_run(&id, &reference)
    }

    fn add_use(
        &self,
        id: RunId,
        path: ArtifactPath,
        number: VersionNumber,
        alias: Option<Alias>,
    ) -> Result<()> {
        self.add_use(&id, &path, number, alias.as_ref())
    }

    fn edges(
        &self,
        id: RunId,
        logged: bool,
        after: Option<(ArtifactPath, VersionNumber)>,
        limit: u32,
    ) -> Result<Page<Edge>> {
        self.edges(&id, logged, after.as_ref(), limit)
    }

    fn logger(&self, path: ArtifactPath, number: VersionNumber) -> Result<Option<RunId>> {
        self.logger(&path, number)
    }

    fn users(
        &self,
        path: ArtifactPath,
        number: VersionNumber,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Page<RunId>> {
        self.users(&path, number, after.as_ref(), limit)
    }

    fn create_sweep(&self, sweep: SweepInfo) -> Result<SweepInfo> {
        self.create_sweep(&sweep)
    }

    fn sweep(&self, id: SweepId) -> Result<SweepInfo> {
        self.sweep(&id)
    }

    fn sweeps(
        &self,
        project: ProjectName,
        after: Option<SweepId>,
        limit: u32,
    ) -> Result<Page<SweepInfo>> {
        self.sweeps(&project, after.as_ref(), limit)
    }

    fn runs_of_sweep(
        &self,
        id: SweepId,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Page<RunInfo>> {
        self.runs_of_sweep(&id, after.as_ref(), limit)
    }

    fn group(
        &self,
        path: ArtifactPath,
        group: GroupName,
        wanted: Option<ArtifactType>,
    ) -> Result<Option<GroupInfo>> {
        self.group(&path, &group, wanted.as_ref())
    }

    fn open_group(&self, path: ArtifactPath, group: GroupName) -> Result<GroupInfo> {
        self.open_group(&path, &group)
    }

    fn open_groups(
        &self,
        path: Option<ArtifactPath>,
        after: Option<(ArtifactPath, GroupName)>,
        limit: u32,
    ) -> Result<Vec<GroupInfo>> {
        self.open_groups(path.as_ref(), after.as_ref(), limit)
    }

    fn parts(
        &self,
        path: ArtifactPath,
        group: GroupName,
        after: u64,
        limit: u32,
    ) -> Result<Vec<PartInfo>> {
        self.parts(&path, &group, after, limit)
    }

    fn add_part(&self, lease: LeaseId, part: NewPart) -> Result<AddedPart> {
        self.add_part(lease, &part)
    }

    fn seal_group(&self, lease: LeaseId, request: SealRequest) -> Result<Committed> {
        self.seal_group(lease, &request)
    }

    fn discard_group(&self, path: ArtifactPath, group: GroupName, last: u64) -> Result<()> {
        self.discard_group(&path, &group, last)
    }
}
