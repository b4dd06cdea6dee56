//! The keys: tuples whose bytes sort as their parts do.
//!
//! ```text
//! A <lease:8>                                fingerprint of the completed request of a lease
//! B <digest:32>                              key of a user, by its digest
//! F <pack:16>                                pack whose dead bytes may stay for now
//! G <project> 0 <artifact> 0 <group> 0       group
//! H <user> 0                                 user of a served repository
//! K <pack:16>                                pack of a table that is being rebuilt
//! L <run> 0                                  tokens of recent log requests to a run
//! O <digest:32>                              object of a table that is being rebuilt
//! P <project> 0 <artifact> 0 <group> 0 <sequence:8>   part of an open group
//! T <project> 0 <artifact> 0                 time of the newest version that the artifact ever had
//! U <lease:8> <sequence:8>                   digests a lease pinned in a batch, without `t` keys
//! Y <project> 0                              zone, visibility and members of a project
//! Z <zone:8>                                 project of a zone
//! a <project> 0 <artifact> 0                 artifact
//! b <sweep> 0 <run> 0                        run of a sweep
//! c <sequence:8>                             change log
//! d <digest:32>                              unreachable object whose children still count it
//! e <project> 0 <sweep> 0                    sweep of a project
//! f <pack:16>                                pack with dead bytes in it
//! g <run> 0 <project> 0 <artifact> 0 <number:8>   version that a run logged
//! h <project> 0 <artifact> 0 <number:8>      run that logged a version
//! i <run> 0 <project> 0 <artifact> 0 <number:8>   version that a run used
//! j <project> 0 <artifact> 0 <number:8> <run> 0   run that used a version
//! k <pack:16>                                pack
//! l <project> 0 <artifact> 0 <alias>         alias
//! m <name> 0                                 counters, the maintenance mark, the state of a swap,
//!                                            the settings of a shared registry
//! n <sweep> 0                                sweep
//! o <digest:32>                              object
//! p <project> 0                              project
//! q <project> 0 <created:8> <run> 0          run of a project
//! r <run> 0                                  run
//! s <lease:8>                                lease
//! t <digest:32> <lease:8>                    pin: a lease holds an object that it did not write
//! u <lease:8> <sequence:8>                   digests a lease pinned in a batch, with `t` keys
//! v <project> 0 <artifact> 0 <number:8>      version
//! w <lease:8> <pack:16>                      pack under a lease
//! x <pack:16> <sequence:8>                   digests of a pack under a lease, in batches
//! y <run> 0 <sequence:8>                     row of metrics
//! z <run> 0 <project> 0 <artifact> 0 <alias> 0   version that an alias stands for in a run
//! ```
//! Numbers are big-endian. Names hold no NUL, so the zeros end them.

use crate::model::digest::{DIGEST_BYTES, Digest};
use crate::model::name::{Alias, GroupName, ProjectName, RunId, SweepId, UserName, VersionNumber};
use crate::model::object::{PACK_ID_BYTES, PackId};
use crate::model::reference::ArtifactPath;
use crate::model::time::Timestamp;
use crate::model::zone::Zone;

