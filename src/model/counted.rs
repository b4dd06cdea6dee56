//! Numbers of things, in words.

use std::fmt::Display;

/// Returns a number with its noun, which is given in the singular: `1 file`, `2 directories`.
pub fn counted<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    if number == N::from(1) {
        return format!("{number} {noun}");
    }
    match noun.strip_suffix('y') {
        Some(stem) => format!("{number} {stem}ies"),
        None => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn only_one_is_singular() {
        assert_eq!(counted(0_u64, "file"), "0 files");
        assert_eq!(counted(1_u64, "file"), "1 file");
        assert_eq!(counted(2_usize, "external file"), "2 external files");
        assert_eq!(counted(1_u64, "directory"), "1 directory");
        assert_eq!(counted(3_u64, "retry"), "3 retries");
    }
}
