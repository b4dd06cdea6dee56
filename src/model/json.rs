//! JSON as people and Python write it: one rule for all input.
//!
//! `NaN`, `Infinity` and `-Infinity`, which JSON does not have and Python writes, become text, as
//! in runs. An integer that does not fit into 64 bits is refused, since it would be kept as another
//! number.

use serde_json::Value;

use crate::error::{Error, Kind, Result};

/// The texts for numbers that JSON does not have, as W&B writes them.
pub(crate) const NOT_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Returns a number as JSON; NaN and the infinities as text.
pub fn number(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => NOT_FINITE[0].into(),
        None if value > 0.0 => NOT_FINITE[1].into(),
        None => NOT_FINITE[2].into(),
    }
}

/// The reason why a text is not a value.
enum Problem {
    /// An integer that cannot be kept.
    Integer(String),
    /// A text that is not JSON.
    Syntax(serde_json::Error),
}

/// Parses a value.
///
/// # Errors
/// [`Kind::Usage`] for a text that is not JSON, and for an integer of more than 64 bits.
pub(crate) fn parse(text: &str) -> Result<Value> {
    read(text).map_err(|problem| match problem {
        Problem::Integer(digits) => too_large(&digits),
        Problem::Syntax(e) => Error::new(Kind::Usage, e.to_string()),
    })
}

/// Parses a value from a text that may be something else; `None` if it is not JSON.
///
/// # Errors
/// [`Kind::Usage`] for an integer of more than 64 bits.
pub fn parse_if_json(text: &str) -> Result<Option<Value>> {
    match read(text) {
        Ok(value) => Ok(Some(value)),
        Err(Problem::Syntax(_)) => Ok(None),
        Err(Problem::Integer(digits)) => Err(too_large(&digits)),
    }
}

/// Parses the value after `KEY=`: JSON, a number that JSON does not have, or else text. An integer
/// of more than 64 bits becomes text.
///
/// # Errors
/// [`Kind::Usage`] for a list or object with such an integer in it.
pub fn parse_or_text(text: &str) -> Result<Value> {
    match read(text) {
        Ok(value) => Ok(value),
        Err(Problem::Integer(digits)) if digits != text.trim() => Err(too_large(&digits)),
        Err(Problem::Integer(digits)) => Ok(digits.into()),
        // A number with leading zeros is more likely a name.
        Err(Problem::Syntax(_)) if is_integer(text) => Ok(text.into()),
        Err(Problem::Syntax(_)) => Ok(text.parse::<f64>().map_or_else(|_| text.into(), number)),
    }
}

fn too_large(digits: &str) -> Error {
    Error::new(Kind::Usage, format!("the integer {digits} has more than 64 bits"))
        .hint("write it as text: \"…\"")
}

fn read(text: &str) -> Result<Value, Problem> {
    let mut plain = String::with_capacity(text.len());
    let mut large = None;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => string_length(rest),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '+' | '-' | '.' => word_length(rest),
            _ => first.len_utf8(),
        };
        let (token, behind) = rest.split_at(length);
        let is_key = || behind.trim_start().starts_with(':');
        if NOT_FINITE.contains(&token) && !is_key() {
            plain.extend(["\"", token, "\""]);
        } else if is_integer(token) && !fits(token) {
            // An integer is refused only in a text that is otherwise JSON.
            large.get_or_insert_with(|| token.to_owned());
            plain.push('0');
        } else {
            plain.push_str(token);
        }
        rest = behind;
    }
    let value = serde_json::from_str(&plain).map_err(Problem::Syntax)?;
    large.map_or(Ok(value), |digits| Err(Problem::Integer(digits)))
}

/// Refuses a number that another parser has read, if `text` holds it as an integer of more than 64
/// bits.
///
/// # Errors
/// [`Kind::Usage`] for such a number.
pub fn refuse_large(text: &str, read: f64) -> Result<()> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
    let large = |word: &&str| {
        is_integer(word) && !fits(word) && word.parse::<f64>().is_ok_and(|value| value == read)
    };
    match text.split(|letter| !is_word(letter)).find(large) {
        Some(digits) => Err(too_large(digits)),
        None => Ok(()),
    }
}

/// Returns the length of the string at the start of a text; that of the whole text if the string
/// does not end.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn word_length(text: &str) -> usize {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    text.bytes().position(|byte| !is_word(byte)).unwrap_or(text.len())
}

fn is_integer(token: &str) -> bool {
    let digits = token.strip_prefix('-').unwrap_or(token);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn fits(integer: &str) -> bool {
    integer.parse::<i64>().is_ok() || integer.parse::<u64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same(text: &str) -> String {
        parse(text).unwrap().to_string()
    }

    #[test]
    fn what_python_writes_is_read() {
        assert_eq!(same(r#"{"a": NaN, "b": [Infinity, -Infinity]}"#), {
            r#"{"a":"NaN","b":["Infinity","-Infinity"]}"#
        });
        assert_eq!(same(r#""NaN, \"Infinity, 12345678901234567890123""#), {
            r#""NaN, \"Infinity, 12345678901234567890123""#
        });
        for bad in ["{NaN: 1}", "[-NaN]", "[NaN1]", "[nan]", "[1 2]", "\"", "", "[+Infinity]"] {
            assert_eq!(parse(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }

    #[test]
    fn an_integer_is_kept_exactly_or_refused() {
        for whole in ["18446744073709551615", "-9223372036854775808", "[0,-1]", "1e30", "-0.5"] {
            assert_eq!(same(whole).parse::<f64>().ok(), whole.parse::<f64>().ok(), "{whole}");
        }
        assert_eq!(same("[18446744073709551615]"), "[18446744073709551615]");
        for large in
            ["18446744073709551616", "[-9223372036854775809]", "{\"a\": 1234567890123456789012}"]
        {
            let refused = parse(large).unwrap_err();
            assert!(refused.message().contains("64 bits"), "{refused}");
        }
    }

    #[test]
    fn behind_a_key_stands_json_or_text() {
        let of = |text: &str| parse_or_text(text).unwrap().to_string();
        assert_eq!(of("12345678901234567890123"), "\"12345678901234567890123\"");
        assert_eq!(
            (of("nan"), of("-inf"), of("NaN")),
            ("\"NaN\"".into(), "\"-Infinity\"".into(), "\"NaN\"".into())
        );
        assert_eq!(
            (of("a b"), of("{"), of("007")),
            ("\"a b\"".into(), "\"{\"".into(), "\"007\"".into())
        );
        assert!(parse_or_text("[12345678901234567890123]").is_err());
        assert_eq!(of("build 12345678901234567890123 ok"), "\"build 12345678901234567890123 ok\"");
        assert!(refuse_large("a: 12345678901234567890123", 12345678901234567890123.0).is_err());
        assert!(refuse_large("a: 1e30", 1e30).is_ok());
    }

    proptest! {
        #[test]
        fn a_fraction_is_kept_to_its_last_digit(number in proptest::num::f64::NORMAL) {
            prop_assert_eq!(parse(&format!("{number:?}")).unwrap().as_f64(), Some(number));
        }

        #[test]
        fn json_reads_as_ever(text in "[ \\[\\]{}:,\"\\\\a0-9.eE+-]{0,24}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) && let Ok(read) = parse(&text) {
                prop_assert_eq!(read, value);
            }
        }
    }
}
