//! References: the external files that a put records, and their paths in the version.

use std::collections::HashSet;
use std::fmt::Display;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::external_sort::{ExternalSort, Record, Sorted};
use super::source::Filters;
use crate::content::external::Seen;
use crate::content::external::{Externals, is_ours, loops, open};
use crate::error::{Error, IoContext, Kind, PutHint, Result};
use crate::model::external::{External, ExternalUrl, Scheme};
use crate::model::name::EntryName;

/// The default of [`References::max_objects`].
pub const MAX_OBJECTS: u64 = 10_000_000;
/// The maximum number of warnings about files that were left out.
const WARNINGS_MAX: usize = 100;

/// A file or prefix to record: `[PATH=]URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Its path in the version, if given.
    at: Option<Vec<EntryName>>,
    url: ExternalUrl,
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_url = |text: &str| {
            let scheme = text.split_once("://").map(|(scheme, _)| scheme);
            scheme.is_some_and(|scheme| scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
        };
        match text.split_once('=') {
            Some((at, url)) if !is_url(text) => {
                let parts = at.split('/').filter(|part| !part.is_empty());
                let names = parts.map(|part| EntryName::try_from(part.as_bytes()));
                let at = Some(names.collect::<Result<Vec<_>, _>>()?).filter(|at| !at.is_empty());
                Ok(Self { at, url: url.parse()? })
            }
            _ => Ok(Self { at: None, url: text.parse()? }),
        }
    }
}

/// The external files that a put records, beside what it stores.
#[derive(Debug, Clone)]
pub struct References {
    /// Files and prefixes.
    pub wanted: Vec<Reference>,
    /// A flag to record what can prove later that a file is the same; otherwise only its length.
    pub checksum: bool,
    /// The maximum number of objects that they name together.
    pub max_objects: u64,
}

impl Default for References {
    fn default() -> Self {
        Self { wanted: Vec::new(), checksum: true, max_objects: MAX_OBJECTS }
    }
}

impl References {
    /// Returns a text that differs from that of other references, for the put index.
    pub(crate) fn identity(&self) -> String {
        let mut text = String::new();
        for Reference { at, url } in &self.wanted {
            let at: Vec<_> = at.iter().flatten().map(ToString::to_string).collect();
            text.push_str(&format!("\0{}\0{url}", at.join("/")));
        }
        if !self.checksum && !self.wanted.is_empty() {
            text.push_str("\0unproven");
        }
        text
    }

    /// Finds the files that they name, and sorts them by path with temporary files in `folder`.
    /// Returns warnings about what was left out, too.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if one names nothing, [`Kind::Usage`] for more than
    /// [`References::max_objects`], [`Kind::Conflict`] for one that leads into a mount of ours.
    pub(crate) fn gather(
        &self,
        externals: &Externals,
        filters: &Filters,
        folder: &Path,
    ) -> Result<(Sorted, Vec<String>)> {
        fs::create_dir_all(folder).at("create", folder)?;
        let sorter = ExternalSort::new(folder, self.max_objects);
        let mut gather = Gather {
            externals,
            filters,
            checksum: self.checksum,
            sorter,
            mounts: Mounts::default(),
            warnings: Vec::new(),
            left_out: 0,
        };
        self.wanted.iter().try_for_each(|reference| gather.reference(reference))?;
        if gather.left_out > 0 {
            gather
                .warnings
                .insert(0, format!("left out: {} that cannot be recorded", gather.left_out));
        }
        Ok((gather.sorter.sorted()?, gather.warnings))
    }
}

/// The devices of file systems that are not our mounts.
#[derive(Debug, Default)]
pub(crate) struct Mounts(HashSet<u64>);

impl Mounts {
    /// Refuses a file in one of our own mounts, by whatever name: it would read itself.
    ///
    /// # Errors
    /// [`Kind::Conflict`] for such a file.
    pub(crate) fn refuse_ours(&mut self, path: &Path, meta: &fs::Metadata) -> Result<()> {
        if self.0.contains(&meta.dev()) {
            return Ok(());
        }
        let file = open(path).at("read", path)?;
        if is_ours(&file).at("read", path)? {
            return Err(loops(&path.display().to_string()));
        }
        self.0.insert(meta.dev());
        Ok(())
    }
}

struct Gather<'a> {
    externals: &'a Externals,
    filters: &'a Filters,
    checksum: bool,
    sorter: ExternalSort,
    mounts: Mounts,
    warnings: Vec<String>,
    /// The number of files left out; the first of them have a warning each.
    left_out: u64,
}

/// A path in the version.
type At = Vec<EntryName>;

