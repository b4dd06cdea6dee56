//! The source of a put, and the filters and ignore files that leave parts of it out.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, IoContext, Kind, PutHint, Result};
use crate::model::name::EntryName;
use crate::ops::glob;

/// The file with patterns of what to leave out below its directory; the syntax of `.gitignore`.
pub(crate) const IGNORE_FILE: &str = ".artifactfsignore";
/// The ignore file of git, which is used for code only.
const GIT_IGNORE_FILE: &str = ".gitignore";

/// The filters of the command line.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    include: Option<GlobSet>,
    exclude: Option<GlobSet>,
}

impl Filters {
    /// Compiles glob patterns. One without a slash is matched against names, one with a slash
    /// against paths from the root. Only files are included; an excluded directory is left out with
    /// all that is in it.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an invalid pattern.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self> {
        Ok(Self { include: globs(include)?, exclude: globs(exclude)? })
    }

    /// Returns whether the directory at `path`, relative to the root, is walked.
    pub(crate) fn enters(&self, path: &Path) -> bool {
        !matches(self.exclude.as_ref(), path)
    }

    /// Returns whether the file or symlink at `path`, relative to the root, is taken.
    pub fn takes(&self, path: &Path) -> bool {
        let included = self.include.is_none() || matches(self.include.as_ref(), path);
        included && !matches(self.exclude.as_ref(), path)
    }

    /// Returns whether patterns choose files, so that directories without such files are dropped.
    pub(crate) fn chooses(&self) -> bool {
        self.include.is_some()
    }
}

fn globs(patterns: &[String]) -> Result<Option<GlobSet>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let bad = |pattern: &str, e| {
        let what = format!("\"{pattern}\" is not a glob pattern: {}", glob::fault(&e));
        Error::new(Kind::Usage, what)
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let anchored = pattern.trim_start_matches('/').trim_end_matches('/');
        let text =
            if pattern.contains('/') { anchored.to_owned() } else { format!("**/{pattern}") };
        let glob = GlobBuilder::new(&text).literal_separator(true).build();
        set.add(glob.map_err(|e| bad(pattern, e))?);
    }
    set.build().map(Some).map_err(|e| bad(&patterns.join(" "), e))
}

fn matches(set: Option<&GlobSet>, path: &Path) -> bool {
    set.is_some_and(|set| set.is_match(path))
}

/// A source that was checked.
pub(crate) struct Source {
    root: PathBuf,
    /// The name in the version, if the source is a single file.
    single: Option<EntryName>,
    filters: Filters,
    follow: bool,
    /// A flag for code: what git ignores and folders of version control are left out.
    code: bool,
}

/// The target of a symlink.
pub(crate) enum Link {
    /// A target inside the source: the symlink is kept, byte for byte.
    Inside(Box<[u8]>),
    /// A target outside the source: it is taken in the place of the symlink.
    Outside,
}

impl Source {
    /// Opens the file or directory at `path`; a symlink there is followed.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none, [`Kind::Usage`] if it is neither.
    pub(crate) fn open(path: &Path, filters: &Filters, follow: bool) -> Result<Self> {
        let root = fs::canonicalize(path).at("read", path)?;
        let kind = fs::metadata(&root).at("read", path)?.file_type();
        let single = match (kind.is_dir(), kind.is_file()) {
            (true, _) => None,
            (_, true) => {
                let name = path.file_name().or(root.file_name()).unwrap_or(OsStr::new("file"));
                Some(EntryName::try_from(name)?)
            }
            _ => {
                let what = format!("{} is neither a file nor a directory", path.display());
                return Err(Error::new(Kind::Usage, what).hint("put a file or a directory"));
            }
        };
        Ok(Self { root, single, filters: filters.clone(), follow, code: false })
    }

    /// Returns the source as code, or not.
    #[must_use]
    pub(crate) fn with_code(self, code: bool) -> Self {
        Self { code, ..self }
    }

    /// Returns the ignore files for a walk of the source.
    ///
    /// # Errors
    /// As [`IgnoreStack::new`].
    pub(crate) fn ignores(&self) -> Result<IgnoreStack> {
        IgnoreStack::new(&self.root, self.code)
    }

    /// Returns its path without symlinks.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the name in the version, if the source is a single file.
    pub(crate) fn single(&self) -> Option<&EntryName> {
        self.single.as_ref()
    }

    /// Returns the filters.
    pub(crate) fn filters(&self) -> &Filters {
        &self.filters
    }

    /// Returns the target of the symlink at `relative`.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if it leads out, and symlinks are not followed or nothing is there.
    pub(crate) fn link(&self, relative: &Path) -> Result<Link> {
        let full = self.root.join(relative);
        let target = fs::read_link(&full).at("read", &full)?;
        if stays_inside(relative, &target) {
            return Ok(Link::Inside(target.into_os_string().into_vec().into()));
        }
        let shown = || format!("symlink {} leads out, to {}", full.display(), target.display());
        if !self.follow {
            return Err(Error::new(Kind::Conflict, shown()).hint(PutHint::ExcludeOrFollow));
        }
        if fs::metadata(&full).is_err() {
            return Err(Error::new(Kind::Conflict, format!("{}, where there is nothing", shown()))
                .hint(PutHint::ExcludeOrRemoveSymlink));
        }
        Ok(Link::Outside)
    }
}

