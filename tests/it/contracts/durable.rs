//! Durable writes outlive the process that has the engine open.

use artifactfs::error::Kind;
use artifactfs::registry::engine::redb::RedbEngine;
use artifactfs::registry::engine::{Durability, read, write};

#[test]
fn durable_writes_survive_reopening() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("r.redb");
    let engine = RedbEngine::open(&path).unwrap();
    write(&engine, Durability::Eventual, |t| t.put(b"a", b"1")).unwrap();
    write(&engine, Durability::Immediate, |t| t.put(b"b", b"2")).unwrap();
    assert_eq!(RedbEngine::open(&path).err().unwrap().kind(), Kind::Conflict);
    drop(engine);
    let engine = RedbEngine::open(&path).unwrap();
    assert_eq!(read(&engine, |view| view.scan(b"", b"z", 9)).unwrap().len(), 2);
}
