//! What a person does, what an engine promises, and what disasters leave: with real mounts, real
//! processes and real files. A machine without /dev/fuse fails here, loudly.
#![allow(missing_docs, clippy::unwrap_used)]

mod contracts;
mod disasters;
mod errors;
mod exactness;
mod faq;
mod groups;
mod journeys;
mod model;
mod overlay;
mod web;
mod world;
