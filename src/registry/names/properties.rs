//! Protection, time to live and tags.
//!
//! A protected alias keeps the version it stands for: that is neither deleted nor does its time end, and
//! the alias is taken off it only by who says so. All of it is decided in the transaction that
//! deletes or moves, so nothing comes between the check and the deed.

use crate::error::{Error, Kind, Result};
use crate::model::metadata::Metadata;
use crate::model::name::{Alias, VersionNumber};
use crate::model::properties::{PROTECTED_MAX, Ttl, change_names, change_tags};
use crate::model::reference::{ArtifactPath, Reference, Selector};
use crate::model::time::Timestamp;
use crate::model::version::{ArtifactInfo, VersionInfo, check_description};
use crate::registry::ArtifactUpdate;
use crate::registry::engine::{Durability, Transaction, View};
use crate::registry::engine_registry::{EngineRegistry, read_counter};
use crate::registry::keys::{self, Key, Space};
use crate::registry::names::naming::{aliases, artifact, artifact_info, known_artifact, lookup};
use crate::registry::record::{self, ArtifactRecord, VersionRecord};
use crate::registry::versions::delete::remove_version;

/// Refuses to take protected ones of `names` off the version they stand for; they are to stand for `number`,
/// or for nothing.
pub(in crate::registry) fn hold_protected(
    view: &dyn View,
    path: &ArtifactPath,
    names: &[Alias],
    number: Option<VersionNumber>,
) -> Result<()> {
    let protected = artifact(view, path)?.map(|record| record.protected).unwrap_or_default();
    for name in names.iter().filter(|name| protected.contains(name)) {
        let Some(bytes) = view.get(&keys::alias(path, name))? else { continue };
        let target: VersionNumber = record::decode(&bytes)?;
        if number != Some(target) {
            let what = format!("{path}:{name} is protected and stands for {target}");
            let hint =
                format!("`artifactfs alias add --protected {path}:VERSION {name}` moves it anyway");
            return Err(Error::new(Kind::Conflict, what).hint(hint));
        }
    }
    Ok(())
}

/// Refuses to delete a version that a protected alias keeps.
pub(in crate::registry) fn keep_protected(info: &VersionInfo) -> Result<()> {
    let Some(name) = info.protected.first() else { return Ok(()) };
    let what = format!("{} is kept by its protected alias {name}", info.reference());
    Err(Error::new(Kind::Conflict, what)
        .hint(format!("`artifactfs alias unprotect {} {name}` lets it go", info.path)))
}

/// Whether the time of a version would be over if it lived as long as `ttl` says.
pub(in crate::registry) fn would_be_over(
    view: &dyn View,
    (path, artifact): (&ArtifactPath, &ArtifactRecord),
    (number, version): (VersionNumber, &VersionRecord),
    ttl: Ttl,
    now: Timestamp,
) -> Result<bool> {
    let expires = ttl.expires(version.created, artifact.ttl_milliseconds);
    if expires.is_none_or(|at| at > now) {
        return Ok(false);
    }
    let all = aliases(view, path)?;
    Ok(!all.iter().any(|(name, target)| *target == number && artifact.protected.contains(name)))
}

/// Refuses what is too long, or no metadata: what comes over a socket went through no parser here.
pub(in crate::registry) fn check_said(
    description: Option<&str>,
    metadata: Option<&Metadata>,
) -> Result<()> {
    description.map_or(Ok(()), check_description)?;
    metadata.map_or(Ok(()), Metadata::check)
}

/// How far the clock may be beyond the last change for versions to expire by it: who prunes every week is not
/// asked, and a clock that is years ahead deletes nothing.
const TIME_JUMP_MILLISECONDS: u64 = 8 * 24 * 3600 * 1000;
/// The counter that holds the highest time seen.
const TIME: &str = "time";

/// Remembers the highest time seen.
pub(in crate::registry) fn note_time(
    transaction: &mut dyn Transaction,
    now: Timestamp,
) -> Result<()> {
    if now.0 <= read_counter(&*transaction, TIME)? {
        return Ok(());
    }
    transaction.put(&Key::of(Space::Counter).name(TIME).done(), &record::encode(&now.0))
}

/// Refuses a time that is far beyond the highest seen.
fn refuse_jump(view: &dyn View, now: Timestamp) -> Result<()> {
    let seen = read_counter(view, TIME)?;
    if seen == 0 || now.0 <= seen.saturating_add(TIME_JUMP_MILLISECONDS) {
        return Ok(());
    }
    let seen = Timestamp(seen);
    let what = format!("the clock says {now}, and the repository was changed last at {seen}");
    Err(Error::new(Kind::Conflict, what)
        .hint("nothing expired; if the clock is right, say so with --trust-clock"))
}

/// Applies `update` to an artifact's record.
fn apply(artifact: &mut ArtifactRecord, update: &ArtifactUpdate) -> Result<()> {
    if update.protect.contains(&Alias::latest()) {
        return Err(Error::new(Kind::Usage, "latest moves with every new version")
            .hint("protect an alias of your own, and give it to the version"));
    }
    check_said(update.description.as_deref(), None)?;
    if let Some(description) = &update.description {
        artifact.description.clone_from(description);
    }
    if let Some(ttl) = update.ttl_milliseconds {
        artifact.ttl_milliseconds = ttl;
    }
    change_tags(&mut artifact.tags, &update.tag, &update.untag)?;
    let change = (&update.protect[..], &update.unprotect[..]);
    change_names(&mut artifact.protected, change, ("protected aliases", PROTECTED_MAX))
}

impl EngineRegistry {
    pub(in crate::registry) fn artifact(&self, path: &ArtifactPath) -> Result<ArtifactInfo> {
        self.read(|view| artifact_info(view, path.clone(), known_artifact(view, path)?))
    }

    pub(in crate::registry) fn update_artifact(
        &self,
        path: &ArtifactPath,
        update: &ArtifactUpdate,
    ) -> Result<ArtifactInfo> {
        self.write_names(path, |transaction| {
            let mut artifact = known_artifact(&*transaction, path)?;
            apply(&mut artifact, update)?;
            transaction.put(&keys::artifact(path), &record::encode_artifact(&artifact))?;
            artifact_info(&*transaction, path.clone(), artifact)
        })
    }

    pub(in crate::registry) fn time_to_expire(&self, trusted: bool) -> Result<Timestamp> {
        let now = (self.clock)();
        self.write(Durability::Immediate, |transaction| {
            if !trusted {
                refuse_jump(&*transaction, now)?;
            }
            note_time(transaction, now)
        })?;
        Ok(now)
    }

    pub(in crate::registry) fn expire(
        &self,
        path: &ArtifactPath,
        number: VersionNumber,
    ) -> Result<Option<VersionInfo>> {
        let reference = Reference { path: path.clone(), selector: Selector::Version(number) };
        let now = (self.clock)();
        self.read(|view| refuse_jump(view, now))?;
        let over = |info: &VersionInfo| info.expires.is_some_and(|at| at <= now);
        // Only what is deleted goes into the change log.
        if !over(&self.read(|view| lookup(view, &reference))?) {
            return Ok(None);
        }
        self.write_names(path, |transaction| {
            let info = lookup(&*transaction, &reference)?;
            if !over(&info) {
                return Ok(None);
            }
            remove_version(transaction, &info)?;
            Ok(Some(info))
        })
    }
}
