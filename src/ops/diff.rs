//! Comparing two versions: equal subtrees are skipped, so the cost follows the difference.

use std::cmp::Ordering;
use std::path::Path;

use super::repository::Repository;
use crate::content::cursor::Cursor;
use crate::content::directory::each_entry;
use crate::content::reader::Reader;
use crate::error::Result;
use crate::model::difference::{Change, Difference};
use crate::model::digest::Digest;
use crate::model::reference::Reference;
use crate::model::tree::{Entry, Target};

/// Calls `each` with every difference from one version to another in path order.
///
/// # Errors
/// [`Kind::NotFound`](crate::error::Kind::NotFound), and the errors of reading a node and of
/// `each`.
pub fn versions(
    repository: &Repository,
    before: Reference,
    after: Reference,
    each: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    let before = repository.registry.lookup(before)?.root;
    let after = repository.registry.lookup(after)?.root;
    diff(&repository.reader, before, after, each)
}

/// Calls `each` with every difference from `before` to `after` in path order.
///
/// # Errors
/// The errors of reading a node and of `each`.
pub(crate) fn diff(
    reader: &Reader,
    before: Digest,
    after: Digest,
    each: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    directories(reader, Path::new(""), before, after, each)
}

type Each<'a> = &'a mut dyn FnMut(Difference) -> Result<()>;

fn directories(
    reader: &Reader,
    at: &Path,
    before: Digest,
    after: Digest,
    each: Each<'_>,
) -> Result<()> {
    // The versions may belong to two zones.
    if before.has_content_of(&after) {
        return Ok(());
    }
    let (mut left, mut right) = (Cursor::new(reader, before)?, Cursor::new(reader, after)?);
    loop {
        skip_equal(reader, &mut left, &mut right)?;
        let order = match (left.find_entry(reader)?, right.find_entry(reader)?) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => left.name.cmp(&right.name),
        };
        let old = if order.is_le() { left.take() } else { None };
        let new = if order.is_ge() { right.take() } else { None };
        entries(reader, at, old, new, each)?;
    }
}

/// Skips equal nodes while both cursors stand before one, and otherwise reads the larger node until
/// they are level.
fn skip_equal(reader: &Reader, left: &mut Cursor, right: &mut Cursor) -> Result<()> {
    while let (Some(one), Some(other)) = (left.unread(), right.unread()) {
        if one.child.digest.has_content_of(&other.child.digest) {
            left.skip();
            right.skip();
            continue;
        }
        let order = one.child.count.cmp(&other.child.count);
        if order.is_ge() {
            left.open(reader)?;
        }
        if order.is_le() {
            right.open(reader)?;
        }
    }
    Ok(())
}

/// Compares two entries of one name; `None` stands for a side without that name.
fn entries(
    reader: &Reader,
    at: &Path,
    old: Option<Entry>,
    new: Option<Entry>,
    each: Each<'_>,
) -> Result<()> {
    let Some(name) = old.as_ref().or(new.as_ref()).map(|entry| entry.name.clone()) else {
        return Ok(());
    };
    let path = at.join(name.as_os_str());
    match (old.map(|e| e.target), new.map(|e| e.target)) {
        (Some(Target::Directory(before)), Some(Target::Directory(after))) => {
            directories(reader, &path, before, after, each)
        }
        (Some(old), Some(new)) if is_directory(&old) || is_directory(&new) => {
            one_side(reader, &path, &old, Change::Removed, each)?;
            one_side(reader, &path, &new, Change::Added, each)
        }
        (Some(old), Some(new)) if is_same(&old, &new) => Ok(()),
        (Some(old), Some(new)) => each(Difference {
            path,
            change: Change::Changed,
            before_bytes: size(&old),
            after_bytes: size(&new),
            directory: false,
        }),
        (Some(old), None) => one_side(reader, &path, &old, Change::Removed, each),
        (None, Some(new)) => one_side(reader, &path, &new, Change::Added, each),
        (None, None) => Ok(()),
    }
}

/// Returns whether two entries that are no directories are the same.
fn is_same(old: &Target, new: &Target) -> bool {
    match (old, new) {
        (
            Target::File { content, executable },
            Target::File { content: other, executable: also },
        ) => executable == also && content.is_same(other),
        _ => old == new,
    }
}

fn is_directory(target: &Target) -> bool {
    matches!(target, Target::Directory(_))
}

fn size(target: &Target) -> Option<u64> {
    match target {
        Target::File { content, .. } => Some(content.size_bytes()),
        Target::Directory(_) | Target::Symlink(_) => None,
    }
}

/// Calls `each` with everything below an entry that the other side does not have.
pub(super) fn one_side(
    reader: &Reader,
    path: &Path,
    target: &Target,
    change: Change,
    each: Each<'_>,
) -> Result<()> {
    let difference = |directory| {
        let (before_bytes, after_bytes) = match change {
            Change::Added => (None, size(target)),
            Change::Removed | Change::Changed => (size(target), None),
        };
        Difference { path: path.to_owned(), change, before_bytes, after_bytes, directory }
    };
    let Target::Directory(tree) = target else {
        return each(difference(false));
    };
    let mut empty = true;
    each_entry(reader, *tree, &mut |entry| {
        empty = false;
        one_side(reader, &path.join(entry.name.as_os_str()), &entry.target, change, each)
    })?;
    if empty { each(difference(true)) } else { Ok(()) }
}
