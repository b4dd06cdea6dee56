//! Inodes of versions: of files by content, of everything else by path.

pub mod description;
pub mod files;
pub mod node;
pub mod paths;
pub mod version;
