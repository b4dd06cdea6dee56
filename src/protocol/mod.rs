//! The messages between two processes of artifactfs on a socket.
//!
//! It defines the envelope of a request and of its reply, and the calls of services that have no
//! trait of their own. It depends on neither client nor server. Invariant: both sides use the same
//! version, or each reports the mismatch.
//!
//! ```text
//! request:  "AFSRPC"  version (u16, little-endian)  service (u8)  call (postcard)
//! reply:    "AFSRPC"  version (u16, little-endian)  0             reply of the service (postcard)
//!           "AFSRPC"  version (u16, little-endian)  1             error (postcard of WireError)
//! ```
//! Only the first eight bytes have the same layout in every version.

pub mod drafts;
pub mod served;
pub(crate) mod socket;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result, WireError};

/// The version of everything after the first eight bytes.
pub(crate) const VERSION: u16 = 13;
/// The HTTP path of requests.
pub const RPC_PATH: &str = "/v1/rpc";

const MAGIC: &[u8; 6] = b"AFSRPC";
const HEAD_BYTES: usize = MAGIC.len() + 2;

/// The receiver of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The registry, with [`Call`](crate::registry::Call)s.
    Registry,
    /// The drafts, with [`drafts::DraftCall`]s.
    Drafts,
    /// The statistics of a process; the call is `()`.
    Stats,
    /// The session of a caller of a server, [`served::Session`]; the call is `()`.
    Session,
    /// The janitor of a server, with [`served::JanitorCall`]s.
    Janitor,
}

impl Service {
    const ALL: [Self; 5] =
        [Self::Registry, Self::Drafts, Self::Stats, Self::Session, Self::Janitor];

    const fn code(self) -> u8 {
        match self {
            Self::Registry => 0,
            Self::Drafts => 1,
            Self::Stats => 2,
            Self::Session => 3,
            Self::Janitor => 4,
        }
    }
}

/// Encodes a request.
///
/// # Errors
/// [`Kind::Usage`] for a call that cannot be encoded.
pub fn encode_request<T: Serialize>(service: Service, call: &T) -> Result<Vec<u8>> {
    let mut bytes = head();
    bytes.push(service.code());
    postcard::to_extend(call, bytes)
        .map_err(|e| Error::new(Kind::Usage, "cannot encode the call").because(e))
}

/// Splits a request into its service and the bytes of the call.
///
/// # Errors
/// [`Kind::Unsupported`] for a request of another version or to an unknown service.
pub(crate) fn decode_request(bytes: &[u8]) -> Result<(Service, &[u8])> {
    let (code, call) = after_head(bytes).and_then(|rest| rest.split_first()).ok_or_else(unread)?;
    let service = Service::ALL.into_iter().find(|service| service.code() == *code);
    Ok((service.ok_or_else(unread)?, call))
}

/// Decodes a call.
///
/// # Errors
/// [`Kind::Unsupported`] if the bytes are not a `T`.
pub(crate) fn decode_call<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|e| unread().because(e))
}

/// Encodes a reply; a value in `answer` is already postcard.
pub fn encode_answer(answer: &Result<Vec<u8>>) -> Vec<u8> {
    let mut bytes = head();
    match answer {
        Ok(answer) => {
            bytes.push(0);
            bytes.extend_from_slice(answer);
            bytes
        }
        Err(error) => {
            bytes.push(1);
            postcard::to_extend(&error.to_wire(), bytes).expect("an error is plain text")
        }
    }
}

/// Returns the value in a service's reply, still encoded.
///
/// # Errors
/// The error in the reply; [`Kind::Unsupported`] for a reply of another version.
pub(crate) fn decode_answer(bytes: &[u8]) -> Result<&[u8]> {
    match after_head(bytes).and_then(|rest| rest.split_first()) {
        Some((0, answer)) => Ok(answer),
        Some((1, error)) => {
            let error: WireError = postcard::from_bytes(error).map_err(|_| other_release(bytes))?;
            Err(error.into())
        }
        _ => Err(other_release(bytes)),
    }
}

