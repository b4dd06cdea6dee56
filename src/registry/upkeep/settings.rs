//! The settings of a repository whose registry several hosts share.

use crate::error::{Error, Kind, Result};
use crate::registry::counter::counter_key;
use crate::registry::engine::Durability;
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::upkeep::mark::held_mark;

fn key() -> Vec<u8> {
    counter_key("settings")
}

impl EngineRegistry {
    pub(in crate::registry) fn settings(&self) -> Result<Option<String>> {
        self.read(|view| {
            let damaged = |e| Error::new(Kind::Corrupt, "the settings are no text").because(e);
            view.get(&key())?.map(|bytes| String::from_utf8(bytes).map_err(damaged)).transpose()
        })
    }

    pub(in crate::registry) fn set_settings(&self, holder: &str, text: &str) -> Result<()> {
        self.write_aside(Durability::Immediate, |transaction| {
            if transaction.get(&key())?.is_some() {
                held_mark(&*transaction, holder)?;
            }
            transaction.put(&key(), text.as_bytes())
        })
    }
}
