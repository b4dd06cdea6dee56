//! A registry behind pgbouncer, which pools transactions.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use artifactfs::registry::engine::optimistic::Optimistic;
use artifactfs::registry::engine::postgres::{Address, PostgresTable};
use artifactfs::registry::engine::{Durability, read, write};

use crate::server::{Server, as_postgres, free_port, start};

struct Bouncer(Child);

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn transactions_of_many_writers_share_two_connections() {
    let server = Server::shared();
    let port = free_port();
    let file = server.dir.path().join("pgbouncer.ini");
    let text = format!(
        "[databases]\npostgres = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\nunix_socket_dir =\n",
        server.port
    );
    std::fs::write(&file, text).unwrap();
    let mut command = as_postgres(Path::new("pgbouncer"));
    let log = std::fs::File::create(server.dir.path().join("pgbouncer.log")).unwrap();
    command.arg(&file).stderr(log);
    let _bouncer = Bouncer(start(command));
    let address = server.fresh_address();
    let pooled: Address = address
        .to_string()
        .replace(&format!(":{}/", server.port), &format!(":{port}/"))
        .parse()
        .unwrap();
    let begun = Instant::now();
    let table = loop {
        match PostgresTable::init(&pooled) {
            Ok(table) => break table,
            Err(e) if begun.elapsed() > Duration::from_secs(60) => panic!("{e}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    let engine = Optimistic(table);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    write(&engine, Durability::Eventual, |t| {
                        let old = t.get(b"n")?.map_or(0, |v| v[0]);
                        t.put(b"n", &[old + 1])
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(read(&engine, |view| view.get(b"n")).unwrap(), Some(vec![200]));
}
