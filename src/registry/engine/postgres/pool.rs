//! Connections to the server, and the server's time.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use deadpool_postgres::{
    Manager, ManagerConfig, Object, PoolError, RecyclingMethod, Runtime as PoolRuntime, Timeouts,
};
use rand::RngExt;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{Address, Tls};
use super::failure::{is_passing, told};
use crate::error::{Error, Kind, Result};

/// The longest time that a call may take, with all attempts.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// The longest time that a server that does not answer is tried: it may be starting again.
const PATIENCE: Duration = Duration::from_secs(10);
/// The maximum number of connections of this process.
const CONNECTIONS: usize = 16;
/// The longest wait for a connection that another thread has.
const WAIT_DEADLINE: Duration = Duration::from_secs(10);
/// The longest time that opening a registry tries to reach its server.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The connections of a process to one registry.
pub(super) struct Pool {
    pool: deadpool_postgres::Pool,
    runtime: Arc<Runtime>,
    schema: String,
    /// The key of the registry's advisory lock.
    pub(super) lock: i64,
    pub(super) time: Arc<ServerTime>,
    /// True if the last call found no server. A registry looks for changes all the time, so it soon
    /// finds the server when that is back.
    silent: AtomicBool,
}

/// The failure of one attempt.
pub(super) enum Failed {
    /// Another attempt may succeed.
    Passing(Error),
    /// Another attempt would fail in the same way.
    Final(Error),
}

impl Failed {
    pub(super) fn into_error(self) -> Error {
        let (Self::Passing(error) | Self::Final(error)) = self;
        error
    }
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        match is_passing(&error) {
            true => Self::Passing(told(error)),
            false => Self::Final(told(error)),
        }
    }
}

impl Pool {
    pub(super) fn new(address: &Address) -> Result<Self> {
        let mut config = address.config.clone();
        if let Some(password) = address.password()? {
            config.password(password);
        }
        let how = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match &address.tls {
            Tls::Off => Manager::from_config(config, NoTls, how),
            Tls::VerifyFull(root) => {
                let tls = MakeRustlsConnect::new(tls_config(root.as_deref())?);
                Manager::from_config(config, tls, how)
            }
        };
        let timeouts = Timeouts {
            wait: Some(WAIT_DEADLINE),
            create: Some(WAIT_DEADLINE),
            recycle: Some(WAIT_DEADLINE),
        };
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(CONNECTIONS)
            .timeouts(timeouts)
            .runtime(PoolRuntime::Tokio1)
            .build()
            .map_err(|e| Error::new(Kind::Unavailable, "cannot make connections").because(e))?;
        Ok(Self {
            pool,
            runtime: runtime()?,
            schema: address.schema.clone(),
            lock: lock_key(&address.schema),
            time: Arc::default(),
            silent: AtomicBool::new(false),
        })
    }

    /// Returns the name of the schema.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// Runs a future to its end, at most until the deadline of a call.
    pub(super) fn block_on<T>(
        &self,
        work: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Failed> {
        self.runtime.block_on(async {
            tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| {
                // The server may still execute the statements.
                Err(Failed::Passing(Error::new(
                    Kind::TimedOut,
                    "the registry's database does not answer",
                )))
            })
        })
    }

    /// Runs a future beside everything else.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    /// Returns a connection.
    pub(super) async fn connection(&self) -> Result<Object, Failed> {
        self.pool.get().await.map_err(|e| match e {
            PoolError::Backend(e) => Failed::from(e),
            PoolError::Timeout(_) => Failed::Passing(Error::new(
                Kind::TimedOut,
                "the registry's database does not answer",
            )),
            other => Failed::Passing(
                Error::new(Kind::Unavailable, "no connection to the registry's database")
                    .because(other),
            ),
        })
    }

    /// Repeats work that has no effect unless it succeeds, while its failures are passing and the
    /// deadline of a call is not over.
    pub(super) async fn persist<T>(
        &self,
        work: impl AsyncFnMut(Object) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        // Only the first call waits for a server that does not answer.
        let patience = if self.silent.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
        self.persist_for(patience, work).await
    }

    /// Does the same for a time of the caller's, even if an earlier call found no server.
    pub(super) async fn persist_for<T>(
        &self,
        patience: Duration,
        mut work: impl AsyncFnMut(Object) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(20);
        loop {
            let done = match self.connection().await {
                Ok(connection) => work(connection).await,
                Err(failed) => Err(failed),
            };
            match done {
                Err(Failed::Passing(error)) if Instant::now() + pause < deadline => {
                    tracing::debug!("the registry's database is asked again: {error}");
                }
                done => {
                    let silent = matches!(done, Err(Failed::Passing(_)));
                    self.silent.store(silent, Ordering::Relaxed);
                    return done;
                }
            }
            // No connection is held meanwhile.
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Runs one statement that may be repeated, when a registry is made or opened. It soon fails if
    /// the server cannot be reached, because the address may be wrong.
    pub(super) fn run<T>(
        &self,
        mut work: impl AsyncFnMut(&Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T> {
        let work = self.persist_for(OPEN_PATIENCE, async |connection| {
            let done = work(&connection).await;
            if done.is_err() {
                drop(Object::take(connection));
            }
            Ok(done?)
        });
        self.block_on(work).map_err(Failed::into_error)
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// Returns the key of the advisory lock for a schema. Other registries in the same database have
/// other keys.
fn lock_key(schema: &str) -> i64 {
    let hash = blake3::hash(format!("artifactfs registry {schema}").as_bytes());
    let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash is longer");
    i64::from_be_bytes(*first)
}

fn tls_config(root: Option<&std::path::Path>) -> Result<rustls::ClientConfig> {
    let failed =
        |e: rustls::Error| Error::new(Kind::Unavailable, "TLS cannot be set up").because(e);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let Some(path) = root else {
        return Ok(builder.with_platform_verifier().map_err(failed)?.with_no_client_auth());
    };
    let unread = |e: &dyn std::fmt::Display| {
        let what = format!("cannot read certificates from {}: {e}", path.display());
        Error::new(Kind::Usage, what).hint("sslrootcert= names a file of certificates in PEM")
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unread(&e))? {
        roots.add(certificate.map_err(|e| unread(&e))?).map_err(|e| unread(&e))?;
    }
    if roots.is_empty() {
        return Err(unread(&"it has none"));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Returns the one runtime for all databases of this process.
fn runtime() -> Result<Arc<Runtime>> {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(Arc::clone(runtime));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("postgres")
        .enable_all()
        .build()
        .map_err(|e| Error::io("cannot start the thread for databases", e))?;
    Ok(Arc::clone(RUNTIME.get_or_init(|| Arc::new(runtime))))
}

/// The distance of the server's clock from this host's, in milliseconds.
#[derive(Default)]
pub(super) struct ServerTime(AtomicI64);

impl ServerTime {
    /// Notes the server's time.
    pub(super) fn note(&self, milliseconds: i64) {
        self.0.store(milliseconds - own_milliseconds(), Ordering::Relaxed);
    }

    /// Returns the server's time in milliseconds since 1970.
    pub(super) fn now_milliseconds(&self) -> u64 {
        let now = own_milliseconds() + self.0.load(Ordering::Relaxed);
        u64::try_from(now).unwrap_or(0)
    }
}

#[expect(clippy::disallowed_methods, reason = "only its distance from the server's clock is used")]
fn own_milliseconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
