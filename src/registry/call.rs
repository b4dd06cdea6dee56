//! Calls as they cross a socket, and a registry seen through anything that brings them to one.

use serde::{Deserialize, Serialize};

use super::Registry;
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

        $(impl From<$calls> for Call {
            fn from(call: $calls) -> Self {
                Self::$subject(call)
            }
        })*

        /// Answers a call; the bytes are what [`Transport::call`] returns.
        ///
        /// # Errors
        /// Those of the call.
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
}

/// Brings calls to a registry, and its answers back.
pub trait Transport: Send + Sync {
    /// Returns the answer of [`dispatch`].
    ///
    /// # Errors
    /// Those of the call, or [`Kind::Unavailable`](crate::error::Kind::Unavailable) if the other side cannot be reached.
    fn call(&self, call: Call) -> Result<Vec<u8>>;
}

impl<T: Transport, C: Into<Call>> CallTransport<C> for T {
    fn send(&self, call: C) -> Result<Vec<u8>> {
        self.call(call.into())
    }
}
