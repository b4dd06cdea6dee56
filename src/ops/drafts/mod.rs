//! Drafts: versions that are written and not yet committed.

mod autocommit;
mod changes;
mod commit;
mod handler;
mod lower;
mod pins;
mod prehash;
mod service;
mod xattr;

pub use crate::protocol::drafts::{
    CommitDraft, DIFFERENCES_MAX, DraftAnswer, DraftCall, DraftHandler, DraftInfo,
};
pub(crate) use commit::WRITERS_WAIT;
pub(crate) use service::DraftService;
pub(crate) use xattr::{DraftPlace, field};
