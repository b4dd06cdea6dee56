//! Objects in clouds and on web servers, reached over the network.
//!
//! The room holds requests, responses, credentials and retries; it must not know packs, caches or
//! what the objects mean. Invariant: every request has a deadline, and a response of a server
//! becomes an error of a [`Kind`](crate::error::Kind) here and nowhere else.

pub mod answers;
mod aws_file;
pub mod client;
mod connect;
pub mod parts;
pub mod persist;
mod profile;
pub mod secrets;
pub mod seen;
pub mod threads;
pub mod url;
mod variable;
pub mod web;

pub(crate) use client::Client;
pub(crate) use threads::Threads;
