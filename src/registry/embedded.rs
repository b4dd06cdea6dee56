//! The registry over an engine in this process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::api::*;
use super::engine::{self, Durability, Engine, Transaction, View};
use super::groups::{AddedPart, GroupInfo, NewPart, PartInfo, SealRequest};
use super::keys::{self, Key, Space};
use super::record::{self, Committed};
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::name::{
    Alias, ArtifactType, GroupName, ProjectName, RunId, SweepId, VersionNumber,
};
use crate::model::object::{Located, NewObject, PackId};
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::run::{Edge, MetricRow, Resume, RunInfo, RunLog, RunStart, RunState, SweepInfo};
use crate::model::version::{ArtifactInfo, Change, ProjectInfo, Timestamp, VersionInfo};

/// Entries of the change log that are kept: a mount that missed more forgets everything.
const CHANGES_KEPT: u64 = 10_000;
/// Entries handed out at once.
const CHANGES_PAGE: usize = 1_000;
/// The longest wait for a change in milliseconds, whatever was asked.
const CHANGES_WAIT_MAX: u64 = 60_000;

/// Where the time comes from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The host's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    })
}

/// A registry in this process.
pub struct Embedded {
    pub(super) engine: Box<dyn Engine>,
    pub(super) clock: Clock,
    changed: (Mutex<u64>, Condvar),
    ending: AtomicBool,
}

