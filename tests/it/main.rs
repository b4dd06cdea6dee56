//! What a person does, what an engine promises, and what disasters leave: with real mounts, real
//! processes and real files. A machine without /dev/fuse fails here, loudly.
#![allow(missing_docs, clippy::unwrap_used)]

mod asked_twice;
mod bounds;
mod bucket;
mod cli;
mod contracts;
mod disasters;
mod drafts;
mod errors;
mod exactness;
mod faq;
mod groups;
mod journeys;
mod lease_model;
mod leases;
mod model;
mod mounted;
mod overlay;
mod random;
mod web;
mod world;
