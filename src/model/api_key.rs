//! The keys of users: secrets that are shown once.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::digest::Digest;
use super::host::Host;
use super::object_kind::ObjectKind;
use crate::error::{Error, Kind};

/// The text that every key begins with.
const PREFIX: &str = "af-";
/// The number of random bytes of a key.
const SECRET_BYTES: usize = 32;

/// A key: `af-` and 43 characters of base64url, of 256 random bits. Its debug output and its errors
/// do not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Makes a new key.
    pub fn new(host: &Host) -> Self {
        let mut bytes = [0; SECRET_BYTES];
        let (first, second) = bytes.split_at_mut(SECRET_BYTES / 2);
        first.copy_from_slice(&host.random().to_le_bytes());
        second.copy_from_slice(&host.random().to_le_bytes());
        Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Returns the text of the key, which must not be logged.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the value of the header that shows the key to a server (RFC 6750, 2.1). It must not be
    /// logged.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Returns the digest, by which a registry knows the key.
    pub fn digest(&self) -> Digest {
        Digest::of(ObjectKind::Chunk, self.0.as_bytes())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("af-…")
    }
}

impl FromStr for ApiKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let secret = text.strip_prefix(PREFIX).map(|rest| URL_SAFE_NO_PAD.decode(rest));
        match secret {
            Some(Ok(bytes)) if bytes.len() == SECRET_BYTES => Ok(Self(text.to_owned())),
            _ => Err(Error::new(Kind::Usage, "that is not a key").hint(
                "a key is af- and 43 letters, digits, - and _; it was shown when it was made",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_never_shown() {
        let key = ApiKey::new(&Host::system());
        assert_eq!(key.reveal().len(), 46);
        assert_eq!(key.reveal().parse::<ApiKey>().unwrap(), key);
        assert_ne!(ApiKey::new(&Host::system()), key);
        assert!(!format!("{key:?}").contains(&key.reveal()[3..]));
        for bad in ["", "af-", "af-hunter2", &key.reveal()[3..], &format!("{}x", key.reveal())] {
            let error = bad.parse::<ApiKey>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }
}
