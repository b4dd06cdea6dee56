//! The revival of objects that were set aside: their children were never counted, and they can be
//! read after all.

use super::check::Check;
use super::counting::Counting;
use super::table::{LiveTable, Table, is_damage};
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::object::{Located, PackId, Presence};
use crate::model::object_kind::ObjectKind;
use crate::registry::Fix;

impl Check<'_> {
    /// Marks such objects present, and counts their children, if something needs them. Their own
    /// counts do not tell that: they may be too high.
    pub(super) fn revive(&mut self) -> Result<()> {
        if self.repository.registry.absent()? == 0 {
            return Ok(());
        }
        let mut needed = self.needed_again()?;
        while let Some(digest) = needed.pop() {
            let found = self.repository.registry.locate(vec![digest])?.pop().flatten();
            let Some(seen) = found.filter(is_set_aside) else { continue };
            let children = match self.verified_children(digest, &seen) {
                Err(e) if is_damage(&e) => continue,
                children => children?,
            };
            self.report.finding(format!("{} {digest} is good again", seen.kind));
            needed.extend(&children);
            self.fix(Fix::Revival { digest, seen, children })?;
            self.flush()?;
        }
        Ok(())
    }

    /// Verifies an object and returns its children.
    fn verified_children(&self, digest: Digest, located: &Located) -> Result<Vec<Digest>> {
        let reader = &self.repository.reader;
        match located.kind {
            ObjectKind::Chunk => reader.check_at(digest, located).map(|_| Vec::new()),
            _ => reader.children_at(digest, located),
        }
    }

    /// Returns the objects that are set aside and that something refers to.
    fn needed_again(&self) -> Result<Vec<Digest>> {
        let table = LiveTable(self.repository);
        let mut aside = 0;
        table.each(&mut |_, located| {
            aside += u64::from(is_set_aside(&located));
            Ok(())
        })?;
        let mut needed = Vec::new();
        if aside == 0 {
            return Ok(needed);
        }
        let objects = self.repository.registry.info()?.objects;
        let mut counting = Counting::new(self.repository, &table, objects);
        while let Some(pass) = counting.next_pass()? {
            table.each(&mut |digest, located| {
                if is_set_aside(&located) && pass.counts.contains_key(&digest) {
                    needed.push(digest);
                }
                Ok(())
            })?;
        }
        Ok(needed)
    }
}

fn is_set_aside(located: &Located) -> bool {
    located.presence == Presence::AbsentUncounted && located.extent.pack != PackId::NONE
}
