//! What takes longer than a minute: `cargo test --test long`. Needs root, loop devices and xfs_io.
#![allow(missing_docs, clippy::unwrap_used)]

mod power_loss;
#[path = "../it/world.rs"]
#[allow(dead_code)]
mod world;
