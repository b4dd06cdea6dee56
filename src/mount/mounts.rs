//! Mounts and their mount points. A mount that was taken from its place may go on in a bind mount
//! or in another mount namespace.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The source name of our mounts in /proc/mounts; FUSE's own type is only `fuse`.
pub const SOURCE_NAME: &str = crate::content::external::MOUNT_SOURCE;

/// A place where a mount of ours can be reached, beside the one it was made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherMount {
    /// The mount point, as processes of that namespace see it.
    pub(crate) path: PathBuf,
    /// A process of that namespace; `None` for a bind mount in this one.
    pub(crate) pid: Option<u32>,
    /// The command of that process.
    pub(crate) command: Option<String>,
}

impl std::fmt::Display for OtherMount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        match (self.pid, &self.command) {
            (Some(pid), Some(command)) => {
                write!(f, " in the namespace of process {pid} ({command})")
            }
            (Some(pid), None) => write!(f, " in the namespace of process {pid}"),
            (None, _) => write!(f, " (a bind mount)"),
        }
    }
}

/// Lists the minor device number, source name and mount point of all mounts of this process.
pub fn mounts_with_devices() -> Vec<(u32, String, PathBuf)> {
    parse(&fs::read("/proc/self/mountinfo").unwrap_or_default())
}

/// Lists the same for process `pid`; `None` if its list cannot be read.
pub fn mounts_of(pid: u32) -> Option<Vec<(u32, String, PathBuf)>> {
    Some(parse(&fs::read(format!("/proc/{pid}/mountinfo")).ok()?))
}

/// Finds where mounts with these devices can be reached, except at `places` in this namespace. Does
/// not find namespaces without a process, or those that this user may not read.
pub fn find_other_mounts(devices: &[u32], places: &[&Path]) -> Vec<OtherMount> {
    let ours = |text: &[u8]| {
        let mut mounts = parse(text);
        mounts.retain(|(device, source, _)| devices.contains(device) && source == SOURCE_NAME);
        mounts.into_iter().map(|(_, _, point)| point)
    };
    let here = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<_> = ours(&here)
        .filter(|point| !places.contains(&point.as_path()))
        .map(|path| OtherMount { path, pid: None, command: None })
        .collect();
    let mut namespaces: HashSet<_> = fs::read_link("/proc/self/ns/mnt").ok().into_iter().collect();
    let mut texts = HashSet::from([here]);
    for pid in processes() {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        // The link of another user's process cannot be read: then equal lists count as one
        // namespace.
        let namespace = fs::read_link(folder.join("ns/mnt"));
        if namespace.as_ref().is_ok_and(|link| namespaces.contains(link)) {
            continue;
        }
        let Ok(text) = fs::read(folder.join("mountinfo")) else { continue };
        let known =
            namespace.map_or_else(|_| texts.contains(&text), |link| !namespaces.insert(link));
        if known {
            continue;
        }
        let command = fs::read_to_string(folder.join("comm")).ok();
        let command = command.map(|name| name.trim_end().to_owned());
        found.extend(ours(&text).map(|path| OtherMount {
            path,
            pid: Some(pid),
            command: command.clone(),
        }));
        texts.insert(text);
    }
    found
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// Reads the lines of a `mountinfo` (proc_pid_mountinfo(5)).
fn parse(text: &[u8]) -> Vec<(u32, String, PathBuf)> {
    let lines = text.split(|b| *b == b'\n');
    lines
        .filter_map(|line| {
            let mut fields = line.split(|b| *b == b' ');
            let device = std::str::from_utf8(fields.nth(2)?).ok()?;
            let (_, minor) = device.split_once(':')?;
            let minor = minor.parse().ok()?;
            let point = unescape(fields.nth(1)?);
            let mut after = fields.skip_while(|field| *field != b"-");
            let source = after.nth(2)?;
            let source = String::from_utf8_lossy(source).into_owned();
            Some((minor, source, PathBuf::from(OsStr::from_bytes(&point))))
        })
        .collect()
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}
