//! References: which external files a put records, and under which paths.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::source::Filters;
use super::spool::{Record, Sorted, Spool};
use crate::content::external::{Externals, is_ours, loops, open};
use crate::content::store::Seen;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::external::{External, ExternalUrl, Scheme};
use crate::model::name::EntryName;

/// How many objects references may name when nobody says.
pub const MAX_OBJECTS: u64 = 10_000_000;
/// What was left out and is told, at most.
const WARNINGS_MAX: usize = 100;

/// A file or prefix to record: `[PATH=]URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where it goes in the version, when that was said.
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

/// What a put records beside what it stores.
#[derive(Debug, Clone)]
pub struct References {
    /// Files and prefixes.
    pub wanted: Vec<Reference>,
    /// Whether what proves that they are the same later is recorded; otherwise only how long they are.
    pub checksum: bool,
    /// How many objects they may name together.
    pub max_objects: u64,
}

impl Default for References {
    fn default() -> Self {
        Self { wanted: Vec::new(), checksum: true, max_objects: MAX_OBJECTS }
    }
}

impl References {
    /// What tells these from others, for the index of the next put.
    pub fn identity(&self) -> String {
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

    /// Finds out what they name, sorted by path, with what is held meanwhile in `folder`; what was left out.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when one names nothing, [`Kind::Usage`] for more than
    /// [`References::max_objects`], [`Kind::Conflict`] for one that leads into a mount of ours, and
    /// what a server or the host says.
    pub fn gather(
        &self,
        externals: &Externals,
        filters: &Filters,
        folder: &Path,
    ) -> Result<(Sorted, Vec<String>)> {
        fs::create_dir_all(folder).at("create", folder)?;
        let spool = Spool::new(folder, self.max_objects);
        let mut gather = Gather {
            externals,
            filters,
            checksum: self.checksum,
            spool,
            mounts: Mounts::default(),
            warnings: Vec::new(),
        };
        self.wanted.iter().try_for_each(|reference| gather.reference(reference))?;
        Ok((gather.spool.sorted()?, gather.warnings))
    }
}

/// Which file systems are not ours.
#[derive(Debug, Default)]
pub struct Mounts(HashSet<u64>);

impl Mounts {
    /// Refuses what is in one of our own mounts, by whatever name: it would read itself.
    ///
    /// # Errors
    /// [`Kind::Conflict`] for such a path, and what the host says.
    pub fn refuse_ours(&mut self, path: &Path, meta: &fs::Metadata) -> Result<()> {
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
    spool: Spool,
    mounts: Mounts,
    warnings: Vec<String>,
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
            self.externals.elsewhere()?.look(url, self.externals.deadline())?
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

    /// Where a single file goes.
    fn own_name(&self, at: Option<&At>, url: &ExternalUrl) -> Result<At> {
        if let Some(at) = at {
            return Ok(at.clone());
        }
        let name = EntryName::try_from(&*url.last_part()).map_err(|_| {
            Error::new(Kind::BadName, format!("{url} does not end in a file's name"))
                .hint("give it one: --reference NAME=URL; a web server's folders cannot be listed")
        })?;
        Ok(vec![name])
    }

    fn prefix(&mut self, at: At, url: &ExternalUrl) -> Result<()> {
        let mut any = false;
        let externals = self.externals;
        externals.elsewhere()?.list(url, &mut |below, seen| {
            any = true;
            let mut at = at.clone();
            for part in below.split('/') {
                at.push(EntryName::try_from(part.as_bytes())?);
            }
            self.object(&at, url.below(&below), seen)
        })?;
        if any { Ok(()) } else { Err(nothing(url)) }
    }

    fn object(&mut self, at: &At, url: ExternalUrl, seen: Seen) -> Result<()> {
        let Seen { size_bytes, etag, version, modified } = seen;
        let mut external = External::unproven(url, size_bytes);
        if self.checksum {
            // A time of change proves little, and says nothing where there is a tag.
            let modified = if etag.is_empty() { modified } else { String::new() };
            external = External { etag, version, modified, ..external };
        }
        self.record(at, &external)
    }

    fn record(&mut self, at: &At, external: &External) -> Result<()> {
        let path: PathBuf = at.iter().map(EntryName::as_os_str).collect();
        let mut above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        if !self.filters.takes(&path) || !above.all(|above| self.filters.enters(above)) {
            return Ok(());
        }
        let key = super::source::index_key(&path);
        self.spool.push(Record { key, body: external.encode() })
    }

    fn files(&mut self, at: Option<&At>, url: &ExternalUrl) -> Result<()> {
        let path = url.path().ok_or_else(|| nothing(url))?;
        let meta = fs::metadata(&path).at("read", &path)?;
        if meta.is_dir() {
            let at = at.cloned().unwrap_or_default();
            return self.folder(&path, &meta, &at, &mut HashSet::new());
        }
        if !meta.is_file() {
            let what = format!("{} is neither a file nor a directory", path.display());
            return Err(Error::new(Kind::Usage, what));
        }
        self.mounts.refuse_ours(&path, &meta)?;
        let at = self.own_name(at, url)?;
        self.record(&at, &External::unproven(url.clone(), 0))
    }

    fn folder(
        &mut self,
        path: &Path,
        meta: &fs::Metadata,
        at: &At,
        above: &mut HashSet<(u64, u64)>,
    ) -> Result<()> {
        self.mounts.refuse_ours(path, meta)?;
        let identity = (meta.dev(), meta.ino());
        if !above.insert(identity) {
            let what = format!("symlink {} leads back to a directory above it", path.display());
            return Err(Error::new(Kind::Conflict, what).hint("--exclude it"));
        }
        for entry in fs::read_dir(path).at("list", path)? {
            let entry = entry.at("list", path)?;
            let full = path.join(entry.file_name());
            let mut at = at.clone();
            at.push(EntryName::try_from(&*entry.file_name())?);
            let kind = entry.file_type().at("read", &full)?;
            if kind.is_file() {
                self.record(&at, &External::unproven(ExternalUrl::of_path(&full)?, 0))?;
                continue;
            }
            let relative: PathBuf = at.iter().map(EntryName::as_os_str).collect();
            if !self.filters.enters(&relative) {
                continue;
            }
            match fs::metadata(&full) {
                Ok(meta) if meta.is_dir() => self.folder(&full, &meta, &at, above)?,
                Ok(meta) if meta.is_file() => {
                    self.record(&at, &External::unproven(ExternalUrl::of_path(&full)?, 0))?;
                }
                Ok(_) => self.left_out(&full, "is no file"),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    self.left_out(&full, "leads nowhere");
                }
                Err(e) => return Err(e).at("read", &full),
            }
        }
        above.remove(&identity);
        Ok(())
    }

    fn left_out(&mut self, path: &Path, why: &str) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(format!("{} {why}: left out", path.display()));
        }
    }
}

fn nothing(url: &ExternalUrl) -> Error {
    Error::new(Kind::NotFound, format!("there is nothing at {url}"))
        .hint("a reference is a file, or a prefix with files below it")
}

/// A key as people write paths.
pub fn shown(key: &[u8]) -> String {
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
