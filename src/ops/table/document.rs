//! One `*.table.json`: its columns, and its rows, read one at a time.
//!
//! ```text
//! {"_type": "table", "columns": [name…], "data": [[cell…]…], "column_types": {…}, …}
//! ```
//! The keys come in any order. If the columns come before the rows, as W&B writes them, opening
//! reads nothing behind the columns.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;
use serde_json::value::RawValue;

use super::cell::{Cell, ColumnType, Elsewhere, elsewhere, said_type};
use super::json::{Fetch, Json, as_json, cover, position};
use crate::error::{Error, Kind, Result};

/// The maximum length of a row.
pub(crate) const ROW_MAX_BYTES: usize = 64 << 20;
/// The maximum length of the list of columns, and of a description of them.
const HEAD_MAX_BYTES: usize = 16 << 20;

/// The description of a table's columns.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Head {
    /// The columns' names.
    pub(crate) columns: Vec<String>,
    /// The types of their cells, where the table declares one of [`ColumnType`].
    pub(crate) said: BTreeMap<String, ColumnType>,
    /// The files with the values of columns of which the rows have nothing.
    pub(crate) elsewhere: BTreeMap<String, Elsewhere>,
}

/// One row, as it is written.
#[derive(Debug, Default)]
pub(crate) struct Row {
    text: String,
    /// `text` with the tokens covered that JSON does not have; empty if there are none.
    covered: String,
    cells: Vec<Range<usize>>,
}

impl Row {
    /// Returns its length, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        self.text.len()
    }

    /// Returns the row as JSON.
    pub(crate) fn json(&self) -> std::borrow::Cow<'_, str> {
        as_json(&self.text)
    }

    /// Returns its cells.
    pub(crate) fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        self.cells.iter().map(|range| Cell::of(&self.text[range.clone()]))
    }
}

/// A table that is being read.
pub(crate) struct Document<'a> {
    json: Json<'a>,
    head: Head,
    has_columns: bool,
    scratch: Vec<u8>,
    row: Row,
    /// The number of rows read.
    rows: u64,
    /// True if a key was read: the next one comes behind a comma.
    begun: bool,
    ended: bool,
}

impl<'a> Document<'a> {
    /// Reads `open()` up to its rows. If its columns come behind them, it is read twice.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it is not a table, [`Kind::Usage`] if its `_type` is another.
    pub(crate) fn open(name: &str, open: &dyn Fn() -> Box<Fetch<'a>>) -> Result<Self> {
        let mut document = Self::begin(name, open());
        document.reach_rows()?;
        if document.has_columns {
            return Ok(document);
        }
        document.json.skip()?;
        document.reach_end()?;
        if !document.has_columns {
            return Err(document.json.bad("there are no \"columns\"", document.json.offset()));
        }
        let mut again = Self::begin(name, open());
        (again.head, again.has_columns) = (document.head, true);
        again.reach_rows()?;
        Ok(again)
    }

    /// Returns the description before and behind the rows, which are skipped.
    ///
    /// # Errors
    /// As [`Document::open`].
    pub(crate) fn whole_head(name: &str, fetch: Box<Fetch<'a>>) -> Result<Head> {
        let mut document = Self::begin(name, fetch);
        document.reach_rows()?;
        document.json.skip()?;
        document.reach_end()?;
        Ok(document.head)
    }

    fn begin(name: &str, fetch: Box<Fetch<'a>>) -> Self {
        Self {
            json: Json::new(name.to_owned(), fetch),
            head: Head::default(),
            has_columns: false,
            scratch: Vec::new(),
            row: Row::default(),
            rows: 0,
            begun: false,
            ended: false,
        }
    }

    /// Returns the description, as far as it was read.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Returns the description, as far as it was read, and ends reading.
    pub(crate) fn into_head(self) -> Head {
        self.head
    }

    /// Returns an error about the row that was read.
    fn bad_row(&self, what: &str, offset: u64) -> Error {
        self.json.bad(&format!("row {} {what}", self.rows), offset)
    }

    /// Reads up to the list of rows.
    fn reach_rows(&mut self) -> Result<()> {
        self.json.expect(b'{')?;
        while let Some(key) = self.key()? {
            if key == "data" {
                return match self.json.peek()? {
                    Some(b'[') => Ok(()),
                    found => Err(self.json.unexpected("a list of rows", found)),
                };
            }
            self.property(&key)?;
        }
        Err(self.json.bad("there is no \"data\"", self.json.offset()))
    }

    /// Reads what comes behind the rows.
    fn reach_end(&mut self) -> Result<()> {
        while let Some(key) = self.key()? {
            match key.as_str() {
                "data" => return Err(self.json.bad("a second \"data\"", self.json.offset())),
                _ => self.property(&key)?,
            }
        }
        match self.json.peek()? {
            None => Ok(()),
            found => Err(self.json.unexpected("the end", found)),
        }
    }

