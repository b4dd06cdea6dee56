//! Verifying: everything a version is made of is read and hashed again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::external;
use super::put::Progress;
use super::repository::Repository;
use crate::content::directory::each_entry;
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::reference::Reference;
use crate::model::tree::{Content, Target};
use crate::model::version::VersionInfo;

/// Damage that is told; more is only counted.
pub const DAMAGE_MAX: usize = 1_000;

/// External files that are checked together.
const EXTERNAL_BATCH: usize = 512;

/// A path that is hurt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The version.
    pub version: Reference,
    /// The file, or the directory whose listing is lost.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// What verifying found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Versions looked at.
    pub versions: u64,
    /// Objects read.
    pub objects: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// What is hurt, at most [`DAMAGE_MAX`].
    pub damage: Vec<Damage>,
    /// Hurt paths in all.
    pub damaged_paths: u64,
}

/// Verifies versions; an object is read once, however many share it.
pub struct Verifier<'a> {
    repository: &'a Repository,
    progress: &'a dyn Progress,
    good: HashSet<Digest>,
    /// External files of the directory that are to be checked.
    external: Vec<(Digest, PathBuf)>,
    report: VerifyReport,
}

impl<'a> Verifier<'a> {
    /// A verifier that has seen nothing yet.
    pub fn new(repository: &'a Repository, progress: &'a dyn Progress) -> Self {
        let (good, external) = (HashSet::new(), Vec::new());
        Self { repository, progress, good, external, report: VerifyReport::default() }
    }

    /// Reads a version.
    ///
    /// # Errors
    /// What keeps it from going on; damage is no error but part of the report.
    pub fn version(&mut self, version: &VersionInfo) -> Result<()> {
        self.report.versions += 1;
        self.directory(version, version.root, Path::new(""))
    }

    /// What was found.
    pub fn finish(self) -> VerifyReport {
        self.report
    }

    fn directory(&mut self, version: &VersionInfo, tree: Digest, path: &Path) -> Result<()> {
        if self.good.contains(&tree) {
            return Ok(());
        }
        let before = self.report.damaged_paths;
        let mut entries = Vec::new();
        let listed = each_entry(&self.repository.reader, tree, &mut |entry| {
            entries.push(entry.clone());
            Ok(())
        });
        // The reader keeps decoded nodes: the root's bytes are read once more from the disk.
        let listed = listed.and_then(|()| self.object(tree));
        if let Err(e) = listed {
            self.damaged(version, path, e)?;
        }
        for entry in entries {
            let path = path.join(entry.name.as_os_str());
            match entry.target {
                Target::Directory(below) => self.directory(version, below, &path)?,
                Target::File { content, .. } => {
                    match (content, self.file(&content)) {
                        (_, Err(e)) => self.damaged(version, &path, e)?,
                        (Content::External { digest, .. }, Ok(())) => {
                            self.external.push((digest, path));
                        }
                        (_, Ok(())) => {}
                    }
                    if self.external.len() >= EXTERNAL_BATCH {
                        self.check_external(version)?;
                    }
                    self.progress.advance(1, content.size_bytes());
                }
                Target::Symlink(_) => {}
            }
        }
        self.check_external(version)?;
        if self.report.damaged_paths == before {
            self.good.insert(tree);
        }
        Ok(())
    }

    /// What cannot be found out is told like what has changed: nobody can rely on it.
    fn check_external(&mut self, version: &VersionInfo) -> Result<()> {
        let files = std::mem::take(&mut self.external);
        let digests: Vec<_> = files.iter().map(|(digest, _)| *digest).collect();
        for (index, error) in external::check(self.repository, &digests)? {
            let told = Error::new(Kind::Corrupt, error.message());
            self.damaged(version, &files[index].1, told)?;
        }
        Ok(())
    }

    fn file(&mut self, content: &Content) -> Result<()> {
        let Some(digest) = content.digest() else {
            return Ok(());
        };
        if self.good.contains(&digest) {
            return Ok(());
        }
        if content.is_external() {
            // The descriptor; what it describes is asked for with others.
            return self.object(digest).map(drop);
        }
        let mut length = 0;
        let reader = std::sync::Arc::clone(&self.repository.reader);
        reader.each_piece(content, &mut |piece| {
            length += piece.size_bytes;
            if self.good.contains(&piece.digest) {
                return Ok(());
            }
            let bytes = self.object(piece.digest)?;
            if bytes != piece.size_bytes {
                return Err(Error::new(Kind::Corrupt, "a chunk is not as long as it should be"));
            }
            self.good.insert(piece.digest);
            Ok(())
        })?;
        if length != content.size_bytes() {
            return Err(Error::new(Kind::Corrupt, "the file is not as long as it should be"));
        }
        self.good.insert(digest);
        Ok(())
    }

    /// Reads and hashes one object; its length.
    fn object(&mut self, digest: Digest) -> Result<u64> {
        let body = self.repository.reader.body(digest)?;
        self.report.objects += 1;
        self.report.bytes += body.len() as u64;
        Ok(body.len() as u64)
    }

    /// Whether the version was deleted while it was read.
    fn is_gone(&self, version: &VersionInfo) -> Result<bool> {
        match self.repository.registry.lookup(version.reference()) {
            Err(e) if e.kind() == Kind::NotFound => Ok(true),
            found => found.map(|_| false),
        }
    }

    fn damaged(&mut self, version: &VersionInfo, path: &Path, error: Error) -> Result<()> {
        match error.kind() {
            Kind::Stale if self.is_gone(version)? => return Ok(()),
            Kind::Corrupt | Kind::Stale | Kind::Unsupported => {}
            _ => return Err(error),
        }
        self.report.damaged_paths += 1;
        if self.report.damage.len() < DAMAGE_MAX {
            self.report.damage.push(Damage {
                version: version.reference(),
                path: path.to_owned(),
                reason: error.message(),
            });
        }
        Ok(())
    }
}
