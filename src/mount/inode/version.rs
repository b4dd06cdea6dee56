//! Versions in a mount.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::files::Place;
use crate::model::name::{Alias, RunId, VersionNumber};
use crate::model::reference::{ArtifactPath, Selector};

/// The run that uses a version, and whether that is recorded.
#[derive(Debug)]
pub struct RunUse {
    /// The run.
    pub run: RunId,
    /// The alias by which the version was looked up.
    pub alias: Option<Alias>,
    /// True once the use is recorded.
    pub told: AtomicBool,
}

/// A version in a mount.
#[derive(Debug)]
pub struct VersionNode {
    /// The artifact.
    pub path: ArtifactPath,
    /// The number.
    pub number: VersionNumber,
    /// The selector by which it was looked up.
    pub selector: Selector,
    /// Its root directory.
    pub place: Arc<Place>,
    /// The run in whose view it is, if any.
    pub used: Option<RunUse>,
}
