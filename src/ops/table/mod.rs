//! Tables: `*.table.json` as W&B writes them, and `*.partitioned-table.json`, which point to a
//! folder of tables.
//!
//! A table is read row by row and written batch by batch, so memory does not grow with it. It holds
//! one row, or one batch, or one row group of a Parquet file.

mod batch;
mod cell;
mod document;
mod json;
mod partition;
mod parts;
mod text;
mod write;

use std::collections::BTreeMap;
use std::str::FromStr;

use cell::{Cell, ColumnType, Kinds};
use document::{Document, Head, Row};
use json::Fetch;
pub use partition::{Pointer, partition};
use parts::{Part, Parts, TABLE_SUFFIX, no_file};
pub use write::{Shown, show};

use crate::content::directory::resolve;
use crate::content::reader::Reader;
use crate::error::{Error, GetHint, Kind, NamesHint, Result};
use crate::model::digest::Digest;
use crate::model::name::EntryName;
use crate::model::tree::{Content, Target};
use crate::model::version::VersionInfo;

/// The suffix of the name of a pointer to parts.
const POINTER_SUFFIX: &str = ".partitioned-table.json";
/// The maximum length of a pointer, which holds one path.
const POINTER_MAX_BYTES: u64 = 64 << 10;

/// The format in which a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns, for people.
    Text,
    /// One document with `columns` and `data`.
    Json,
    /// A line of names, and a line for each row.
    Csv,
    /// Typed columns, for programs.
    Parquet,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            "parquet" => Ok(Self::Parquet),
            _ => Err(Error::new(Kind::Usage, format!("a table has no format \"{text}\""))
                .hint("text, json, csv or parquet")),
        }
    }
}

enum Source {
    One(Part),
    /// A folder of parts, and its path.
    Folder(String, Digest),
}

/// A table of a version; its columns are known.
pub struct Table<'a> {
    reader: &'a Reader,
    source: Source,
    head: Head,
    /// The number of files it is made of.
    pub parts: u64,
    /// The sum of their lengths.
    pub size_bytes: u64,
}

impl<'a> Table<'a> {
    /// Opens the table at `path` of a version. The columns of all parts of a partitioned table are
    /// compared.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if nothing is there. [`Kind::Usage`] if the name is not a table's.
    /// [`Kind::Corrupt`] if the content is not a table's, or the columns of parts differ.
    pub fn open(reader: &'a Reader, version: &VersionInfo, path: &[EntryName]) -> Result<Self> {
        let (name, target) = find(reader, version, path)?;
        let Target::File { content, .. } = target else {
            return Err(match target {
                Target::Directory(_) => no_table(&name, "a directory"),
                _ => no_file(&name),
            });
        };
        if name.ends_with(POINTER_SUFFIX) {
            let parts = read_pointer(reader, &name, &content)?;
            return Self::of_folder(reader, version, &parts);
        }
        if !name.ends_with(".json") {
            return Err(no_table(&name, "not a table"));
        }
        let part = Part { path: name, content };
        let head = take_head(reader, &part)?;
        let size_bytes = content.size_bytes();
        Ok(Self { reader, source: Source::One(part), head, parts: 1, size_bytes })
    }

