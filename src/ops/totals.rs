//! Totals of a tree, and the difference between two.

use crate::content::directory::each_entry;
use crate::content::reader::Reader;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::tree::Target;
use crate::model::version::Totals;

/// Signed totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    files: i64,
    directories: i64,
    symlinks: i64,
    size_bytes: i64,
    external: i64,
}

impl Difference {
    /// Counts an entry with everything below it.
    pub(crate) fn of(reader: &Reader, target: &Target) -> Result<Self> {
        let mut sum = Self::default();
        sum.add_target(reader, target)?;
        Ok(sum)
    }

    /// Counts everything in a directory, without the directory itself.
    pub(crate) fn within(reader: &Reader, tree: Digest) -> Result<Self> {
        let mut sum = Self::default();
        sum.add_within(reader, tree)?;
        Ok(sum)
    }

    /// An empty directory.
    pub(crate) const DIRECTORY: Self =
        Self { files: 0, directories: 1, symlinks: 0, size_bytes: 0, external: 0 };

    fn add_target(&mut self, reader: &Reader, target: &Target) -> Result<()> {
        match target {
            Target::File { content, .. } => {
                self.files += 1;
                self.external += i64::from(content.is_external());
                self.size_bytes += signed(content.size_bytes());
            }
            Target::Symlink(_) => self.symlinks += 1,
            Target::Directory(tree) => {
                self.directories += 1;
                self.add_within(reader, *tree)?;
            }
        }
        Ok(())
    }

    fn add_within(&mut self, reader: &Reader, tree: Digest) -> Result<()> {
        let mut open = vec![tree];
        while let Some(tree) = open.pop() {
            each_entry(reader, tree, &mut |entry| match &entry.target {
                Target::Directory(below) => {
                    self.directories += 1;
                    open.push(*below);
                    Ok(())
                }
                other => self.add_target(reader, other),
            })?;
        }
        Ok(())
    }

    /// Returns the difference with the other sign.
    #[must_use]
    pub(crate) fn negated(self) -> Self {
        Self {
            files: -self.files,
            directories: -self.directories,
            symlinks: -self.symlinks,
            size_bytes: -self.size_bytes,
            external: -self.external,
        }
    }

    /// Adds the difference to `totals`.
    pub(crate) fn apply(&self, totals: &mut Totals) {
        totals.files = totals.files.saturating_add_signed(self.files);
        totals.directories = totals.directories.saturating_add_signed(self.directories);
        totals.symlinks = totals.symlinks.saturating_add_signed(self.symlinks);
        totals.size_bytes = totals.size_bytes.saturating_add_signed(self.size_bytes);
        totals.external = totals.external.saturating_add_signed(self.external);
    }
}

impl From<Totals> for Difference {
    fn from(totals: Totals) -> Self {
        Self {
            files: signed(totals.files),
            directories: signed(totals.directories),
            symlinks: signed(totals.symlinks),
            size_bytes: signed(totals.size_bytes),
            external: signed(totals.external),
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl std::ops::AddAssign for Difference {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.directories += other.directories;
        self.symlinks += other.symlinks;
        self.size_bytes += other.size_bytes;
        self.external += other.external;
    }
}
