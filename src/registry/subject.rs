//! A macro for subjects: it makes a trait, the calls as data, and the trait over a transport of one
//! list of calls.

use serde::Serialize;

use crate::error::{Error, Kind, Result};

/// A transport of the calls of one subject to a registry.
pub(crate) trait CallTransport<C>: Send + Sync {
    /// Makes a call and returns its encoded reply.
    ///
    /// # Errors
    /// The errors of the call, or [`Kind::Unavailable`] if the registry cannot be reached.
    fn send(&self, call: C) -> Result<Vec<u8>>;
}

/// Encodes the value of a reply.
pub(super) fn pack<T: Serialize>(answer: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(answer)
        .map_err(|e| Error::new(Kind::Unavailable, "cannot encode the reply").because(e))
}

/// Decodes the value of a reply.
pub(super) fn unpack<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|e| {
        Error::new(Kind::Unsupported, "cannot decode the registry's reply")
            .because(e)
            .hint("daemon and command are of different releases: restart the daemon")
    })
}

/// Makes, of one list of calls, the trait of a subject, its calls as data, and the implementation
/// of the trait over a [`CallTransport`].
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

        /// The calls of a subject as data.
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        #[allow(missing_docs)]
        pub enum $calls {
            $($call { $($arg: $type),* },)*
        }

        impl $calls {
            /// Returns the name of the call.
            pub(in crate::registry) const fn name(&self) -> &'static str {
                match self {
                    $(Self::$call { .. } => stringify!($name),)*
                }
            }

            pub(in crate::registry) fn answer(self, registry: &dyn $subject) -> Result<Vec<u8>> {
                match self {
                    $(Self::$call { $($arg),* } => {
                        crate::registry::subject::pack(&registry.$name($($arg),*)?)
                    })*
                }
            }
        }

        impl<T: crate::registry::subject::CallTransport<$calls>> $subject for T {
            $(fn $name(&self, $($arg: $type),*) -> Result<$ret> {
                let answer = self.send($calls::$call { $($arg),* })?;
                crate::registry::subject::unpack(&answer)
            })*
        }
    };
}

pub(super) use subject;
