//! Where a store is, as people write it.

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::error::{Error, Kind, Result};

/// How stores are written.
pub const STORE_URLS: &str =
    "file:DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, https://HOST/PATH";

/// Who keeps the packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon S3, and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
    /// A web server: can only be read.
    Http,
}

/// A store's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A directory, absolute or below the repository.
    Directory(String),
    /// Objects below a prefix.
    Remote {
        /// Where.
        cloud: Cloud,
        /// The whole URL, without a slash at its end.
        url: Url,
    },
}

impl StoreUrl {
    /// Bucket or container, and the prefix of all keys without slashes around it.
    pub fn bucket_and_prefix(url: &Url) -> (String, String) {
        let bucket = url.host_str().unwrap_or_default().to_owned();
        (bucket, url.path().trim_matches('/').to_owned())
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::new(Kind::Usage, format!("\"{text}\" {what}"))
                .hint(format!("known stores: {STORE_URLS}"))
        };
        let (scheme, rest) = text.split_once(':').ok_or_else(|| wrong("is no store URL"))?;
        let cloud = match scheme {
            "file" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() {
                    return Err(wrong("names no directory"));
                }
                return Ok(Self::Directory(path.to_owned()));
            }
            "s3" | "s3a" => Cloud::S3,
            "gs" | "gcs" => Cloud::Google,
            "az" | "azure" => Cloud::Azure,
            "http" | "https" => Cloud::Http,
            _ => return Err(wrong("is a kind of store that is not known")),
        };
        let mut url = Url::parse(text).map_err(|e| wrong("is no URL").because(e))?;
        if url.host_str().unwrap_or_default().is_empty() {
            return Err(wrong("names no bucket, container or host"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(wrong("holds more than a place")
                .hint("credentials come from the environment, options from --store-option"));
        }
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self::Remote { cloud, url })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "file:{path}"),
            Self::Remote { url, .. } => f.write_str(url.as_str().trim_end_matches('/')),
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
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("az://box/x", "az://box/x"),
            ("https://host:8080/x/", "https://host:8080/x"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.to_string().parse::<StoreUrl>().unwrap(), url);
        }
        for text in ["", "file:", "s3:", "s3://", "ftp://host", "store", "s3://k:s@bucket/x"] {
            assert_eq!(text.parse::<StoreUrl>().unwrap_err().kind(), Kind::Usage, "{text}");
        }
    }
}