    /// Reads the next key and its colon. Returns `None` behind the last.
    fn key(&mut self) -> Result<Option<String>> {
        match self.json.peek()? {
            Some(b'}') => {
                self.json.take();
                return Ok(None);
            }
            Some(b',') if self.begun => self.json.take(),
            found if self.begun => return Err(self.json.unexpected("',' or '}'", found)),
            _ => {}
        }
        self.begun = true;
        let offset = match self.json.peek()? {
            Some(b'"') => self.json.value(&mut self.scratch, HEAD_MAX_BYTES)?,
            found => return Err(self.json.unexpected("a key", found)),
        };
        let key = serde_json::from_slice(&self.scratch)
            .map_err(|_| self.json.bad("a key that is not text", offset))?;
        self.json.expect(b':')?;
        Ok(Some(key))
    }

    /// Reads the value of any key but the rows'.
    fn property(&mut self, key: &str) -> Result<()> {
        match key {
            "columns" => {
                let (value, offset) = self.head_value()?;
                let Value::Array(names) = value else {
                    return Err(self.json.bad("\"columns\" is not a list", offset));
                };
                let name = |value| match value {
                    Value::String(name) => name,
                    other => other.to_string(),
                };
                self.head.columns = names.into_iter().map(name).collect();
                self.has_columns = true;
            }
            "column_types" => {
                let (value, _) = self.head_value()?;
                let map = value["params"]["type_map"].as_object();
                let said = map.into_iter().flatten();
                let far = said.clone();
                let far = far.filter_map(|(name, what)| Some((name.clone(), elsewhere(what)?)));
                self.head.elsewhere = far.collect();
                let said = said.filter_map(|(name, what)| Some((name.clone(), said_type(what)?)));
                self.head.said = said.collect();
            }
            "_type" => {
                let (value, _) = self.head_value()?;
                if value != "table" {
                    let what = format!("{} is {value}, not a table", self.json.name());
                    return Err(Error::new(Kind::Usage, what)
                        .hint("tables are *.table.json and *.partitioned-table.json"));
                }
            }
            _ => self.json.skip()?,
        }
        Ok(())
    }

    fn head_value(&mut self) -> Result<(Value, u64)> {
        let offset = self.json.value(&mut self.scratch, HEAD_MAX_BYTES)?;
        let text = std::str::from_utf8(&self.scratch)
            .map_err(|e| self.json.bad("not UTF-8", offset + e.valid_up_to() as u64))?;
        let value = serde_json::from_str(&as_json(text))
            .map_err(|e| self.json.bad("not JSON", offset + position(text, &e)))?;
        Ok((value, offset))
    }

