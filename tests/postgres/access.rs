//! Logins, rights and addresses: each refusal has a kind of its own.

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

/// The server ends a transaction that is idle, so the lock of a host that hangs becomes free.
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

#[test]
fn a_password_comes_from_a_file_that_only_its_owner_reads() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start("");
    server.sql("create role secured login superuser password 'geheim'");
    let rules = server.data().join("pg_hba.conf");
    let text = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, format!("host all secured 127.0.0.1/32 scram-sha-256\n{text}")).unwrap();
    server.sql("select pg_reload_conf()");
    let file = server.dir.path().join("passwords");
    let address = |file: &std::path::Path| -> Address {
        let options = format!("passfile={}", file.display());
        server.address(&options).to_string().replace("postgres@", "secured@").parse().unwrap()
    };
    let missing = PostgresTable::init(&address(&file)).err().unwrap();
    assert_eq!(missing.kind(), Kind::Denied, "{missing}");
    std::fs::write(&file, "*:*:*:secured:wrong\n").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let open = PostgresTable::init(&address(&file)).err().unwrap();
    assert!(open.message().contains("others may read"), "{open}");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let wrong = PostgresTable::init(&address(&file)).err().unwrap();
    assert_eq!(wrong.kind(), Kind::Denied, "{wrong}");
    std::fs::write(&file, "*:*:*:secured:geheim\n").unwrap();
    drop(PostgresTable::init(&address(&file)).unwrap());
}

/// The removal of a registry keeps other tables of its schema.
#[test]
fn tables_are_removed_without_their_neighbours() {
    let server = Server::shared();
    let address = server.fresh_address();
    let schema = schema(&address);
    server.sql(&format!("create schema {schema}; create table {schema}.own (a int)"));
    PostgresTable::init(&address).unwrap().remove().unwrap();
    assert_eq!(server.sql(&format!("select count(*) from {schema}.own")), "0");
    assert_eq!(refused(&address).kind(), Kind::NotFound);
}
