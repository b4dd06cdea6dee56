//! A repository, and mounts that go away with the test, even after a panic.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use artifactfs::{Repository, StoreOptions};
use tempfile::TempDir;

/// The longest time that anything may take before the test fails: far above what it takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    pub dir: TempDir,
    pub mounts: Vec<PathBuf>,
    /// The variables that are set for all commands.
    pub env: Vec<(&'static str, OsString)>,
    /// The URL of the repository, if it is on a server.
    pub url: Option<String>,
}

/// The result of a command.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl World {
    /// Makes a fresh repository on the disk of the target directory.
    pub fn new() -> Self {
        assert!(
            Path::new("/dev/fuse").exists(),
            "these tests mount for real: /dev/fuse is missing"
        );
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let world = Self { dir, mounts: Vec::new(), env: Vec::new(), url: None };
        world.ok(&["init"]);
        world
    }

    /// Makes a fresh repository whose store is at `store`, which commands reach with the variables
    /// `env`.
    pub fn with_store(env: Vec<(&'static str, OsString)>, store: &str) -> Self {
        let mut world = Self::new();
        fs::remove_dir_all(world.repo()).unwrap();
        world.env = env;
        world.ok(&["init", "--store", store]);
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_artifactfs"));
        let repo = self.url.as_ref().map_or_else(|| self.repo(), PathBuf::from);
        command.arg("--repo").arg(repo).args(args).stdin(Stdio::null());
        command.env("ARTIFACTFS_CONFIG", "/dev/null");
        command.env("ARTIFACTFS_CACHE_DIR", self.path("cache")).current_dir(self.dir.path());
        command.envs(self.env.iter().cloned());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args).output().unwrap())
    }

    /// Runs a command that must succeed. Returns its stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {}{}", ran.out, ran.err);
        ran.out
    }

    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let mut all = vec!["--json"];
        all.extend(args);
        serde_json::from_str(&self.ok(&all)).unwrap()
    }

    /// Runs a command that must fail. Returns the JSON that it prints.
    pub fn json_of_failed(&self, args: &[&str]) -> serde_json::Value {
        let ran = self.run(&[&["--json"], args].concat());
        assert_ne!(ran.code, 0, "{args:?}");
        serde_json::from_str(&ran.out).unwrap()
    }

    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Writes files below the folder `name`.
    pub fn tree(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let root = self.path(name);
        fs::create_dir_all(&root).unwrap();
        for (path, bytes) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        root
    }

    /// Mounts, with staging. Returns the read-only and the staging mount point.
    pub fn mount(&mut self) -> (PathBuf, PathBuf) {
        self.mount_with(&[])
    }

    pub fn mount_with(&mut self, options: &[&str]) -> (PathBuf, PathBuf) {
        let (read, staging) = (self.path("mnt"), self.path("staging"));
        for target in [&read, &staging] {
            let _ = fs::create_dir(target);
            if !self.mounts.contains(target) {
                self.mounts.push(target.clone());
            }
        }
        let args = ["mount", "--staging", staging.to_str().unwrap(), read.to_str().unwrap()];
        self.ok(&[&args, options].concat());
        (read, staging)
    }

    /// Returns the process id of the daemon that serves the mounts.
    pub fn daemon(&self) -> i32 {
        let status = self.json(&["status"]);
        i32::try_from(status["mounts"][0]["pid"].as_i64().unwrap()).unwrap()
    }

    pub fn umount(&mut self) {
        self.ok(&["umount", self.path("mnt").to_str().unwrap()]);
        self.mounts.clear();
    }

    /// Opens the repository in this process.
    pub fn open(&self) -> Repository {
        Repository::open(&self.repo(), &StoreOptions::default()).unwrap()
    }

    pub fn sound(&self) {
        let ran = self.run(&["fsck"]);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    }
}

pub fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.repo().join("daemon.log")).unwrap_or_default();
            eprintln!("the daemon's log:\n{log}");
        }
        for target in &self.mounts {
            let _ = self.command(&["umount", "--lazy"]).arg(target).output();
            let _ = Command::new("umount").arg("-l").arg(target).output();
        }
    }
}

/// Waits until `done` returns true, for at most [`PATIENCE`].
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a program of the host that must succeed.
pub fn host(program: &str, args: &[&Path]) {
    let output = Command::new(program).args(args).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{program} {args:?}: {out}{err}");
}

pub fn same_tree(left: &Path, right: &Path) {
    host("diff", &[Path::new("-r"), Path::new("--no-dereference"), left, right]);
}

/// Returns bytes that neither repeat nor compress.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub fn write(path: &Path, bytes: &[u8]) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(bytes).unwrap();
}
