//! Identities of processes, so that a killed one is recognised at once and no other is taken for
//! it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::model::host::Host;

/// Returns `<boot id>/<pid>/<start time>/<PID namespace>`: never the same for two processes of one
/// host.
pub fn this_process() -> String {
    let boot = boot_id();
    // A /proc of another namespace says nothing about this process, whose life is then unknown.
    let known = fs::read_link("/proc/self").is_ok_and(|own| own.to_str() == Some(&own_pid()));
    match (known, pid_namespace()) {
        (true, Some(namespace)) => {
            let started = start_time(std::process::id()).unwrap_or_default();
            format!("{boot}/{}/{started}/{namespace}", own_pid())
        }
        _ => format!("{boot}/?/?/{}", own_pid()),
    }
}

/// Returns the id of this process with a random number: the holder of one lease.
pub(super) fn new_holder(host: &Host) -> String {
    format!("{}/{:016x}", this_process(), host.random() as u64)
}

fn own_pid() -> String {
    std::process::id().to_string()
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Returns the inode of this process' PID namespace (pid_namespaces(7)): in another, the same
/// number is another process.
fn pid_namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/pid").ok().map(|meta| meta.ino())
}

/// Returns the time at which a process started, in clock ticks: field 22 of `/proc/<pid>/stat`
/// (proc(5)). Returns `None` if the process is gone, or only waits for its parent (state `Z` or
/// `X`). A zombie with another thread still counts as running, because that thread may have files
/// open.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") && threads(pid) <= 1 {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Returns the number of threads of a process, including a first thread that has ended.
fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// The state of a process, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// A process that runs.
    Alive,
    /// A process that certainly runs no more.
    Dead,
    /// A process on another host or in another PID namespace: only its silence can show that it is
    /// gone.
    Unknown,
}

pub(super) fn life(holder: &str) -> Life {
    let parsed = || {
        let mut parts = holder.split('/');
        let (boot, pid, started) = (parts.next()?, parts.next()?, parts.next()?);
        let namespace = match parts.next() {
            Some(namespace) => Some(namespace.parse::<u64>().ok()?),
            // Older releases did not record the namespace.
            None => pid_namespace(),
        };
        Some((boot, pid.parse::<u32>().ok()?, started.parse::<u64>().ok()?, namespace?))
    };
    match parsed() {
        Some((boot, pid, started, namespace))
            if boot == boot_id() && Some(namespace) == pid_namespace() =>
        {
            if start_time(pid) == Some(started) { Life::Alive } else { Life::Dead }
        }
        _ => Life::Unknown,
    }
}

/// Reports whether `holder` certainly runs no more. A process of another host or PID namespace is
/// never certainly dead.
pub fn is_dead(holder: &str) -> bool {
    life(holder) == Life::Dead
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_waits_to_be_reaped_is_dead() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = start_time(child.id()).unwrap();
        let namespace = pid_namespace().unwrap();
        let holder = format!("{}/{}/{started}/{namespace}", boot_id(), child.id());
        assert!(!is_dead(&holder));
        child.kill().unwrap();
        let start = std::time::Instant::now();
        while !is_dead(&holder) {
            assert!(start.elapsed().as_secs() < 30, "a zombie passes for living");
        }
        child.wait().unwrap();
    }

    /// Tests a state that a killed process has for a moment: the first thread has ended, another
    /// still has files open.
    #[test]
    fn a_process_lives_as_long_as_one_of_its_threads() {
        const FIRST_THREAD_ENDS: &str = r#"
import ctypes, os, platform, threading
threading.Thread(target=lambda: os.read(0, 1)).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"#;
        let mut command = std::process::Command::new("python3");
        command.args(["-c", FIRST_THREAD_ENDS]).stdin(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let pid = child.id();
        let holder = format!(
            "{}/{pid}/{}/{}",
            boot_id(),
            start_time(pid).unwrap(),
            pid_namespace().unwrap()
        );
        let until = |what: &str, done: &dyn Fn() -> bool| {
            let start = std::time::Instant::now();
            while !done() {
                assert!(start.elapsed().as_secs() < 30, "{what}");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        };
        let stat = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        until("its first thread goes on", &|| stat().contains(") Z "));
        assert!(!is_dead(&holder));
        child.kill().unwrap();
        until("it was killed", &|| is_dead(&holder));
        child.wait().unwrap();
    }

    #[test]
    fn this_process_lives_and_a_reused_pid_does_not_pass_for_it() {
        let me = this_process();
        assert!(!is_dead(&me));
        assert_eq!(life(&new_holder(&Host::system())), Life::Alive);
        let parts: Vec<_> = me.split('/').collect();
        let earlier = parts[2].parse::<u64>().unwrap() - 1;
        let reused = |namespace: &str| format!("{}/{}/{earlier}/{namespace}", parts[0], parts[1]);
        assert!(is_dead(&reused(parts[3])));
        assert_eq!(life(&reused("1")), Life::Unknown, "another namespace has other numbers");
        assert!(!is_dead("another-boot/1/1"));
        assert!(!is_dead(""));
    }
}
