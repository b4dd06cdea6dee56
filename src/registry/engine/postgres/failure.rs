//! The translation of a server's errors into kinds, and the decision which of them may pass.

use tokio_postgres::error::SqlState;

use crate::error::{Error, Kind};

/// Returns whether the same statement may succeed if it is sent again: the connection broke, the
/// server is starting, stopping or was demoted, or two transactions met.
pub(super) fn is_passing(error: &tokio_postgres::Error) -> bool {
    let Some(code) = error.code() else {
        // Without a code the error did not come from the server's statement.
        return !is_local(error) && !is_refused_tls(error) && !is_refused_login(error);
    };
    let passing = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::TOO_MANY_CONNECTIONS,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    passing.contains(code) || code.code().starts_with("08")
}

/// Returns whether a request cannot be made, or its reply not be read.
fn is_local(error: &tokio_postgres::Error) -> bool {
    let text = error.to_string();
    ["serializing parameter", "deserializing column", "invalid configuration"]
        .iter()
        .any(|cause| text.contains(cause))
}

/// Returns whether the server offers no TLS, or has a certificate that is not trusted.
fn is_refused_tls(error: &tokio_postgres::Error) -> bool {
    let source = std::error::Error::source(error);
    let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    error.to_string().contains("TLS handshake")
        && io.is_none_or(|io| io.kind() == std::io::ErrorKind::InvalidData)
}

/// Returns whether the server wants a password that there is not, or cannot be trusted with it.
fn is_refused_login(error: &tokio_postgres::Error) -> bool {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    error.to_string().contains("authentication error")
        || cause.is_some_and(|cause| cause.contains("password missing"))
}

/// Returns the error that users see.
pub(super) fn told(error: tokio_postgres::Error) -> Error {
    let what = "the registry's database failed";
    let kind = match error.code() {
        None if is_refused_tls(&error) || is_refused_login(&error) => Kind::Denied,
        None if is_local(&error) => Kind::Unsupported,
        None => Kind::Unavailable,
        Some(code) => match *code {
            SqlState::INSUFFICIENT_PRIVILEGE
            | SqlState::INVALID_PASSWORD
            | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => Kind::Denied,
            SqlState::DISK_FULL | SqlState::OUT_OF_MEMORY | SqlState::INSUFFICIENT_RESOURCES => {
                Kind::Full
            }
            SqlState::UNDEFINED_TABLE
            | SqlState::INVALID_SCHEMA_NAME
            | SqlState::INVALID_CATALOG_NAME => Kind::NotFound,
            SqlState::DUPLICATE_TABLE | SqlState::DUPLICATE_OBJECT => Kind::Conflict,
            SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => Kind::TimedOut,
            SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => Kind::Corrupt,
            _ => Kind::Unavailable,
        },
    };
    let untrusted = is_refused_tls(&error);
    let detail = error.as_db_error().map(|e| e.message().to_owned());
    let what = detail.map_or_else(|| what.to_owned(), |detail| format!("{what}: {detail}"));
    let told = Error::new(kind, what).because(error);
    match kind {
        Kind::Denied if untrusted => told.hint(
            "the server has no certificate that is trusted; sslrootcert=FILE names an authority of your own",
        ),
        Kind::Denied => told.hint(
            "the database's user needs a password (~/.pgpass, PGPASSWORD), and rights to connect and to the schema",
        ),
        Kind::Full => told.hint("make room for the database; nothing was changed"),
        _ => told,
    }
}
