//! Stores to mapped memory: only the first of them shows in a file's times.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::world::{World, noise, until};

/// A program that maps a file, closes it, and stores on request. (Python's own mmap keeps a
/// descriptor.)
const MAPPER: &str = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
writes = sys.argv[2] == 'write'
fd = os.open(sys.argv[1], os.O_RDWR if writes else os.O_RDONLY)
size = os.fstat(fd).st_size
at = libc.mmap(None, size, 3 if writes else 1, 1, fd, 0)
os.close(fd)
memory = (ctypes.c_char * size).from_address(at)
memory[0]
print('mapped', flush=True)
for line in sys.stdin:
    text = line.strip().encode()
    if writes:
        memory[:len(text)] = text
    print('stored' if memory[:len(text)] == text else 'other', flush=True)
";

struct Mapper {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Mapper {
    fn of(path: &Path) -> Self {
        Self::that(path, "write")
    }

    fn that(path: &Path, does: &str) -> Self {
        let mut command = Command::new("python3");
        command
            .arg("-c")
            .arg(MAPPER)
            .arg(path)
            .arg(does)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut mapper = Self { child, input, output: BufReader::new(output) };
        mapper.hear("mapped");
        mapper
    }

    fn hear(&mut self, wanted: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), wanted);
    }

    fn store(&mut self, text: &str) {
        writeln!(self.input, "{text}").unwrap();
        self.hear("stored");
    }

    fn end(mut self) {
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
    }
}

fn settled(path: &Path) {
    until("its times are old enough", || {
        fs::metadata(path).unwrap().modified().unwrap().elapsed().unwrap().as_millis() > 2_100
    });
}

/// Returns the content of the file in the newest version.
fn content(world: &World) -> Vec<u8> {
    let _ = fs::remove_dir_all(world.path("out"));
    world.ok(&["get", "p/a", "--root", "out"]);
    fs::read(world.path("out/f")).unwrap()
}

#[test]
fn stores_to_mapped_memory_are_in_the_next_version() {
    let world = World::new();
    let source = world.tree("src", &[("f", &[b'A'; 8192]), ("g", b"another")]);
    let (file, source) = (source.join("f"), source.to_str().unwrap());
    let mut mapper = Mapper::of(&file);
    mapper.store("first");
    settled(&file);
    world.ok(&["put", "-n", "p/a", source]);
    assert!(content(&world).starts_with(b"first"));
    // Neither size nor times nor inode show this store.
    mapper.store("second");
    world.ok(&["put", "-n", "p/a", source]);
    assert!(content(&world).starts_with(b"second"));
    mapper.end();
    // From now on any change shows: the file is known, and not read again.
    settled(&file);
    world.ok(&["put", "-n", "p/a", source]);
    assert_eq!(world.json(&["put", "-n", "p/a", source])["files_read"], 0);
    assert_eq!(world.json(&["put", "-n", "p/a", "--reread", source])["files_read"], 2);
    let mut mapper = Mapper::of(&file);
    mapper.store("third");
    let third = world.json(&["put", "-n", "p/a", source]);
    assert_eq!(third["files_read"], 1);
    assert!(content(&world).starts_with(b"third"));
    mapper.end();
    world.sound();
}

#[test]
fn files_on_tmpfs_are_always_read_despite_equal_times() {
    let world = World::new();
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = folder.path().join("f");
    fs::write(&file, [b'A'; 8192]).unwrap();
    settled(&file);
    let source = folder.path().to_str().unwrap();
    world.ok(&["put", "-n", "p/a", source]);
    let mut mapper = Mapper::of(&file);
    mapper.store("changed");
    mapper.end();
    world.ok(&["put", "-n", "p/a", source]);
    assert!(content(&world).starts_with(b"changed"));
}

#[test]
fn a_draft_with_a_writable_mapping_is_not_committed() {
    for option in ["passthrough", "no_passthrough"] {
        let mut world = World::new();
        let (_, staging) = world.mount_with(&["-o", option]);
        let draft = staging.join("p/a");
        fs::create_dir_all(&draft).unwrap();
        // One file that is copied into packs, and one that becomes a pack in place.
        for (name, length) in [("f", 8_192), ("big", 9_000_000)] {
            let file = draft.join(name);
            fs::write(&file, noise(1, length)).unwrap();
            let mut mapper = Mapper::of(&file);
            mapper.store("before");
            let refused = world.run(&["commit", "p/a"]);
            assert_eq!(refused.code, 11, "{option} {name}: {}{}", refused.out, refused.err);
            assert!(refused.err.contains(name), "{option}: {}", refused.err);
            mapper.store("later");
            mapper.end();
            world.ok(&["commit", "p/a"]);
            let _ = fs::remove_dir_all(world.path("out"));
            world.ok(&["get", "p/a", "--root", "out"]);
            let mut expected = noise(1, length);
            expected[..6].copy_from_slice(b"latere");
            assert!(fs::read(world.path("out").join(name)).unwrap() == expected, "{option} {name}");
        }
        assert_eq!(world.run(&["verify"]).code, 0);
        world.umount();
        world.sound();
    }
}

#[test]
fn a_mapping_for_reading_is_unchanged_by_a_commit() {
    for option in ["passthrough", "no_passthrough"] {
        let mut world = World::new();
        let (_, staging) = world.mount_with(&["-o", option]);
        let draft = staging.join("p/a");
        fs::create_dir_all(&draft).unwrap();
        for (name, length) in [("f", 8_192), ("big", 9_000_000)] {
            let file = draft.join(name);
            fs::write(&file, vec![b'A'; length]).unwrap();
            let mut mapper = Mapper::that(&file, "read");
            mapper.store("AAAAAA");
            world.ok(&["commit", "p/a"]);
            mapper.store("AAAAAA");
            mapper.end();
            world.ok(&["commit", "p/a"]);
            assert!(fs::read(&file).unwrap() == vec![b'A'; length]);
        }
    }
}
