//! One error for every verb: what was wanted, what was found, what to do next.
//!
//! A [`Kind`] says what a caller can do about an error. Three tables without a wildcard arm map
//! each kind to an errno (`mount::errno`), an HTTP status (`server::status`) and an exit status
//! (`cli::exit`).

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

mod hint;

pub use hint::{
    AccessHint, DamageHint, DraftHint, GetHint, Hint, Maintenance, MountHint, NamesHint, PutHint,
    RepositoryHint, RunHint, StoreHint,
};

/// The kind of an error, by what a caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A request that makes no sense as it stands: the caller must change it.
    Usage,
    /// A name or reference that cannot exist: correct it.
    BadName,
    /// A well-formed name of something that is not there.
    NotFound,
    /// An obstacle (aliases, a lease, an open file) that must be resolved first.
    Conflict,
    /// An operation that the caller has no right to.
    Denied,
    /// A thing that nobody can change.
    ReadOnly,
    /// Bytes that do not match their digest. Only a good copy helps.
    Corrupt,
    /// A lack of room where something had to be written.
    Full,
    /// A temporary obstacle (a server gone, a lock held, an I/O error): try again later.
    Unavailable,
    /// A deadline that passed: try again later.
    TimedOut,
    /// An operation that would wait although the caller asked not to block. This kind never leaves
    /// the program.
    WouldBlock,
    /// Something that was deleted while it was in use.
    Stale,
    /// Something of a newer release, or not supported here.
    Unsupported,
}

impl Kind {
    /// Returns whether the other side did not respond, so that the same request may succeed later.
    pub(crate) fn is_silence(self) -> bool {
        matches!(self, Self::Unavailable | Self::TimedOut)
    }
}

/// The result of every verb.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error, for a person and for a program.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hints: Vec<Hint>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error of `kind`; `message` says what was wanted and what was found.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new(), source: None }
    }

    /// Makes the error of a thing that this build was made without; `what` says what cannot be done.
    pub fn left_out(what: &str, feature: &str) -> Self {
        let what = format!("{what}: this artifactfs was built without the feature {feature}");
        Self::new(Kind::Unsupported, what).hint("install one that was built with it, as by default")
    }

    /// Sets the advice of the error, in place of earlier advice. A face shows it on a line of its
    /// own.
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

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Makes an error from an I/O error; `what` says what failed. The kind follows from `source`.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self {
            kind: kind_of_io(&source),
            message: what.into(),
            hints: Vec::new(),
            source: Some(Box::new(source)),
        }
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns what was wanted and found, followed by the causes.
    pub fn message(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            // Many errors include the text of their cause.
            let cause_text = error.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            cause = error.source();
        }
        text
    }

    /// Returns what to do next, if that is known.
    pub fn hints(&self) -> &[Hint] {
        &self.hints
    }

    /// Reports whether the error is a reply of the other side, rather than silence or a failure on
    /// the way.
    pub fn is_answer(&self) -> bool {
        self.kind != Kind::TimedOut && self.source.is_none()
    }

    /// Returns the form that crosses a socket.
    pub fn to_wire(&self) -> WireError {
        WireError { kind: self.kind, message: self.message(), hints: self.hints.clone() }
    }
}

/// An [`Error`] as it crosses a socket: the causes are folded into the message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WireError {
    /// The kind.
    pub(crate) kind: Kind,
    /// The message: what was wanted and what was found, with the causes.
    pub(crate) message: String,
    /// The hints.
    pub(crate) hints: Vec<Hint>,
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
        io::ErrorKind::AlreadyExists
        | io::ErrorKind::ResourceBusy
        | io::ErrorKind::DirectoryNotEmpty => Kind::Conflict,
        _ => Kind::Unavailable,
    }
}

/// A conversion of I/O errors that adds the action and the path.
pub trait IoContext<T> {
    /// Adds that `verb` (an infinitive: `read`, `create`) failed at `path`.
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
