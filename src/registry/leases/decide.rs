//! The decisions about leases: pure functions of the records that were seen.

use crate::model::time::Timestamp;
use crate::registry::leases::{ENDING_HOLDER, LEASE_MILLISECONDS, LEFT_HOLDER, LEFT_MILLISECONDS};
use crate::registry::record::{LeaseRecord, PackRecord};
use crate::registry::{DRAFT_HOLDER, Judged};

/// The fate of a lease that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// Its pins are removed; its finished packs are kept for a day.
    Left,
    /// Everything it holds is released.
    Ended,
}

/// Returns a new lease.
pub(super) fn begin(purpose: &str, holder: &str, now: Timestamp) -> LeaseRecord {
    let expires = match holder {
        DRAFT_HOLDER => Timestamp(u64::MAX),
        _ => Timestamp(now.0.saturating_add(LEASE_MILLISECONDS)),
    };
    LeaseRecord {
        expires,
        holder: holder.to_owned(),
        purpose: purpose.to_owned(),
        committed: None,
        part: None,
        pin_batches: 0,
    }
}

/// Returns whether a lease still has the holder that was judged, and that holder is dead or its
/// time is over.
fn is_still(record: &LeaseRecord, judged: &Judged, now: Timestamp) -> bool {
    record.holder == judged.holder && (judged.dead || record.expires <= now)
}

/// Decides whether `heir` takes over the finished packs of `orphan`, whose holder was found dead.
/// Another process may have found that, too, and left the lease since.
pub(super) fn adopts(
    heir: &LeaseRecord,
    orphan: &LeaseRecord,
    judged: &Judged,
    now: Timestamp,
) -> bool {
    let still = orphan.holder == LEFT_HOLDER || is_still(orphan, judged, now);
    let taken = [DRAFT_HOLDER, ENDING_HOLDER].contains(&orphan.holder.as_str());
    still && !taken && !orphan.is_done() && orphan.purpose == heir.purpose
}

/// Returns whether a pack has objects that only its lease keeps.
pub(super) fn is_progress(pack: &PackRecord) -> bool {
    pack.live_objects > 0 && pack.unreferenced > 0
}

/// Decides the fate of a lease that its own writer leaves; `None`: it stays.
pub(super) fn leave(record: &LeaseRecord) -> Option<Given> {
    match record.holder.as_str() {
        DRAFT_HOLDER => None,
        ENDING_HOLDER => Some(Given::Ended),
        _ if record.is_done() => Some(Given::Ended),
        _ => Some(Given::Left),
    }
}

/// Decides the fate of a lease that another process ends; `None`: it stays.
pub(super) fn end(
    record: &LeaseRecord,
    judged: &Judged,
    wholly: bool,
    now: Timestamp,
) -> Option<Given> {
    match record.holder.as_str() {
        DRAFT_HOLDER => None,
        ENDING_HOLDER => Some(Given::Ended),
        LEFT_HOLDER if wholly || record.expires <= now => Some(Given::Ended),
        LEFT_HOLDER => Some(Given::Left),
        _ if !is_still(record, judged, now) => None,
        _ if record.is_done() => Some(Given::Ended),
        _ => Some(Given::Left),
    }
}

/// Returns the record of a lease with its fate; `None` if it has that already.
pub(super) fn given_up(record: &LeaseRecord, given: Given, now: Timestamp) -> Option<LeaseRecord> {
    let (holder, expires) = match given {
        Given::Left => (LEFT_HOLDER, Timestamp(now.0.saturating_add(LEFT_MILLISECONDS))),
        Given::Ended => (ENDING_HOLDER, record.expires),
    };
    let changed = record.holder != holder;
    changed.then(|| LeaseRecord { holder: holder.to_owned(), expires, ..record.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::VersionNumber;
    use crate::model::version::Committed;
    use crate::registry::LeaseId;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn lease(holder: &str, expired: bool, done: bool) -> LeaseRecord {
        let committed =
            Committed { path: "p/a".parse().unwrap(), number: VersionNumber(0), new: true };
        LeaseRecord {
            expires: Timestamp(if expired { NOW.0 } else { NOW.0 + 1 }),
            committed: done.then_some(committed),
            ..begin("put", holder, Timestamp(0))
        }
    }

    fn judged(holder: &str, dead: bool) -> Judged {
        Judged { lease: LeaseId(1), holder: holder.to_owned(), dead }
    }

    #[test]
    fn the_lease_of_another_holder_ends_only_as_it_was_judged() {
        use Given::{Ended, Left};
        for (holder, expired, done, judgement, wholly, expected) in [
            ("w", false, false, judged("w", false), false, None),
            ("w", false, false, judged("w", true), false, Some(Left)),
            ("w", true, false, judged("w", false), false, Some(Left)),
            ("w", true, true, judged("w", false), false, Some(Ended)),
            ("w", true, false, judged("other", true), true, None),
            (DRAFT_HOLDER, true, false, judged(DRAFT_HOLDER, true), true, None),
            (ENDING_HOLDER, false, false, judged("w", false), false, Some(Ended)),
            (LEFT_HOLDER, false, false, judged("w", false), false, Some(Left)),
            (LEFT_HOLDER, false, false, judged("w", false), true, Some(Ended)),
            (LEFT_HOLDER, true, false, judged("w", false), false, Some(Ended)),
        ] {
            let record = lease(holder, expired, done);
            let given = end(&record, &judgement, wholly, NOW);
            assert_eq!(given, expected, "{holder} {expired} {done} {judgement:?} {wholly}");
        }
    }

    #[test]
    fn a_lease_is_adopted_once_for_its_own_purpose() {
        let heir = lease("new", false, false);
        let adopted = |orphan: &LeaseRecord, dead| adopts(&heir, orphan, &judged("w", dead), NOW);
        assert!(adopted(&lease("w", false, false), true));
        assert!(adopted(&lease("w", true, false), false));
        assert!(adopted(&lease(LEFT_HOLDER, false, false), false));
        assert!(!adopted(&lease("w", false, false), false), "it may live");
        assert!(!adopted(&lease("w", true, true), true), "it has committed");
        assert!(!adopted(&lease(ENDING_HOLDER, true, false), true));
        let other = LeaseRecord { purpose: "get".to_owned(), ..lease("w", true, false) };
        assert!(!adopted(&other, true));
    }

    #[test]
    fn a_fate_is_recorded_once_and_a_left_lease_is_kept_for_a_day() {
        let record = lease("w", false, false);
        let left = given_up(&record, leave(&record).unwrap(), NOW).unwrap();
        assert_eq!(
            (left.holder.as_str(), left.expires.0),
            (LEFT_HOLDER, NOW.0 + LEFT_MILLISECONDS)
        );
        assert!(given_up(&left, Given::Left, Timestamp(NOW.0 + 5)).is_none());
        let ended = given_up(&left, Given::Ended, NOW).unwrap();
        assert_eq!((ended.holder.as_str(), ended.expires), (ENDING_HOLDER, left.expires));
        assert_eq!(leave(&lease("w", false, true)), Some(Given::Ended));
        assert_eq!(leave(&lease(DRAFT_HOLDER, false, false)), None);
    }
}
