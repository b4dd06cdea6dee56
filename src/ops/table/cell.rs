//! Cells of a table, and the type that those of a column have in common.

use std::borrow::Cow;

use super::json::as_json;

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell<'a> {
    /// No value.
    Null,
    /// True or false.
    Boolean(bool),
    /// A number, as it is written.
    Number(&'a str),
    /// Text.
    Text(Cow<'a, str>),
    /// A list or an object, as JSON.
    Nested(Cow<'a, str>),
}

impl<'a> Cell<'a> {
    /// Parses `json`, a value that was checked.
    pub(crate) fn of(json: &'a str) -> Self {
        match json.as_bytes().first() {
            None | Some(b'n') => Self::Null,
            Some(b't') => Self::Boolean(true),
            Some(b'f') => Self::Boolean(false),
            Some(b'[' | b'{') => Self::Nested(as_json(json)),
            Some(b'"') => Self::Text(text_of(json)),
            Some(_) => Self::Number(json),
        }
    }

    /// Returns what a person reads; `None` for null.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Null => None,
            Self::Boolean(true) => Some("true"),
            Self::Boolean(false) => Some("false"),
            Self::Number(text) => Some(text),
            Self::Text(text) | Self::Nested(text) => Some(text),
        }
    }

    /// Returns the cell as JSON; `None` for null.
    pub(crate) fn json(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Owned(serde_json::Value::from(&**text).to_string())),
            Self::Number(text) => Some(as_json(text)),
            other => other.as_text().map(Cow::Borrowed),
        }
    }

    /// Returns the value as a number, if it is one.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(text) => text.parse().ok(),
            Self::Text(text) => not_finite(text),
            _ => None,
        }
    }

    /// Returns the value as a whole number of 64 bits, if it is one.
    pub(crate) fn whole(&self) -> Option<i64> {
        match self {
            Self::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Boolean(_) => BOOLEAN,
            Self::Number(_) if self.whole().is_some() => WHOLE,
            Self::Number(_) => NUMBER,
            Self::Text(text) if not_finite(text).is_some() => NOT_FINITE_TEXT,
            Self::Text(_) => TEXT,
            Self::Nested(_) => NESTED,
        }
    }
}

/// Returns the text that a JSON string stands for. Half of a surrogate pair, which Python writes
/// and which is not text, leaves the string as it is written.
fn text_of(json: &str) -> Cow<'_, str> {
    let inside = &json[1..json.len() - 1];
    if !inside.contains('\\') {
        return Cow::Borrowed(inside);
    }
    serde_json::from_str(json).map_or(Cow::Borrowed(inside), Cow::Owned)
}

/// Parses a number that JSON does not have and W&B writes as text.
fn not_finite(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

const BOOLEAN: u8 = 1;
const WHOLE: u8 = 2;
const NUMBER: u8 = 4;
const NOT_FINITE_TEXT: u8 = 8;
const TEXT: u8 = 16;
const NESTED: u8 = 32;

/// The type of the cells of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnType {
    /// True or false.
    Boolean,
    /// Whole numbers of 64 bits.
    Whole,
    /// Numbers.
    Number,
    /// Text.
    Text,
    /// Anything: each cell as JSON.
    Json,
}

/// The kinds of cells a column was seen to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    /// Adds a cell.
    pub(crate) fn see(&mut self, cell: &Cell<'_>) {
        self.0 |= cell.kind();
    }

    /// Returns the type of the column. `said`, the type that the table declares, decides only what
    /// no cell does.
    pub(crate) fn column(self, said: Option<ColumnType>) -> ColumnType {
        let only = |kinds: u8| self.0 & !kinds == 0;
        match self.0 {
            0 => said.unwrap_or(ColumnType::Text),
            NOT_FINITE_TEXT if said == Some(ColumnType::Number) => ColumnType::Number,
            _ if only(BOOLEAN) => ColumnType::Boolean,
            _ if only(WHOLE) => ColumnType::Whole,
            _ if only(TEXT | NOT_FINITE_TEXT) => ColumnType::Text,
            _ if only(WHOLE | NUMBER | NOT_FINITE_TEXT) => ColumnType::Number,
            _ => ColumnType::Json,
        }
    }
}

