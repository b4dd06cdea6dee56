//! Names from others, as they can be printed.

use serde_json::Value;

/// Escapes control characters and bytes that are not UTF-8, so that a terminal shows them.
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

/// Sets `key` to a name as text; if that loses bytes, sets `<key>_hex` to the bytes in hexadecimal.
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
