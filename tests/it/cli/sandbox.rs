//! A place where a session runs, with nothing of the user's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::bucket::Bucket;
use crate::world::{Ran, host, ran, until};

/// A home directory, a working directory with some files, and a server of buckets for `s3://`.
pub struct Sandbox {
    dir: TempDir,
    bucket: Bucket,
}

impl Sandbox {
    /// Returns a sandbox whose working directory is a copy of `input`.
    pub fn new(input: &Path) -> Self {
        // References hold paths. Below a directory that depends on the machine, their sizes would too.
        let dir = tempfile::Builder::new().prefix("artifactfs-").tempdir_in("/tmp").unwrap();
        let sandbox = Self { dir, bucket: Bucket::start() };
        fs::create_dir(sandbox.home()).unwrap();
        host("cp", &[Path::new("-R"), input, &sandbox.here()]);
        sandbox
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// The working directory.
    pub fn here(&self) -> PathBuf {
        self.dir.path().join("here")
    }

    /// Runs a command line of the shell in the working directory.
    pub fn run(&self, command: &str) -> Ran {
        let programs = Path::new(env!("CARGO_BIN_EXE_artifactfs")).parent().unwrap().to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&path)));
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(self.here()).stdin(Stdio::null());
        // What the user has set for artifactfs, clouds, proxies and languages must not be seen.
        shell.env_clear().env("PATH", path.unwrap()).env("HOME", self.home());
        shell.env("LANG", "C.UTF-8").env("TZ", "UTC").envs(self.bucket.environment());
        ran(shell.output().unwrap())
    }

    /// Asserts that no mount and no process outlives the session.
    pub fn assert_nothing_is_left(&self) {
        assert_eq!(self.mounts(), Vec::<String>::new());
        until("the session's processes have ended", || !self.has_process());
    }

    fn mounts(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        points
            .filter(|point| Path::new(point).starts_with(self.dir.path()))
            .map(str::to_owned)
            .collect()
    }

    /// Returns whether a process was started with the sandbox's environment.
    fn has_process(&self) -> bool {
        let home = format!("HOME={}", self.home().display());
        let processes = fs::read_dir("/proc").unwrap().flatten();
        // Those that have just ended, and those of others, cannot be read.
        let mut environments =
            processes.filter_map(|process| fs::read(process.path().join("environ")).ok());
        environments.any(|variables| {
            variables.split(|byte| *byte == 0).any(|variable| variable == home.as_bytes())
        })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // A session that did not come to its end leaves its mounts; their daemons end with them.
        for point in self.mounts() {
            let _ = Command::new("umount").args(["-l", &point]).output();
        }
    }
}
