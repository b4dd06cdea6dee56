//! NOUNS: values only.
//!
//! The room holds names, references, digests, the encoding of trees and recipes, and the facts
//! about versions. It must not know files, clocks, threads or how anything is stored.
//! Invariant: a value that exists is valid; text becomes a value only through its parser.

pub mod access;
pub mod api_key;
pub mod counted;
pub mod difference;
pub mod digest;
pub mod external;
pub mod host;
pub mod json;
pub mod merkle;
pub mod metadata;
pub mod name;
pub mod new_version;
mod node;
pub mod object;
pub mod object_kind;
pub mod properties;
pub mod recipe;
pub mod reference;
pub mod run;
pub mod server_url;
pub mod time;
pub mod tree;
pub mod varint;
pub mod version;
pub mod zone;
