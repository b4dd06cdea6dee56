//! Connections to stores by URL: builders of `object_store`, configured as each cloud's own tools
//! are.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::HttpConnector;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::http::HttpBuilder;
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::signer::Signer;
use object_store::{
    ClientConfigKey, ClientOptions, ObjectStore, RetryConfig, StaticCredentialProvider,
};

use super::answers::Noting;
use super::granted::GrantedStore;
use super::profile::{Profile, ProfileCredentials};
use super::variable::variable;
use crate::content::options::ServerAccess;
use crate::content::url::{Cloud, StoreUrl};
use crate::error::{Error, Kind, Result, StoreHint};

/// The time that a connection may take to be made.
const CONNECT_TIME: Duration = Duration::from_secs(4);
/// The time for which an idle connection is kept.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// The connection to a store, by what the store can do.
pub(crate) struct Connected {
    /// The store for reads, writes and removals.
    pub(crate) store: Arc<dyn ObjectStore>,
    /// True if objects can be written.
    pub(crate) writable: bool,
    /// The store for writes in parts; `None` for a web server, and for a server of ours.
    pub(crate) parts: Option<Arc<dyn MultipartStore>>,
    /// The signer of URLs; `None` for these servers.
    pub(crate) signer: Option<Arc<dyn Signer>>,
    /// The store for listings by the page; `None` for these servers.
    pub(crate) pages: Option<Arc<dyn PaginatedListStore>>,
}

impl Connected {
    fn cloud<T: ObjectStore + MultipartStore + PaginatedListStore + Signer>(store: T) -> Self {
        let store = Arc::new(store);
        let (parts, pages) = (Some(Arc::clone(&store) as _), Some(Arc::clone(&store) as _));
        let signer = Some(Arc::clone(&store) as _);
        Self { store, writable: true, parts, pages, signer }
    }
}

/// Connects to a store. It makes no request yet.
pub(crate) fn connect(url: &StoreUrl, options: &[(String, String)]) -> Result<Connected> {
    // Another provider may have been chosen already; either serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match url {
        StoreUrl::Bucket { cloud: Cloud::S3, bucket, .. } => s3(bucket, options),
        StoreUrl::Bucket { cloud: Cloud::Google, bucket, .. } => google(bucket, options),
        StoreUrl::Bucket { cloud: Cloud::Azure, bucket, .. } => azure(bucket, options),
        StoreUrl::Web(url) => {
            let store = http(url.as_str(), client(url.scheme() == "http"), options)?;
            Ok(Connected { store, writable: false, parts: None, pages: None, signer: None })
        }
        StoreUrl::Directory(_) => Err(Error::new(Kind::Usage, format!("{url} is a directory"))),
    }
}

/// Returns a configuration without retries: `persist` makes them, within the caller's deadline.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// Returns the options of HTTP clients. They allow plain HTTP only to a store that was named so.
fn client(allow_http: bool) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(allow_http)
        .with_connect_timeout(CONNECT_TIME)
        // A long download is not a hung one: `collect` watches the progress of each.
        .with_timeout_disabled()
        .with_pool_idle_timeout(IDLE_TIME)
        .with_http1_only()
        .with_user_agent(http::HeaderValue::from_static(concat!(
            "artifactfs/",
            env!("CARGO_PKG_VERSION")
        )))
}

fn set<K, B>(
    options: &[(String, String)],
    mut builder: B,
    with: impl Fn(B, K, &str) -> B,
) -> Result<B>
where
    K: std::str::FromStr<Err = object_store::Error>,
{
    for (key, value) in options {
        let parsed = key.parse().map_err(|e| {
            Error::new(Kind::Usage, format!("unknown store option \"{key}\"")).because(e)
        })?;
        builder = with(builder, parsed, value);
    }
    Ok(builder)
}

fn cannot(what: &str) -> impl Fn(object_store::Error) -> Error {
    move |e| {
        Error::new(Kind::Usage, format!("cannot use the {what}")).because(e).hint(StoreHint::Check)
    }
}

fn option<'a>(options: &'a [(String, String)], names: &[&str]) -> Option<&'a str> {
    let found = options.iter().find(|(key, _)| names.contains(&key.to_ascii_lowercase().as_str()));
    found.map(|(_, value)| value.as_str())
}

