//! Random tables, through every format and back.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use artifactfs::model::name::EntryName;
use artifactfs::ops::put::{PutRequest, Silent, put};
use artifactfs::ops::table::{Format, Table, show};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::parquet;
use crate::world::{World, write};

/// A cell of a random table.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Boolean(bool),
    Whole(i64),
    Number(f64),
    Text(String),
    Nested(Value),
}

impl Cell {
    /// Returns the cell as Python writes it.
    fn written(&self) -> String {
        match self {
            Self::Number(number) if number.is_nan() => "NaN".to_owned(),
            Self::Number(number) if number.is_infinite() => {
                if *number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
            }
            Self::Number(number) => json!(number).to_string(),
            other => other.json().to_string(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(value) => json!(value),
            Self::Whole(number) => json!(number),
            Self::Number(number) if number.is_finite() => json!(number),
            Self::Number(_) => json!(self.written()),
            Self::Text(text) => json!(text),
            Self::Nested(value) => value.clone(),
        }
    }

    /// Returns the cell in CSV, where null and empty text are equal.
    fn shown(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Text(text) => text.clone(),
            other => other.written(),
        }
    }
}

/// Generates columns whose cells are of one kind, or of any.
fn cells(rows: usize) -> impl Strategy<Value = Vec<Cell>> {
    let text = "[ -~\n\r\t\u{e4}\u{4e2d}\u{1f600}]{0,12}";
    let boolean = any::<bool>().prop_map(Cell::Boolean).boxed();
    let whole = any::<i64>().prop_map(Cell::Whole).boxed();
    let odd = prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -0.5]);
    let number = prop_oneof![odd, any::<i32>().prop_map(|n| f64::from(n) / 8.0)];
    let number = number.prop_map(Cell::Number).boxed();
    let text = text.prop_map(Cell::Text).boxed();
    let nested = prop_oneof![
        Just(json!([])),
        Just(json!([1, [null, "a]\""], {"k": true}])),
        Just(json!({"_type": "image-file", "path": "NaN"})),
    ];
    let nested = nested.prop_map(Cell::Nested).boxed();
    let any_kind =
        prop_oneof![boolean.clone(), whole.clone(), number.clone(), text.clone(), nested.clone()];
    let kinds = vec![boolean, whole, number, text, nested, any_kind.boxed()];
    prop::sample::select(kinds).prop_flat_map(move |kind| {
        prop::collection::vec(prop_oneof![1 => Just(Cell::Null), 4 => kind], rows..=rows)
    })
}

/// Generates columns of equal length.
fn random_table() -> impl Strategy<Value = Vec<Vec<Cell>>> {
    (0usize..24).prop_flat_map(|rows| prop::collection::vec(cells(rows), 1..5))
}

fn document_of(columns: &[Vec<Cell>], names: &[String], pretty: bool) -> String {
    let rows = columns[0].len();
    let row = |row: usize| {
        let cells: Vec<_> = columns.iter().map(|column| column[row].written()).collect();
        format!("[{}]", cells.join(if pretty { " ,\n\t" } else { ", " }))
    };
    let data: Vec<_> = (0..rows).map(row).collect();
    let (names, data) = (json!(names), data.join(", "));
    match pretty {
        true => {
            format!("{{\n \"nrows\": {rows},\n \"data\" : [{data} ],\n \"columns\":{names}}}\n")
        }
        false => format!("{{\"columns\": {names}, \"data\": [{data}]}}"),
    }
}

/// Returns a column of a Parquet file, as the cells it was made of.
fn read_column(batches: &[RecordBatch], index: usize) -> Vec<Cell> {
    let mut cells = Vec::new();
    for batch in batches {
        let column = batch.column(index);
        for row in 0..batch.num_rows() {
            cells.push(match column.data_type() {
                _ if column.is_null(row) => Cell::Null,
                DataType::Boolean => Cell::Boolean(column.as_boolean().value(row)),
                DataType::Int64 => Cell::Whole(column.as_primitive::<Int64Type>().value(row)),
                DataType::Float64 => Cell::Number(column.as_primitive::<Float64Type>().value(row)),
                DataType::Utf8 => Cell::Text(column.as_string::<i32>().value(row).to_owned()),
                other => panic!("{other}"),
            });
        }
    }
    cells
}

/// Returns whether a column came back: as it was, as numbers, or as JSON if its cells are of
/// several kinds.
fn same_column(wrote: &[Cell], read: &[Cell]) -> bool {
    let same = |(wrote, read): (&Cell, &Cell)| match (wrote, read) {
        (Cell::Number(wrote), Cell::Number(read)) => {
            wrote.to_bits() == read.to_bits() || wrote.is_nan() && read.is_nan()
        }
        (Cell::Whole(wrote), Cell::Number(read)) => *wrote as f64 == *read,
        (wrote, read) => wrote == read,
    };
    let json = |(wrote, read): (&Cell, &Cell)| match read {
        Cell::Text(text) => serde_json::from_str::<Value>(text).is_ok_and(|v| v == wrote.json()),
        read => *wrote == Cell::Null && *read == Cell::Null,
    };
    wrote.len() == read.len()
        && (wrote.iter().zip(read).all(same) || wrote.iter().zip(read).all(json))
}

#[test]
fn random_tables_come_back_from_every_format() {
    let world = World::new();
    let repository = world.open();
    let file = world.path("t.table.json");
    let strategy = (random_table(), any::<bool>());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let ran = runner.run(&strategy, |(columns, pretty)| {
        let names: Vec<_> = (0..columns.len()).map(|index| format!("c{index}")).collect();
        write(&file, document_of(&columns, &names, pretty).as_bytes());
        let request = PutRequest::plain(file.clone(), "p/a".parse().unwrap());
        let done = put(&repository, &request, Arc::new(Silent)).unwrap().committed.unwrap();
        let reference = format!("{}:{}", done.path, done.number).parse().unwrap();
        let version = repository.registry.lookup(reference).unwrap();
        let path = [EntryName::try_from(&b"t.table.json"[..]).unwrap()];
        let table = Table::open(&repository.reader, &version, &path).unwrap();
        prop_assert_eq!(table.columns(), &names[..]);
        let shown = |format| {
            let mut out = Vec::new();
            show(&table, format, None, &mut out).map(|_| out).unwrap()
        };
        let document: Value = serde_json::from_slice(&shown(Format::Json)).unwrap();
        let rows = columns[0].len();
        let data: Vec<Vec<Value>> = (0..rows)
            .map(|row| columns.iter().map(|column| column[row].json()).collect())
            .collect();
        prop_assert_eq!(&document, &json!({ "columns": &names, "data": data }));
        let batches = parquet(shown(Format::Parquet));
        let csv = shown(Format::Csv);
        let mut csv = csv::Reader::from_reader(&csv[..]);
        prop_assert_eq!(csv.headers().unwrap(), &csv::StringRecord::from(names.clone()));
        let records: Vec<_> = csv.records().map(Result::unwrap).collect();
        prop_assert_eq!(records.len(), rows);
        for (index, column) in columns.iter().enumerate() {
            let read = read_column(&batches, index);
            prop_assert!(same_column(column, &read), "{:?} came back as {:?}", column, read);
            let wanted: Vec<_> = column.iter().map(Cell::shown).collect();
            let read: Vec<_> = records.iter().map(|record| record[index].to_owned()).collect();
            prop_assert_eq!(read, wanted);
        }
        Ok(())
    });
    if let Err(failed) = ran {
        panic!("{failed}");
    }
}
