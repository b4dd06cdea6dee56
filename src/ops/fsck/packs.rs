//! Checks that packs and object table agree.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::check::Check;
use super::indexes::{check_index, write_indexes};
use super::table::PAGE;
use super::unknown;
use crate::error::{Error, Kind, Result};
use crate::model::counted::counted;
use crate::model::object::{Located, PackId, Presence};
use crate::registry::{Fix, PackInfo};

/// The sums of what the table has in a pack.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    objects: u64,
    bytes: u64,
    /// The offset behind the last object.
    end: u64,
}

impl Check<'_> {
    pub(super) fn packs(&mut self) -> Result<()> {
        let mut sums = self.sums()?;
        let (mut bad_packs, mut bad_indexes) = (HashMap::new(), BTreeSet::new());
        let (mut present, mut after) = (0, None);
        loop {
            let page = self.repository.registry.scan_packs(after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for pack in page {
                let sum = sums.remove(&pack.id).unwrap_or_default();
                let on_disk = self.length_of(pack.id)?;
                present += u64::from(on_disk.is_some() && sum.objects > 0);
                self.pack(&pack, sum, on_disk)?;
                if on_disk.unwrap_or_default() < sum.end {
                    bad_packs.insert(pack.id, on_disk.unwrap_or_default());
                } else if sum.objects > 0 && !pack.leased {
                    self.index(pack.id, sum.objects, &mut bad_indexes)?;
                }
            }
        }
        for (id, sum) in sums {
            self.report.finding(format!("pack {id} has objects and no record"));
            let length_bytes = self.length_of(id)?.unwrap_or_default();
            let (live_objects, live_bytes) = (sum.objects, sum.bytes);
            let now = PackInfo { id, leased: false, live_objects, live_bytes, length_bytes };
            self.fix(Fix::Pack { seen: None, now })?;
            if length_bytes < sum.end {
                bad_packs.insert(id, length_bytes);
            }
        }
        if present == 0 {
            refuse_absent_store(present, self.still_known(bad_packs.keys())?)?;
        }
        self.flush()?;
        self.lose(&bad_packs)?;
        if self.repairs() {
            self.report.repaired += write_indexes(self.repository, &bad_indexes)?;
        }
        for pack in unknown::find(self.repository)? {
            self.report.unknown_packs += 1;
            self.report.finding(pack.describe());
        }
        Ok(())
    }

    /// Returns how many of these packs still have objects: others may have been deleted meanwhile.
    fn still_known<'a>(&self, packs: impl Iterator<Item = &'a PackId>) -> Result<usize> {
        let mut known = 0;
        for id in packs {
            let pack = self.repository.registry.pack(*id)?;
            known += usize::from(pack.is_some_and(|pack| pack.live_objects > 0));
        }
        Ok(known)
    }

    fn sums(&mut self) -> Result<BTreeMap<PackId, Sum>> {
        let mut sums: BTreeMap<PackId, Sum> = BTreeMap::new();
        let mut objects = 0;
        self.each_object(&mut |_, located| {
            objects += 1;
            if located.extent.pack != PackId::NONE {
                let stored = u64::from(located.extent.stored_bytes);
                let sum = sums.entry(located.extent.pack).or_default();
                sum.objects += 1;
                sum.bytes += stored;
                // An absent object may lie behind the end of a pack that was cut.
                if !located.is_absent() {
                    sum.end = sum.end.max(located.extent.offset + stored);
                }
            }
            Ok(())
        })?;
        self.report.objects = objects;
        Ok(sums)
    }

    fn length_of(&self, id: PackId) -> Result<Option<u64>> {
        match self.repository.store.pack_length(id) {
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            length => length.map(Some),
        }
    }

    fn pack(&mut self, pack: &PackInfo, sum: Sum, on_disk: Option<u64>) -> Result<()> {
        self.report.packs += 1;
        let (live_objects, live_bytes) = (sum.objects, sum.bytes);
        match on_disk {
            None if live_objects > 0 => {
                let objects = counted(live_objects, "object");
                let what = format!("pack {} is missing with {objects}", pack.id);
                self.report.finding(what);
            }
            Some(length) if length < sum.end => {
                let what =
                    format!("pack {} has {}, not {}", pack.id, counted(length, "byte"), sum.end);
                self.report.finding(what);
            }
            _ => {}
        }
        let right = (pack.live_objects, pack.live_bytes) == (live_objects, live_bytes);
        if !right {
            let (objects, bytes) =
                (counted(pack.live_objects, "object"), counted(pack.live_bytes, "byte"));
            let what = format!(
                "pack {} counts {objects} of {bytes} and has {live_objects} of {live_bytes}",
                pack.id
            );
            self.report.finding(what);
            self.miscounted.push(pack.id);
        }
        let length_bytes = match on_disk {
            Some(length) if pack.length_bytes == 0 && live_objects > 0 => length,
            _ => pack.length_bytes,
        };
        let now = PackInfo { live_objects, live_bytes, length_bytes, ..pack.clone() };
        if now != *pack && !pack.leased {
            self.fix(Fix::Pack { seen: Some(pack.clone()), now })?;
        }
        Ok(())
    }

    /// Checks that the index of a pack names at least as many objects as the table has there.
    fn index(&mut self, id: PackId, objects: u64, bad: &mut BTreeSet<PackId>) -> Result<()> {
        if let Some(finding) = check_index(self.repository, id, objects)? {
            self.report.finding(finding);
            bad.insert(id);
        }
        Ok(())
    }

    /// Marks objects absent that end behind the given length of their pack, which is 0 for a
    /// missing one. They keep their counts.
    fn lose(&mut self, packs: &HashMap<PackId, u64>) -> Result<()> {
        if packs.is_empty() || !self.repairs() {
            return Ok(());
        }
        let mut lost = Vec::new();
        self.each_object(&mut |digest, located| {
            let end = located.extent.offset + u64::from(located.extent.stored_bytes);
            let gone = packs.get(&located.extent.pack).is_some_and(|length| end > *length);
            if gone && !located.is_absent() {
                lost.push((digest, located));
            }
            Ok(())
        })?;
        for (digest, seen) in lost {
            let now = Located { presence: Presence::Absent, ..seen };
            self.fix(Fix::Object { digest, seen: Some(seen), now })?;
        }
        self.flush()
    }
}

/// Refuses to treat everything as lost if not one pack is there: then the store is not there.
pub(super) fn refuse_absent_store(present: u64, missing: usize) -> Result<()> {
    if present > 0 || missing == 0 {
        return Ok(());
    }
    let what = format!(
        "{} with content: none is in the store; nothing was changed",
        counted(missing, "pack")
    );
    Err(Error::new(Kind::Unavailable, what).hint(
        "is the disk of the store mounted, and the store's address in repository.json right?",
    ))
}
