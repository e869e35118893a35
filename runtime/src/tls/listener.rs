//! TLS of a listener: handshakes, and following the files.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::{RootCertStore, ServerConfig as RustlsConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{Choices, ClientAuth, Pem, Socket, TlsError};
use crate::config::{ServerConfig, ServerTlsConfig};

/// From the first byte to the end of a handshake, waiting for its turn included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once on one listener: each costs a signature, a millisecond of one core with RSA, and some 30 KiB.
const HANDSHAKES: usize = 256;
/// Between two looks at the files of the main listeners.
const RELOAD: Duration = Duration::from_secs(10);

/// How a listener speaks TLS.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// The section of the configuration, for errors and log lines.
    pub key: String,
    /// The chain of certificates, the listener's own first.
    pub chain: Pem,
    /// The key of that certificate.
    pub private_key: Pem,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
    /// Authorities of clients' certificates.
    pub client_ca: Option<Pem>,
    /// Versions and algorithms.
    pub choices: Choices,
    /// Between two looks at the files. `None`: they are read again on SIGHUP only.
    pub reload: Option<Duration>,
}

impl TlsSettings {
    /// The settings of one listener of the server, `server.<section>`. `None` if the section is empty: plain text.
    ///
    /// # Errors
    /// Keys that exclude each other or are missing, or names that do not exist. No file is read yet.
    pub fn of_server(server: &ServerConfig, section: &str, tls: &ServerTlsConfig) -> Result<Option<Self>, TlsError> {
        if *tls == ServerTlsConfig::default() {
            return Ok(None);
        }
        let key = format!("server.{section}");
        let of = |name: &str| format!("{key}.{name}");
        let chain = Pem::either((of("cert"), &tls.cert), (of("cert_file"), &tls.cert_file))?;
        let private_key = Pem::either((of("key"), tls.key.expose()), (of("key_file"), &tls.key_file))?;
        let client_ca = Pem::either((of("client_ca"), &tls.client_ca), (of("client_ca_file"), &tls.client_ca_file))?;
        let client_auth = ClientAuth::parse(&of("client_auth_type"), &tls.client_auth_type)?;
        let choices = Choices::default()
            .oldest("server.tls_min_version", &server.tls_min_version)?
            .suites("server.tls_cipher_suites", server.tls_cipher_suites.split(','))?;
        let missing = |name: &str| TlsError::setting(of(name), "is required for TLS");
        let settings = Self {
            chain: chain.ok_or_else(|| missing("cert_file"))?,
            private_key: private_key.ok_or_else(|| missing("key_file"))?,
            client_auth,
            client_ca,
            choices,
            reload: Some(RELOAD),
            key,
        };
        settings.check("client_auth_type", "client_ca_file")?;
        Ok(Some(settings))
    }