/// Returns whether bytes begin with the head of this version.
pub(crate) fn is_answer(bytes: &[u8]) -> bool {
    after_head(bytes).is_some()
}

/// Returns whether bytes begin with the head of any version.
pub fn has_head(bytes: &[u8]) -> bool {
    version_of(bytes).is_some()
}

/// Decodes the value of a reply.
///
/// # Errors
/// [`Kind::Unsupported`] if the bytes are not a `T`.
pub(crate) fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|e| {
        Error::new(Kind::Unsupported, "the value of a reply cannot be read").because(e)
    })
}

/// Encodes the value of a reply.
///
/// # Errors
/// [`Kind::Unavailable`] for a value that cannot be encoded.
pub(crate) fn encode_value<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(value)
        .map_err(|e| Error::new(Kind::Unavailable, "cannot encode the reply").because(e))
}

fn head() -> Vec<u8> {
    [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat()
}

fn after_head(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(HEAD_BYTES..).filter(|_| bytes[..HEAD_BYTES] == *head())
}

/// Returns the version in the head of a message.
fn version_of(bytes: &[u8]) -> Option<u16> {
    let version = bytes.strip_prefix(MAGIC)?.first_chunk()?;
    Some(u16::from_le_bytes(*version))
}

fn unread() -> Error {
    Error::new(Kind::Unsupported, "this daemon cannot read the request")
        .hint("daemon and command are of different releases: unmount, and mount again")
}

/// Builds the error of a reply that cannot be read, which names the side that is older.
fn other_release(bytes: &[u8]) -> Error {
    let (what, hint) = match version_of(bytes) {
        Some(version) if version < VERSION => (
            "the other process is of an older release than this command",
            "install this release there and start it again: unmount and mount, or start the server again",
        ),
        Some(version) if version > VERSION => (
            "this command is of an older release than the other process",
            "install the newer release here",
        ),
        _ => {
            ("the reply is not one of artifactfs", "is the address right? another program replied")
        }
    };
    Error::new(Kind::Unsupported, what).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RunHint;

    #[test]
    fn requests_and_answers_are_read_as_they_were_written() {
        for service in Service::ALL {
            let request = encode_request(service, &("call", 7u64)).unwrap();
            let (found, call) = decode_request(&request).unwrap();
            assert_eq!((found, decode_call(call).unwrap()), (service, ("call".to_owned(), 7u64)));
        }
        let answer = encode_answer(&encode_value(&42u64));
        assert_eq!(decode_value::<u64>(decode_answer(&answer).unwrap()).unwrap(), 42);
        let error =
            Error::new(Kind::Conflict, "in the way").hint("remove it").and_hint(RunHint::List);
        let decoded = decode_answer(&encode_answer(&Err(error))).unwrap_err();
        assert_eq!(decoded.kind(), Kind::Conflict);
        assert_eq!(decoded.hints(), ["remove it".into(), RunHint::List.into()]);
    }

    #[test]
    fn what_another_release_says_is_told_apart_from_nonsense() {
        let mut request = encode_request(Service::Stats, &()).unwrap();
        let mut answer = encode_answer(&Ok(vec![1]));
        for bytes in [&mut request, &mut answer] {
            bytes[6] ^= 1;
        }
        let both = [decode_request(&request).unwrap_err(), decode_answer(&answer).unwrap_err()];
        assert!(both.iter().all(|e| e.kind() == Kind::Unsupported), "{both:?}");
        assert!(!is_answer(b"") && !is_answer(b"<html>") && !is_answer(&answer));
        for (version, words) in
            [(VERSION - 1, "the other process is"), (VERSION + 1, "this command is")]
        {
            answer[6..8].copy_from_slice(&version.to_le_bytes());
            let error = decode_answer(&answer).unwrap_err();
            assert!(error.message().starts_with(words), "{error}");
        }
    }
}
