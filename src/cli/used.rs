//! References to versions that a command reads.

use super::context::Context;
use artifactfs::error::Result;
use artifactfs::model::reference::Reference;
use artifactfs::model::version::VersionInfo;
use artifactfs::ops::runs;
use artifactfs::registry::Registry;

/// Resolves a reference; inside a run this records the version as used.
pub fn used(
    context: &Context,
    registry: &dyn Registry,
    reference: Reference,
) -> Result<VersionInfo> {
    runs::lookup(registry, context.run()?.as_ref(), reference)
}
