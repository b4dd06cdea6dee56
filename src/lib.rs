//! A file system for machine-learning artifacts: the map of its rooms.
//!
//! ```text
//! bin   cli (people; not part of the library)
//! lib   daemon (one process: lock, connection, mounts, background work)
//!         ├── mount (the kernel)   server (HTTP)   client (a registry seen through HTTP)
//!         └────────── ops (verbs) ────────────────────┘
//!              content (bytes by digest)   registry (names, and where bytes are)   staging (drafts)
//!                                   model (nouns)   error
//! ```
//! Each room's `mod.rs` says what the room holds, what it must not know, and its invariant.
//! ARCHITECTURE.md gives the reasons.
//!
//! ```
//! use artifactfs::ops::put::{PutRequest, Silent, put};
//! use artifactfs::ops::read::read_file;
//! use artifactfs::{Repository, StoreOptions};
//!
//! let folder = tempfile::tempdir()?;
//! let (location, source) = (folder.path().join("repository"), folder.path().join("labels.txt"));
//! std::fs::write(&source, "cat dog")?;
//! Repository::init(&location)?;
//! let repository = Repository::open(&location, &StoreOptions::default())?;
//! let request = PutRequest::plain(source, "demo/labels".parse()?);
//! put(&repository, &request, std::sync::Arc::new(Silent))?;
//! let version = repository.registry.lookup("demo/labels:latest".parse()?)?;
//! assert_eq!(version.reference().to_string(), "demo/labels:v0");
//! assert_eq!(read_file(&repository, &version, "labels.txt")?, b"cat dog");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod client;
pub mod config;
pub mod content;
pub mod daemon;
pub mod error;
pub mod files;
pub mod model;
pub mod mount;
pub mod ops;
pub mod protocol;
pub mod registry;
pub mod server;
pub mod staging;
pub mod telemetry;

pub use content::options::StoreOptions;
pub use ops::repository::Repository;
pub use registry::Registry;