/// Returns whether a symlink at `relative` (to the root) with this target stays below the root, by
/// the names in it.
pub(crate) fn stays_inside(relative: &Path, target: &Path) -> bool {
    let mut depth = relative.components().count().saturating_sub(1);
    for component in target.components() {
        match component {
            Component::RootDir | Component::Prefix(_) => return false,
            Component::CurDir => {}
            Component::Normal(_) => depth += 1,
            Component::ParentDir => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return false,
            },
        }
    }
    !target.as_os_str().is_empty()
}

/// The ignore files from the root down to the current directory. For code they include those of
/// git, from its work tree down.
#[derive(Default)]
pub(crate) struct IgnoreStack {
    levels: Vec<Vec<Gitignore>>,
    code: bool,
}

impl IgnoreStack {
    /// Returns the ignore files above `root`, for a walk of it.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an ignore file that cannot be parsed.
    pub(crate) fn new(root: &Path, code: bool) -> Result<Self> {
        let mut stack = Self { levels: Vec::new(), code };
        let tree = root.ancestors().find(|folder| folder.join(".git").exists());
        if let Some(tree) = tree.filter(|_| code) {
            stack.levels.push(read_ignored(tree, &[".git/info/exclude"])?);
            let between = root.ancestors().skip(1).take_while(|folder| folder.starts_with(tree));
            let between: Vec<_> = between.collect();
            for folder in between.into_iter().rev() {
                stack.enter(folder)?;
            }
        }
        Ok(stack)
    }

    /// Adds the ignore files of the directory at `full`.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an ignore file that cannot be parsed.
    pub(crate) fn enter(&mut self, full: &Path) -> Result<()> {
        let names: &[&str] =
            if self.code { &[GIT_IGNORE_FILE, IGNORE_FILE] } else { &[IGNORE_FILE] };
        self.levels.push(read_ignored(full, names)?);
        Ok(())
    }

    /// Removes the ignore files of the last directory.
    pub(crate) fn leave(&mut self) {
        self.levels.pop();
    }

    /// Returns whether `full` is left out: by version control, or by the deepest file that matches
    /// it.
    pub(crate) fn ignores(&self, full: &Path, is_directory: bool) -> bool {
        if self.code && full.file_name().is_some_and(is_version_control) {
            return true;
        }
        let files = self.levels.iter().rev().flat_map(|level| level.iter().rev());
        let mut verdicts = files.map(|file| file.matched(full, is_directory));
        verdicts.find(|verdict| !verdict.is_none()).is_some_and(|verdict| verdict.is_ignore())
    }
}

/// Reads the ignore files of `folder` among `names`; the later beat the earlier.
fn read_ignored(folder: &Path, names: &[&str]) -> Result<Vec<Gitignore>> {
    let files = names.iter().map(|name| folder.join(name)).filter(|file| file.is_file());
    let read = |file: PathBuf| {
        let bad = |e| {
            let what = format!("cannot use {}: {}", file.display(), glob::ignore_fault(&e));
            Error::new(Kind::Usage, what)
        };
        let mut builder = GitignoreBuilder::new(folder);
        match builder.add(&file) {
            Some(e) if file.ends_with(IGNORE_FILE) => return Err(bad(e)),
            // Git skips a pattern that it cannot parse.
            Some(e) => tracing::warn!("in {}: {e}", file.display()),
            None => {}
        }
        builder.build().map_err(bad)
    };
    files.map(read).collect()
}

/// Returns whether a version control system keeps its own files under this name.
fn is_version_control(name: &OsStr) -> bool {
    const FOLDERS: [&str; 8] = [".git", ".hg", ".svn", ".bzr", ".jj", ".pijul", "CVS", "_darcs"];
    FOLDERS.iter().any(|folder| name == *folder)
}

/// Returns `relative` as a key of the put index: components separated by NUL, so that the order of
/// bytes is the order of a walk.
pub(crate) fn index_key(relative: &Path) -> Vec<u8> {
    let mut key = relative.as_os_str().as_bytes().to_vec();
    key.iter_mut().filter(|b| **b == b'/').for_each(|b| *b = 0);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_symlinks_lead() {
        for (at, target, inside) in [
            ("a", "b", true),
            ("a", "../b", false),
            ("d/a", "../b", true),
            ("d/a", "../../b", false),
            ("d/a", "../x/../../y", false),
            ("a", "/etc", false),
            ("a", "./x/./..", true),
        ] {
            assert_eq!(stays_inside(Path::new(at), Path::new(target)), inside, "{at} -> {target}");
        }
    }

    #[test]
    fn patterns_match_names_or_paths() {
        let filters =
            Filters::new(&["*.jpg".into(), "labels/*.csv".into()], &["tmp".into()]).unwrap();
        assert!(filters.takes(Path::new("deep/down/1.jpg")));
        assert!(filters.takes(Path::new("labels/a.csv")));
        assert!(!filters.takes(Path::new("x/labels/a.csv")));
        assert!(!filters.takes(Path::new("readme")));
        assert!(!filters.enters(Path::new("a/tmp")));
        assert!(Filters::new(&["a[".into()], &[]).is_err());
    }
}
