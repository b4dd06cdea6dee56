//! Object tables, as a check reads them.

use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::{Located, Presence};
use crate::ops::repository::Repository;

/// The number of objects read in one step.
pub(super) const PAGE: u32 = 8_192;

/// An object table: the one in use, or a new one that is being made.
pub(crate) trait Table {
    /// Calls `each` with every object, in the order of digests.
    fn each(&self, each: &mut dyn FnMut(Digest, Located) -> Result<()>) -> Result<()>;
    /// Returns the objects that a node points at.
    fn children(&self, digest: Digest, located: &Located) -> Result<Vec<Digest>>;
}

/// The table in use.
pub(crate) struct LiveTable<'a>(pub(crate) &'a Repository);

/// The new table beside it.
pub(crate) struct RebuiltTable<'a>(pub(crate) &'a Repository);

/// Calls `each` with all objects of pages; `page` reads the page behind a digest.
fn each_page(
    page: &dyn Fn(Option<Digest>) -> Result<Vec<(Digest, Located)>>,
    each: &mut dyn FnMut(Digest, Located) -> Result<()>,
) -> Result<()> {
    let mut after = None;
    loop {
        let objects = page(after)?;
        let Some((last, _)) = objects.last() else {
            return Ok(());
        };
        after = Some(*last);
        objects.into_iter().try_for_each(|(digest, located)| each(digest, located))?;
    }
}

impl Table for LiveTable<'_> {
    fn each(&self, each: &mut dyn FnMut(Digest, Located) -> Result<()>) -> Result<()> {
        each_page(&|after| self.0.registry.scan_objects(after, PAGE), each)
    }

    fn children(&self, digest: Digest, located: &Located) -> Result<Vec<Digest>> {
        self.0.reader.children(digest, located.kind)
    }
}

impl Table for RebuiltTable<'_> {
    fn each(&self, each: &mut dyn FnMut(Digest, Located) -> Result<()>) -> Result<()> {
        each_page(&|after| self.0.registry.scan_rebuilt(after, PAGE), each)
    }

    fn children(&self, digest: Digest, located: &Located) -> Result<Vec<Digest>> {
        self.0.reader.children_at(digest, located)
    }
}

/// The objects of the new table whose children the table in use has not counted.
pub(crate) struct FreshTable<'a>(pub(crate) &'a Repository);

impl FreshTable<'_> {
    /// Returns those of `objects` that belong to it.
    pub(crate) fn select(&self, objects: Vec<(Digest, Located)>) -> Result<Vec<(Digest, Located)>> {
        let digests = objects.iter().map(|(digest, _)| *digest).collect();
        let old = self.0.registry.locate(digests)?;
        let uncounted =
            |old: &Option<Located>| old.is_none_or(|old| old.presence == Presence::AbsentUncounted);
        let fresh = objects.into_iter().zip(old).filter(|(_, old)| uncounted(old));
        Ok(fresh.map(|(object, _)| object).collect())
    }
}

impl Table for FreshTable<'_> {
    fn each(&self, each: &mut dyn FnMut(Digest, Located) -> Result<()>) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.0.registry.scan_rebuilt(after, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            self.select(page)?
                .into_iter()
                .try_for_each(|(digest, located)| each(digest, located))?;
        }
    }

    fn children(&self, digest: Digest, located: &Located) -> Result<Vec<Digest>> {
        RebuiltTable(self.0).children(digest, located)
    }
}

/// Reports whether an error means that bytes are wrong or gone, rather than that they cannot be
/// read now.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), Kind::Corrupt | Kind::Stale | Kind::NotFound)
}
