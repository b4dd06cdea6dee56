//! Protection, time to live and tags.
//!
//! A protected alias keeps the version it stands for: the version is neither deleted nor does it
//! expire. The alias moves only if the caller requests that explicitly. The transaction that
//! deletes or moves also makes the checks, so nothing changes in between.

use super::decide;
use crate::error::Result;
use crate::model::name::VersionNumber;
use crate::model::reference::{ArtifactPath, Reference, Selector};
use crate::model::time::Timestamp;
use crate::model::version::{ArtifactInfo, VersionInfo};
use crate::registry::ArtifactUpdate;
use crate::registry::engine::Durability;
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys;
use crate::registry::names::naming::{artifact_info, known_artifact, lookup};
use crate::registry::record;
use crate::registry::seen_time::{note_time, refuse_jump};
use crate::registry::versions::delete::remove_version;

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
            decide::apply_to_artifact(&mut artifact, update)?;
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
        // The check before the write keeps versions that stay out of the change log.
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
