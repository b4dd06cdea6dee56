//! The faults of glob patterns, in words for people.

use globset::{Error, ErrorKind, Glob};

/// Says why a pattern cannot be compiled.
pub(super) fn fault(error: &Error) -> String {
    match error.kind() {
        ErrorKind::UnclosedClass => "a [ has no ]".to_owned(),
        ErrorKind::InvalidRange(first, last) => {
            format!("the range {first}-{last} ends before it begins")
        }
        ErrorKind::UnopenedAlternates => "a } has no {".to_owned(),
        ErrorKind::UnclosedAlternates => "a { has no }".to_owned(),
        ErrorKind::TooManyNestedAlternates => "its { } are nested too deeply".to_owned(),
        ErrorKind::DanglingEscape => "nothing follows the \\ at its end".to_owned(),
        _ => "it is too long or too complex".to_owned(),
    }
}

/// Says why a file of ignore patterns cannot be used.
pub(super) fn ignore_fault(error: &ignore::Error) -> String {
    match error {
        ignore::Error::WithLineNumber { line, err } => {
            format!("line {line}: {}", ignore_fault(err))
        }
        ignore::Error::WithPath { err, .. } | ignore::Error::WithDepth { err, .. } => {
            ignore_fault(err)
        }
        ignore::Error::Partial(errors) if !errors.is_empty() => ignore_fault(&errors[0]),
        ignore::Error::Glob { glob: Some(pattern), .. } => {
            let why = Glob::new(pattern).err().map(|e| format!(": {}", fault(&e)));
            format!("\"{pattern}\" is not a glob pattern{}", why.unwrap_or_default())
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use globset::Glob;

    #[test]
    fn a_fault_is_told_without_the_words_of_the_library() {
        for (pattern, said) in [
            ("a[", "a [ has no ]"),
            ("[z-a]", "the range z-a ends before it begins"),
            ("a}", "a } has no {"),
            ("{a", "a { has no }"),
            ("a\\", "nothing follows the \\ at its end"),
        ] {
            assert_eq!(super::fault(&Glob::new(pattern).unwrap_err()), said);
        }
    }

    #[test]
    fn the_line_of_a_bad_ignore_pattern_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("patterns");
        std::fs::write(&file, "*.tmp\n[z-a]\n").unwrap();
        let bad = ignore::gitignore::GitignoreBuilder::new(folder.path()).add(&file).unwrap();
        let wanted = "line 2: \"[z-a]\" is not a glob pattern: the range z-a ends before it begins";
        assert_eq!(super::ignore_fault(&bad), wanted);
    }
}