    /// Opens the tables in the folder `path` as one table.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub(crate) fn of_folder(
        reader: &'a Reader,
        version: &VersionInfo,
        path: &[EntryName],
    ) -> Result<Self> {
        let (name, target) = find(reader, version, path)?;
        let Target::Directory(tree) = target else {
            return Err(Error::new(Kind::Usage, format!("{name} is not a folder of parts"))
                .hint("a partitioned table points to a folder of *.table.json"));
        };
        let mut parts = Parts::new(reader, name.clone(), tree);
        let mut head: Option<(String, Head)> = None;
        let (mut count, mut size_bytes) = (0, 0);
        while let Some(part) = parts.advance()? {
            let found = take_head(reader, &part)?;
            count += 1;
            size_bytes += part.content.size_bytes();
            match &mut head {
                None => head = Some((part.path, found)),
                Some((first, head)) => {
                    same_columns((first, &head.columns), (&part.path, &found.columns))?;
                    for (column, what) in found.said {
                        head.said.entry(column).or_insert(what);
                    }
                    head.elsewhere.extend(found.elsewhere);
                }
            }
        }
        let head = head.map(|(_, head)| head).unwrap_or_default();
        Ok(Self { reader, source: Source::Folder(name, tree), head, parts: count, size_bytes })
    }

    /// Returns the names of its columns.
    pub fn columns(&self) -> &[String] {
        &self.head.columns
    }

    /// Refuses a table with values in another file.
    fn refuse_elsewhere(&self) -> Result<()> {
        let Some((column, at)) = self.head.elsewhere.iter().next() else { return Ok(()) };
        let (path, key) = (&at.path, &at.key);
        let what =
            format!("the values of column \"{column}\" are not in the table but in {path} ({key})");
        Err(Error::new(Kind::Unsupported, what).hint(GetHint::WriteOutArray))
    }

    /// Returns its rows from the first on.
    fn rows(&self) -> Rows<'_> {
        let parts = match &self.source {
            Source::One(part) => Remaining::One(Some(part)),
            Source::Folder(path, tree) => {
                Remaining::Folder(Parts::new(self.reader, path.clone(), *tree))
            }
        };
        Rows { table: self, parts, document: None, said: BTreeMap::new() }
    }

    /// Reads the first `limit` rows, and returns the type of each column in them.
    fn column_types(&self, limit: u64) -> Result<Vec<ColumnType>> {
        let mut kinds = vec![Kinds::default(); self.columns().len()];
        let mut rows = self.rows();
        for _ in 0..limit {
            if !rows.advance()? {
                break;
            }
            rows.row().cells().zip(&mut kinds).for_each(|(cell, kinds)| kinds.see(&cell));
        }
        let said = |name: &String| self.head.said.get(name).or(rows.said.get(name)).copied();
        let named = self.columns().iter().zip(kinds);
        Ok(named.map(|(name, kinds)| kinds.column(said(name))).collect())
    }
}

/// The parts that are still to be read.
enum Remaining<'a> {
    One(Option<&'a Part>),
    Folder(Parts<'a>),
}

/// The rows of a table, one after the other.
struct Rows<'a> {
    table: &'a Table<'a>,
    parts: Remaining<'a>,
    document: Option<Document<'a>>,
    /// The column types that parts declare behind their rows.
    said: BTreeMap<String, ColumnType>,
}

impl Rows<'_> {
    /// Reads the next row. Returns `false` behind the last row of the last part.
    fn advance(&mut self) -> Result<bool> {
        loop {
            if let Some(document) = &mut self.document {
                if document.advance()? {
                    return Ok(true);
                }
                for (name, what) in &document.head().said {
                    self.said.entry(name.clone()).or_insert(*what);
                }
            }
            let part = match &mut self.parts {
                Remaining::One(part) => part.take().cloned(),
                Remaining::Folder(parts) => parts.advance()?,
            };
            let Some(part) = part else {
                self.document = None;
                return Ok(false);
            };
            let document = open_part(self.table.reader, &part)?;
            let columns = self.table.columns();
            same_columns(("the first part", columns), (&part.path, &document.head().columns))?;
            self.document = Some(document);
        }
    }

    /// Returns the row that was read.
    fn row(&self) -> &Row {
        self.document.as_ref().expect("a row was read").row()
    }
}

fn open_part<'a>(reader: &'a Reader, part: &Part) -> Result<Document<'a>> {
    let content = part.content;
    Document::open(&part.path, &|| -> Box<Fetch<'a>> {
        Box::new(move |offset, buffer| reader.read_at(&content, offset, buffer))
    })
}

