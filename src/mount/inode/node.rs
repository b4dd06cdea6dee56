//! The node of an inode that is no file's.

use std::sync::Arc;

use super::description::Description;
use super::files::Place;
use super::version::VersionNode;
use crate::model::digest::Digest;
use crate::model::name::{ProjectName, RunId};

/// The meaning of an inode.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// The mount itself.
    Root,
    /// `.runs`: the mount as each run sees it.
    Runs,
    /// The mount as a run sees it.
    Run(RunId),
    /// A project, as a run sees it if one is given.
    Project(ProjectName, Option<RunId>),
    /// The root of a version, by any of its names.
    Version(Arc<VersionNode>),
    /// A directory of a version.
    Directory {
        /// Its place in the version.
        place: Arc<Place>,
        /// Its tree.
        tree: Digest,
    },
    /// A symlink of a version.
    Symlink {
        /// The target.
        target: Arc<[u8]>,
        /// The version's time.
        time_seconds: u64,
    },
    /// `.artifact.json` of a version.
    Description(Arc<Description>),
}