impl Gather<'_> {
    fn reference(&mut self, reference: &Reference) -> Result<()> {
        let Reference { at, url } = reference;
        if url.scheme() == Scheme::File {
            return self.files(at.as_ref(), url);
        }
        let is_prefix = url.as_str().ends_with('/');
        let asked = if is_prefix && url.scheme() != Scheme::Web {
            None
        } else {
            self.externals.origins()?.look(url, self.externals.deadline())?
        };
        match asked {
            Some(seen) => {
                let at = self.own_name(at.as_ref(), url)?;
                self.object(&at, url.clone(), seen)
            }
            None if url.scheme() == Scheme::Web => Err(nothing(url)),
            None => self.prefix(at.clone().unwrap_or_default(), url),
        }
    }

    /// Returns the path in the version of a single file: `at`, else the last part of its URL.
    fn own_name(&self, at: Option<&At>, url: &ExternalUrl) -> Result<At> {
        if let Some(at) = at {
            return Ok(at.clone());
        }
        let name = EntryName::try_from(&*url.last_part()).map_err(|_| {
            Error::new(Kind::BadName, format!("{url} does not end in a file's name"))
                .hint(PutHint::NameWebReference)
        })?;
        Ok(vec![name])
    }

    fn prefix(&mut self, at: At, url: &ExternalUrl) -> Result<()> {
        let mut any = false;
        let externals = self.externals;
        externals.origins()?.list(url, &mut |below, seen| {
            any = true;
            self.listed(&at, url, below, seen)
        })?;
        if any { Ok(()) } else { Err(nothing(url)) }
    }

    /// Records an object of a listing, if its key can be a path.
    fn listed(&mut self, at: &At, prefix: &ExternalUrl, below: &str, seen: Seen) -> Result<()> {
        let root: PathBuf = at.iter().map(EntryName::as_os_str).collect();
        // With a leading slash, `join` would drop `root`.
        if !self.takes(&root.join(below.trim_start_matches('/'))) {
            return Ok(());
        }
        let url = prefix.below(below);
        if below.ends_with('/') {
            // Some tools make an empty object for each folder.
            if seen.size_bytes > 0 {
                self.left_out(
                    url.as_str().escape_debug(),
                    "has the key of a folder, but is not empty",
                );
            }
            return Ok(());
        }
        let names = below.split('/').map(|part| EntryName::try_from(part.as_bytes()));
        let Ok(names) = names.collect::<Result<Vec<_>, _>>() else {
            self.left_out(url.as_str().escape_debug(), "has a key that cannot be a path");
            return Ok(());
        };
        if url.as_str().parse::<ExternalUrl>().is_err() {
            self.left_out(url.as_str().escape_debug(), "has a key that cannot be recorded");
            return Ok(());
        }
        let at: At = at.iter().cloned().chain(names).collect();
        self.object(&at, url, seen)
    }

    fn object(&mut self, at: &At, url: ExternalUrl, seen: Seen) -> Result<()> {
        let Seen { size_bytes, etag, version, modified, .. } = seen;
        let mut external = External::unproven(url, size_bytes);
        if self.checksum {
            // A time of change proves little, and beside a tag it proves nothing more.
            let modified = if etag.is_empty() { modified } else { String::new() };
            external = External { etag, version, modified, ..external };
            if !external.is_proven() {
                return Err(no_proof(&external.url));
            }
        }
        self.record(at, &external)
    }

    fn takes(&self, path: &Path) -> bool {
        let mut above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        self.filters.takes(path) && above.all(|above| self.filters.enters(above))
    }

    fn record(&mut self, at: &At, external: &External) -> Result<()> {
        let path: PathBuf = at.iter().map(EntryName::as_os_str).collect();
        if !self.takes(&path) {
            return Ok(());
        }
        let key = super::source::index_key(&path);
        self.sorter.push(Record { key, body: external.encode() })
    }

    fn files(&mut self, at: Option<&At>, url: &ExternalUrl) -> Result<()> {
        let path = url.path().ok_or_else(|| nothing(url))?;
        let meta = fs::metadata(&path).at("read", &path)?;
        if meta.is_dir() {
            let at = at.cloned().unwrap_or_default();
            let folder = Folder::new(path)?;
            return self.folder(&folder, Path::new(""), &meta, &at, &mut HashSet::new());
        }
        if !meta.is_file() {
            let what = format!("{} is neither a file nor a directory", path.display());
            return Err(Error::new(Kind::Usage, what));
        }
        self.mounts.refuse_ours(&path, &meta)?;
        let at = self.own_name(at, url)?;
        let is_symlink = fs::symlink_metadata(&path).at("read", &path)?.is_symlink();
        let path = if is_symlink { fs::canonicalize(&path).at("read", &path)? } else { path };
        self.externals.refuse_outside(&path)?;
        self.file(&at, &path, 1)
    }

    /// Records a file. The last `depth` names of its path are below the recorded folder. The walk
    /// reads its size later.
    fn file(&mut self, at: &At, path: &Path, depth: u32) -> Result<()> {
        let external = External::unproven(ExternalUrl::of_path(path)?, 0);
        self.record(at, &External { depth, ..external })
    }

    /// Records the files of the directory `below` in a folder.
    fn folder(
        &mut self,
        folder: &Folder,
        below: &Path,
        meta: &fs::Metadata,
        at: &At,
        above: &mut HashSet<(u64, u64)>,
    ) -> Result<()> {
        let path = folder.path.join(below);
        self.mounts.refuse_ours(&path, meta)?;
        self.externals.refuse_outside(&path)?;
        let identity = (meta.dev(), meta.ino());
        if !above.insert(identity) {
            let what = format!("symlink {} leads back to a directory above it", path.display());
            return Err(Error::new(Kind::Conflict, what).hint(PutHint::Exclude));
        }
        for entry in fs::read_dir(&path).at("list", &path)? {
            let entry = entry.at("list", &path)?;
            let (full, below) = (entry.path(), below.join(entry.file_name()));
            let mut at = at.clone();
            at.push(EntryName::try_from(&*entry.file_name())?);
            let kind = entry.file_type().at("read", &full)?;
            if kind.is_file() {
                self.file(&at, &full, depth_of(&below))?;
                continue;
            }
            let relative: PathBuf = at.iter().map(EntryName::as_os_str).collect();
            if !self.filters.enters(&relative) {
                continue;
            }
            match fs::metadata(&full) {
                Ok(meta) if kind.is_symlink() => self.symlink(folder, &full, &meta, &at, above)?,
                Ok(meta) if meta.is_dir() => self.folder(folder, &below, &meta, &at, above)?,
                Ok(_) => self.left_out(full.display(), "is not a file"),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    self.left_out(full.display(), "is a broken symlink");
                }
                Err(e) => return Err(e).at("read", &full),
            }
        }
        above.remove(&identity);
        Ok(())
    }

    /// Records the target of a symlink in a folder, by its path without symlinks. A target outside
    /// the folder becomes a file or folder of its own.
    fn symlink(
        &mut self,
        folder: &Folder,
        link: &Path,
        meta: &fs::Metadata,
        at: &At,
        above: &mut HashSet<(u64, u64)>,
    ) -> Result<()> {
        let target = fs::canonicalize(link).at("read", link)?;
        let inside = target.strip_prefix(&folder.real).ok();
        match inside {
            Some(below) if meta.is_dir() => self.folder(folder, below, meta, at, above),
            None if meta.is_dir() => {
                self.folder(&Folder::new(target)?, Path::new(""), meta, at, above)
            }
            _ if !meta.is_file() => {
                self.left_out(link.display(), "is not a file");
                Ok(())
            }
            Some(below) => self.file(at, &folder.path.join(below), depth_of(below)),
            None => {
                self.mounts.refuse_ours(&target, meta)?;
                self.externals.refuse_outside(&target)?;
                self.file(at, &target, 1)
            }
        }
    }

    fn left_out(&mut self, what: impl Display, why: &str) {
        self.left_out += 1;
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(format!("{what} {why}: left out"));
        }
    }
}

