//! The read-only mount.

pub mod adapter;
pub mod fs;
mod list;
pub mod listings;
mod moves;
