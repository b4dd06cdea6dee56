//! The decisions about groups: pure functions of the rows that were seen.

use super::group::{GroupInfo, NewPart, PartInfo, SealRequest};
use crate::error::{Error, Kind, PutHint, Result};
use crate::model::name::{ArtifactType, GroupName, VersionNumber};
use crate::model::reference::ArtifactPath;
use crate::model::time::Timestamp;
use crate::model::version::{AddedPart, Totals};
use crate::registry::versions::decide::refuse_other_type;

/// The maximum number of parts in an open group: one transaction seals them all.
const PARTS_MAX: u64 = 65_536;
/// The maximum length of a writer's name in bytes.
const WRITER_MAX_BYTES: usize = 256;

/// Returns a group that has an open part.
///
/// # Errors
/// [`Kind::Conflict`] if it is sealed; [`Kind::NotFound`] if it never had a part.
pub(super) fn open(
    found: Option<GroupInfo>,
    path: &ArtifactPath,
    group: &GroupName,
) -> Result<GroupInfo> {
    match found {
        Some(info) if info.parts > 0 => Ok(info),
        Some(GroupInfo { sealed: Some(version), .. }) => {
            let what = format!("group {group} was sealed as {path}:{version}");
            Err(Error::new(Kind::Conflict, what).hint(PutHint::Upsert))
        }
        _ => Err(Error::new(Kind::NotFound, format!("{path} has no group {group}"))
            .hint(PutHint::ListGroups(Some(path.to_string())))),
    }
}

/// Refuses a part of another type than the artifact; before there is one, than the group.
///
/// # Errors
/// [`Kind::Conflict`] for another type.
pub(super) fn check_type(
    path: &ArtifactPath,
    artifact: Option<&ArtifactType>,
    group: Option<&GroupInfo>,
    wanted: Option<&ArtifactType>,
) -> Result<()> {
    if let Some(is) = artifact {
        return refuse_other_type(&path.to_string(), is, wanted);
    }
    match group.and_then(|info| Some((info, info.artifact_type.as_ref()?))) {
        Some((info, is)) => {
            refuse_other_type(&format!("group {} of {path}", info.group), is, wanted)
        }
        None => Ok(()),
    }
}

/// Refuses a part whose texts are too long.
///
/// # Errors
/// [`Kind::Usage`] for a writer's name of more than [`WRITER_MAX_BYTES`].
pub(super) fn check_part(new: &NewPart) -> Result<()> {
    if new.writer.len() <= WRITER_MAX_BYTES {
        return Ok(());
    }
    let what = format!("a writer's name has at most {WRITER_MAX_BYTES} bytes");
    Err(Error::new(Kind::Usage, what))
}

/// Refuses a part that was not compared with all parts, and a part beyond [`PARTS_MAX`].
///
/// # Errors
/// [`Kind::Stale`] for the first, [`Kind::Full`] for the second.
pub(super) fn refuse_part(found: Option<&GroupInfo>, new: &NewPart) -> Result<()> {
    let Some(GroupInfo { group, path, parts, last, .. }) = found else { return Ok(()) };
    if *parts > 0 && new.seen.is_some_and(|seen| *last > seen) {
        let what = format!("group {group} of {path} has parts that were not compared");
        return Err(Error::new(Kind::Stale, what).hint("look at them and try again"));
    }
    if *parts >= PARTS_MAX {
        let what = format!("group {group} of {path} has {PARTS_MAX} parts already");
        return Err(Error::new(Kind::Full, what)
            .hint("finish it and go on with the next; or put more files at once"));
    }
    Ok(())
}

/// Returns the group with a part more, the part, and the reply to its writer. The first part after
/// a seal begins a generation.
pub(super) fn add_part(
    found: Option<GroupInfo>,
    new: &NewPart,
    sequence: u64,
    now: Timestamp,
) -> (GroupInfo, PartInfo, AddedPart) {
    let mut info = found.unwrap_or_else(|| unwritten(new, now));
    let first = info.parts == 0;
    if first {
        (info.begun, info.totals) = (now, Totals::default());
        info.generation += 1;
    }
    add_totals(&mut info.totals, &new.totals);
    info.parts += 1;
    (info.last, info.updated, info.writer) = (sequence, now, new.writer.clone());
    info.artifact_type = info.artifact_type.or_else(|| new.artifact_type.clone());
    let (root, totals, writer) = (new.root, new.totals, new.writer.clone());
    let part = PartInfo { sequence, root, totals, at: now, writer };
    let begins_after = info.sealed.filter(|_| first);
    let added = AddedPart { sequence, generation: info.generation, begins_after };
    (info, part, added)
}

/// Returns a new group before its first part.
fn unwritten(new: &NewPart, now: Timestamp) -> GroupInfo {
    GroupInfo {
        path: new.path.clone(),
        group: new.group.clone(),
        artifact_type: None,
        generation: 0,
        parts: 0,
        totals: Totals::default(),
        last: 0,
        begun: now,
        updated: now,
        writer: String::new(),
        sealed: None,
    }
}

