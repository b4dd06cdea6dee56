//! The registry in PostgreSQL, on real servers that the tests start. `tests/postgres.sh` runs them
//! for each release of PostgreSQL; `$ARTIFACTFS_TEST_POSTGRES` is the directory of its programs.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

mod access;
#[allow(dead_code)]
#[path = "../it/bucket.rs"]
mod bucket;
#[path = "../it/contracts/engine.rs"]
mod contract;
mod faults;
mod hosts;
mod pooled;
#[path = "../it/contracts/runs.rs"]
mod runs;
#[path = "../it/served/mod.rs"]
mod served;
mod server;
#[path = "../it/serving.rs"]
mod serving;
mod team;
mod tls;
#[allow(dead_code)]
#[path = "../it/world.rs"]
mod world;

use artifactfs::registry::engine::Engine;
use artifactfs::registry::engine::optimistic::Optimistic;

use server::Server;

/// Runs a check on an empty registry of the shared server.
fn each_engine(check: impl Fn(&dyn Engine)) {
    check(&*fresh_engine());
}

fn fresh_engine() -> Box<dyn Engine> {
    Box::new(Optimistic(Server::shared().fresh_table()))
}

/// Makes a repository to be served, with its registry in the shared server. Its store is a
/// directory that all servers reach.
fn fresh_repository() -> world::World {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let world = world::World { dir, mounts: Vec::new(), env: Vec::new(), url: None };
    let (address, store) = (Server::shared().fresh_address().to_string(), world.repo());
    let store = format!("file:{}/store", store.display());
    world.ok(&["init", "--registry", &address, "--store", &store]);
    world
}
