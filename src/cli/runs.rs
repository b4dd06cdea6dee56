//! Runs.

use super::Context;
use crate::error::Result;
use crate::model::reference::Reference;
use crate::model::version::VersionInfo;
use crate::ops::runs::use_version;
use crate::registry::Registry;

/// The version that a reference stands for; inside a run it is used.
pub fn used(
    context: &Context,
    registry: &dyn Registry,
    reference: Reference,
) -> Result<VersionInfo> {
    match context.run()? {
        Some(run) => use_version(registry, &run, reference),
        None => registry.lookup(reference),
    }
}
