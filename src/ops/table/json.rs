//! JSON, read forwards: a value at a time, however long the text is.
//!
//! This module finds where a value ends, and leaves its content to `serde_json`. Python writes the
//! tokens `NaN`, `Infinity` and `-Infinity`, which JSON does not have. They are covered with
//! strings of the same length first, so that every position stays what it was.

use std::borrow::Cow;

use crate::error::{Error, Kind, Result};

/// The bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// The tokens that JSON does not have, longest first where one contains another.
const NOT_FINITE: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// A function that fills a buffer from a position on, and returns how many bytes it read.
pub(crate) type Fetch<'a> = dyn FnMut(u64, &mut [u8]) -> Result<usize> + 'a;

/// A JSON text, and how far it is read.
pub(crate) struct Json<'a> {
    name: String,
    fetch: Box<Fetch<'a>>,
    buffer: Vec<u8>,
    at: usize,
    /// The position in the text at which the buffer begins.
    before: u64,
    ended: bool,
}

impl<'a> Json<'a> {
    /// Makes a reader of the text that `fetch` supplies; errors call it `name`.
    pub(crate) fn new(name: String, fetch: Box<Fetch<'a>>) -> Self {
        Self { name, fetch, buffer: Vec::new(), at: 0, before: 0, ended: false }
    }

    /// Returns the name that errors use.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns how far the text is read, in bytes.
    pub(crate) fn offset(&self) -> u64 {
        self.before + self.at as u64
    }

    /// Returns an error that says what is wrong, and where.
    pub(crate) fn bad(&self, what: &str, offset: u64) -> Error {
        Error::new(Kind::Corrupt, format!("{}: {what} at byte {offset}", self.name))
            .hint("a table is a JSON object with \"columns\" and \"data\", a list of rows")
    }

    /// Reads on. Returns `false` at the end.
    fn fill(&mut self) -> Result<bool> {
        if self.at < self.buffer.len() {
            return Ok(true);
        }
        if self.ended {
            return Ok(false);
        }
        self.before += self.buffer.len() as u64;
        self.at = 0;
        self.buffer.resize(BUFFER_BYTES, 0);
        let count = (self.fetch)(self.before, &mut self.buffer);
        self.buffer.truncate(*count.as_ref().unwrap_or(&0));
        self.ended = count? == 0;
        Ok(!self.ended)
    }

    /// Returns the next byte that is not white space, without taking it.
    pub(crate) fn peek(&mut self) -> Result<Option<u8>> {
        while self.fill()? {
            let rest = &self.buffer[self.at..];
            match rest.iter().position(|byte| !is_space(*byte)) {
                Some(spaces) => {
                    self.at += spaces;
                    return Ok(Some(self.buffer[self.at]));
                }
                None => self.at = self.buffer.len(),
            }
        }
        Ok(None)
    }

    /// Takes the byte that [`Json::peek`] returned.
    pub(crate) fn take(&mut self) {
        self.at += 1;
    }

    /// Takes `wanted`, which must come next.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if another byte does.
    pub(crate) fn expect(&mut self, wanted: u8) -> Result<()> {
        match self.peek()? {
            Some(found) if found == wanted => {
                self.take();
                Ok(())
            }
            found => Err(self.unexpected(&format!("'{}'", char::from(wanted)), found)),
        }
    }

    /// Returns the error that `found` comes next instead of `wanted`.
    pub(crate) fn unexpected(&self, wanted: &str, found: Option<u8>) -> Error {
        let found = match found {
            Some(byte) => format!("'{}'", byte.escape_ascii()),
            None => "the end".to_owned(),
        };
        self.bad(&format!("expected {wanted}, found {found}"), self.offset())
    }

    /// Reads the next value to `text`, whose content is lost. Returns the offset at which it
    /// begins.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if there is none, it does not end, or it is longer than `max_bytes`.
    pub(crate) fn value(&mut self, text: &mut Vec<u8>, max_bytes: usize) -> Result<u64> {
        text.clear();
        let began = self.begin()?;
        self.each_part(&mut |json, part| {
            if text.len() + part.len() > max_bytes {
                let what = format!("a value is longer than {max_bytes} bytes");
                return Err(json.bad(&what, began));
            }
            text.extend_from_slice(&json.buffer[part]);
            Ok(())
        })?;
        Ok(began)
    }

    /// Skips the next value without looking at its content.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if there is none or it does not end.
    pub(crate) fn skip(&mut self) -> Result<()> {
        self.begin()?;
        self.each_part(&mut |_, _| Ok(()))
    }

    fn begin(&mut self) -> Result<u64> {
        match self.peek()? {
            Some(byte) if !is_end(byte) && byte != b':' => Ok(self.offset()),
            found => Err(self.unexpected("a value", found)),
        }
    }

