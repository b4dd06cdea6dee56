//! Calls as they cross a socket, and a registry seen through anything that brings them to one.

use serde::{Deserialize, Serialize};

use super::Registry;
use super::groups::GroupsCall;
use super::leases::LeasesCall;
use super::names::NamesCall;
use super::objects::ObjectsCall;
use super::runs::RunsCall;
use super::upkeep::UpkeepCall;
use super::versions::VersionsCall;
use crate::error::{Error, Kind, Result};

/// A call of any subject.
#[derive(Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Call {
    Names(NamesCall),
    Versions(VersionsCall),
    Objects(ObjectsCall),
    Leases(LeasesCall),
    Runs(RunsCall),
    Groups(GroupsCall),
    Upkeep(UpkeepCall),
}

/// Answers a call; the bytes are what [`Transport::call`] returns.
///
/// # Errors
/// Those of the call.
pub fn dispatch(registry: &dyn Registry, call: Call) -> Result<Vec<u8>> {
    match call {
        Call::Names(call) => call.answer(registry),
        Call::Versions(call) => call.answer(registry),
        Call::Objects(call) => call.answer(registry),
        Call::Leases(call) => call.answer(registry),
        Call::Runs(call) => call.answer(registry),
        Call::Groups(call) => call.answer(registry),
        Call::Upkeep(call) => call.answer(registry),
    }
}

/// Brings calls to a registry, and its answers back.
pub trait Transport: Send + Sync {
    /// Returns the answer of [`dispatch`].
    ///
    /// # Errors
    /// Those of the call, or [`Kind::Unavailable`] if the other side cannot be reached.
    fn call(&self, call: Call) -> Result<Vec<u8>>;
}

/// Returns the bytes of an answer.
pub(super) fn pack<T: Serialize>(answer: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(answer)
        .map_err(|e| Error::new(Kind::Unavailable, "an answer cannot be written").because(e))
}

/// Returns what the bytes of an answer are.
pub(super) fn unpack<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|e| {
        Error::new(Kind::Unsupported, "the registry's answer cannot be read")
            .because(e)
            .hint("daemon and command are of different releases: restart the daemon")
    })
}

/// Makes, of one list of calls, the trait of a subject, its calls as data, and the subject seen through a
/// [`Transport`].
macro_rules! subject {
    (
        $(#[$meta:meta])*
        $subject:ident, $calls:ident;
        $($(#[$doc:meta])* $name:ident = $call:ident ($($arg:ident: $type:ty),* $(,)?) -> $ret:ty;)*
    ) => {
        $(#[$meta])*
        #[allow(clippy::missing_errors_doc)]
        pub trait $subject: Send + Sync {
            $($(#[$doc])* fn $name(&self, $($arg: $type),*) -> Result<$ret>;)*
        }

        /// The calls of a subject, as they cross a socket.
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        #[allow(missing_docs)]
        pub enum $calls {
            $($call { $($arg: $type),* },)*
        }

        impl $calls {
            pub(in crate::registry) fn answer(
                self,
                registry: &dyn crate::registry::Registry,
            ) -> Result<Vec<u8>> {
                match self {
                    $(Self::$call { $($arg),* } => {
                        crate::registry::call::pack(&registry.$name($($arg),*)?)
                    })*
                }
            }
        }

        impl<T: crate::registry::Transport> $subject for T {
            $(fn $name(&self, $($arg: $type),*) -> Result<$ret> {
                let call = $calls::$call { $($arg),* };
                let answer = self.call(crate::registry::Call::$subject(call))?;
                crate::registry::call::unpack(&answer)
            })*
        }
    };
}

pub(super) use subject;
