//! What is kept about a draft beside its files.

use serde::{Deserialize, Serialize};

use crate::model::reference::Reference;

/// `draft.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftRecord {
    /// The version it was begun from or last committed as.
    pub base: Option<Reference>,
    /// When it was the same as that: seconds and nanoseconds since 1970 by the host's clock.
    pub since: (i64, i64),
}
