//! The differences of a draft from its version, found by a walk of the upper, which is small.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::content::directory::{each_entry, lookup};
use crate::content::reader::Reader;
use crate::error::Result;
use crate::model::difference::{Change, Difference};
use crate::model::digest::Digest;
use crate::model::name::EntryName;
use crate::model::tree::Target;
use crate::ops::diff::one_side;
use crate::staging::{TreeXattr, Upper, upper_entries};

type Each<'a> = &'a mut dyn FnMut(Difference) -> Result<()>;

/// Calls `each` with every path that may differ from the tree `old`. A file that was written counts
/// as changed, also with the same bytes: only a commit reads them.
pub(crate) fn changes(
    reader: &Reader,
    root: &Path,
    old: Option<Digest>,
    each: Each<'_>,
) -> Result<()> {
    let xattr = TreeXattr::of(root).map_err(|e| {
        crate::error::Error::io(format!("cannot read {}", root.display()), e.into())
    })?;
    Walk { reader, root }.directory(Path::new(""), xattr, old, each)
}

struct Walk<'a> {
    reader: &'a Reader,
    root: &'a Path,
}

impl Walk<'_> {
    fn directory(
        &self,
        relative: &Path,
        xattr: Option<TreeXattr>,
        old: Option<Digest>,
        each: Each<'_>,
    ) -> Result<()> {
        let stands_on = xattr.map(|xattr| xattr.tree);
        if xattr.is_some_and(|xattr| xattr.clean) && stands_on == old {
            return Ok(());
        }
        let names = upper_entries(&self.root.join(relative))?;
        if stands_on != old {
            // Names that the upper lacks come from another lower, or are gone.
            if let Some(old) = old {
                self.unnamed(relative, old, &names, Change::Removed, each)?;
            }
            if let Some(tree) = stands_on {
                self.unnamed(relative, tree, &names, Change::Added, each)?;
            }
        }
        for name in names {
            let before = match old {
                Some(old) => lookup(self.reader, old, &name)?.map(|entry| entry.target),
                None => None,
            };
            self.entry(&relative.join(name.as_os_str()), before, each)?;
        }
        Ok(())
    }

    /// Reports the entries of `tree` whose names the upper lacks, as `change`.
    fn unnamed(
        &self,
        relative: &Path,
        tree: Digest,
        names: &[EntryName],
        change: Change,
        each: Each<'_>,
    ) -> Result<()> {
        each_entry(self.reader, tree, &mut |entry| {
            if names.binary_search(&entry.name).is_ok() {
                return Ok(());
            }
            let path = relative.join(entry.name.as_os_str());
            one_side(self.reader, &path, &entry.target, change, each)
        })
    }

    fn entry(&self, path: &Path, before: Option<Target>, each: Each<'_>) -> Result<()> {
        let (upper, meta) = match Upper::at(&self.root.join(path)) {
            // It was removed meanwhile.
            Err(e) if e.kind() == crate::error::Kind::NotFound => return Ok(()),
            found => found?,
        };
        if let Upper::Directory(xattr) = upper {
            let old = match &before {
                Some(Target::Directory(tree)) => Some(*tree),
                Some(other) => {
                    one_side(self.reader, path, other, Change::Removed, each)?;
                    None
                }
                None => None,
            };
            if old.is_none() {
                each(difference(path, Change::Added, None, None, true))?;
            }
            return self.directory(path, xattr, old, each);
        }
        if same(&upper, &meta, before.as_ref()) {
            return Ok(());
        }
        let after_bytes = match &upper {
            Upper::Whiteout => {
                return match &before {
                    Some(before) => one_side(self.reader, path, before, Change::Removed, each),
                    None => Ok(()),
                };
            }
            Upper::File(_) => Some(meta.size()),
            _ => None,
        };
        match before {
            Some(tree @ Target::Directory(_)) => {
                one_side(self.reader, path, &tree, Change::Removed, each)?;
                each(difference(path, Change::Added, None, after_bytes, false))
            }
            Some(Target::File { content, .. }) => {
                let before = Some(content.size_bytes());
                each(difference(path, Change::Changed, before, after_bytes, false))
            }
            Some(Target::Symlink(_)) => {
                each(difference(path, Change::Changed, None, after_bytes, false))
            }
            None => each(difference(path, Change::Added, None, after_bytes, false)),
        }
    }
}

fn difference(
    path: &Path,
    change: Change,
    before_bytes: Option<u64>,
    after_bytes: Option<u64>,
    directory: bool,
) -> Difference {
    Difference { path: path.to_owned(), change, before_bytes, after_bytes, directory }
}

/// Returns whether the upper's entry equals the one before, as far as its base xattr shows.
fn same(upper: &Upper, meta: &std::fs::Metadata, before: Option<&Target>) -> bool {
    match (upper, before) {
        (Upper::File(xattr), Some(Target::File { content, executable })) => {
            let stands = xattr.is_some_and(|xattr| xattr.clean && xattr.content == *content);
            let empty = meta.size() == 0 && content.size_bytes() == 0;
            (stands || empty) && (meta.mode() & 0o111 != 0) == *executable
        }
        (Upper::Symlink(target), Some(Target::Symlink(before))) => target == before,
        _ => false,
    }
}