impl Embedded {
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
        })
    }

    /// Nobody waits for changes any more: this process is about to close the registry.
    pub fn finish_waits(&self) {
        self.ending.store(true, Ordering::SeqCst);
        let _last = self.changed.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.1.notify_all();
    }

    pub(super) fn read<T>(&self, body: impl FnMut(&dyn View) -> Result<T>) -> Result<T> {
        engine::read(&*self.engine, body)
    }

    pub(super) fn write<T>(
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
        let (value, sequence) = self.write(Durability::Immediate, |transaction| {
            let value = body(transaction)?;
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

/// The value of a counter; 0 before its first use.
pub(super) fn read_counter(view: &dyn View, name: &str) -> Result<u64> {
    let value = view.get(&Key::of(Space::Counter).name(name).done())?;
    value.map_or(Ok(0), |bytes| record::decode(&bytes))
}

/// Counts one up; the first value is 1.
pub(super) fn next_counter(transaction: &mut dyn Transaction, name: &str) -> Result<u64> {
    let value = read_counter(&*transaction, name)? + 1;
    transaction.put(&Key::of(Space::Counter).name(name).done(), &record::encode(&value))?;
    Ok(value)
}

/// What is done with a key and its value.
type EachPair<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'a;

/// All pairs below a key, in pages, so that memory does not depend on how many there are.
pub(super) fn each_below(view: &dyn View, prefix: Key, each: &mut EachPair<'_>) -> Result<()> {
    const PAGE: usize = 1_000;
    let (mut from, to) = prefix.range();
    loop {
        let page = view.scan(&from, &to, PAGE)?;
        for (key, value) in &page {
            each(key, value)?;
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => from = keys::next(key),
            _ => return Ok(()),
        }
    }
}

impl Registry for Embedded {
    fn info(&self) -> Result<RegistryInfo> {
        self.count_packs()
    }

    fn lookup(&self, reference: Reference) -> Result<VersionInfo> {
        self.read(|view| super::naming::lookup(view, &reference))
    }

    fn projects(&self) -> Result<Vec<ProjectInfo>> {
        self.list_projects()
    }

    fn artifacts(&self, project: ProjectName) -> Result<Vec<ArtifactInfo>> {
        self.list_artifacts(&project)
    }

    fn versions(
        &self,
        path: ArtifactPath,
        after: Option<VersionNumber>,
        limit: u32,
    ) -> Result<Vec<VersionInfo>> {
        self.list_versions(&path, after, limit)
    }

    fn names(&self, project: ProjectName) -> Result<Vec<Names>> {
        self.list_names(&project)
    }

    fn begin(&self, purpose: String, holder: String, adopt: Option<LeaseId>) -> Result<LeaseId> {
        self.begin_lease(purpose, holder, adopt)
    }

    fn renew(&self, lease: LeaseId) -> Result<()> {
        self.renew_lease(lease)
    }

    fn leases(&self) -> Result<Vec<LeaseInfo>> {
        self.list_leases()
    }

    fn release(&self, lease: LeaseId) -> Result<()> {
        self.release_lease(lease)
    }

    fn missing(&self, lease: LeaseId, digests: Vec<Digest>) -> Result<Vec<Digest>> {
        self.find_missing(lease, digests)
    }

    fn register_pack(&self, lease: LeaseId, pack: PackId) -> Result<()> {
        self.announce_pack(lease, pack)
    }

    fn add_objects(
        &self,
        lease: LeaseId,
        pack: PackId,
        length_bytes: u64,
        objects: Vec<NewObject>,
    ) -> Result<Added> {
        self.register_objects(lease, pack, length_bytes, objects)
    }

    fn commit(&self, lease: LeaseId, request: CommitRequest) -> Result<Committed> {
        self.commit_version(lease, &request)
    }

    fn pack(&self, pack: PackId) -> Result<Option<PackInfo>> {
        self.find_pack(pack)
    }

    fn locate(&self, digests: Vec<Digest>) -> Result<Vec<Option<Located>>> {
        self.locate_objects(&digests)
    }

    fn update(&self, reference: Reference, update: Update) -> Result<VersionInfo> {
        self.update_version(&reference, &update)
    }

    fn change_aliases(
        &self,
        reference: Reference,
        change: AliasChange,
        also_protected: bool,
    ) -> Result<VersionInfo> {
        self.alter_aliases(&reference, &change, also_protected)
    }

    fn artifact(&self, path: ArtifactPath) -> Result<ArtifactInfo> {
        self.show_artifact(&path)
    }

    fn update_artifact(&self, path: ArtifactPath, update: ArtifactUpdate) -> Result<ArtifactInfo> {
        self.alter_artifact(&path, &update)
    }

    fn expire(&self, path: ArtifactPath, number: VersionNumber) -> Result<Option<VersionInfo>> {
        self.expire_version(&path, number)
    }

    fn now(&self) -> Result<Timestamp> {
        Ok((self.clock)())
    }

    fn delete(&self, reference: Reference, delete_aliases: bool) -> Result<VersionInfo> {
        self.delete_version(&reference, delete_aliases)
    }

    fn dead(&self, limit: u32) -> Result<Vec<(Digest, Located)>> {
        self.list_dead(limit)
    }

    fn bury(&self, objects: Vec<(Digest, Vec<Digest>)>) -> Result<u64> {
        self.bury_objects(&objects)
    }

    fn purgeable(&self, limit: u32, deferred: bool) -> Result<Vec<PackInfo>> {
        self.list_purgeable(limit, deferred)
    }

    fn live_in(&self, pack: PackId, digests: Vec<Digest>) -> Result<Vec<bool>> {
        let found = self.locate_objects(&digests)?;
        Ok(found.iter().map(|at| at.is_some_and(|l| l.extent.pack == pack)).collect())
    }

    fn defer_purge(&self, pack: PackId) -> Result<()> {
        self.mark_deferred(pack)
    }

    fn relocate(
        &self,
        lease: LeaseId,
        from: PackId,
        to: PackId,
        length_bytes: u64,
        moved: Vec<(Digest, u64)>,
    ) -> Result<u64> {
        self.relocate_objects(lease, (from, to), length_bytes, moved)
    }

    fn purged(&self, pack: PackId, length_bytes: u64) -> Result<()> {
        self.mark_purged(pack, length_bytes)
    }

    fn changes(&self, after: u64, wait_milliseconds: u64) -> Result<Changes> {
        let wait = Duration::from_millis(wait_milliseconds.min(CHANGES_WAIT_MAX));
        self.wait_for_change(after, wait);
        self.changes_now(after)
    }

    fn scan_objects(&self, after: Option<Digest>, limit: u32) -> Result<Vec<(Digest, Located)>> {
        self.page_of_objects(after, limit)
    }

    fn scan_packs(&self, after: Option<PackId>, limit: u32) -> Result<Vec<PackInfo>> {
        self.page_of_packs(after, limit)
    }

    fn repair(&self, fixes: Vec<Fix>) -> Result<()> {
        self.apply_fixes(&fixes)
    }

    fn forget_objects(&self) -> Result<()> {
        self.forget_object_table()
    }

    fn begin_run(&self, start: RunStart, resume: Resume) -> Result<RunInfo> {
        self.open_or_begin_run(&start, resume)
    }

    fn run(&self, id: RunId) -> Result<RunInfo> {
        self.show_run(&id)
    }

    fn runs(
        &self,
        project: ProjectName,
        after: Option<(Timestamp, RunId)>,
        limit: u32,
    ) -> Result<Vec<RunInfo>> {
        self.list_runs(&project, after.as_ref(), limit)
    }

    fn beat(&self, id: RunId) -> Result<()> {
        self.beat_run(&id)
    }

    fn log(&self, id: RunId, log: RunLog) -> Result<RunInfo> {
        self.add_to_run(&id, &log)
    }

    fn rows(&self, id: RunId, from: u64, limit: u32) -> Result<Vec<MetricRow>> {
        self.rows_of_run(&id, from, limit)
    }

    fn end_run(&self, id: RunId, state: RunState, exit_code: Option<i32>) -> Result<RunInfo> {
        self.finish_run(&id, state, exit_code)
    }

    fn remove_run(&self, id: RunId) -> Result<RunInfo> {
        self.delete_run(&id)
    }

    fn lookup_for_run(&self, id: RunId, reference: Reference) -> Result<VersionInfo> {
        self.resolve_for_run(&id, &reference)
    }

    fn add_use(
        &self,
        id: RunId,
        path: ArtifactPath,
        number: VersionNumber,
        alias: Option<Alias>,
    ) -> Result<()> {
        self.add_used(&id, &path, number, alias.as_ref())
    }

    fn edges(&self, id: RunId, logged: bool) -> Result<Vec<Edge>> {
        self.edges_of_run(&id, logged)
    }

    fn logger(&self, path: ArtifactPath, number: VersionNumber) -> Result<Option<RunId>> {
        self.find_logger(&path, number)
    }

    fn users(&self, path: ArtifactPath, number: VersionNumber) -> Result<Vec<RunId>> {
        self.list_users(&path, number)
    }

    fn create_sweep(&self, sweep: SweepInfo) -> Result<SweepInfo> {
        self.make_sweep(&sweep)
    }

    fn sweep(&self, id: SweepId) -> Result<SweepInfo> {
        self.show_sweep(&id)
    }

    fn sweeps(&self, project: ProjectName) -> Result<Vec<SweepInfo>> {
        self.list_sweeps(&project)
    }

    fn runs_of_sweep(&self, id: SweepId, after: Option<RunId>, limit: u32) -> Result<Vec<RunInfo>> {
        self.list_runs_of_sweep(&id, after.as_ref(), limit)
    }

    fn group(
        &self,
        path: ArtifactPath,
        group: GroupName,
        wanted: Option<ArtifactType>,
    ) -> Result<Option<GroupInfo>> {
        self.find_group(&path, &group, wanted.as_ref())
    }

    fn open_group(&self, path: ArtifactPath, group: GroupName) -> Result<GroupInfo> {
        self.find_open_group(&path, &group)
    }

    fn open_groups(
        &self,
        path: Option<ArtifactPath>,
        after: Option<(ArtifactPath, GroupName)>,
        limit: u32,
    ) -> Result<Vec<GroupInfo>> {
        self.list_open_groups(path.as_ref(), after.as_ref(), limit)
    }

    fn parts(
        &self,
        path: ArtifactPath,
        group: GroupName,
        after: u64,
        limit: u32,
    ) -> Result<Vec<PartInfo>> {
        self.list_parts(&path, &group, after, limit)
    }

    fn add_part(&self, lease: LeaseId, part: NewPart) -> Result<AddedPart> {
        self.append_part(lease, &part)
    }

    fn seal_group(&self, lease: LeaseId, request: SealRequest) -> Result<Committed> {
        self.commit_group(lease, &request)
    }

    fn discard_group(&self, path: ArtifactPath, group: GroupName, last: u64) -> Result<()> {
        self.discard_parts(&path, &group, last)
    }
}