fn take_head(reader: &Reader, part: &Part) -> Result<Head> {
    let mut document = open_part(reader, part)?;
    let begun = document.advance().unwrap_or(false);
    // A column with values in another file has only nulls in the rows, and the file may be named
    // behind them. So the rest is read as well. An error there is left to the reader that gets so
    // far.
    if begun && document.row().cells().any(|cell| cell == Cell::Null) {
        let content = part.content;
        let fetch =
            Box::new(move |offset, buffer: &mut [u8]| reader.read_at(&content, offset, buffer));
        if let Ok(head) = Document::whole_head(&part.path, fetch) {
            return Ok(head);
        }
    }
    Ok(document.into_head())
}

/// Returns the name and the target of the entry at `path`.
fn find(reader: &Reader, version: &VersionInfo, path: &[EntryName]) -> Result<(String, Target)> {
    let name = path.iter().map(ToString::to_string).collect::<Vec<_>>().join("/");
    let shown = version.reference().to_string();
    if name.is_empty() {
        return Err(Error::new(Kind::Usage, "a path in the version is needed, and none was given")
            .hint(NamesHint::ListFiles(shown)));
    }
    match resolve(reader, version.root, path)? {
        Some(entry) => Ok((name, entry.target)),
        None => Err(Error::new(Kind::NotFound, format!("{shown} has no {name}"))
            .hint(NamesHint::ListFiles(shown))),
    }
}

fn no_table(name: &str, what: &str) -> Error {
    Error::new(Kind::Usage, format!("{name} is {what}"))
        .hint(format!("tables are *{TABLE_SUFFIX} and *{POINTER_SUFFIX}"))
}

fn same_columns(first: (&str, &[String]), other: (&str, &[String])) -> Result<()> {
    if first.1 == other.1 {
        return Ok(());
    }
    let differ = first.1.iter().zip(other.1).position(|(one, other)| one != other);
    let at = differ.unwrap_or(first.1.len().min(other.1.len()));
    let named = |columns: &[String]| match columns.get(at) {
        Some(name) => format!("\"{name}\""),
        None => "none".to_owned(),
    };
    let what = format!(
        "{} has other columns than {}: column {} is {}, not {}",
        other.0,
        first.0,
        at + 1,
        named(other.1),
        named(first.1)
    );
    Err(Error::new(Kind::Corrupt, what)
        .hint("all parts must have the same columns in the same order"))
}

/// Reads the pointer `name`, and returns the folder that it points to.
fn read_pointer(reader: &Reader, name: &str, content: &Content) -> Result<Vec<EntryName>> {
    let bad = |what: &str| {
        Error::new(Kind::Corrupt, format!("{name}: {what}")).hint(
            "a pointer to parts is {\"_type\": \"partitioned-table\", \"parts_path\": \"folder\"}",
        )
    };
    if content.size_bytes() > POINTER_MAX_BYTES {
        return Err(bad("too long for a pointer to parts"));
    }
    let mut bytes = vec![0; content.size_bytes() as usize];
    let count = reader.read_at(content, 0, &mut bytes)?;
    bytes.truncate(count);
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|e| bad("not JSON").because(e))?;
    if value["_type"] != "partitioned-table" {
        return Err(bad(&format!("its \"_type\" is {}", value["_type"])));
    }
    let Some(path) = value["parts_path"].as_str() else {
        return Err(bad("it has no \"parts_path\""));
    };
    let inside = !path.starts_with('/') && !path.is_empty();
    let names = path.split('/').filter(|name| !name.is_empty() && *name != ".");
    let names: std::result::Result<Vec<_>, _> =
        names.map(|name| EntryName::try_from(name.as_bytes())).collect();
    match names {
        Ok(names) if inside && !names.is_empty() => Ok(names),
        _ => Err(bad(&format!(
            "\"{}\" does not lead to a folder of the version",
            path.escape_debug()
        ))),
    }
}