/// The kind of a key: its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Space {
    /// Artifacts.
    Artifact = b'a',
    /// The change log.
    Change = b'c',
    /// Unreachable objects.
    Unreachable = b'd',
    /// Packs with dead bytes.
    Reclaimable = b'f',
    /// Packs whose dead bytes may stay for now.
    Deferred = b'F',
    /// Packs.
    Pack = b'k',
    /// Aliases.
    Alias = b'l',
    /// Counters.
    Counter = b'm',
    /// Objects.
    Object = b'o',
    /// Projects.
    Project = b'p',
    /// Leases.
    Lease = b's',
    /// Fingerprints of completed requests, by lease.
    Answered = b'A',
    /// Pins by object.
    Pin = b't',
    /// Pins with keys of their own, by lease.
    PinnedBy = b'u',
    /// Pins without keys of their own, by lease.
    PinnedTogether = b'U',
    /// Versions.
    Version = b'v',
    /// Packs by lease.
    LeasePack = b'w',
    /// Objects of packs under a lease.
    PackObjects = b'x',
    /// Runs.
    Run = b'r',
    /// Runs by project.
    RunOfProject = b'q',
    /// Used versions by run.
    Used = b'i',
    /// Runs by used version.
    User = b'j',
    /// Logged versions by run.
    Logged = b'g',
    /// The run by logged version.
    Logger = b'h',
    /// Aliases as a run sees them.
    RunAlias = b'z',
    /// Rows of metrics.
    Row = b'y',
    /// Tokens of recent log requests, by run.
    LogTokens = b'L',
    /// Sweeps.
    Sweep = b'n',
    /// Sweeps by project.
    SweepOfProject = b'e',
    /// Runs by sweep.
    RunOfSweep = b'b',
    /// Groups.
    Group = b'G',
    /// Parts of open groups.
    Part = b'P',
    /// Objects of a table that is being rebuilt.
    RebuiltObject = b'O',
    /// Packs of a table that is being rebuilt.
    RebuiltPack = b'K',
    /// Times of the newest versions that artifacts ever had.
    LastTime = b'T',
    /// Users of a served repository.
    Account = b'H',
    /// Keys of users.
    ApiKey = b'B',
    /// Zones, visibilities and members of projects.
    ProjectAccess = b'Y',
    /// Projects by zone.
    ProjectOfZone = b'Z',
}

/// A builder of keys.
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// Begins a key of a space.
    pub(crate) fn of(space: Space) -> Self {
        Self(vec![space as u8])
    }

    /// Adds a name and the zero that ends it.
    #[must_use]
    pub(crate) fn name(mut self, name: &str) -> Self {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        self
    }

    /// Adds a number, big-endian.
    #[must_use]
    pub(crate) fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Adds bytes of a fixed length.
    #[must_use]
    pub(crate) fn fixed<const N: usize>(mut self, bytes: &[u8; N]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Returns the length so far in bytes.
    pub(crate) fn length(&self) -> usize {
        self.0.len()
    }

    /// Returns the bytes of the key.
    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }

    /// Returns the range of all keys that begin with this one: itself, and the first key after
    /// them.
    pub(crate) fn range(self) -> (Vec<u8>, Vec<u8>) {
        let end = after_prefix(&self.0);
        (self.0, end)
    }
}