    /// Reads the next row. Returns `false` behind the last, after reading the rest as well.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if the row is not a list, or has more or fewer cells than there are
    /// columns.
    pub(crate) fn advance(&mut self) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.rows == 0 {
            self.json.expect(b'[')?;
        }
        match self.json.peek()? {
            Some(b']') => {
                self.json.take();
                self.ended = true;
                self.reach_end()?;
                return Ok(false);
            }
            Some(b',') if self.rows > 0 => self.json.take(),
            found if self.rows > 0 => return Err(self.json.unexpected("',' or ']'", found)),
            _ => {}
        }
        self.rows += 1;
        let mut text = std::mem::take(&mut self.row.text).into_bytes();
        let offset = self.json.value(&mut text, ROW_MAX_BYTES)?;
        self.row.text = String::from_utf8(text).map_err(|e| {
            let at = e.utf8_error().valid_up_to() as u64;
            self.bad_row("is not UTF-8", offset + at)
        })?;
        self.split(offset)?;
        Ok(true)
    }

    /// Finds the cells of the row.
    fn split(&mut self, offset: u64) -> Result<()> {
        let row = &mut self.row;
        row.covered.clear();
        if let std::borrow::Cow::Owned(covered) = cover(&row.text) {
            row.covered = covered;
        }
        let text = if row.covered.is_empty() { &row.text } else { &row.covered };
        row.cells.clear();
        if !text.starts_with('[') {
            return Err(self.bad_row("is not a list", offset));
        }
        let cells: Vec<&RawValue> = match serde_json::from_str(text) {
            Ok(cells) => cells,
            Err(e) => {
                let at = offset + position(text, &e);
                return Err(self.bad_row("is not JSON", at));
            }
        };
        let (from, wanted) = (text.as_ptr().addr(), self.head.columns.len());
        row.cells.extend(cells.iter().map(|cell| {
            let start = cell.get().as_ptr().addr() - from;
            start..start + cell.get().len()
        }));
        let found = cells.len();
        if found != wanted {
            let what = format!("has {found} cells for {wanted} columns");
            return Err(self.bad_row(&what, offset));
        }
        Ok(())
    }

    /// Returns the row that was read.
    pub(crate) fn row(&self) -> &Row {
        &self.row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open<'t>(text: &'t str, step: usize) -> Result<Document<'t>> {
        Document::open("t", &|| -> Box<Fetch<'t>> {
            Box::new(move |offset, buffer| {
                let rest = &text.as_bytes()[(offset as usize).min(text.len())..];
                let count = rest.len().min(step).min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            })
        })
    }

    /// Returns columns, and rows of cells as people see them.
    fn read(text: &str, step: usize) -> Result<(Vec<String>, Vec<Vec<String>>)> {
        let mut document = open(text, step)?;
        let mut rows = Vec::new();
        while document.advance()? {
            let cells = document.row().cells();
            rows.push(cells.map(|cell| cell.as_text().unwrap_or("-").to_owned()).collect());
        }
        assert!(!document.advance()?, "the end stays the end");
        Ok((document.into_head().columns, rows))
    }

    #[test]
    fn keys_come_in_any_order_and_bytes_in_any_steps() {
        let columns = r#""columns": ["a", 2]"#;
        let data = r#""data": [[1, "x"], [NaN, null] , [[1, {"b": -Infinity}], true]]"#;
        let types = r#""column_types": {"params": {"type_map": {"a": {"wb_type": "number"}}}}"#;
        let rest = r#""_type": "table", "nrows": 3, "column_key_types": {"x": [NaN, "]"]}"#;
        let orders = [
            [columns, data, types, rest],
            [rest, data, types, columns],
            [types, rest, columns, data],
        ];
        for parts in orders {
            let text = format!("{{{}}}\n", parts.join(", "));
            for step in (1..40).chain([1_000]) {
                let (names, rows) = read(&text, step).unwrap();
                assert_eq!(names, ["a", "2"]);
                let wanted = [["1", "x"], ["NaN", "-"], [r#"[1, {"b": "-Infinity"}]"#, "true"]];
                assert_eq!(rows, wanted);
            }
        }
        let text = format!("{{{types}, {columns}, {data}}}");
        assert_eq!(open(&text, 9).unwrap().head().said["a"], ColumnType::Number);
    }

    #[test]
    fn tables_of_nothing() {
        assert_eq!(read(r#"{"columns": [], "data": []}"#, 3).unwrap(), (vec![], vec![]));
        assert_eq!(read(r#"{"data": [], "columns": ["a"]}"#, 3).unwrap().0, ["a"]);
        let empty_rows = read(r#"{"columns": [], "data": [[], []]}"#, 3).unwrap();
        assert_eq!(empty_rows.1.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let cases = [
            ("", "expected '{', found the end at byte 0"),
            ("[]", "expected '{'"),
            ("{}", "there is no \"data\""),
            (r#"{"data": []}"#, "there are no \"columns\""),
            (r#"{"columns": "a", "data": []}"#, "\"columns\" is not a list at byte 12"),
            (r#"{"columns": ["a"], "data": {}}"#, "expected a list of rows, found '{' at byte 27"),
            (
                r#"{"columns": ["a"], "data": [[1] [2]]}"#,
                "expected ',' or ']', found '[' at byte 32",
            ),
            (r#"{"columns": ["a"], "data": [[1], 7]}"#, "row 2 is not a list at byte 33"),
            (
                r#"{"columns": ["a"], "data": [[1], [1, 2]]}"#,
                "row 2 has 2 cells for 1 columns at byte 33",
            ),
            (r#"{"columns": ["a"], "data": [[1], []]}"#, "row 2 has 0 cells for 1 columns"),
            (r#"{"columns": ["a"], "data": [[NaN, nan]]}"#, "row 1 is not JSON at byte 35"),
            (r#"{"columns": ["a"], "data": [[1,]]}"#, "row 1 is not JSON at byte 31"),
            (r#"{"columns": ["a"], "data": [[1], ]}"#, "expected a value, found ']' at byte 33"),
            (r#"{"columns": ["a"], "data": [[1]"#, "expected ',' or ']', found the end"),
            (r#"{"columns": ["a"], "data": [["#, "expected the rest of a value"),
            (r#"{"columns": ["a"], "data": [[1]]"#, "expected ',' or '}', found the end"),
            (r#"{"columns": ["a"], "data": [[1]]} x"#, "expected the end, found 'x' at byte 34"),
            (r#"{"columns": ["a"], "data": [], "data": []}"#, "a second \"data\""),
            (r#"{"columns": ["a"] "data": []}"#, "expected ',' or '}', found '\\\"'"),
            (r#"{1: 2}"#, "expected a key"),
            (r#"{"_type": "joined-table", "data": []}"#, "is \"joined-table\", not a table"),
        ];
        for (text, wanted) in cases {
            for step in [1, 7, 1_000] {
                let error = read(text, step).expect_err(text);
                assert!(error.message().contains(wanted), "{text}: {error}");
            }
        }
        let mut bytes = br#"{"columns": ["a"], "data": [["x"]]}"#.to_vec();
        bytes[30] = 0xff;
        let mut document = Document::open("t", &|| -> Box<Fetch<'_>> {
            let bytes = &bytes;
            Box::new(move |offset, buffer| {
                let rest = &bytes[(offset as usize).min(bytes.len())..];
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            })
        })
        .unwrap();
        let error = document.advance().unwrap_err();
        assert!(error.message().contains("row 1 is not UTF-8 at byte 30"), "{error}");
    }
}