fn s3(bucket: &str, options: &[(String, String)]) -> Result<Connected> {
    let mut builder = AmazonS3Builder::from_env();
    let chosen = option(options, &["endpoint", "aws_endpoint", "endpoint_url"]).map(str::to_owned);
    let environment = || variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    let profile = Profile::chosen().unwrap_or_default();
    let endpoint = chosen.or_else(environment).or_else(|| profile.endpoint.clone());
    let plain = endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http:"));
    builder = builder.with_client_options(client(plain)).with_bucket_name(bucket);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let said = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(variable);
    if let (None, Some(region)) = (said, &profile.region) {
        builder = builder.with_region(region);
    }
    // As in Amazon's own tools, the environment precedes profiles, and these precede what the
    // machine gets.
    let given = ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"].into_iter().find_map(variable);
    if given.is_none() && profile.has_credentials() {
        builder = builder.with_credentials(Arc::new(ProfileCredentials::default()));
    }
    let builder = set(options, builder, |b, key, value| b.with_config(key, value))?;
    let builder = builder.with_retry(no_retries()).with_http_connector(Noting);
    Ok(Connected::cloud(builder.build().map_err(cannot("S3 bucket"))?))
}

fn google(bucket: &str, options: &[(String, String)]) -> Result<Connected> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_client_options(client(true))
        .with_bucket_name(bucket);
    // As in Google's own libraries, an emulator needs no credentials.
    if let Some(host) = variable("STORAGE_EMULATOR_HOST") {
        let url = if host.contains("://") { host } else { format!("http://{host}") };
        let credential = GcpCredential { bearer: "emulator".to_owned() };
        let credentials = Arc::new(StaticCredentialProvider::new(credential));
        builder = builder.with_base_url(&url).with_credentials(credentials);
    }
    let builder = set(options, builder, |b, key, value| b.with_config(key, value))?;
    let builder = builder.with_retry(no_retries()).with_http_connector(Noting);
    Ok(Connected::cloud(builder.build().map_err(cannot("Google Cloud Storage bucket"))?))
}

fn azure(container: &str, options: &[(String, String)]) -> Result<Connected> {
    let plain = option(options, &["endpoint", "azure_endpoint", "use_emulator"]);
    let plain = plain.is_some_and(|value| value.starts_with("http:") || value == "true");
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_client_options(client(plain))
        .with_container_name(container);
    for (key, value) in azure_environment() {
        builder = builder.with_config(key, value);
    }
    let builder = set(options, builder, |b, key, value| b.with_config(key, value))?;
    let builder = builder.with_retry(no_retries()).with_http_connector(Noting);
    Ok(Connected::cloud(builder.build().map_err(cannot("Azure container"))?))
}

/// Returns the settings that Azure's own tools read and `object_store` does not.
fn azure_environment() -> Vec<(AzureConfigKey, String)> {
    let mut found = Vec::new();
    let connection = variable("AZURE_STORAGE_CONNECTION_STRING").unwrap_or_default();
    for (key, value) in connection.split(';').filter_map(|part| part.split_once('=')) {
        let key = match key {
            "AccountName" => AzureConfigKey::AccountName,
            "AccountKey" => AzureConfigKey::AccessKey,
            "BlobEndpoint" => AzureConfigKey::Endpoint,
            "SharedAccessSignature" => AzureConfigKey::SasKey,
            _ => continue,
        };
        if matches!(key, AzureConfigKey::Endpoint) && value.starts_with("http:") {
            found.push((AzureConfigKey::Client(ClientConfigKey::AllowHttp), "true".to_owned()));
        }
        found.push((key, value.to_owned()));
    }
    let single = [
        ("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName),
        ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey),
        ("AZURE_STORAGE_SAS_TOKEN", AzureConfigKey::SasKey),
    ];
    found.extend(single.into_iter().filter_map(|(name, key)| Some((key, variable(name)?))));
    found
}

/// Connects to the store of a served repository. It makes no request yet.
pub(crate) fn served(server: &ServerAccess) -> Result<Connected> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let value = http::HeaderValue::from_str(&server.key.authorization());
    let mut value = value.map_err(|e| Error::new(Kind::Usage, "that is not a key").because(e))?;
    value.set_sensitive(true);
    let headers = http::HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
    let api = server.url.api();
    // A bucket without TLS is one for tests, behind a server without it.
    let plain = client(api.starts_with("http:"));
    let asking = plain.clone().with_default_headers(headers);
    let through = http(&format!("{api}/store"), asking.clone(), &[])?;
    let connect = |options| Noting.connect(options).map_err(cannot("server"));
    let store = GrantedStore::new(through, &api, connect(&asking)?, connect(&plain)?);
    let store = Arc::new(store);
    Ok(Connected { store, writable: true, parts: None, pages: None, signer: None })
}

fn http(
    url: &str,
    client: ClientOptions,
    options: &[(String, String)],
) -> Result<Arc<dyn ObjectStore>> {
    let builder = HttpBuilder::new().with_url(url).with_client_options(client);
    let builder = set(options, builder, |b, key, value| b.with_config(key, value))?;
    let builder = builder.with_retry(no_retries()).with_http_connector(Noting);
    Ok(Arc::new(builder.build().map_err(cannot("web server"))?))
}
