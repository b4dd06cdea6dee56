//! A PostgreSQL server of the tests' own, as an unprivileged user.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use artifactfs::registry::engine::postgres::{Address, PostgresTable};
use tempfile::TempDir;

/// The longest time that a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server.
pub struct Server {
    pub dir: TempDir,
    pub port: u16,
    process: Mutex<Child>,
    schemas: AtomicU32,
}

fn bin(program: &str) -> PathBuf {
    let bin =
        std::env::var_os("ARTIFACTFS_TEST_POSTGRES").expect("tests/postgres.sh runs these tests");
    Path::new(&bin).join(program)
}

/// Returns a command that runs as the user `postgres`, which is not root.
pub fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        "postgres",
        "--regid",
        "postgres",
        "--clear-groups",
        "--pdeathsig",
        "KILL",
    ]);
    command.arg(program).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Returns a port of loopback that is free.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts a server with lines for its `postgresql.conf`.
    pub fn start(configuration: &str) -> Self {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        assert!(Command::new("chown").arg("postgres:").arg(&data).status().unwrap().success());
        let made = as_postgres(&bin("initdb"))
            .args([
                "--auth",
                "trust",
                "--username",
                "postgres",
                "--encoding",
                "UTF8",
                "--no-locale",
                "-D",
            ])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let file = data.join("postgresql.conf");
        let lines = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{lines}\n{configuration}\n")).unwrap();
        let port = free_port();
        let server =
            Self { process: Mutex::new(run(&data, port)), dir, port, schemas: AtomicU32::new(0) };
        server.await_ready();
        server
    }

    /// Returns the one server that tests share.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(|| Self::start(""))
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Kills the server. Its processes end a moment after it.
    pub fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Starts the server if it does not run, and waits until it takes commands. While processes of the server before are left, it
    /// refuses to start.
    pub fn await_ready(&self) {
        let start = Instant::now();
        while !self.psql("select 1").status.success() {
            let mut process = self.process.lock().unwrap();
            if process.try_wait().unwrap().is_some() {
                *process = run(&self.data(), self.port);
            }
            drop(process);
            assert!(start.elapsed() < PATIENCE, "the server does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs SQL as the superuser.
    pub fn psql(&self, sql: &str) -> std::process::Output {
        let port = self.port.to_string();
        Command::new(bin("psql"))
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                "postgres",
                "-c",
                sql,
            ])
            .output()
            .unwrap()
    }

    pub fn sql(&self, sql: &str) -> String {
        let done = self.psql(sql);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Returns the address of a schema that no other test uses.
    pub fn fresh_address(&self) -> Address {
        let number = self.schemas.fetch_add(1, Ordering::Relaxed);
        self.address(&format!("schema=s{number}"))
    }

    pub fn address(&self, options: &str) -> Address {
        format!("postgres://postgres@127.0.0.1:{}/postgres?{options}", self.port).parse().unwrap()
    }

    /// Returns an empty table in a fresh schema.
    pub fn fresh_table(&self) -> PostgresTable {
        PostgresTable::init(&self.fresh_address()).unwrap()
    }
}

fn run(data: &Path, port: u16) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(data.with_extension("log"));
    let mut command = as_postgres(&bin("postgres"));
    command
        .arg("-D")
        .arg(data)
        .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
        .args(["-c", "unix_socket_directories=", "-c", "max_connections=200"])
        .stderr(log.unwrap());
    start(command)
}

/// Starts a process that the kernel kills when this one ends (PR_SET_PDEATHSIG, prctl(2)). It does
/// so when the thread that started the process ends, so that thread never does.
pub fn start(mut command: Command) -> Child {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        sender.send(command.spawn().unwrap()).unwrap();
        loop {
            std::thread::park();
        }
    });
    receiver.recv().unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