    /// That what protects is not there in vain. The names are those of the keys below [`TlsSettings::key`].
    fn check(&self, auth: &str, ca: &str) -> Result<(), TlsError> {
        let of = |name: &str| format!("{}.{name}", self.key);
        match &self.client_ca {
            None if self.client_auth.verifies() => {
                let what = format!("is required with {auth}: {:?}", self.client_auth);
                Err(TlsError::setting(of(ca), what))
            }
            Some(pem) if self.client_auth == ClientAuth::NoClientCert => {
                let what = format!("has no use unless {} asks clients for a certificate", of(auth));
                Err(TlsError::setting(pem.key(), what))
            }
            Some(pem) if !self.client_auth.verifies() => {
                tracing::warn!(key = pem.key(), asked = ?self.client_auth, "clients' certificates are not verified");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn read(&self) -> Result<Texts, TlsError> {
        Ok(Texts {
            chain: self.chain.read()?,
            private_key: self.private_key.read()?,
            client_ca: self.client_ca.as_ref().map(Pem::read).transpose()?,
        })
    }

    fn build(&self, texts: &Texts) -> Result<Arc<RustlsConfig>, TlsError> {
        let failed = |source| TlsError::Unusable { key: self.key.clone(), source };
        let chain = self.chain.certificates(&texts.chain)?;
        let private_key = self.private_key.private_key(&texts.private_key)?;
        let roots = match (&self.client_ca, &texts.client_ca) {
            (Some(pem), Some(text)) => pem.authorities(text)?,
            _ => RootCertStore::empty(),
        };
        let provider = self.choices.provider();
        let verifier = self.client_auth.verifier(roots, &provider).map_err(failed)?;
        let builder = RustlsConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.choices.versions())
            .map_err(failed)?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, private_key).map_err(failed)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The texts that a config was built from.
#[derive(PartialEq, Eq)]
struct Texts {
    chain: Vec<u8>,
    private_key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

struct Loaded {
    texts: Texts,
    config: Arc<RustlsConfig>,
}

struct Inner {
    settings: TlsSettings,
    /// Handshakes take what is there when they begin; connections keep what they began with.
    loaded: ArcSwap<Loaded>,
    turns: Semaphore,
    handshake_timeout: Duration,
}

/// TLS of one listener. Clones are one.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.0.settings.key).finish()
    }
}

impl Tls {
    /// Reads the files and builds everything.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open(settings: TlsSettings) -> Result<Self, TlsError> {
        Self::open_with(settings, HANDSHAKE_TIMEOUT, HANDSHAKES)
    }

    /// With other bounds than the usual ones.
    pub(super) fn open_with(
        settings: TlsSettings,
        handshake_timeout: Duration,
        handshakes: usize,
    ) -> Result<Self, TlsError> {
        let texts = settings.read()?;
        let config = settings.build(&texts)?;
        let loaded = ArcSwap::from_pointee(Loaded { texts, config });
        Ok(Self(Arc::new(Inner { settings, loaded, turns: Semaphore::new(handshakes), handshake_timeout })))
    }

    /// [`TlsSettings::of_server`] and [`Tls::open`] in one.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn of_server(server: &ServerConfig, section: &str, tls: &ServerTlsConfig) -> Result<Option<Self>, TlsError> {
        TlsSettings::of_server(server, section, tls)?.map(Self::open).transpose()
    }

    /// Shakes hands on a connection that was accepted, within ten seconds.
    ///
    /// # Errors
    /// The peer does not speak TLS, agrees on nothing with us, has no certificate that counts, or takes too long.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<Socket<S>> {
        let handshake = async {
            // The semaphore is never closed.
            let _turn = self.0.turns.acquire().await;
            let config = Arc::clone(&self.0.loaded.load().config);
            TlsAcceptor::from(config).accept(stream).await
        };
        match tokio::time::timeout(self.0.handshake_timeout, handshake).await {
            Ok(shaken) => Ok(Socket::Tls(Box::new(shaken?))),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")),
        }
    }

    /// Handshakes that may begin now.
    #[cfg(test)]
    pub(super) fn free_turns(&self) -> usize {
        self.0.turns.available_permits()
    }

    /// Reads the files again. True if something has changed: handshakes from now on use it. Blocks on the disk.
    ///
    /// # Errors
    /// What is there now cannot be used; what was in force stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let texts = self.0.settings.read()?;
        if texts == self.0.loaded.load().texts {
            return Ok(false);
        }
        let config = self.0.settings.build(&texts)?;
        self.0.loaded.store(Arc::new(Loaded { texts, config }));
        Ok(true)
    }

    /// Reads the files again, at intervals and on SIGHUP, until stopped. What goes wrong is logged once.
    pub async fn follow(self, stop: CancellationToken) {
        let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
        let interval = self.0.settings.reload;
        let mut problem = None;
        loop {
            let signal = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let time = async {
                match interval {
                    Some(interval) => tokio::time::sleep(interval).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = signal => {}
                () = time => {}
            }
            let this = self.clone();
            let key = &self.0.settings.key;
            match tokio::task::spawn_blocking(move || this.reload()).await {
                Ok(Ok(changed)) => {
                    if changed {
                        tracing::info!(key, "TLS files have changed; new connections use them");
                    }
                    problem = None;
                }
                Ok(Err(error)) => {
                    let error = error.text();
                    if problem.as_ref() != Some(&error) {
                        tracing::error!(error, "read the TLS files again; the last ones stay in force");
                        problem = Some(error);
                    }
                }
                // The runtime is ending.
                Err(_) => return,
            }
        }
    }
}
