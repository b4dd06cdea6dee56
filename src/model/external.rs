//! External entries: files that are elsewhere, each described by an object of its own.
//!
//! ```text
//! descriptor := format:u8 (1)  size:varint  url:bytes  etag:bytes  version:bytes  modified:bytes
//!               checksum:bytes
//!             | format:u8 (2)  the same  depth:varint
//! bytes      := length:varint byte*          what is not known is empty
//! checksum   := the BLAKE3 of all bytes, 32 of them
//! depth      := how many names of the path are below the folder that was recorded, which no
//!               symlink may leave. Files of this machine have it; those that earlier releases
//!               recorded do not
//! ```
//! A descriptor is stored as a chunk: it points at nothing of the repository. It holds what proves
//! that the file is still the same, and nothing that grants access to it. It depends only on the
//! file, so recording the same files again gives the same version.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::Url;

use super::digest::{DIGEST_BYTES, Digest};
use super::object_kind::ObjectKind;
use super::varint;
use crate::error::{Error, Kind};

const FORMAT: u8 = 1;
/// The format of descriptors with a depth.
const FORMAT_DEPTH: u8 = 2;
/// The maximum length of a URL in bytes: servers take no more, and a descriptor stays small.
pub(crate) const URL_MAX_BYTES: usize = 8 << 10;
/// The forms of the URLs of external files.
const KNOWN: &str =
    "file:///DIR, s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/KEY, https://HOST/PATH";
/// The names of parameters that grant access.
const SECRET_NAMES: &[&str] = &["sig", "auth", "key", "code", "pass", "jwt"];
/// The parts of names of parameters that grant access.
const SECRET_PARTS: &[&str] = &[
    "signature",
    "token",
    "secret",
    "password",
    "credential",
    "apikey",
    "api_key",
    "api-key",
    "accesskey",
    "authorization",
];

/// The kind of server that has an external file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Scheme {
    /// The reader's own file system.
    File,
    /// Amazon S3, and services that speak its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
    /// A web server.
    Web,
}

/// The place of an external file: of a known scheme, without anything that grants access.
///
/// In `s3://`, `gs://` and `az://` the text after the bucket is the key as it is. The others are
/// usual URLs, with percent signs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalUrl {
    scheme: Scheme,
    text: Box<str>,
}

impl ExternalUrl {
    /// Returns the kind of server that has the file.
    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the text of the URL.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the URL of a file of this machine; the path is absolute.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a path that is not absolute.
    pub(crate) fn of_path(path: &Path) -> Result<Self, Error> {
        let url = Url::from_file_path(path).map_err(|()| {
            Error::new(Kind::Usage, format!("{} is not an absolute path", path.display()))
        })?;
        Ok(Self { scheme: Scheme::File, text: url.as_str().into() })
    }

    /// Returns the path of a file of this machine; `None` for other files.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        if self.scheme != Scheme::File {
            return None;
        }
        Url::parse(&self.text).ok()?.to_file_path().ok()
    }

    /// Returns the bucket (or container) and the key of a file in a cloud; `None` for other files.
    pub(crate) fn bucket_and_key(&self) -> Option<(&str, &str)> {
        match self.scheme {
            Scheme::S3 | Scheme::Google | Scheme::Azure => {
                let rest = self.text.split_once("://")?.1;
                Some(rest.split_once('/').unwrap_or((rest, "")))
            }
            Scheme::File | Scheme::Web => None,
        }
    }

    /// Returns the URL of `path` below this one, in a cloud.
    #[must_use]
    pub(crate) fn below(&self, path: &str) -> Self {
        let text = format!("{}/{path}", self.text.trim_end_matches('/'));
        Self { scheme: self.scheme, text: text.into() }
    }

    /// Returns the last part of its path, decoded; empty if there is none.
    pub(crate) fn last_part(&self) -> Vec<u8> {
        match self.scheme {
            Scheme::File => {
                let path = self.path().unwrap_or_default();
                let name = path.file_name().unwrap_or_default();
                std::os::unix::ffi::OsStrExt::as_bytes(name).to_vec()
            }
            Scheme::Web => {
                let url = Url::parse(&self.text).ok();
                let path = url.as_ref().map_or("", Url::path);
                let last = path.rsplit('/').next().unwrap_or_default();
                percent_decode_str(last).collect()
            }
            Scheme::S3 | Scheme::Google | Scheme::Azure => {
                let key = self.bucket_and_key().map_or("", |(_, key)| key);
                key.rsplit('/').next().unwrap_or_default().as_bytes().to_vec()
            }
        }
    }
}

