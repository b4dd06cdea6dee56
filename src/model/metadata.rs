//! Metadata of versions.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};

/// The maximum size of a version's metadata, in bytes of JSON.
pub(crate) const METADATA_MAX_BYTES: usize = 1 << 20;

/// Metadata: a JSON object of any depth, at most 1 MiB, kept as compact text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata(String);

impl Default for Metadata {
    fn default() -> Self {
        Self("{}".to_owned())
    }
}

impl Metadata {
    /// Returns the object as a value.
    pub fn to_object(&self) -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// Returns the length of the text in bytes.
    pub(crate) fn length_bytes(&self) -> usize {
        self.0.len()
    }

    /// Refuses metadata that no parser checked, since they came over a socket.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the text is too long or not a JSON object.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.0.len() <= METADATA_MAX_BYTES {
            let object: Result<HashMap<String, IgnoredAny>, _> = serde_json::from_str(&self.0);
            return object
                .map(drop)
                .map_err(|e| Error::new(Kind::Usage, "metadata is not a JSON object").because(e));
        }
        Err(too_long(self.0.len()))
    }

    /// Returns the metadata of an object.
    ///
    /// # Errors
    /// [`Kind::Usage`] if its text is longer than [`METADATA_MAX_BYTES`].
    pub fn from_object(object: serde_json::Map<String, serde_json::Value>) -> Result<Self, Error> {
        let text = serde_json::Value::Object(object).to_string();
        if text.len() > METADATA_MAX_BYTES {
            return Err(too_long(text.len()));
        }
        Ok(Self(text))
    }
}

fn too_long(found_bytes: usize) -> Error {
    let found = format!("metadata of {found_bytes} bytes; the most is {METADATA_MAX_BYTES}");
    Error::new(Kind::Usage, found).hint("put large values in a file of the version")
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Metadata {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |found: String| {
            Error::new(Kind::Usage, format!("metadata is not a JSON object: {found}"))
                .hint("write it as {\"key\": value}, or @FILE to read it from a file")
        };
        match super::json::parse(text) {
            Ok(serde_json::Value::Object(object)) => Self::from_object(object),
            Ok(other) => Err(bad(format!("found {}", json_type(&other)))),
            Err(e) => Err(bad(e.message())),
        }
    }
}

fn json_type(value: &serde_json::Value) -> &'static str {
    match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "a boolean",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a string",
        serde_json::Value::Array(_) => "an array",
        serde_json::Value::Object(_) => "an object",
    }
}
