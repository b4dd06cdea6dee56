//! Objects in clouds and on web servers, reached over the network.
//!
//! The room holds requests, responses, credentials and retries; it must not know packs, caches or
//! what the objects mean. Invariant: every request has a deadline, and a response of a server
//! becomes an error of a [`Kind`](crate::error::Kind) here and nowhere else.
//!
//! Without the feature `clouds`, `remote_absent.rs` takes the place of this room.

mod answers;
mod aws_file;
pub mod client;
mod connect;
mod granted;
mod parts;
pub mod persist;
mod profile;
mod secrets;
mod variable;
pub mod web;

pub(crate) use client::Client;
pub(crate) use parts::Parts;
pub use secrets::refuse_secrets;
