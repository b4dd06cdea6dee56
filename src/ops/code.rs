//! The code of a run: its main script or notebook, and the state of the git work tree around it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, json};
use url::Url;

use crate::error::{Error, IoContext, Kind, PutHint, Result};
use crate::model::metadata::Metadata;
use crate::model::name::{ArtifactName, ProjectName};

/// The extensions of scripts and notebooks.
const SCRIPTS: [&str; 12] =
    ["py", "ipynb", "sh", "bash", "R", "r", "jl", "lua", "pl", "rb", "js", "ts"];
/// The time that git may take.
const GIT_DEADLINE: Duration = Duration::from_secs(60);
/// The interval between checks whether git has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The maximum length of one line of git's output, in bytes.
const LINE_MAX_BYTES: u64 = 64 << 10;
/// The file with what differs from the commit, in the version's root.
const DIFF_FILE: &str = "diff.patch";

/// The code that a command runs.
#[derive(Debug)]
pub struct Code {
    /// The main script or notebook.
    pub(crate) script: Option<PathBuf>,
    /// The work tree that contains the script, or in which the command was started.
    pub(crate) tree: Option<PathBuf>,
}

/// The artifact and metadata under which code is to be logged.
pub struct Gathered {
    /// The artifact.
    pub artifact: ArtifactName,
    /// The metadata of the version.
    pub metadata: Metadata,
}

impl Code {
    /// Finds the code of a command that is started in `here`.
    pub fn of(command: &[OsString], here: &Path) -> Self {
        let script = find_script(command, here);
        let folder = script.as_deref().and_then(Path::parent).unwrap_or(here).to_owned();
        let tree = git_line(&folder, &["rev-parse", "--show-toplevel"]).map(PathBuf::from);
        Self { script, tree }
    }

    /// Reports whether there is nothing to log.
    pub fn is_nothing(&self) -> bool {
        self.script.is_none() && self.tree.is_none()
    }

    /// Writes the code to `folder`, to be logged in `project`.
    ///
    /// # Errors
    /// [`Kind::TimedOut`] if git does not end, [`Kind::Unavailable`] if it fails.
    pub fn gather(
        &self,
        folder: &Path,
        project: &ProjectName,
        command: &[OsString],
    ) -> Result<Gathered> {
        let mut said = Map::new();
        let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
        said.insert("command".to_owned(), json!(words));
        let mut what = "code".to_owned();
        if let Some(script) = &self.script {
            let inside = self.tree.as_deref().and_then(|tree| script.strip_prefix(tree).ok());
            let name = inside.or_else(|| script.file_name().map(Path::new));
            let name = name.ok_or_else(|| Error::new(Kind::Usage, "the script has no name"))?;
            let target = folder.join(name);
            let above = target.parent().unwrap_or(folder);
            fs::create_dir_all(above).at("create", above)?;
            fs::copy(script, &target).at("copy", script)?;
            what = name.to_string_lossy().into_owned();
            said.insert("program".to_owned(), json!(what));
        }
        if let Some(tree) = &self.tree {
            let line = |args: &[&str]| git_line(tree, args);
            let remote = line(&["remote", "get-url", "origin"]).map(|url| without_secrets(&url));
            let commit = line(&["rev-parse", "--verify", "--quiet", "HEAD"]);
            if commit.is_some() {
                write_diff(tree, &folder.join(DIFF_FILE))?;
            }
            let state = json!({
                "commit": commit,
                "branch": line(&["symbolic-ref", "--quiet", "--short", "HEAD"]),
                "remote": remote,
            });
            said.insert("git".to_owned(), state);
        }
        Ok(Gathered {
            artifact: artifact_name(project, &what)?,
            metadata: Metadata::from_object(said)?,
        })
    }
}

/// Returns `source-<project>-<script>`, as W&B names it, with `_` for characters that a name cannot
/// hold.
fn artifact_name(project: &ProjectName, script: &str) -> Result<ArtifactName> {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' };
    let name: String = format!("source-{project}-{script}").chars().map(fits).take(128).collect();
    Ok(name.parse()?)
}

fn find_script(command: &[OsString], here: &Path) -> Option<PathBuf> {
    let file = |word: &OsStr| {
        let path = fs::canonicalize(here.join(word)).ok()?;
        path.is_file().then_some(path)
    };
    let (program, arguments) = command.split_first()?;
    // A program given by a path may be a script; one that is found by $PATH is not the user's code.
    let own = Path::new(program).components().count() > 1;
    let own = own.then(|| file(program)).flatten().filter(|path| is_script(path));
    let module = || {
        let at = arguments.iter().position(|word| word == "-m")?;
        let module = arguments.get(at + 1)?.to_str()?.replace('.', "/");
        let names = [format!("{module}.py"), format!("{module}/__main__.py")];
        names.iter().find_map(|name| file(OsStr::new(name)))
    };
    let named = || {
        let known = |word: &&OsString| {
            let extension = Path::new(word).extension().and_then(OsStr::to_str);
            extension.is_some_and(|extension| SCRIPTS.contains(&extension))
        };
        arguments.iter().filter(known).find_map(|word| file(word))
    };
    own.or_else(named).or_else(module)
}

