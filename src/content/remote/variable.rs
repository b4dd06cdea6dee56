//! The variables by which the tools of the clouds are configured.

/// Reads a variable; an empty one counts as unset.
#[expect(clippy::disallowed_methods, reason = "they are variables of clouds, not of artifactfs")]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
