//! One error for every verb: what was wanted, what was found, what to do next.
//!
//! A [`Kind`] says what a caller can do about it. Three tables, none with a wildcard arm, say what
//! a kind means to read(2) (`mount::errno`), to HTTP (`server::status`) and to `$?` (`cli::exit`).

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

mod hint;

pub use hint::{
    DamageHint, DraftHint, GetHint, Hint, Maintenance, MountHint, NamesHint, PutHint,
    RepositoryHint, RunHint, StoreHint,
};

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The request makes no sense as it stands: say it differently.
    Usage,
    /// A name or reference that cannot exist: correct it.
    BadName,
    /// A well-formed name of something that is not there.
    NotFound,
    /// Something else is in the way (aliases, a lease, an open file): resolve that first.
    Conflict,
    /// The caller may not do this.
    Denied,
    /// The thing cannot be changed by anybody.
    ReadOnly,
    /// Bytes that are not what their digest says. Only a good copy helps.
    Corrupt,
    /// No room left where it had to be written.
    Full,
    /// It cannot be done now (a server gone, a lock held, an I/O error): try again later.
    Unavailable,
    /// It took longer than it may: try again later.
    TimedOut,
    /// The data is not local and the caller asked not to block. Never leaves the program.
    WouldBlock,
    /// It was there and was deleted while it was in use.
    Stale,
    /// Made by a newer release, or not built yet.
    Unsupported,
}

/// The result of every verb.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for a person and for a program.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hints: Vec<Hint>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` says what was wanted and what was found.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new(), source: None }
    }

    /// What the caller should do next, shown on a line of its own.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Hint>) -> Self {
        self.hints = vec![hint.into()];
        self
    }

    /// Adds advice to that which the error has.
    #[must_use]
    pub fn and_hint(mut self, hint: impl Into<Hint>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// An I/O error of the host while doing `what`; the kind follows from the host's error.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self {
            kind: kind_of_io(&source),
            message: what.into(),
            hints: Vec::new(),
            source: Some(Box::new(source)),
        }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What was wanted and found, with the causes behind it.
    pub fn message(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            // Many errors tell what is behind them themselves.
            let told = error.to_string();
            if !text.contains(&told) {
                text.push_str(": ");
                text.push_str(&told);
            }
            cause = error.source();
        }
        text
    }

    /// What to do next, if that is known.
    pub fn hints(&self) -> &[Hint] {
        &self.hints
    }

    /// Whether it is what somebody answered, and no silence.
    pub fn is_answer(&self) -> bool {
        self.kind != Kind::TimedOut && self.source.is_none()
    }

    /// What crosses a socket.
    pub fn to_wire(&self) -> WireError {
        WireError { kind: self.kind, message: self.message(), hints: self.hints.clone() }
    }
}

/// An [`Error`] as it crosses a socket: the causes are folded into the message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WireError {
    /// See [`Kind`].
    pub kind: Kind,
    /// What was wanted and found.
    pub message: String,
    /// What to do next.
    pub hints: Vec<Hint>,
}

impl From<WireError> for Error {
    fn from(wire: WireError) -> Self {
        Self { kind: wire.kind, message: wire.message, hints: wire.hints, source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

fn kind_of_io(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::PermissionDenied => Kind::Denied,
        io::ErrorKind::ReadOnlyFilesystem => Kind::ReadOnly,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Full,
        io::ErrorKind::TimedOut => Kind::TimedOut,
        io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty => Kind::Conflict,
        _ => Kind::Unavailable,
    }
}

/// Adds "while doing what, to which path" to an I/O error.
pub trait IoContext<T> {
    /// `verb` in the infinitive: `read`, `create`.
    fn at(self, verb: &str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, verb: &str, path: &Path) -> Result<T> {
        self.map_err(|e| Error::io(format!("cannot {verb} {}", path.display()), e))
    }
}

impl<T> IoContext<T> for Result<T, rustix::io::Errno> {
    fn at(self, verb: &str, path: &Path) -> Result<T> {
        self.map_err(io::Error::from).at(verb, path)
    }
}
