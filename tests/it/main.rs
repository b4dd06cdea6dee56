//! Journeys, contracts and disasters, with real mounts, real processes and real files. Without
//! /dev/fuse the tests fail.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

mod asked_twice;
mod bounds;
mod bucket;
mod cli;
mod contracts;
mod disasters;
mod drafts;
mod engines;
mod errors;
mod exactness;
mod faq;
mod golden;
mod groups;
mod journeys;
mod lease_model;
mod leases;
mod model;
mod mounted;
mod overlay;
mod random;
mod served;
mod serving;
mod web;
mod world;

use engines::{each_engine, fresh_engine};

/// Makes a repository to be served, with its registry and store inside.
fn fresh_repository() -> world::World {
    world::World::new()
}
