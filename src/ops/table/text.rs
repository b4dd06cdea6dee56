//! Tables for people: aligned columns, long cells shortened.

use std::io::{self, Write};

use super::cell::Cell;

/// The number of rows that decide the widths; rows behind them may stick out.
const ALIGNED_ROWS: usize = 1_000;
/// The bytes of waiting cells with which the widths are decided earlier: rows may have many cells.
const ALIGNED_BYTES: usize = 4 << 20;
/// The maximum length of a cell that is shown whole, in characters.
const CELL_CHARACTERS: usize = 60;

/// A writer of lines, which are written as soon as their columns' widths are known.
pub(crate) struct Lines<W> {
    to: W,
    waiting: Vec<Vec<String>>,
    waiting_bytes: usize,
    widths: Option<Vec<usize>>,
}

impl<W: Write> Lines<W> {
    /// Makes a writer that begins with a line of names.
    pub(crate) fn new(to: W, names: &[String]) -> Self {
        let names = names.iter().map(|name| shortened(name)).collect();
        Self { to, waiting: vec![names], waiting_bytes: 0, widths: None }
    }

    /// Adds a row.
    pub(crate) fn push<'c>(&mut self, cells: impl Iterator<Item = Cell<'c>>) -> io::Result<()> {
        let row: Vec<String> = cells.map(|cell| shortened(cell.as_text().unwrap_or("-"))).collect();
        if let Some(widths) = &self.widths {
            return write_line(&mut self.to, &row, widths);
        }
        self.waiting_bytes +=
            row.iter().map(|cell| size_of::<String>() + cell.len()).sum::<usize>();
        self.waiting.push(row);
        let enough = self.waiting.len() > ALIGNED_ROWS || self.waiting_bytes > ALIGNED_BYTES;
        if enough { self.write_waiting() } else { Ok(()) }
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.waiting);
        let columns = rows.first().map_or(0, Vec::len);
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        rows.iter().try_for_each(|row| write_line(&mut self.to, row, &widths))?;
        self.widths = Some(widths);
        Ok(())
    }

    /// Writes the lines that wait.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.write_waiting()?;
        self.to.flush()
    }
}

fn write_line(to: &mut impl Write, row: &[String], widths: &[usize]) -> io::Result<()> {
    let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
    writeln!(to, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())
}

/// Returns a cell in one line, cut after [`CELL_CHARACTERS`].
fn shortened(text: &str) -> String {
    let mut out = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == CELL_CHARACTERS {
            out.push('…');
            break;
        }
        match character.is_control() {
            true => out.extend(character.escape_default()),
            false => out.push(character),
        }
    }
    out
}
