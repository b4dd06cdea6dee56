//! Who may open a registry, and what is told to those who may not.

use std::time::{Duration, Instant};

use artifactfs::error::Kind;
use artifactfs::registry::engine::optimistic::Optimistic;
use artifactfs::registry::engine::postgres::{Address, PostgresTable};
use artifactfs::registry::engine::{Durability, read, write};

use crate::server::Server;

fn refused(address: &Address) -> artifactfs::error::Error {
    PostgresTable::open(address).err().expect("it is refused")
}

#[test]
fn what_cannot_be_opened_is_told_apart() {
    let server = Server::shared();
    assert_eq!(refused(&server.address("schema=none")).kind(), Kind::NotFound);
    let address = |user: &str, database: &str| -> Address {
        format!("postgres://{user}@127.0.0.1:{}/{database}", server.port).parse().unwrap()
    };
    assert_eq!(refused(&address("postgres", "nowhere")).kind(), Kind::NotFound);
    assert_eq!(refused(&address("nobody", "postgres")).kind(), Kind::Denied);

    let other = server.fresh_address();
    drop(PostgresTable::init(&other).unwrap());
    assert_eq!(PostgresTable::init(&other).err().unwrap().kind(), Kind::Conflict);
    server.sql(&format!("update {}.meta set format = 99", schema(&other)));
    let error = refused(&other);
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().contains("format 99"), "{error}");
}

fn schema(address: &Address) -> String {
    address.to_string().split_once("schema=").unwrap().1.to_owned()
}

#[test]
fn a_user_without_rights_reads_and_changes_nothing() {
    let server = Server::shared();
    let address = server.fresh_address();
    let owner = Optimistic(PostgresTable::init(&address).unwrap());
    write(&owner, Durability::Immediate, |t| t.put(b"a", b"1")).unwrap();
    let schema = schema(&address);
    server.sql("create role reader login");
    let reader: Address = address.to_string().replace("postgres@", "reader@").parse().unwrap();
    let error = refused(&reader);
    assert_eq!(error.kind(), Kind::Denied);
    assert!(!error.hints().is_empty());
    server.sql(&format!("grant usage on schema {schema} to reader; grant select on all tables in schema {schema} to reader"));
    let engine = Optimistic(PostgresTable::open(&reader).unwrap());
    assert_eq!(read(&engine, |view| view.get(b"a")).unwrap(), Some(b"1".to_vec()));
    let failed = write(&engine, Durability::Immediate, |t| t.put(b"a", b"2")).unwrap_err();
    assert_eq!(failed.kind(), Kind::Denied, "{failed}");
    assert_eq!(read(&owner, |view| view.get(b"a")).unwrap(), Some(b"1".to_vec()));
}

#[test]
fn of_several_hosts_the_one_that_can_write_is_used() {
    let server = Server::shared();
    let address = server.fresh_address();
    drop(PostgresTable::init(&address).unwrap());
    let dead = crate::server::free_port();
    let both = address.to_string().replace("127.0.0.1:", &format!("127.0.0.1:{dead},127.0.0.1:"));
    let engine = Optimistic(PostgresTable::open(&both.parse().unwrap()).unwrap());
    write(&engine, Durability::Immediate, |t| t.put(b"a", b"1")).unwrap();
    assert_eq!(read(&engine, |view| view.get(b"a")).unwrap(), Some(b"1".to_vec()));
}

/// A host that holds the registry's lock and says nothing more does not stop the others for ever.
#[test]
fn a_holder_of_the_lock_that_hangs_is_ended_by_the_server() {
    let server = Server::start("");
    let address = server.fresh_address();
    let engine = Optimistic(PostgresTable::init(&address).unwrap());
    write(&engine, Durability::Immediate, |t| t.put(b"a", b"1")).unwrap();
    let (taken, wait) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use artifactfs::registry::engine::table::{Mode, Table};
            let table = PostgresTable::open(&address).unwrap();
            let mut session = table.session(Mode::Alone).unwrap();
            session.look(&artifactfs::registry::engine::Want::keys([b"a".to_vec()])).unwrap();
            taken.wait();
            wait.wait();
        });
        taken.wait();
        let start = Instant::now();
        let done =
            (0..3).find_map(|_| write(&engine, Durability::Immediate, |t| t.put(b"a", b"2")).ok());
        assert!(done.is_some(), "the lock is never freed");
        assert!(start.elapsed() < Duration::from_secs(100), "{:?}", start.elapsed());
        wait.wait();
    });
}
