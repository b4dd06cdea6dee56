//! Tests that take longer than a minute: `cargo test --test long`. They need root, loop devices and
//! xfs_io.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../it/bucket.rs"]
#[allow(dead_code)]
mod bucket;
mod power_loss;
#[path = "../it/random.rs"]
mod random;
mod silent_store;
#[path = "../it/world.rs"]
#[allow(dead_code)]
mod world;
