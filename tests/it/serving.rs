//! Servers of repositories, and hosts that reach them with keys. A server is a real process; a host
//! has its own home, cache and mounts.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::world::{Ran, World, ran, until};

/// A server of one repository.
pub struct Server {
    /// The directory of the repository, for commands that open it without a server.
    pub world: World,
    /// `http://127.0.0.1:PORT` or `https://localhost:PORT`.
    pub origin: String,
    /// The name of the repository.
    pub team: String,
    /// The key of the first admin, ann.
    pub admin: String,
    pub child: Child,
    options: Vec<String>,
}

impl Server {
    pub fn start() -> Self {
        Self::of(crate::fresh_repository(), &[])
    }

    /// Makes the first user of the repository and starts its server.
    pub fn of(world: World, options: &[&str]) -> Self {
        let admin = last_line(&world.ok(&["serve", "init", "--admin", "ann"]));
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let (child, url) = serve(&world, "127.0.0.1:0", &options);
        let (origin, team) = split(&url);
        Self { world, origin, team, admin, child, options }
    }

    /// Starts another server of the same repository, in a directory that joined it.
    #[allow(dead_code, reason = "only a registry that is shared has several")]
    pub fn beside(other: &Self, world: World) -> Self {
        let (child, url) = serve(&world, "127.0.0.1:0", &[]);
        let ((origin, team), admin) = (split(&url), other.admin.clone());
        Self { world, origin, team, admin, child, options: Vec::new() }
    }

    pub fn url(&self) -> String {
        format!("{}/{}", self.origin, self.team)
    }

    /// Returns the address, as the server has it.
    pub fn address(&self) -> String {
        self.origin.split_once("://").unwrap().1.replace("localhost", "127.0.0.1")
    }

    /// Kills the server, so that nothing is cleaned up.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends the server in order. Returns whether it ended well.
    pub fn stop(&mut self) -> bool {
        assert_eq!(signal(self.child.id(), "TERM"), Some(0));
        self.child.wait().unwrap().success()
    }

    /// Starts the server again at the same address.
    pub fn start_again(&mut self) {
        let (child, url) = serve(&self.world, &self.address(), &self.options);
        assert_eq!(url, self.url());
        self.child = child;
    }

    /// Returns a host that has signed in as the admin.
    pub fn host(&self) -> World {
        self.host_of(&self.admin)
    }

    /// Returns a host that has signed in with a key.
    pub fn host_of(&self, key: &str) -> World {
        let host = self.stranger();
        let login = sign_in(&host, &self.origin, key);
        assert_eq!(login.code, 0, "{}", login.err);
        host
    }

    /// Returns a host that has not signed in.
    pub fn stranger(&self) -> World {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let home = dir.path().join("home");
        fs::create_dir(&home).unwrap();
        let variable = |name, below: &str| (name, home.join(below).into_os_string());
        let env = vec![
            ("HOME", home.clone().into_os_string()),
            variable("XDG_CONFIG_HOME", ".config"),
            variable("XDG_STATE_HOME", ".local/state"),
            variable("XDG_DATA_HOME", ".local/share"),
            ("ARTIFACTFS_REPO", OsString::new()),
        ];
        World { dir, mounts: Vec::new(), env, url: Some(self.url()) }
    }

    /// Makes a user and returns the key.
    pub fn user(&self, name: &str, role: &str) -> String {
        last_line(&self.host().ok(&["user", "create", name, "--role", role]))
    }

    /// Checks the repository without a server.
    pub fn sound(&self) {
        self.world.sound();
        self.world.ok(&["verify"]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.world.path("server.log")).unwrap_or_default();
            eprintln!("the server's log:\n{log}");
        }
    }
}

/// Splits the URL of a repository into that of the server and the name.
fn split(url: &str) -> (String, String) {
    let (origin, team) = url.rsplit_once('/').unwrap();
    (origin.to_owned(), team.to_owned())
}

/// Starts a server and waits until it is ready. Returns the process and the URL of the repository.
fn serve(world: &World, listen: &str, options: &[String]) -> (Child, String) {
    let mut command = world.command(&["serve", "--listen", listen]);
    let log = fs::File::options().create(true).append(true).open(world.path("server.log"));
    command.args(options).stdout(Stdio::piped()).stderr(log.unwrap());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().replace("https://127.0.0.1", "https://localhost");
    if !url.starts_with("http") {
        let log = fs::read_to_string(world.path("server.log")).unwrap();
        panic!("the server did not start: {line}{log}");
    }
    (child, url)
}

/// Signs a host in with a key from standard input.
pub fn sign_in(host: &World, url: &str, key: &str) -> Ran {
    let mut command = host.command(&["login", url]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{key}\n").as_bytes()).unwrap();
    ran(child.wait_with_output().unwrap())
}

pub fn last_line(text: &str) -> String {
    text.lines().last().unwrap().to_owned()
}

/// Sends a signal by the program kill(1).
pub fn signal(pid: u32, name: &str) -> Option<i32> {
    Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().code()
}

/// Returns the number of packs in the store inside a repository.
pub fn packs(server: &Server) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        let Ok(entries) = fs::read_dir(folder) else { return 0 };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .map(|path| match path.is_dir() {
                true => count(&path),
                false => usize::from(path.extension().is_some_and(|end| end == "pack")),
            })
            .sum()
    }
    count(&server.world.repo().join("store/packs"))
}

/// Waits until all packs are gone.
pub fn until_empty(server: &Server) {
    until("all bytes are freed", || packs(server) == 0);
}
