//! Verifying: everything a version is made of is read and hashed again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::external;
use super::listing::each_version;
use super::put::Progress;
use super::repository::Repository;
use crate::content::reader::unknown_format;
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::reference::Reference;
use crate::model::tree::{Content, Entry, Target, TreeNode};
use crate::model::version::VersionInfo;

/// The maximum number of damaged paths that are listed; more are only counted.
pub(crate) const DAMAGE_MAX: usize = 1_000;

/// The number of external files that are checked together.
const EXTERNAL_BATCH: usize = 512;

/// A damaged path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The version.
    pub version: Reference,
    /// The file, or the directory whose listing is lost.
    pub path: PathBuf,
    /// The reason.
    pub reason: String,
}

/// The result of verifying.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Versions that were read.
    pub versions: u64,
    /// Objects that were read.
    pub objects: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// External files of which only the length is known: other bytes would not be noticed.
    pub unproven: u64,
    /// The damaged paths, at most [`DAMAGE_MAX`].
    pub damage: Vec<Damage>,
    /// The number of all damaged paths.
    pub damaged_paths: u64,
}

/// The maximum number of digests of one kind in each of two halves. More are forgotten, the oldest
/// first.
const SEEN_MAX: usize = 900_000;
/// The bytes of a digest that are remembered: enough to tell all digests of a repository apart.
const SEEN_BYTES: usize = 16;

/// A set of bounded size: digests of objects that were recently found sound.
#[derive(Default)]
struct Seen {
    newer: HashSet<[u8; SEEN_BYTES]>,
    older: HashSet<[u8; SEEN_BYTES]>,
}

impl Seen {
    fn key(digest: &Digest) -> [u8; SEEN_BYTES] {
        let (key, _) = digest.as_bytes().split_first_chunk().expect("a digest is longer");
        *key
    }

    fn contains(&self, digest: &Digest) -> bool {
        let key = Self::key(digest);
        self.newer.contains(&key) || self.older.contains(&key)
    }

    fn insert(&mut self, digest: &Digest) {
        if self.newer.len() >= SEEN_MAX {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(Self::key(digest));
    }
}

/// Verifies a version, or all.
///
/// # Errors
/// The error that stops the work. Damage is no error but part of the report.
pub fn verify(
    repository: &Repository,
    reference: Option<Reference>,
    progress: &dyn Progress,
) -> Result<VerifyReport> {
    let mut verifier = Verifier::new(repository, progress);
    match reference {
        Some(reference) => verifier.version(&repository.registry.lookup(reference)?)?,
        None => {
            each_version(&*repository.registry, &mut |version| verifier.version(&version))?;
        }
    }
    Ok(verifier.report)
}

/// A verifier of versions. A shared object is read once, unless so many others were read since that
/// it was forgotten: memory does not follow the number of files.
struct Verifier<'a> {
    repository: &'a Repository,
    progress: &'a dyn Progress,
    /// Trees and recipes that are sound with everything below them. Most of what versions share is
    /// found here.
    nodes: Seen,
    chunks: Seen,
    /// External files that are still to be checked.
    external: Vec<(Digest, PathBuf)>,
    /// The number of external files met so far.
    met: u64,
    /// The number of paths so far that were not found sound.
    troubles: u64,
    report: VerifyReport,
}

impl<'a> Verifier<'a> {
    /// Makes a verifier that has seen nothing.
    fn new(repository: &'a Repository, progress: &'a dyn Progress) -> Self {
        Self {
            repository,
            progress,
            nodes: Seen::default(),
            chunks: Seen::default(),
            external: Vec::new(),
            met: 0,
            troubles: 0,
            report: VerifyReport::default(),
        }
    }

    /// Reads a version.
    ///
    /// # Errors
    /// The error that stops the work. Damage is no error but part of the report.
    fn version(&mut self, version: &VersionInfo) -> Result<()> {
        self.report.versions += 1;
        self.directory(version, version.root, Path::new(""))
    }

    fn directory(&mut self, version: &VersionInfo, tree: Digest, path: &Path) -> Result<()> {
        let before = self.troubles;
        self.node(version, tree, path)?;
        self.check_external(version)?;
        if self.troubles == before {
            self.nodes.insert(&tree);
        }
        Ok(())
    }

