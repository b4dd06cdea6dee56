//! The staging mount: versions read-only, and drafts beside them.

mod adapter;
mod backing;
mod convert;
pub mod files;
pub mod fs;
mod list;
mod publish;
mod xattr;
