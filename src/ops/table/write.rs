//! A table as text, JSON, CSV or Parquet, written as it is read.

use std::error::Error as StdError;
use std::io::{self, Write};

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::batch::Batch;
use super::cell::ColumnType;
use super::text::Lines;
use super::{Format, Rows, Table};
use crate::error::{Error, Kind, Result};

/// The number of encoded bytes with which a row group of a Parquet file is closed.
const ROW_GROUP_BYTES: usize = 16 << 20;
/// The maximum length of a table that is read to its end to count its rows.
const COUNTED_BYTES: u64 = 64 << 20;

/// The result of writing a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// The number of rows written.
    pub rows: u64,
    /// True if there are more rows; only text looks for them.
    pub more: bool,
    /// The number of all rows, if text has seen them.
    pub all: Option<u64>,
}

/// Writes the first `limit` rows of `table`, or all, to `to`.
///
/// # Errors
/// [`Kind::Unsupported`] for a table with values in another file. Rows that were read before an
/// error are written.
pub fn show(
    table: &Table<'_>,
    format: Format,
    limit: Option<u64>,
    to: impl Write + Send,
) -> Result<Shown> {
    table.refuse_elsewhere()?;
    let limit = limit.unwrap_or(u64::MAX);
    let mut rows = Limited { rows: table.rows(), left: limit, done: 0 };
    match format {
        Format::Text => text(table, &mut rows, to)?,
        Format::Json => json(table, &mut rows, to)?,
        Format::Csv => csv(table, &mut rows, to)?,
        Format::Parquet => {
            let types = table.column_types(limit)?;
            parquet(table, &types, &mut rows, to)?;
        }
    }
    match format {
        Format::Text => rows.finish(table.size_bytes),
        _ => Ok(Shown { rows: rows.done, more: false, all: None }),
    }
}

/// The first rows of a table, up to a limit.
struct Limited<'a> {
    rows: Rows<'a>,
    left: u64,
    done: u64,
}

impl Limited<'_> {
    fn advance(&mut self) -> Result<bool> {
        if self.left == 0 || !self.rows.advance()? {
            return Ok(false);
        }
        self.left -= 1;
        self.done += 1;
        Ok(true)
    }

    /// Returns the result. A short table is read to its end for that.
    fn finish(mut self, size_bytes: u64) -> Result<Shown> {
        let rows = self.done;
        if self.left > 0 {
            return Ok(Shown { rows, more: false, all: Some(rows) });
        }
        let more = self.rows.advance()?;
        let mut all = rows + u64::from(more);
        if more && size_bytes > COUNTED_BYTES {
            return Ok(Shown { rows, more, all: None });
        }
        while more && self.rows.advance()? {
            all += 1;
        }
        Ok(Shown { rows, more, all: Some(all) })
    }
}

fn text(table: &Table<'_>, rows: &mut Limited<'_>, to: impl Write) -> Result<()> {
    let mut lines = Lines::new(to, table.columns());
    while rows.advance()? {
        lines.push(rows.rows.row().cells()).map_err(cannot_write)?;
    }
    lines.finish().map_err(cannot_write)
}

fn json(table: &Table<'_>, rows: &mut Limited<'_>, mut to: impl Write) -> Result<()> {
    let names = serde_json::to_string(table.columns())
        .map_err(|e| Error::new(Kind::Unavailable, "cannot write the columns").because(e))?;
    write!(to, "{{\n  \"columns\": {names},\n  \"data\": [").map_err(cannot_write)?;
    let mut before = "\n    ";
    while rows.advance()? {
        write!(to, "{before}{}", rows.rows.row().json()).map_err(cannot_write)?;
        before = ",\n    ";
    }
    let end = if rows.done == 0 { "]\n}" } else { "\n  ]\n}" };
    writeln!(to, "{end}").and_then(|()| to.flush()).map_err(cannot_write)
}

/// Writes every cell as it is in the table, text without its quotes.
fn csv(table: &Table<'_>, rows: &mut Limited<'_>, to: impl Write) -> Result<()> {
    if table.columns().is_empty() {
        return Ok(());
    }
    let mut writer = csv::Writer::from_writer(to);
    writer.write_record(table.columns()).map_err(not_written)?;
    while rows.advance()? {
        for cell in rows.rows.row().cells() {
            writer
                .write_field(cell.as_text().unwrap_or_default().as_bytes())
                .map_err(not_written)?;
        }
        writer.write_record(None::<&[u8]>).map_err(not_written)?;
    }
    writer.flush().map_err(cannot_write)
}

fn parquet(
    table: &Table<'_>,
    types: &[ColumnType],
    rows: &mut Limited<'_>,
    to: impl Write + Send,
) -> Result<()> {
    let mut batch = Batch::new(table.columns(), types);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(concat!("artifactfs ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let schema = std::sync::Arc::clone(batch.schema());
    let mut writer = ArrowWriter::try_new(to, schema, Some(properties)).map_err(not_written)?;
    loop {
        let more = rows.advance()?;
        if more {
            let row = rows.rows.row();
            batch.push(row.cells(), row.size_bytes());
        }
        if !more || batch.is_full() {
            let taken = batch.take().map_err(not_written)?;
            writer.write(&taken).map_err(not_written)?;
            if writer.memory_size() >= ROW_GROUP_BYTES {
                writer.flush().map_err(not_written)?;
            }
        }
        if !more {
            let mut to = writer.into_inner().map_err(not_written)?;
            return to.flush().map_err(cannot_write);
        }
    }
}

fn cannot_write(error: io::Error) -> Error {
    Error::io("cannot write the table", error)
}

/// Finds the I/O error that the crates wrap, so that a full disk is reported as one.
fn not_written(error: impl StdError + Send + Sync + 'static) -> Error {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(at) = cause {
        if let Some(io) = at.downcast_ref::<io::Error>() {
            return Error::io("cannot write the table", io::Error::new(io.kind(), io.to_string()));
        }
        cause = at.source();
    }
    Error::new(Kind::Unavailable, "cannot write the table").because(error)
}
