//! The certificate of the server, which is read again when its files change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Error, Kind, Result};

/// The files of a certificate.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate and those of the authorities between, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// The certificate in use.
pub(super) struct Tls {
    files: TlsFiles,
    config: RustlsConfig,
    stamps: Mutex<[Option<SystemTime>; 2]>,
}

impl Tls {
    /// Reads the certificate.
    ///
    /// # Errors
    /// [`Kind::Usage`] if it cannot be used.
    pub(super) fn open(files: TlsFiles) -> Result<Self> {
        let stamps = Mutex::new(files.stamps());
        let config = RustlsConfig::from_config(Arc::new(files.read()?));
        Ok(Self { files, config, stamps })
    }

    pub(super) fn config(&self) -> RustlsConfig {
        self.config.clone()
    }

    /// Reads the certificate again if one of its files is another one now. One that cannot be used
    /// is reported, and the old one stays.
    pub(super) fn reload_if_changed(&self) {
        let now = self.files.stamps();
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        if *stamps == now {
            return;
        }
        *stamps = now;
        match self.files.read() {
            Ok(config) => {
                self.config.reload_from_config(Arc::new(config));
                tracing::info!("the certificate was read again");
            }
            Err(e) => tracing::error!("the certificate in use stays: {e}"),
        }
    }
}

impl TlsFiles {
    fn stamps(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key]
            .map(|path| fs::metadata(path).and_then(|found| found.modified()).ok())
    }

    fn read(&self) -> Result<ServerConfig> {
        let unread = |path: &Path, e: &dyn std::fmt::Display| {
            let what = format!("cannot use {}: {e}", path.display());
            Error::new(Kind::Usage, what).hint("certificate and key are files in PEM")
        };
        let path = &self.certificate;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
            .map_err(|e| unread(path, &e))?
            .collect::<Result<_, _>>()
            .map_err(|e| unread(path, &e))?;
        if chain.is_empty() {
            return Err(unread(path, &"it holds no certificate"));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| unread(&self.key, &e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| unread(path, &e))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|e| unread(path, &e))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}