    /// Calls `each` with the parts of the value that are in the buffer, until it ends.
    fn each_part(
        &mut self,
        each: &mut dyn FnMut(&Self, std::ops::Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let mut shape = Shape::default();
        while self.fill()? {
            let from = self.at;
            let (length, done) = shape.take(&self.buffer[from..]);
            self.at += length;
            each(self, from..from + length)?;
            if done {
                return Ok(());
            }
        }
        if shape.number { Ok(()) } else { Err(self.unexpected("the rest of a value", None)) }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// Reports whether a byte ends a number, `true`, `false` or `null`.
fn is_end(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b',' | b']' | b'}')
}

/// The state of a value that is read in part, as far as it decides where the value ends.
#[derive(Default)]
struct Shape {
    depth: u64,
    string: bool,
    escaped: bool,
    /// True in a number or a word outside of everything else.
    number: bool,
}

impl Shape {
    /// Returns how many of `bytes` still belong to the value, and whether it ends with them.
    fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.escaped {
                self.escaped = false;
                at += 1;
            } else if self.string {
                let special = bytes[at..].iter().position(|b| matches!(b, b'"' | b'\\'));
                let Some(plain) = special else { break };
                at += plain + 1;
                self.escaped = bytes[at - 1] == b'\\';
                self.string = self.escaped;
                if !self.string && self.depth == 0 {
                    return (at, true);
                }
            } else if self.number {
                if is_end(byte) {
                    return (at, true);
                }
                at += 1;
            } else {
                at += 1;
                match byte {
                    b'"' => self.string = true,
                    b'[' | b'{' => self.depth += 1,
                    b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                    _ => self.number = self.depth == 0,
                }
                if self.depth == 0 && matches!(byte, b']' | b'}') {
                    return (at, true);
                }
            }
        }
        (bytes.len(), false)
    }
}

/// Calls `each` with every token outside of strings that JSON does not have, after the text before
/// it. Returns the text behind the last.
fn each_token<'t>(text: &'t str, each: &mut dyn FnMut(&'t str, &'t str)) -> &'t str {
    let bytes = text.as_bytes();
    let (mut string, mut at, mut done) = (false, 0, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if string => at += 1,
            b'"' => string = !string,
            b'N' | b'I' | b'-' if !string => {
                let token =
                    NOT_FINITE.iter().find(|token| bytes[at..].starts_with(token.as_bytes()));
                if let Some(token) = token {
                    each(&text[done..at], &text[at..at + token.len()]);
                    at += token.len();
                    done = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    &text[done..]
}

/// Returns the text with such tokens covered by strings of their length, if there are any.
pub(crate) fn cover(text: &str) -> Cow<'_, str> {
    with_tokens(text, &|out, token| {
        out.push('"');
        out.push_str(&token[1..token.len() - 1]);
        out.push('"');
    })
}

/// Returns the text as JSON: such tokens become strings.
pub(crate) fn as_json(text: &str) -> Cow<'_, str> {
    with_tokens(text, &|out, token| {
        out.push('"');
        out.push_str(token);
        out.push('"');
    })
}