    /// Reads one node of a directory and all that is below it.
    fn node(&mut self, version: &VersionInfo, digest: Digest, path: &Path) -> Result<()> {
        if self.nodes.contains(&digest) {
            return Ok(());
        }
        let before = (self.troubles, self.met);
        match self.tree(digest) {
            Err(e) => self.damaged(version, path, e)?,
            Ok(TreeNode::Inner(children)) => {
                for child in children {
                    self.node(version, child.digest, path)?;
                }
            }
            Ok(TreeNode::Leaf(entries)) => {
                for entry in entries {
                    self.entry(version, &entry, path)?;
                }
            }
        }
        // External files are checked later, many together, so this node is not known to be sound.
        if (self.troubles, self.met) == before {
            self.nodes.insert(&digest);
        }
        Ok(())
    }

    /// Reads a node from the store: the reader keeps decoded nodes.
    fn tree(&mut self, digest: Digest) -> Result<TreeNode> {
        let body = self.body(digest)?;
        TreeNode::decode(digest, &body).ok_or_else(|| unknown_format(digest))
    }

    fn entry(&mut self, version: &VersionInfo, entry: &Entry, path: &Path) -> Result<()> {
        let path = path.join(entry.name.as_os_str());
        match &entry.target {
            Target::Directory(below) => self.directory(version, *below, &path)?,
            Target::File { content, .. } => {
                match (content, self.file(content)) {
                    (_, Err(e)) => self.damaged(version, &path, e)?,
                    (Content::External { digest, .. }, Ok(())) => {
                        self.met += 1;
                        self.external.push((*digest, path));
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
        Ok(())
    }

    /// Checks the external files that were met. A file that cannot be checked is reported like one
    /// that changed: nobody can rely on it.
    fn check_external(&mut self, version: &VersionInfo) -> Result<()> {
        let files = std::mem::take(&mut self.external);
        let digests: Vec<_> = files.iter().map(|(digest, _)| *digest).collect();
        let checked = external::check(self.repository, &digests)?;
        self.report.unproven += checked.unproven;
        for (index, error) in checked.failed {
            let damage = Error::new(Kind::Corrupt, error.message());
            self.damaged(version, &files[index].1, damage)?;
        }
        Ok(())
    }

    fn file(&mut self, content: &Content) -> Result<()> {
        let Some(digest) = content.digest() else {
            return Ok(());
        };
        if content.is_external() {
            // Only the descriptor is read here; the file is checked with others.
            return self.object(digest);
        }
        if self.chunks.contains(&digest) || self.nodes.contains(&digest) {
            return Ok(());
        }
        let (mut length, mut damage) = (0, None);
        let reader = std::sync::Arc::clone(&self.repository.reader);
        reader.each_piece(content, &mut |piece| {
            length += piece.size_bytes;
            if self.chunks.contains(&piece.digest) {
                return Ok(());
            }
            // The whole file is read, so that all its damage is known and the next put stores it
            // again.
            match self.body(piece.digest) {
                Ok(body) if body.len() as u64 == piece.size_bytes => {
                    self.chunks.insert(&piece.digest);
                }
                Ok(_) => {
                    let what = "a chunk has the wrong length";
                    damage = Some(Error::new(Kind::Corrupt, what));
                }
                Err(e) if e.kind() == Kind::Corrupt => damage = Some(e),
                Err(e) => return Err(e),
            }
            Ok(())
        })?;
        if let Some(damage) = damage {
            return Err(damage);
        }
        if length != content.size_bytes() {
            return Err(Error::new(Kind::Corrupt, "the file has the wrong length"));
        }
        if matches!(content, Content::Recipe { .. }) {
            self.nodes.insert(&digest);
        }
        Ok(())
    }

    fn object(&mut self, digest: Digest) -> Result<()> {
        self.body(digest).map(drop)
    }

    /// Reads and hashes one object.
    fn body(&mut self, digest: Digest) -> Result<Vec<u8>> {
        let body = self.repository.reader.body(digest)?;
        self.report.objects += 1;
        self.report.bytes += body.len() as u64;
        Ok(body)
    }

    /// Reports whether the version was deleted while it was read.
    fn is_gone(&self, version: &VersionInfo) -> Result<bool> {
        match self.repository.registry.lookup(version.reference()) {
            Err(e) if e.kind() == Kind::NotFound => Ok(true),
            found => found.map(|_| false),
        }
    }

    fn damaged(&mut self, version: &VersionInfo, path: &Path, error: Error) -> Result<()> {
        self.troubles += 1;
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
