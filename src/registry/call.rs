//! The calls of all subjects as data, and a registry over any transport of them.

use serde::{Deserialize, Serialize};

use super::Registry;
use super::access::AccessCall;
use super::groups::GroupsCall;
use super::leases::LeasesCall;
use super::names::NamesCall;
use super::objects::ObjectsCall;
use super::runs::RunsCall;
use super::subject::CallTransport;
use super::upkeep::UpkeepCall;
use super::versions::VersionsCall;
use crate::error::Result;

macro_rules! calls {
    ($($subject:ident($calls:ident),)*) => {
        /// A call of any subject.
        #[derive(Debug, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum Call {
            $($subject($calls),)*
        }

        impl Call {
            /// Returns the name of the call.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Call::$subject(call) => call.name(),)*
                }
            }
        }

        $(impl From<$calls> for Call {
            fn from(call: $calls) -> Self {
                Self::$subject(call)
            }
        })*

        /// Makes a call on `registry` and returns its encoded reply, as [`Transport::call`] does.
        ///
        /// # Errors
        /// The errors of the call.
        pub fn dispatch(registry: &dyn Registry, call: Call) -> Result<Vec<u8>> {
            match call {
                $(Call::$subject(call) => call.answer(registry),)*
            }
        }
    };
}

calls! {
    Names(NamesCall),
    Versions(VersionsCall),
    Objects(ObjectsCall),
    Leases(LeasesCall),
    Runs(RunsCall),
    Groups(GroupsCall),
    Upkeep(UpkeepCall),
    Access(AccessCall),
}

/// A transport of calls to a registry.
pub trait Transport: Send + Sync {
    /// Makes a call and returns the reply of [`dispatch`].
    ///
    /// # Errors
    /// The errors of the call, or [`Kind::Unavailable`](crate::error::Kind::Unavailable) if the
    /// registry cannot be reached.
    fn call(&self, call: Call) -> Result<Vec<u8>>;
}

impl<T: Transport, C: Into<Call>> CallTransport<C> for T {
    fn send(&self, call: C) -> Result<Vec<u8>> {
        self.call(call.into())
    }
}