impl fmt::Display for ExternalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Returns the name of a parameter of a query (`a=b&c=d`) that grants access, if there is one.
fn grants(query: &str) -> Option<&str> {
    let names = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    names.into_iter().find(|name| {
        let name = name.to_ascii_lowercase();
        SECRET_NAMES.contains(&name.as_str()) || SECRET_PARTS.iter().any(|part| name.contains(part))
    })
}

impl FromStr for ExternalUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // The error must not repeat a secret in the text: it names the place, and no more.
        let place = text.split('?').next().unwrap_or_default();
        let place = match (place.rsplit_once('@'), place.split_once(':')) {
            (Some((_, host)), Some((scheme, _))) => format!("{scheme}://…@{host}"),
            _ => place.to_owned(),
        };
        let shown: String = place.chars().take(80).collect();
        let wrong = |what: &str| {
            Error::new(Kind::Usage, format!("\"{shown}\" {what}"))
                .hint(format!("external files are {KNOWN}"))
        };
        if text.len() > URL_MAX_BYTES || text.chars().any(char::is_control) {
            return Err(wrong("is too long or holds control characters"));
        }
        let (scheme, rest) = text.split_once(':').ok_or_else(|| wrong("is not a URL"))?;
        let (scheme, name) = match scheme.to_ascii_lowercase().as_str() {
            "file" => (Scheme::File, "file"),
            "s3" | "s3a" => (Scheme::S3, "s3"),
            "gs" | "gcs" => (Scheme::Google, "gs"),
            "az" | "azure" => (Scheme::Azure, "az"),
            "http" | "https" => (Scheme::Web, ""),
            _ => return Err(wrong("has an unknown scheme")),
        };
        let secret = |what: &str| {
            wrong(what).hint(
                "what grants access stays with who reads: give it by the environment, and the plain URL here",
            )
        };
        if let Some(name) = text.split_once('?').and_then(|(_, query)| grants(query)) {
            return Err(secret(&format!("holds a credential (\"{name}\")")));
        }
        if matches!(scheme, Scheme::File | Scheme::Web) {
            let mut url = Url::parse(text).map_err(|e| wrong("is not a URL").because(e))?;
            if !url.username().is_empty() || url.password().is_some() {
                return Err(secret("holds a user's name or password"));
            }
            url.set_fragment(None);
            let absolute = scheme == Scheme::Web || url.to_file_path().is_ok();
            if !absolute || !rest.starts_with("//") {
                return Err(wrong("names no absolute path: write file:///DIR"));
            }
            return Ok(Self { scheme, text: url.as_str().into() });
        }
        let place = rest.strip_prefix("//").ok_or_else(|| wrong("is not a URL"))?;
        let (bucket, key) = place.split_once('/').unwrap_or((place, ""));
        if bucket.contains('@') {
            return Err(secret("holds a user's name or password"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-$".contains(c);
        if bucket.is_empty() || !bucket.chars().all(plain) {
            return Err(wrong("names no bucket or container"));
        }
        let parts = key.strip_suffix('/').unwrap_or(key);
        if !parts.is_empty() && parts.split('/').any(|part| ["", ".", ".."].contains(&part)) {
            return Err(wrong("has an empty part, \".\" or \"..\" in its key"));
        }
        Ok(Self { scheme, text: format!("{name}://{bucket}/{key}").into() })
    }
}

/// An external file, as it was recorded. Facts that are not known are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// The place.
    pub url: ExternalUrl,
    /// The length.
    pub size_bytes: u64,
    /// The tag that its server gave it.
    pub etag: String,
    /// The id of its version, if the server keeps several.
    pub version: String,
    /// The time of the last change, if that proves anything. It is in nanoseconds since 1970 for a
    /// file, and the text of a web server that gives no tag.
    pub modified: String,
    /// The BLAKE3 of its bytes.
    pub checksum: Option<[u8; DIGEST_BYTES]>,
    /// The number of names of its path below the folder that was recorded; 0 if that is not known.
    pub depth: u32,
}

impl External {
    /// Returns a file of which only the place and the length are known.
    pub(crate) fn unproven(url: ExternalUrl, size_bytes: u64) -> Self {
        let none = String::new;
        let (etag, version, modified) = (none(), none(), none());
        Self { url, size_bytes, etag, version, modified, checksum: None, depth: 0 }
    }

    /// Returns whether anything but its length can tell it from another file. A file of no bytes
    /// needs no proof.
    pub fn is_proven(&self) -> bool {
        let said = [&self.etag, &self.version, &self.modified];
        self.size_bytes == 0 || self.checksum.is_some() || said.iter().any(|text| !text.is_empty())
    }