/// Returns the first key after all that begin with `prefix`; empty if there is none.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// Returns the smallest key above `key`, where a scan continues.
pub(crate) fn next(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

/// Returns the key of a project's record.
pub(crate) fn project(name: &ProjectName) -> Vec<u8> {
    Key::of(Space::Project).name(name.as_str()).done()
}

/// Returns the key of an artifact's record.
pub(crate) fn artifact(path: &ArtifactPath) -> Vec<u8> {
    below(Space::Artifact, path).done()
}

/// Returns the key of the time of the newest version that an artifact ever had.
pub(crate) fn last_time(path: &ArtifactPath) -> Vec<u8> {
    below(Space::LastTime, path).done()
}

/// Returns the prefix of all keys of `space` that belong to an artifact.
pub(crate) fn below(space: Space, path: &ArtifactPath) -> Key {
    Key::of(space).name(path.project.as_str()).name(path.artifact.as_str())
}

/// Returns the key of a version's record.
pub(crate) fn version(path: &ArtifactPath, number: VersionNumber) -> Vec<u8> {
    below(Space::Version, path).number(number.0).done()
}

/// Returns the key of an alias.
pub(crate) fn alias(path: &ArtifactPath, alias: &Alias) -> Vec<u8> {
    let mut key = below(Space::Alias, path).done();
    key.extend_from_slice(alias.as_str().as_bytes());
    key
}

/// Returns the key of an object's record.
pub(crate) fn object(digest: &Digest) -> Vec<u8> {
    Key::of(Space::Object).fixed(digest.as_bytes()).done()
}

/// Returns the key of an unreachable object's mark.
pub(crate) fn unreachable(digest: &Digest) -> Vec<u8> {
    Key::of(Space::Unreachable).fixed(digest.as_bytes()).done()
}

/// Returns the key of a pin.
pub(crate) fn pin(digest: &Digest, lease: u64) -> Vec<u8> {
    Key::of(Space::Pin).fixed(digest.as_bytes()).number(lease).done()
}

/// Returns the key of a pack's record.
pub(crate) fn pack(id: PackId) -> Vec<u8> {
    Key::of(Space::Pack).fixed(&id.0).done()
}

/// Returns the key of the mark of a pack with dead bytes.
pub(crate) fn reclaimable(id: PackId) -> Vec<u8> {
    Key::of(Space::Reclaimable).fixed(&id.0).done()
}

/// Returns the key of the mark of a pack whose dead bytes may stay for now.
pub(crate) fn deferred(id: PackId) -> Vec<u8> {
    Key::of(Space::Deferred).fixed(&id.0).done()
}

/// Returns the key of a pack under a lease.
pub(crate) fn lease_pack(lease: u64, id: PackId) -> Vec<u8> {
    Key::of(Space::LeasePack).number(lease).fixed(&id.0).done()
}

/// Returns the key of a lease's record.
pub(crate) fn lease(lease: u64) -> Vec<u8> {
    Key::of(Space::Lease).number(lease).done()
}

/// Returns the key of the fingerprint of a lease's completed request.
pub(crate) fn answered(lease: u64) -> Vec<u8> {
    Key::of(Space::Answered).number(lease).done()
}

/// Returns the key of a user's record.
pub(crate) fn account(name: &UserName) -> Vec<u8> {
    Key::of(Space::Account).name(name.as_str()).done()
}

/// Returns the key of the record of a user's key.
pub(crate) fn api_key(digest: &Digest) -> Vec<u8> {
    Key::of(Space::ApiKey).fixed(digest.as_bytes()).done()
}

/// Returns the key of the zone, visibility and members of a project.
pub(crate) fn project_access(project: &ProjectName) -> Vec<u8> {
    Key::of(Space::ProjectAccess).name(project.as_str()).done()
}

/// Returns the key of the project of a zone.
pub(crate) fn project_of_zone(zone: Zone) -> Vec<u8> {
    Key::of(Space::ProjectOfZone).number(zone.number().into()).done()
}

/// Returns the key of a run's record.
pub(crate) fn run(id: &RunId) -> Vec<u8> {
    Key::of(Space::Run).name(id.as_str()).done()
}

/// Returns the key of a run among those of its project, which sort by the time of their beginning.
pub(crate) fn run_of_project(project: &ProjectName, created: Timestamp, id: &RunId) -> Vec<u8> {
    Key::of(Space::RunOfProject).name(project.as_str()).number(created.0).name(id.as_str()).done()
}

/// Returns the key of a version that a run used or logged.
pub(crate) fn edge(
    space: Space,
    id: &RunId,
    path: &ArtifactPath,
    number: VersionNumber,
) -> Vec<u8> {
    let key = Key::of(space).name(id.as_str());
    key.name(path.project.as_str()).name(path.artifact.as_str()).number(number.0).done()
}

/// Returns the key of a run that used a version.
pub(crate) fn user(path: &ArtifactPath, number: VersionNumber, id: &RunId) -> Vec<u8> {
    below(Space::User, path).number(number.0).name(id.as_str()).done()
}

/// Returns the key of the run that logged a version.
pub(crate) fn logger(path: &ArtifactPath, number: VersionNumber) -> Vec<u8> {
    below(Space::Logger, path).number(number.0).done()
}

/// Returns the key of the version that an alias stands for in a run.
pub(crate) fn run_alias(id: &RunId, path: &ArtifactPath, alias: &Alias) -> Vec<u8> {
    let key = Key::of(Space::RunAlias).name(id.as_str());
    key.name(path.project.as_str()).name(path.artifact.as_str()).name(alias.as_str()).done()
}

/// Returns the key of a row of metrics.
pub(crate) fn row(id: &RunId, sequence: u64) -> Vec<u8> {
    Key::of(Space::Row).name(id.as_str()).number(sequence).done()
}

/// Returns the key of the tokens of recent log requests to a run.
pub(crate) fn log_tokens(id: &RunId) -> Vec<u8> {
    Key::of(Space::LogTokens).name(id.as_str()).done()
}

/// Returns the key of a sweep's record.
pub(crate) fn sweep(id: &SweepId) -> Vec<u8> {
    Key::of(Space::Sweep).name(id.as_str()).done()
}

/// Returns the key of a sweep among those of its project.
pub(crate) fn sweep_of_project(project: &ProjectName, id: &SweepId) -> Vec<u8> {
    Key::of(Space::SweepOfProject).name(project.as_str()).name(id.as_str()).done()
}

/// Returns the key of a run among those of its sweep.
pub(crate) fn run_of_sweep(sweep: &SweepId, id: &RunId) -> Vec<u8> {
    Key::of(Space::RunOfSweep).name(sweep.as_str()).name(id.as_str()).done()
}

/// Returns the key of a group's record.
pub(crate) fn group(path: &ArtifactPath, group: &GroupName) -> Vec<u8> {
    below(Space::Group, path).name(group.as_str()).done()
}

/// Returns the prefix of the keys of a group's parts.
pub(crate) fn parts(path: &ArtifactPath, group: &GroupName) -> Key {
    below(Space::Part, path).name(group.as_str())
}

/// Returns the key of a part of a group.
pub(crate) fn part(path: &ArtifactPath, group: &GroupName, sequence: u64) -> Vec<u8> {
    parts(path, group).number(sequence).done()
}

/// Returns the name at the end of a key, after `prefix` bytes and without the zero that ends it.
pub(crate) fn name_after(key: &[u8], prefix: usize) -> &[u8] {
    let name = key.get(prefix..).unwrap_or_default();
    name.strip_suffix(&[0]).unwrap_or(name)
}

/// Returns the digest at the end of a key of [`Space::Object`], [`Space::RebuiltObject`] or
/// [`Space::Unreachable`].
pub(crate) fn digest_of(key: &[u8]) -> Option<Digest> {
    let bytes: [u8; DIGEST_BYTES] = key.get(1..1 + DIGEST_BYTES)?.try_into().ok()?;
    Some(Digest::from_bytes(bytes))
}

/// Returns the pack at the end of a key of [`Space::Pack`], [`Space::Reclaimable`],
/// [`Space::Deferred`] or [`Space::LeasePack`].
pub(crate) fn pack_of(key: &[u8]) -> Option<PackId> {
    let start = key.len().checked_sub(PACK_ID_BYTES)?;
    Some(PackId(key[start..].try_into().ok()?))
}

/// Returns the number at the end of a key.
pub(crate) fn number_of(key: &[u8]) -> Option<u64> {
    let start = key.len().checked_sub(8)?;
    Some(u64::from_be_bytes(key[start..].try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_begin_alike_do_not_mix() {
        let short: ArtifactPath = "p/a".parse().unwrap();
        let long: ArtifactPath = "p/ab".parse().unwrap();
        let (from, to) = below(Space::Version, &short).range();
        let other = version(&long, VersionNumber(1));
        assert!(!(from <= other && other < to));
        assert!(version(&short, VersionNumber(9)) < version(&short, VersionNumber(10)));
        assert_eq!(number_of(&version(&short, VersionNumber(7))), Some(7));
    }

    #[test]
    fn the_end_of_a_prefix_skips_full_bytes() {
        assert_eq!(after_prefix(b"a\xff\xff"), b"b");
        assert_eq!(after_prefix(b"\xff"), b"");
    }
}