/// Refuses to seal a group whose parts are not those that were merged.
///
/// # Errors
/// [`Kind::Stale`] for these.
pub(super) fn refuse_seal(info: &GroupInfo, request: &SealRequest) -> Result<()> {
    if (info.parts, info.last) == (request.parts, request.last) {
        return Ok(());
    }
    let what = format!("the parts of group {} have changed", info.group);
    Err(Error::new(Kind::Stale, what).hint("merge them again"))
}

/// Returns the group after its parts became a version.
pub(super) fn sealed(info: GroupInfo, number: VersionNumber) -> GroupInfo {
    GroupInfo { parts: 0, totals: Totals::default(), sealed: Some(number), ..info }
}

/// Returns the group with the `parts` that are left after others were discarded; `None` if it is
/// to be forgotten. Without parts its generation did not happen.
pub(super) fn discarded(mut info: GroupInfo, parts: u64, totals: Totals) -> Option<GroupInfo> {
    (info.parts, info.totals) = (parts, totals);
    if parts == 0 {
        info.generation -= 1;
    }
    (parts > 0 || info.sealed.is_some()).then_some(info)
}

/// Adds the totals of a part.
pub(super) fn add_totals(totals: &mut Totals, more: &Totals) {
    totals.files = totals.files.saturating_add(more.files);
    totals.directories = totals.directories.saturating_add(more.directories);
    totals.symlinks = totals.symlinks.saturating_add(more.symlinks);
    totals.external = totals.external.saturating_add(more.external);
    totals.size_bytes = totals.size_bytes.saturating_add(more.size_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;
    use crate::model::object_kind::ObjectKind;
    use crate::registry::CommitRequest;

    fn part(seen: Option<u64>) -> NewPart {
        NewPart {
            path: "p/a".parse().unwrap(),
            group: "g".parse().unwrap(),
            artifact_type: None,
            root: Digest::of(ObjectKind::Tree, b""),
            totals: Totals { files: 2, ..Totals::default() },
            writer: "w".to_owned(),
            run: None,
            seen,
        }
    }

    fn seal(info: &GroupInfo, parts: u64, last: u64) -> Option<Kind> {
        let commit = CommitRequest::plain(info.path.clone(), Digest::of(ObjectKind::Tree, b""));
        let request = SealRequest { group: info.group.clone(), parts, last, commit };
        refuse_seal(info, &request).err().map(|e| e.kind())
    }

    #[test]
    fn a_group_is_sealed_with_exactly_the_parts_that_were_merged() {
        let (one, ..) = add_part(None, &part(None), 4, Timestamp(1));
        let (two, _, added) = add_part(Some(one.clone()), &part(None), 9, Timestamp(2));
        assert_eq!((two.parts, two.totals.files, added.generation), (2, 4, 1));
        assert_eq!(seal(&two, 2, 9), None);
        assert_eq!(seal(&two, 1, 4), Some(Kind::Stale));
        assert_eq!(seal(&two, 2, 8), Some(Kind::Stale));
        assert_eq!(seal(&one, 2, 9), Some(Kind::Stale));
    }

    #[test]
    fn a_part_after_a_seal_begins_a_generation_and_names_the_version_before() {
        let (info, ..) = add_part(None, &part(None), 1, Timestamp(1));
        let info = sealed(info, VersionNumber(7));
        let refused = open(Some(info.clone()), &info.path, &info.group).unwrap_err();
        assert_eq!(refused.kind(), Kind::Conflict);
        let (info, _, added) = add_part(Some(info), &part(None), 2, Timestamp(3));
        assert_eq!((added.generation, added.begins_after), (2, Some(VersionNumber(7))));
        assert_eq!((info.parts, info.totals.files, info.begun), (1, 2, Timestamp(3)));
        let (_, _, added) = add_part(Some(info), &part(None), 3, Timestamp(4));
        assert_eq!((added.generation, added.begins_after), (2, None));
    }

    #[test]
    fn a_discarded_group_is_forgotten_unless_it_was_sealed_or_has_parts() {
        let (new, ..) = add_part(None, &part(None), 1, Timestamp(1));
        assert_eq!(discarded(new.clone(), 0, Totals::default()), None);
        assert_eq!(discarded(new.clone(), 1, new.totals), Some(new.clone()));
        let (again, ..) =
            add_part(Some(sealed(new, VersionNumber(0))), &part(None), 2, Timestamp(2));
        assert_eq!(discarded(again, 0, Totals::default()).unwrap().generation, 1);
    }

    #[test]
    fn a_part_that_was_not_compared_with_the_last_is_refused() {
        let (info, ..) = add_part(None, &part(None), 5, Timestamp(1));
        let kind = |seen| refuse_part(Some(&info), &part(seen)).err().map(|e| e.kind());
        assert_eq!(kind(None), None);
        assert_eq!(kind(Some(5)), None);
        assert_eq!(kind(Some(4)), Some(Kind::Stale));
        let full = GroupInfo { parts: PARTS_MAX, ..info.clone() };
        assert_eq!(refuse_part(Some(&full), &part(None)).unwrap_err().kind(), Kind::Full);
    }
}
