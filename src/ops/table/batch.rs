//! Batches: a bounded number of rows, column by column.

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use super::cell::{Cell, ColumnType};

/// The number of rows with which a batch is full …
const BATCH_ROWS: usize = 8_192;
/// … and the number of bytes of rows.
const BATCH_BYTES: usize = 4 << 20;

/// Returns the schema of columns of these names and types.
pub(crate) fn schema(names: &[String], types: &[ColumnType]) -> SchemaRef {
    let field = |(name, column): (&String, &ColumnType)| {
        let data_type = match column {
            ColumnType::Boolean => DataType::Boolean,
            ColumnType::Whole => DataType::Int64,
            ColumnType::Number => DataType::Float64,
            ColumnType::Text | ColumnType::Json => DataType::Utf8,
        };
        Field::new(name, data_type, true)
    };
    Arc::new(Schema::new(names.iter().zip(types).map(field).collect::<Vec<_>>()))
}

enum Column {
    Boolean(BooleanBuilder),
    Whole(Int64Builder),
    Number(Float64Builder),
    Text(StringBuilder),
    Json(StringBuilder),
}

impl Column {
    fn new(column: ColumnType) -> Self {
        match column {
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::new()),
            ColumnType::Whole => Self::Whole(Int64Builder::new()),
            ColumnType::Number => Self::Number(Float64Builder::new()),
            ColumnType::Text => Self::Text(StringBuilder::new()),
            ColumnType::Json => Self::Json(StringBuilder::new()),
        }
    }

    fn push(&mut self, cell: &Cell<'_>) {
        match self {
            Self::Boolean(builder) => builder.append_option(match cell {
                Cell::Boolean(value) => Some(*value),
                _ => None,
            }),
            Self::Whole(builder) => builder.append_option(cell.whole()),
            Self::Number(builder) => builder.append_option(cell.number()),
            Self::Text(builder) => builder.append_option(cell.as_text()),
            Self::Json(builder) => builder.append_option(cell.json().as_deref()),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Whole(builder) => Arc::new(builder.finish()),
            Self::Number(builder) => Arc::new(builder.finish()),
            Self::Text(builder) | Self::Json(builder) => Arc::new(builder.finish()),
        }
    }
}

/// Rows that are not written yet.
pub(crate) struct Batch {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    size_bytes: usize,
}

impl Batch {
    /// Makes an empty batch.
    pub(crate) fn new(names: &[String], types: &[ColumnType]) -> Self {
        let columns = types.iter().map(|column| Column::new(*column)).collect();
        Self { schema: schema(names, types), columns, rows: 0, size_bytes: 0 }
    }

    /// Returns the schema of its columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Adds a row, of `size_bytes` as it is written.
    pub(crate) fn push<'c>(&mut self, cells: impl Iterator<Item = Cell<'c>>, size_bytes: usize) {
        self.columns.iter_mut().zip(cells).for_each(|(column, cell)| column.push(&cell));
        self.rows += 1;
        self.size_bytes += size_bytes;
    }

    /// Reports whether the batch is to be written.
    pub(crate) fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.size_bytes >= BATCH_BYTES
    }

    /// Returns the rows, and empties the batch.
    pub(crate) fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        (self.rows, self.size_bytes) = (0, 0);
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
    }
}
