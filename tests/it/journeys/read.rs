//! Every operation of a reader on a version.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, symlink};

use crate::world::{World, noise};

fn mounted() -> (World, std::path::PathBuf, Vec<u8>) {
    let mut world = World::new();
    let bytes = noise(7, 3_000_000);
    let source = world.tree("src", &[("big", &bytes), ("d/small", b"small")]);
    symlink("big", source.join("link")).unwrap();
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (read, _) = world.mount();
    (world, read.join("p/a:v0"), bytes)
}

#[test]
fn reads_at_any_offset_and_maps_give_the_bytes() {
    let (_world, root, bytes) = mounted();
    let file = File::open(root.join("big")).unwrap();
    let mut state = 1u64;
    for _ in 0..300 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (state >> 33) as usize % bytes.len();
        let mut buffer = vec![0; (state >> 20) as usize % 70_000];
        let count = file.read_at(&mut buffer, at as u64).unwrap();
        assert_eq!(count, buffer.len().min(bytes.len() - at));
        assert_eq!(buffer[..count], bytes[at..at + count]);
    }
    assert_eq!(file.read_at(&mut [0; 10], bytes.len() as u64 + 5).unwrap(), 0);
    // SAFETY: nobody changes the file: it is in a version.
    #[allow(unsafe_code)]
    let map = unsafe { memmap2::Mmap::map(&file).unwrap() };
    assert_eq!(map[..], bytes[..]);
    // SAFETY: as above; changes stay in this process.
    #[allow(unsafe_code)]
    let mut private = unsafe { memmap2::MmapOptions::new().map_copy(&file).unwrap() };
    private[..5].copy_from_slice(b"mine!");
    assert_eq!(fs::read(root.join("big")).unwrap(), bytes);
}

#[test]
fn listings_have_kinds_and_can_be_seeked() {
    let (_world, root, _) = mounted();
    let mut kinds = BTreeSet::new();
    for entry in fs::read_dir(&root).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        kinds.insert((entry.file_name().into_string().unwrap(), kind.is_dir(), kind.is_symlink()));
        assert!(!kind.is_socket());
    }
    let expected = [("big", false, false), ("d", true, false), ("link", false, true)];
    let expected = expected.map(|(name, dir, link)| (name.to_owned(), dir, link));
    assert_eq!(kinds, BTreeSet::from(expected));
    let directory = File::open(&root).unwrap();
    let names = |fd: &File| -> Vec<(String, i64)> {
        let listing = rustix::fs::Dir::read_from(fd).unwrap();
        let entries = listing.map(Result::unwrap);
        entries.map(|e| (e.file_name().to_string_lossy().into_owned(), e.offset())).collect()
    };
    let all = names(&directory);
    assert_eq!(all.len(), 5);
    for (index, (_, position)) in all.iter().enumerate() {
        let mut directory = File::open(&root).unwrap();
        directory.seek(SeekFrom::Start(*position as u64)).unwrap();
        let mut buffer = Vec::with_capacity(4096);
        let mut rest = rustix::fs::RawDir::new(&directory, buffer.spare_capacity_mut());
        let mut left = Vec::new();
        while let Some(entry) = rest.next() {
            left.push(entry.unwrap().file_name().to_string_lossy().into_owned());
        }
        let expected: Vec<_> = all[index + 1..].iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(left, expected);
    }
}

#[test]
fn versions_are_read_only() {
    let (_world, root, bytes) = mounted();
    let read_only = |done: io::Result<()>| {
        assert_eq!(done.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    };
    read_only(fs::write(root.join("new"), b"x"));
    read_only(OpenOptions::new().append(true).open(root.join("big")).map(drop));
    read_only(fs::remove_file(root.join("big")));
    read_only(fs::rename(root.join("big"), root.join("small")));
    read_only(fs::create_dir(root.join("dir")));
    read_only(symlink("x", root.join("y")));
    assert_eq!(fs::metadata(root.join("big")).unwrap().len(), bytes.len() as u64);
}

#[test]
fn statfs_links_access_and_kernel_copies_work() {
    let (world, root, bytes) = mounted();
    let stat = rustix::fs::statvfs(&root).unwrap();
    assert!(stat.f_blocks > 0 && stat.f_files > 0);
    assert_eq!(fs::read_link(root.join("link")).unwrap().to_str(), Some("big"));
    rustix::fs::access(root.join("big"), rustix::fs::Access::READ_OK).unwrap();
    assert!(rustix::fs::access(root.join("big"), rustix::fs::Access::WRITE_OK).is_err());
    let (from, to) = (File::open(root.join("big")).unwrap(), world.path("sent"));
    let out = File::create(&to).unwrap();
    let mut sent = 0;
    while sent < bytes.len() {
        let count = rustix::fs::sendfile(&out, &from, None, bytes.len()).unwrap();
        assert!(count > 0);
        sent += count;
    }
    assert_eq!(fs::read(&to).unwrap(), bytes);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(root.join("big")).unwrap());
    assert_eq!(blocks, (bytes.len() as u64).div_ceil(512), "cp would take it for sparse");
}

#[test]
fn a_flat_directory_of_many_files_lists_each_once() {
    let mut world = World::new();
    let source = world.tree("src", &[]);
    for number in 0..5_000 {
        fs::write(source.join(format!("{number}.txt")), format!("{number}")).unwrap();
    }
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (read, _) = world.mount();
    let root = read.join("p/a:v0");
    let names: BTreeSet<_> = fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 5_000);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 5_000);
    assert_eq!(fs::read(root.join("4321.txt")).unwrap(), b"4321");
    assert!(fs::metadata(root.join("5000.txt")).is_err());
}
