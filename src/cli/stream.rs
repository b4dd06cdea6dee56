//! Long listings, printed as they come: memory does not follow their length.

use std::io::{BufWriter, IsTerminal, StdoutLock, Write};

use serde_json::Value;

use super::output::{Output, end_quietly};

/// A list under way: elements of one JSON array with `--json`, otherwise lines.
pub struct Stream {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
    terminal: bool,
    any: bool,
}

impl Stream {
    /// A list that has nothing yet. What fails before the first element leaves nothing printed.
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
        end_quietly(printed);
        self.any = true;
    }

    fn element(&mut self, document: &Value) -> std::io::Result<()> {
        self.out.write_all(if self.any { b",\n" } else { b"[\n" })?;
        let text = format!("{document:#}").replace('\n', "\n  ");
        write!(self.out, "  {text}")
    }

    /// On a terminal, which obeys what names hold, control characters are written out.
    fn line(&mut self, line: &[u8]) -> std::io::Result<()> {
        match self.terminal {
            true => writeln!(self.out, "{}", harmless(line)),
            false => self.out.write_all(line).and_then(|()| self.out.write_all(b"\n")),
        }
    }

    /// Ends the list.
    pub fn finish(mut self) {
        let ended = match (self.json, self.any) {
            (true, true) => self.out.write_all(b"\n]\n"),
            (true, false) => self.out.write_all(b"[]\n"),
            (false, _) => Ok(()),
        };
        end_quietly(ended.and_then(|()| self.out.flush()));
    }
}

/// Text as a terminal may have it: control characters, and bytes that are no text, as escapes.
pub fn harmless(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter.is_control() {
                true => text.extend(letter.escape_default()),
                false => text.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// What a document says of a name that is no text beside its nearest text: its bytes in hexadecimal.
pub fn name_in_json(document: &mut Value, key: &str, bytes: &[u8]) {
    document[key] = String::from_utf8_lossy(bytes).into();
    if std::str::from_utf8(bytes).is_err() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        document[format!("{key}_hex")] = hex.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_no_control_characters() {
        assert_eq!(harmless("é ü".as_bytes()), "é ü");
        assert_eq!(harmless(b"a\x1b[31m\nb\xff"), "a\\u{1b}[31m\\nb\\xff");
    }

    #[test]
    fn names_that_are_no_text_are_told_exactly() {
        let mut document = serde_json::json!({});
        name_in_json(&mut document, "name", b"a\xff");
        name_in_json(&mut document, "target", b"b");
        let wanted = serde_json::json!({ "name": "a\u{fffd}", "name_hex": "61ff", "target": "b" });
        assert_eq!(document, wanted);
    }
}
