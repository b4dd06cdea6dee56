//! A version as a mount knows it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::files::Place;
use crate::model::name::{Alias, RunId, VersionNumber};
use crate::model::reference::{ArtifactPath, Selector};

/// Who is to be told that a version is used.
#[derive(Debug)]
pub struct RunUse {
    /// The run.
    pub run: RunId,
    /// The alias the version was found by.
    pub alias: Option<Alias>,
    /// Whether it was told.
    pub told: AtomicBool,
}

/// A version as a mount knows it.
#[derive(Debug)]
pub struct VersionNode {
    /// The artifact.
    pub path: ArtifactPath,
    /// The number.
    pub number: VersionNumber,
    /// What it was asked for by.
    pub selector: Selector,
    /// Its root directory.
    pub place: Arc<Place>,
    /// The run in whose view it is.
    pub used: Option<RunUse>,
}