fn with_tokens<'t>(text: &'t str, put: &dyn Fn(&mut String, &str)) -> Cow<'t, str> {
    if !text.bytes().any(|byte| matches!(byte, b'N' | b'I')) {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let rest = each_token(text, &mut |before, token| {
        out.push_str(before);
        put(&mut out, token);
    });
    if out.is_empty() {
        return Cow::Borrowed(text);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Returns the offset in `text` at which `serde_json` found an error.
pub(crate) fn position(text: &str, error: &serde_json::Error) -> u64 {
    let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    let before: usize = lines.map(str::len).sum();
    (before + error.column().saturating_sub(1)).min(text.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns a reader of a text that comes `step` bytes at a time.
    fn in_steps(text: &str, step: usize) -> Json<'_> {
        let fetch = move |offset: u64, buffer: &mut [u8]| {
            let rest = &text.as_bytes()[(offset as usize).min(text.len())..];
            let count = rest.len().min(step).min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        };
        Json::new("t".to_owned(), Box::new(fetch))
    }

    #[test]
    fn a_value_ends_where_it_ends_wherever_the_buffer_does() {
        let values = [
            "1",
            "-1.5e+3",
            "NaN",
            "-Infinity",
            "true",
            "null",
            "\"\"",
            "\"a\\\\\"",
            "\"\\\"]\"",
            "[]",
            "{}",
            "[[1,NaN],{\"a\":\"]}\"}]",
            "{\"\\\\\":[\"\\\"\"]}",
            "\"\u{e4}\u{1f600}\"",
        ];
        for value in values {
            for behind in ["", ",", " , ", "]", "}", "\n"] {
                let text = format!(" {value}{behind}");
                for step in 1..=text.len() {
                    let mut kept = Vec::new();
                    let mut json = in_steps(&text, step);
                    assert_eq!(json.value(&mut kept, 99).unwrap(), 1, "{text} by {step}");
                    assert_eq!(kept, value.as_bytes(), "{text} by {step}");
                    assert_eq!(json.offset(), 1 + value.len() as u64);
                    let mut skipped = in_steps(&text, step);
                    skipped.skip().unwrap();
                    assert_eq!(skipped.offset(), json.offset(), "{text} by {step}");
                    assert_eq!(json.peek().unwrap(), behind.trim().bytes().next());
                }
            }
        }
    }

    #[test]
    fn what_does_not_end_or_is_too_long_is_told() {
        for text in ["", " ", "[1", "\"a", "\"a\\", "{\"a\":", "[\"]", ",", "]", ":"] {
            let mut kept = Vec::new();
            let error = in_steps(text, 2).value(&mut kept, 99).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{text}");
            assert!(error.message().contains("at byte"), "{error}");
        }
        let mut kept = Vec::new();
        let error = in_steps("[1,2,3,4]", 2).value(&mut kept, 5).unwrap_err();
        assert!(error.message().contains("longer than 5 bytes at byte 0"), "{error}");
    }

    #[test]
    fn tokens_are_covered_where_they_are_tokens() {
        assert_eq!(cover("[NaN, -Infinity, Infinity]"), "[\"a\", \"Infinit\", \"nfinit\"]");
        assert_eq!(as_json("[NaN, -Infinity]"), "[\"NaN\", \"-Infinity\"]");
        for same in ["[\"NaN\"]", "[\"\\\"NaN\"]", "[\"\\\\\", \"I\"]", "[-1, 2]", "[Nan]"] {
            assert!(matches!(cover(same), Cow::Borrowed(text) if text == same), "{same}");
        }
        for bad in ["[1NaN]", "[-NaN]", "[NaN1]", "[NaNNaN]", "[--Infinity]", "[Nan]", "[nan]"] {
            assert!(serde_json::from_str::<serde_json::Value>(&cover(bad)).is_err(), "{bad}");
        }
    }

    /// Generates JSON as Python writes it, and the same with its tokens as text.
    fn python() -> impl Strategy<Value = (String, String)> {
        let text =
            "[ -~\u{e4}\u{1f600}]{0,8}".prop_map(|text| serde_json::to_string(&text).unwrap());
        let same = |text: String| (text.clone(), text);
        let leaf = prop_oneof![
            text.clone().prop_map(same),
            any::<i64>().prop_map(|number| (number.to_string(), number.to_string())),
            prop::sample::select(NOT_FINITE.to_vec())
                .prop_map(|token| (token.to_owned(), format!("\"{token}\""))),
            prop::sample::select(vec!["null", "true", "1.5e-7", "\"NaN\"", "\"\\\\\\\"NaN\""])
                .prop_map(|value| (value.to_owned(), value.to_owned())),
        ];
        leaf.prop_recursive(3, 24, 6, move |inner| {
            let list = prop::collection::vec(inner.clone(), 0..6).prop_map(|items| {
                let (left, right): (Vec<_>, Vec<_>) = items.into_iter().unzip();
                (format!("[{}]", left.join(", ")), format!("[{}]", right.join(", ")))
            });
            let object = prop::collection::vec((text.clone(), inner), 0..6).prop_map(|items| {
                let side = |right: bool| {
                    let pair = |(key, value): &(String, (String, String))| {
                        format!("{key}: {}", if right { &value.1 } else { &value.0 })
                    };
                    format!("{{{}}}", items.iter().map(pair).collect::<Vec<_>>().join(", "))
                };
                (side(false), side(true))
            });
            prop_oneof![list, object]
        })
    }

    proptest! {
        #[test]
        fn tokens_become_text_and_nothing_else_changes((written, wanted) in python()) {
            prop_assert_eq!(&*as_json(&written), &wanted);
            let covered = cover(&written);
            prop_assert_eq!(covered.len(), written.len());
            prop_assert!(serde_json::from_str::<serde_json::Value>(&covered).is_ok());
        }

        #[test]
        fn a_value_is_found_in_any_steps((written, _) in python(), step in 1usize..40) {
            let text = format!("{written} ,");
            let mut kept = Vec::new();
            let mut json = in_steps(&text, step);
            json.value(&mut kept, 1 << 20).unwrap();
            prop_assert_eq!(kept, written.as_bytes());
            prop_assert_eq!(json.peek().unwrap(), Some(b','));
        }
    }
}
