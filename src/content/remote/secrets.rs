//! Options of stores that are secrets. They are refused, since every reader of the repository sees
//! its options.

use std::str::FromStr;

use object_store::ClientConfigKey;
use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;
use url::Url;

use crate::content::url::{Cloud, StoreUrl};
use crate::error::{Error, Hint, Kind, Result, StoreHint};

/// The options of `object_store`, by their canonical names, whose values grant access or decrypt.
const SECRETS: &[&str] = &[
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "aws_sse_customer_key_base64",
    "azure_storage_account_key",
    "azure_storage_client_secret",
    "azure_storage_sas_key",
    "azure_storage_token",
    "azure_storage_encryption_key",
    "azure_fabric_session_token",
    "google_service_account_key",
    "google_bearer_token",
];
/// The words that mark options of later releases of `object_store` as secret.
const WORDS: &[&str] = &["secret", "token", "password", "access_key", "account_key", "sas_key"];
/// The endings of names of options that only say where something is.
const PLACES: &[&str] = &["_file", "_path", "_uri", "_endpoint", "_url"];

fn canonical<K: FromStr + AsRef<str>>(key: &str) -> Option<String> {
    key.to_ascii_lowercase().parse::<K>().ok().map(|key| key.as_ref().to_owned())
}

fn is_secret(name: &str) -> bool {
    let worded = WORDS.iter().any(|word| name.contains(word));
    let place = PLACES.iter().any(|end| name.ends_with(end));
    SECRETS.contains(&name) || worded && !place
}

/// Returns whether a value is a URL with a user's name or password, or one that is signed.
fn holds_credentials(value: &str) -> bool {
    Url::parse(value).is_ok_and(|url| {
        let named = !url.username().is_empty() || url.password().is_some();
        named || url.query_pairs().any(|(name, _)| ["sig", "X-Amz-Signature"].contains(&&*name))
    })
}

/// Refuses options of the store at `url` that are secrets. No error repeats a secret.
///
/// # Errors
/// [`Kind::Usage`] for the first secret, with a hint where it belongs.
pub fn refuse_secrets(url: &StoreUrl, options: &[(String, String)]) -> Result<()> {
    for (key, value) in options {
        let name = match url {
            StoreUrl::Bucket { cloud: Cloud::S3, .. } => canonical::<AmazonS3ConfigKey>(key),
            StoreUrl::Bucket { cloud: Cloud::Google, .. } => canonical::<GoogleConfigKey>(key),
            StoreUrl::Bucket { cloud: Cloud::Azure, .. } => canonical::<AzureConfigKey>(key),
            StoreUrl::Web(_) | StoreUrl::Directory(_) => canonical::<ClientConfigKey>(key),
        };
        let name = name.unwrap_or_else(|| key.to_ascii_lowercase());
        let variable = name.to_ascii_uppercase();
        if is_secret(&name) {
            let what = format!("option {key} is a secret, and options are kept in the repository");
            let hint = match &*name {
                "google_service_account_key" => StoreHint::ServiceAccountFile.into(),
                _ => Hint::from(format!(
                    "give it by the environment (${variable}) or the cloud's own files, wherever the \
                     repository is used"
                )),
            };
            return Err(Error::new(Kind::Usage, what).hint(hint));
        }
        if holds_credentials(value) {
            let what =
                format!("option {key} holds credentials, and options are kept in the repository");
            let hint = match &*name {
                "proxy_url" => {
                    "set HTTPS_PROXY and HTTP_PROXY in the environment instead".to_owned()
                }
                _ => format!("give it by the environment (${variable})"),
            };
            return Err(Error::new(Kind::Usage, what).hint(hint));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_refused_by_any_of_their_names_and_not_repeated() {
        for (url, key, value) in [
            ("s3://b", "aws_sse_customer_key_base64", "hunter2"),
            ("s3://b", "sse_customer_key_base64", "hunter2"),
            ("s3://b", "SECRET_ACCESS_KEY", "hunter2"),
            ("s3://b", "token", "hunter2"),
            ("s3://b", "proxy_url", "http://me:hunter2@proxy:3128"),
            ("s3://b", "endpoint", "https://me:hunter2@host"),
            ("gs://b", "service_account_key", "{\"private_key\": \"hunter2\"}"),
            ("gs://b", "bearer_token", "hunter2"),
            ("az://b", "encryption_key", "hunter2"),
            ("az://b", "azure_storage_master_key", "hunter2"),
            ("az://b", "master_key", "hunter2"),
            ("az://b", "access_key", "hunter2"),
            ("az://b", "sas_token", "hunter2"),
            ("az://b", "client_secret", "hunter2"),
            ("az://b", "fabric_session_token", "hunter2"),
            ("https://h/x", "proxy_url", "http://me:hunter2@proxy:3128"),
        ] {
            let options = [(key.to_owned(), value.to_owned())];
            let error = refuse_secrets(&url.parse().unwrap(), &options).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{key}");
            assert!(!error.hints().is_empty(), "{error}");
            let text = format!("{error:?}");
            assert!(!text.contains("hunter2") && text.contains(key), "{text}");
        }
    }

    #[test]
    fn what_only_says_where_something_is_is_no_secret() {
        for (url, key, value) in [
            ("s3://b", "region", "eu-west-1"),
            ("s3://b", "endpoint", "http://host:9000"),
            ("s3://b", "web_identity_token_file", "/var/run/token"),
            ("s3://b", "sse_kms_key_id", "arn:aws:kms:x"),
            ("s3://b", "proxy_url", "http://proxy:3128"),
            ("gs://b", "service_account", "/etc/key.json"),
            ("az://b", "federated_token_file", "/var/run/token"),
            ("az://b", "account_name", "name"),
            ("az://b", "client_id", "id"),
        ] {
            let options = [(key.to_owned(), value.to_owned())];
            refuse_secrets(&url.parse().unwrap(), &options).unwrap();
        }
    }
}
