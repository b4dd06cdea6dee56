//! The URLs of stores.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::Url;

use crate::error::{Error, Kind, Result, StoreHint};

/// The forms of a store's URL.
pub const STORE_URLS: &str =
    "file:DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, https://HOST/PATH";

/// The characters that an earlier release encoded in a prefix, beside those of a URL.
const ONCE_ENCODED: &AsciiSet = &CONTROLS
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'*')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}')
    .add(b'~');

/// A provider of object storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon S3, and services that speak its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl Cloud {
    fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }
}

/// A store's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A directory, absolute or below the repository.
    Directory(String),
    /// Objects below a prefix.
    Bucket {
        /// The provider.
        cloud: Cloud,
        /// The bucket or container.
        bucket: String,
        /// The text that all keys begin with, as it is, without slashes around it.
        prefix: String,
    },
    /// A web server, which can only be read.
    Web(Url),
}

/// Returns the cloud of a scheme.
fn cloud_of(scheme: &str) -> Option<Cloud> {
    match scheme {
        "s3" | "s3a" => Some(Cloud::S3),
        "gs" | "gcs" => Some(Cloud::Google),
        "az" | "azure" => Some(Cloud::Azure),
        _ => None,
    }
}

impl StoreUrl {
    /// Returns today's form of a URL that an earlier release read as one with percent signs. That
    /// release encoded the prefix, and encoded it once more for the keys.
    pub(crate) fn of_encoded(text: &str) -> String {
        let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
        let (Some(cloud), Ok(url)) = (cloud_of(scheme), Url::parse(text)) else {
            return text.to_owned();
        };
        let bucket = url.host_str().unwrap_or_default().to_owned();
        let parts = url.path().split('/').filter(|part| !part.is_empty());
        let parts = parts.map(|part| utf8_percent_encode(part, ONCE_ENCODED).to_string());
        let prefix = parts.collect::<Vec<_>>().join("/");
        Self::Bucket { cloud, bucket, prefix }.to_string()
    }
}

/// Builds the error of a text that is no store. It does not repeat a secret in the text.
fn wrong(text: &str, what: &str) -> Error {
    let place = text.split('?').next().unwrap_or_default();
    let shown = match (place.rsplit_once('@'), place.split_once(':')) {
        (Some((_, host)), Some((scheme, _))) => format!("{scheme}://…@{host}"),
        _ => place.to_owned(),
    };
    Error::new(Kind::Usage, format!("\"{shown}\" {what}"))
        .hint(format!("known stores: {STORE_URLS}"))
}

fn more_than_a_place(text: &str) -> Error {
    wrong(text, "holds credentials, a query or a fragment").hint(StoreHint::Options)
}

