//! Long listings, printed as they come: memory does not grow with their length.

use std::io::{BufWriter, IsTerminal, StdoutLock, Write};

use serde_json::Value;

use super::output::{Output, end_quietly};
use super::text::harmless;

/// A list that is being printed: elements of one JSON array with `--json`, otherwise lines.
pub struct Stream {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
    terminal: bool,
    any: bool,
}

impl Stream {
    /// Creates an empty list. Nothing is printed before the first element or [`Stream::finish`].
    pub fn new(output: Output) -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        Self { out: BufWriter::new(stdout.lock()), json: output.json, terminal, any: false }
    }

    /// Prints one element.
    pub fn print(&mut self, document: impl FnOnce() -> Value, line: impl FnOnce() -> Vec<u8>) {
        let printed = match self.json {
            true => self.element(&document()),
            false => self.line(&line()),
        };
        end_quietly(printed, self.json);
        self.any = true;
    }

    fn element(&mut self, document: &Value) -> std::io::Result<()> {
        self.out.write_all(if self.any { b",\n" } else { b"[\n" })?;
        let text = format!("{document:#}").replace('\n', "\n  ");
        write!(self.out, "  {text}")
    }

    /// Writes a line; on a terminal control characters are escaped, since it would obey them.
    fn line(&mut self, line: &[u8]) -> std::io::Result<()> {
        match self.terminal {
            true => writeln!(self.out, "{}", harmless(line)),
            false => self.out.write_all(line).and_then(|()| self.out.write_all(b"\n")),
        }
    }

    /// Ends the list and writes it out.
    pub fn finish(mut self) {
        let ended = match (self.json, self.any) {
            (true, true) => self.out.write_all(b"\n]\n"),
            (true, false) => self.out.write_all(b"[]\n"),
            (false, _) => Ok(()),
        };
        end_quietly(ended.and_then(|()| self.out.flush()), self.json);
    }
}
