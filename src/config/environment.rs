//! The environment of a process: the one door to its variables.

use std::ffi::OsString;
use std::path::PathBuf;

/// A variable of other programs that the settings depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// `$HOME`.
    Home,
    /// `$XDG_CONFIG_HOME`.
    XdgConfigHome,
    /// `$XDG_DATA_HOME`.
    XdgDataHome,
    /// `$XDG_CACHE_HOME`.
    XdgCacheHome,
    /// `$XDG_STATE_HOME`.
    XdgStateHome,
}

impl Variable {
    fn name(self) -> &'static str {
        match self {
            Self::Home => "HOME",
            Self::XdgConfigHome => "XDG_CONFIG_HOME",
            Self::XdgDataHome => "XDG_DATA_HOME",
            Self::XdgCacheHome => "XDG_CACHE_HOME",
            Self::XdgStateHome => "XDG_STATE_HOME",
        }
    }
}

type Get = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// The variables of a process. An empty variable counts as unset.
pub struct Environment(Box<Get>);

impl Environment {
    /// Returns the variables of this process.
    #[expect(clippy::disallowed_methods, reason = "the door to the variables of this process")]
    pub fn of_process() -> Self {
        Self::of(|name| std::env::var_os(name))
    }

    /// Returns an environment whose variables `get` returns.
    pub(crate) fn of(get: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static) -> Self {
        Self(Box::new(get))
    }

    /// Returns the value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<OsString> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// Returns the path that a variable of other programs names.
    pub(crate) fn path(&self, variable: Variable) -> Option<PathBuf> {
        self.get(variable.name()).map(PathBuf::from)
    }
}