    /// Returns the body of the object that describes it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.depth == 0 { FORMAT } else { FORMAT_DEPTH }];
        varint::put(&mut out, self.size_bytes);
        for text in [self.url.as_str(), &self.etag, &self.version, &self.modified] {
            varint::put_bytes(&mut out, text.as_bytes());
        }
        varint::put_bytes(&mut out, self.checksum.as_ref().map_or(&[], |sum| &sum[..]));
        if self.depth > 0 {
            varint::put(&mut out, u64::from(self.depth));
        }
        out
    }

    /// Decodes a descriptor from a body whose digest was checked; `None` for a format that this
    /// release does not support.
    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut reader = varint::Reader::new(body);
        let format = reader.byte()?;
        if ![FORMAT, FORMAT_DEPTH].contains(&format) {
            return None;
        }
        let size_bytes = reader.number()?;
        let mut text = || String::from_utf8(reader.bytes()?.to_vec()).ok();
        let url = text()?.parse().ok()?;
        let (etag, version, modified) = (text()?, text()?, text()?);
        let checksum = match reader.bytes()? {
            [] => None,
            bytes => Some(bytes.try_into().ok()?),
        };
        let depth = match format {
            FORMAT => 0,
            _ => u32::try_from(reader.number()?).ok().filter(|depth| *depth > 0)?,
        };
        let found = Self { url, size_bytes, etag, version, modified, checksum, depth };
        reader.is_empty().then_some(found)
    }

    /// Returns the digest of a descriptor's body.
    pub(crate) fn digest_of(body: &[u8]) -> Digest {
        Digest::of(ObjectKind::Chunk, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_back_as_they_are_meant() {
        for (text, shown) in [
            ("s3://bucket/a key?#%", "s3://bucket/a key?#%"),
            ("s3a://bucket/a/", "s3://bucket/a/"),
            ("gcs://b", "gs://b/"),
            ("az://box/x", "az://box/x"),
            ("file:///a/../b c", "file:///b%20c"),
            ("HTTPS://Host/x?y=1#z", "https://host/x?y=1"),
        ] {
            let url: ExternalUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.to_string().parse::<ExternalUrl>().unwrap(), url);
        }
        let file: ExternalUrl = "file:///b%20c/d%FF".parse().unwrap();
        assert_eq!(file.last_part(), b"d\xff");
        assert_eq!(ExternalUrl::of_path(&file.path().unwrap()).unwrap(), file);
        let key: ExternalUrl = "s3://bucket/a/b.c".parse().unwrap();
        assert_eq!(key.bucket_and_key(), Some(("bucket", "a/b.c")));
        assert_eq!(key.last_part(), b"b.c");
        assert_eq!(key.below("d").as_str(), "s3://bucket/a/b.c/d");
        let web: ExternalUrl = "https://h/a/b%20c?d".parse().unwrap();
        assert_eq!(web.last_part(), b"b c");
    }

    #[test]
    fn what_grants_access_is_refused_and_not_repeated() {
        for text in [
            "https://user:hunter2@host/x",
            "s3://AKIA:hunter2@bucket/x",
            "https://host/x?X-Amz-Signature=hunter2",
            "https://host/x?a=1&sig=hunter2",
            "https://host/x?access_token=hunter2",
            "s3://bucket/x?X-Amz-Security-Token=hunter2",
        ] {
            let error = text.parse::<ExternalUrl>().unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{text}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error}");
        }
        for text in [
            "",
            "x",
            "ftp://h/x",
            "file:x",
            "file://x",
            "s3://",
            "s3:///x",
            "s3://b//x",
            "s3://b/../x",
        ] {
            assert_eq!(text.parse::<ExternalUrl>().unwrap_err().kind(), Kind::Usage, "{text}");
        }
    }

    #[test]
    fn a_descriptor_comes_back_whole_or_not_at_all() {
        let url: ExternalUrl = "s3://bucket/x".parse().unwrap();
        let full = External {
            etag: "\"abc\"".into(),
            version: "7".into(),
            modified: "1".into(),
            checksum: Some([7; 32]),
            ..External::unproven(url.clone(), 1 << 40)
        };
        let deep = External { depth: 300, ..full.clone() };
        for external in [full, deep, External::unproven(url, 0)] {
            let body = external.encode();
            assert_eq!(External::decode(&body), Some(external));
            for cut in 0..body.len() {
                assert_eq!(External::decode(&body[..cut]), None, "{cut}");
            }
            assert_eq!(External::decode(&[&body[..], b"x"].concat()), None);
        }
        assert_eq!(External::decode(b"\x03"), None);
    }
}
