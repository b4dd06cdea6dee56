//! A file system for machine-learning artifacts: the map of the house.
//!
//! ```text
//! cli ── mount (the kernel)   server (HTTP)    client (a registry seen through HTTP)
//!   └────────┴──── ops (verbs) ────┴─────────────┘
//!        content (bytes by digest)   registry (names, and where bytes are)   staging (drafts)
//!                             model (nouns)   error
//! ```
//! Each room's `mod.rs` says what it knows, what it must not know, and its invariant;
//! ARCHITECTURE.md says why.

pub mod cli;
pub mod client;
pub mod config;
pub mod content;
pub mod error;
pub mod model;
pub mod mount;
pub mod ops;
pub mod registry;
pub mod server;
pub mod staging;
pub mod telemetry;
pub mod wire;

pub use registry::Registry;
