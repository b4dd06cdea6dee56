//! The reader of the change log.

use crate::error::Result;
use crate::registry::Changes;
use crate::registry::engine::{Span, Want};
use crate::registry::engine_registry::{CHANGES, EngineRegistry};
use crate::registry::keys::{self, Key, Space};
use crate::registry::record;

/// The maximum number of entries in one reply.
const CHANGES_PAGE: usize = 1_000;

impl EngineRegistry {
    pub(in crate::registry) fn changes_now(&self, after: u64) -> Result<Changes> {
        self.read(|view| {
            let from = CHANGES.entry(after.saturating_add(1));
            let (_, to) = Key::of(Space::Change).range();
            view.want(&|| {
                let span = Span { from: from.clone(), to: to.clone(), limit: CHANGES_PAGE };
                Ok(Want { keys: vec![CHANGES.counter.to_vec()], spans: vec![span] })
            })?;
            let newest = view.log_end(&CHANGES)?;
            let pairs = view.scan(&from, &to, CHANGES_PAGE)?;
            let first = pairs.first().and_then(|(key, _)| keys::number_of(key));
            let lost = after > newest || first.is_some_and(|first| first > after + 1);
            let last = pairs.last().and_then(|(key, _)| keys::number_of(key));
            let changes = pairs.iter().map(|(_, value)| record::decode(value));
            Ok(Changes {
                last: last.unwrap_or(newest),
                changes: changes.collect::<Result<_>>()?,
                lost,
            })
        })
    }
}
