//! Versions that are read inside a run.

use super::context::Context;
use artifactfs::error::Result;
use artifactfs::model::reference::Reference;
use artifactfs::model::version::VersionInfo;
use artifactfs::ops::runs;
use artifactfs::registry::Registry;

/// The version that a reference stands for; inside a run it is used.
pub fn used(
    context: &Context,
    registry: &dyn Registry,
    reference: Reference,
) -> Result<VersionInfo> {
    runs::lookup(registry, context.run()?.as_ref(), reference)
}
