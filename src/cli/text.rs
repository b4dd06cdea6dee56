//! Names from others, as they can be printed.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_no_control_characters() {
        assert_eq!(harmless("é ü".as_bytes()), "é ü");
        assert_eq!(harmless(b"a\x1b[31m\nb\xff"), "a\\u{1b}[31m\\nb\\xff");
    }
}