/// A folder of this machine that is recorded: no symlink may lead out of it later.
struct Folder {
    /// Its path as given.
    path: PathBuf,
    /// Its path without symlinks.
    real: PathBuf,
}

impl Folder {
    fn new(path: PathBuf) -> Result<Self> {
        let real = fs::canonicalize(&path).at("find", &path)?;
        Ok(Self { path, real })
    }
}

/// Returns the number of names in a path.
fn depth_of(below: &Path) -> u32 {
    u32::try_from(below.components().count()).unwrap_or(u32::MAX)
}

fn no_proof(url: &ExternalUrl) -> Error {
    let what = format!(
        "{url} has neither a tag nor a time of change: nothing could prove later that it is the same"
    );
    Error::new(Kind::Usage, what).hint(PutHint::RecordByLength)
}

fn nothing(url: &ExternalUrl) -> Error {
    Error::new(Kind::NotFound, format!("there is nothing at {url}"))
        .hint("a reference is a file, or a prefix with files below it")
}

/// Returns a key as a path with slashes, for display.
pub(crate) fn display_key(key: &[u8]) -> String {
    let path: Vec<u8> = key.iter().map(|b| if *b == 0 { b'/' } else { *b }).collect();
    Path::new(std::ffi::OsStr::from_bytes(&path)).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_may_say_where_it_goes() {
        let parse = |text: &str| text.parse::<Reference>();
        let plain = parse("https://h/x?a=b").unwrap();
        assert_eq!((plain.at, plain.url.as_str()), (None, "https://h/x?a=b"));
        let placed = parse("d/e=s3://b/k=1").unwrap();
        let at: Vec<_> = placed.at.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!((at.join("/").as_str(), placed.url.as_str()), ("d/e", "s3://b/k=1"));
        assert_eq!(parse("../x=s3://b/k").unwrap_err().kind(), Kind::BadName);
        assert_eq!(parse("x").unwrap_err().kind(), Kind::Usage);
    }
}