/// Reports whether a file begins as a script does, or is named like one.
fn is_script(path: &Path) -> bool {
    let named = path.extension().and_then(OsStr::to_str).is_some_and(|e| SCRIPTS.contains(&e));
    let mut begin = [0; 2];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut begin));
    named || (read.is_ok() && begin == *b"#!")
}

/// Returns one line that git prints; `None` if it prints none, or there is no git.
fn git_line(folder: &Path, args: &[&str]) -> Option<String> {
    let mut child = git(folder, args).stdout(Stdio::piped()).spawn().ok()?;
    let mut text = String::new();
    let read = child.stdout.take()?.take(LINE_MAX_BYTES).read_to_string(&mut text);
    let ended = wait(&mut child).ok()?;
    let line = text.trim_end_matches(['\r', '\n']).to_owned();
    (read.is_ok() && ended && !line.is_empty()).then_some(line)
}

/// Writes what differs from the commit to `target`. No file is left if nothing differs.
fn write_diff(tree: &Path, target: &Path) -> Result<()> {
    let file = File::create(target).at("create", target)?;
    let args = ["diff", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD"];
    let failed = |e| Error::io("cannot run git", e);
    let mut child = git(tree, &args).stdout(file).spawn().map_err(failed)?;
    if !wait(&mut child)? {
        let what = format!("git cannot show what differs in {}", tree.display());
        return Err(Error::new(Kind::Unavailable, what).hint(PutHint::LeaveCode));
    }
    if fs::metadata(target).at("read", target)?.len() == 0 {
        fs::remove_file(target).at("remove", target)?;
    }
    Ok(())
}

/// Returns a git command that neither writes nor prompts, nor runs what the work tree's settings
/// name.
fn git(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(["-c", "core.fsmonitor=false"]).args(args);
    command.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0");
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Waits for git. Returns whether it succeeded.
fn wait(child: &mut std::process::Child) -> Result<bool> {
    let deadline = Instant::now() + GIT_DEADLINE;
    loop {
        match child.try_wait().map_err(|e| Error::io("cannot wait for git", e))? {
            Some(status) => return Ok(status.success()),
            None if Instant::now() > deadline => {
                // It may have ended just now; then there is nothing to kill.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::new(Kind::TimedOut, "git did not end in time"));
            }
            None => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Returns the URL of a remote without user, password and query.
fn without_secrets(remote: &str) -> String {
    match Url::parse(remote) {
        Ok(mut url) if url.has_host() && (url.scheme() != "ssh") => {
            // Both calls succeed for a URL with a host.
            let _ = url.set_username("").and_then(|()| url.set_password(None));
            url.set_query(None);
            url.to_string()
        }
        _ => remote.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_script_of_a_command() {
        let folder = tempfile::tempdir().unwrap();
        let here = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(here.join("pkg/sub")).unwrap();
        for name in ["train.py", "data.csv", "nb.ipynb", "pkg/mod.py", "pkg/sub/__main__.py"] {
            fs::write(here.join(name), "").unwrap();
        }
        fs::write(here.join("go"), "#!/bin/sh\n").unwrap();
        fs::write(here.join("binary"), "\x7fELF").unwrap();
        for (command, script) in [
            ("python -u train.py data.csv", Some("train.py")),
            ("python -m pkg.mod", Some("pkg/mod.py")),
            ("torchrun --nproc 2 -m pkg.sub --x", Some("pkg/sub/__main__.py")),
            ("jupyter execute nb.ipynb", Some("nb.ipynb")),
            ("./go --fast", Some("go")),
            ("./binary data.csv", None),
            ("python gone.py", None),
            ("true", None),
        ] {
            let found = find_script(&words(command), &here);
            assert_eq!(found, script.map(|name| here.join(name)), "{command}");
        }
        assert_eq!(find_script(&[], &here), None);
    }

    #[test]
    fn remotes_lose_their_secrets() {
        for (remote, kept) in [
            ("https://user:token@example.org/a.git", "https://example.org/a.git"),
            ("https://example.org/a.git?token=x", "https://example.org/a.git"),
            ("git@example.org:a/b.git", "git@example.org:a/b.git"),
            ("/srv/a.git", "/srv/a.git"),
        ] {
            assert_eq!(without_secrets(remote), kept);
        }
    }

    #[test]
    fn names_hold_what_a_name_may() {
        let project: ProjectName = "a b".parse().unwrap();
        let name = artifact_name(&project, "src/ä train.py").unwrap();
        assert_eq!(name.as_str(), "source-a_b-src___train.py");
        assert!(artifact_name(&project, &"x".repeat(300)).is_ok());
    }
}
