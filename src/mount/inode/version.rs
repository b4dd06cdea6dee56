//! Versions in a mount.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::files::Place;
use crate::model::name::{Alias, RunId, VersionNumber};
use crate::model::reference::{ArtifactPath, Selector};

/// The run that uses a version, and whether that is recorded.
#[derive(Debug)]
pub(crate) struct RunUse {
    /// The run.
    pub(crate) run: RunId,
    /// The alias by which the version was looked up.
    pub(crate) alias: Option<Alias>,
    /// True once the use is recorded.
    pub(crate) recorded: AtomicBool,
}

/// A version in a mount.
#[derive(Debug)]
pub(crate) struct VersionNode {
    /// The artifact.
    pub(crate) path: ArtifactPath,
    /// The number.
    pub(crate) number: VersionNumber,
    /// The selector by which it was looked up.
    pub(crate) selector: Selector,
    /// Its root directory.
    pub(crate) place: Arc<Place>,
    /// The run in whose view it is, if any.
    pub(crate) used: Option<RunUse>,
}