/// Splits the part after the scheme of a cloud's URL. A key is no URL, so nothing in it is decoded
/// or resolved.
fn bucket_of(text: &str, cloud: Cloud, rest: &str) -> Result<StoreUrl> {
    let place = rest.strip_prefix("//").unwrap_or_default();
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.contains('@') {
        return Err(more_than_a_place(text));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-$".contains(c);
    if bucket.is_empty() || !bucket.chars().all(plain) {
        return Err(wrong(text, "names no bucket, container or host"));
    }
    let prefix = prefix.trim_end_matches('/');
    if let Some(odd) = prefix.chars().find(|c| ['?', '#'].contains(c)) {
        return Err(wrong(text, &format!("has a \"{odd}\" in its prefix"))
            .hint("choose a prefix without it: tools for buckets read it in different ways"));
    }
    let parts = || prefix.split('/').filter(|_| !prefix.is_empty());
    if parts().any(|part| ["", ".", ".."].contains(&part)) {
        return Err(wrong(text, "has an empty part, \".\" or \"..\" in its prefix")
            .hint("write the prefix as the keys in the bucket begin"));
    }
    if prefix.contains(|c: char| c.is_ascii_control()) {
        return Err(wrong(text, "has a control character in its prefix, which no key can have"));
    }
    let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
    Ok(StoreUrl::Bucket { cloud, bucket, prefix })
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (scheme, rest) =
            text.split_once(':').ok_or_else(|| wrong(text, "is not the URL of a store"))?;
        if let Some(cloud) = cloud_of(scheme) {
            return bucket_of(text, cloud, rest);
        }
        match scheme {
            "file" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() {
                    return Err(wrong(text, "names no directory"));
                }
                return Ok(Self::Directory(path.to_owned()));
            }
            "http" | "https" => {}
            _ => return Err(wrong(text, "has an unknown scheme")),
        }
        let mut url = Url::parse(text).map_err(|e| wrong(text, "is not a URL").because(e))?;
        if url.host_str().unwrap_or_default().is_empty() {
            return Err(wrong(text, "names no bucket, container or host"));
        }
        let more = url.query().is_some() || url.fragment().is_some();
        if more || !url.username().is_empty() || url.password().is_some() {
            return Err(more_than_a_place(text));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        let authority_and_path = rest.trim_start_matches('/');
        let said = authority_and_path.find('/').map_or("", |slash| &authority_and_path[slash..]);
        if said.trim_end_matches('/') != path {
            return Err(wrong(
                text,
                &format!("would be read as {url}: write it so, if that is meant"),
            ));
        }
        url.set_path(&path);
        Ok(Self::Web(url))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "file:{path}"),
            Self::Bucket { cloud, bucket, prefix } if prefix.is_empty() => {
                write!(f, "{}://{bucket}", cloud.scheme())
            }
            Self::Bucket { cloud, bucket, prefix } => {
                write!(f, "{}://{bucket}/{prefix}", cloud.scheme())
            }
            Self::Web(url) => f.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_comes_back_as_it_is_meant() {
        for (text, shown) in [
            ("file:store", "file:store"),
            ("file:///srv/store", "file:/srv/store"),
            ("s3://bucket", "s3://bucket"),
            ("s3a://Bucket_1/a/b/", "s3://Bucket_1/a/b"),
            ("az://box/x", "az://box/x"),
            ("https://host:8080/x/", "https://host:8080/x"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.to_string().parse::<StoreUrl>().unwrap(), url);
        }
        for text in ["", "file:", "s3:", "s3://", "ftp://host", "store", "s3:bucket/x"] {
            assert_eq!(text.parse::<StoreUrl>().unwrap_err().kind(), Kind::Usage, "{text}");
        }
        for text in
            ["http://h/x#y", "http://h/a/../b", "http://h/a b", "https://h/./x", "http://h/x?"]
        {
            assert_eq!(text.parse::<StoreUrl>().unwrap_err().kind(), Kind::Usage, "{text}");
        }
        for text in ["s3://k:hunter2@bucket/x", "https://k:hunter2@h/x", "https://h/x?sig=hunter2"]
        {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{text}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_prefix_is_what_was_written() {
        for text in [
            "s3://b/pre fix",
            "s3://b/pre%20fix",
            "gs://b/ü/~x",
            "az://b/a+b=c&d",
            "s3://b/[x]{y}|*^`",
        ] {
            let StoreUrl::Bucket { prefix, .. } = text.parse().unwrap() else { panic!("{text}") };
            assert_eq!(prefix, text.split_once("://b/").unwrap().1);
            assert_eq!(text.parse::<StoreUrl>().unwrap().to_string(), text);
        }
        for text in [
            "s3://b/exp#1",
            "s3://b/x?y",
            "s3://b/x/../y",
            "gs://b/./x",
            "az://b//x",
            "s3://b/a\tb",
        ] {
            assert_eq!(text.parse::<StoreUrl>().unwrap_err().kind(), Kind::Usage, "{text}");
        }
    }

    #[test]
    fn what_an_earlier_release_wrote_leads_to_the_same_keys() {
        for (written, keys) in [
            ("s3://b/pre%20fix", "s3://b/pre%2520fix"),
            ("s3://b/%C3%BC", "s3://b/%25C3%25BC"),
            ("gs://b/exp~1/x", "gs://b/exp%7E1/x"),
            ("s3://b/plain-1/x_y", "s3://b/plain-1/x_y"),
            ("s3://b", "s3://b"),
            ("file:a b", "file:a b"),
            ("https://h/a%20b", "https://h/a%20b"),
        ] {
            assert_eq!(StoreUrl::of_encoded(written), keys);
            assert_eq!(keys.parse::<StoreUrl>().unwrap().to_string(), keys);
        }
    }
}