/// Returns the type that W&B's description of a column declares. A type that may also be missing is
/// that type.
pub(crate) fn said_type(description: &serde_json::Value) -> Option<ColumnType> {
    match description["wb_type"].as_str()? {
        "boolean" => Some(ColumnType::Boolean),
        "number" => Some(ColumnType::Number),
        "string" => Some(ColumnType::Text),
        "union" => {
            let allowed = description["params"]["allowed_types"].as_array()?;
            let mut some = allowed.iter().filter(|one| one["wb_type"] != "none");
            let only = some.next()?;
            if some.next().is_none() { said_type(only) } else { None }
        }
        _ => None,
    }
}

/// The place of a column's values that are not in the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    /// The file, as the table names it.
    pub(crate) path: String,
    /// The key in the file.
    pub(crate) key: String,
}

/// Returns the place that W&B's description of a column gives for its values, if they are not in
/// the rows.
pub(crate) fn elsewhere(description: &serde_json::Value) -> Option<Elsewhere> {
    let params = &description["params"];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
    if let found @ serde_json::Value::Object(_) = &params["serialization_path"] {
        return Some(Elsewhere { path: text(&found["path"]), key: text(&found["key"]) });
    }
    let some = params["allowed_types"].as_array().into_iter().flatten();
    let named = params["type_map"].as_object().into_iter().flat_map(|map| map.values());
    some.chain(named).chain(params.get("element_type")).find_map(elsewhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(cells: &[&str], said: Option<ColumnType>) -> ColumnType {
        let mut kinds = Kinds::default();
        cells.iter().for_each(|cell| kinds.see(&Cell::of(cell)));
        kinds.column(said)
    }

    #[test]
    fn a_column_is_what_its_cells_are() {
        use ColumnType::{Boolean, Json, Number, Text, Whole};
        assert_eq!(column(&["1", "null", "-5"], None), Whole);
        assert_eq!(column(&["1", "2.5"], None), Number);
        assert_eq!(column(&["1", "NaN", "-Infinity", "\"NaN\""], None), Number);
        assert_eq!(column(&["9223372036854775807", "9223372036854775808"], None), Number);
        assert_eq!(column(&["true", "false"], None), Boolean);
        assert_eq!(column(&["\"a\"", "\"NaN\"", "null"], None), Text);
        assert_eq!(column(&["\"a\"", "1"], None), Json);
        assert_eq!(column(&["true", "1"], None), Json);
        assert_eq!(column(&["[1]"], Some(Number)), Json);
        assert_eq!(column(&["null"], Some(Number)), Number);
        assert_eq!(column(&["\"NaN\""], Some(Number)), Number);
        assert_eq!(column(&[], None), Text);
        assert_eq!(column(&["\"1\""], Some(Number)), Text, "cells know better");
    }

    #[test]
    fn text_is_what_was_written() {
        assert_eq!(Cell::of("\"a\\u00e4\\n\\\"\"").as_text(), Some("a\u{e4}\n\""));
        assert_eq!(Cell::of("\"\\ud800\"").as_text(), Some("\\ud800"));
        assert_eq!(Cell::of("{\"a\": NaN}").as_text(), Some("{\"a\": \"NaN\"}"));
        assert_eq!(Cell::of("null").as_text(), None);
    }

    #[test]
    fn values_are_elsewhere_at_whatever_depth() {
        let array =
            r#"{"wb_type":"ndarray","params":{"serialization_path":{"key":"v","path":"x.npz"}}}"#;
        for around in [
            "T",
            r#"{"wb_type":"list","params":{"element_type":T}}"#,
            r#"{"wb_type":"union","params":{"allowed_types":[{"wb_type":"none"},T]}}"#,
            r#"{"wb_type":"typedDict","params":{"type_map":{"a":{"wb_type":"list","params":{"element_type":T}}}}}"#,
        ] {
            let description = serde_json::from_str(&around.replace('T', array)).unwrap();
            let found = elsewhere(&description).unwrap();
            assert_eq!((found.path.as_str(), found.key.as_str()), ("x.npz", "v"), "{around}");
        }
        let plain = serde_json::from_str(r#"{"wb_type":"list","params":{}}"#).unwrap();
        assert_eq!(elsewhere(&plain), None);
    }

    #[test]
    fn what_wandb_says_of_columns() {
        let said = |text: &str| said_type(&serde_json::from_str(text).unwrap());
        assert_eq!(said(r#"{"wb_type":"number"}"#), Some(ColumnType::Number));
        let optional = r#"{"wb_type":"union","params":{"allowed_types":[{"wb_type":"none"},{"wb_type":"string"}]}}"#;
        assert_eq!(said(optional), Some(ColumnType::Text));
        assert_eq!(said(r#"{"wb_type":"image-file"}"#), None);
    }
}
