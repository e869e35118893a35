//! TLS of channels: the other side of [`Tls`](super::Tls), with the keys `tls_*` of clients.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client_auth::Unchecked;
use super::named::Named;
use super::{Choices, Pem, TlsError};
use crate::config::TlsClientConfig;

/// TLS of channels. Clones share what was read.
#[derive(Clone)]
pub struct ClientTls {
    settings: Arc<Settings>,
    loaded: Arc<ArcSwap<Loaded>>,
}

struct Settings {
    key: String,
    identity: Option<(Pem, Pem)>,
    authorities: Option<Pem>,
    choices: Choices,
    unchecked: bool,
    server_name: Option<ServerName<'static>>,
    /// What is spoken on the connection, as TLS names it (ALPN).
    protocol: &'static [u8],
    /// Authorities of the system, read once.
    system: RootCertStore,
}

#[derive(PartialEq, Eq)]
struct Texts {
    identity: Option<(Vec<u8>, Vec<u8>)>,
    authorities: Option<Vec<u8>>,
}

struct Loaded {
    texts: Texts,
    config: Arc<ClientConfig>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ClientTls").field(&self.settings.key).finish()
    }
}

impl ClientTls {
    /// Reads the files and builds everything. `key` is the section that holds the keys `tls_*`.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open(key: &str, config: &TlsClientConfig) -> Result<Self, TlsError> {
        Self::speaking(b"h2", key, config)
    }

    /// [`Self::open`] for peers that are spoken to in HTTP/1.1.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open_http1(key: &str, config: &TlsClientConfig) -> Result<Self, TlsError> {
        Self::speaking(b"http/1.1", key, config)
    }

    /// [`Self::open`] for peers of a protocol that TLS has no name for.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open_unnamed(key: &str, config: &TlsClientConfig) -> Result<Self, TlsError> {
        Self::speaking(b"", key, config)
    }

    /// The settings as they are in the files now, for a library that shakes hands by itself. The name `tls_server_name` is what the
    /// peer's certificate is checked against, whatever name the library asks for.
    ///
    /// # Errors
    /// The runtime is stopping.
    pub async fn config(&self) -> io::Result<Arc<ClientConfig>> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.current()).await.map_err(io::Error::other)
    }

    fn speaking(protocol: &'static [u8], key: &str, config: &TlsClientConfig) -> Result<Self, TlsError> {
        let of = |name: &str| format!("{key}.{name}");
        let file = |name: &str, path: &str| Pem::either((String::new(), ""), (of(name), path));
        let identity =
            match (file("tls_cert_path", &config.tls_cert_path)?, file("tls_key_path", &config.tls_key_path)?) {
                (Some(chain), Some(private_key)) => Some((chain, private_key)),
                (None, None) => None,
                (Some(_), None) => return Err(TlsError::setting(of("tls_key_path"), "is required with tls_cert_path")),
                (None, Some(_)) => return Err(TlsError::setting(of("tls_cert_path"), "is required with tls_key_path")),
            };
        let server_name = match config.tls_server_name.as_str() {
            "" => None,
            name => Some(ServerName::try_from(name.to_owned()).map_err(|error| {
                TlsError::setting(of("tls_server_name"), format!("`{name}` is no name of a server: {error}"))
            })?),
        };
        let choices = Choices::default()
            .oldest(&of("tls_min_version"), &config.tls_min_version)?
            .suites(&of("tls_cipher_suites"), config.tls_cipher_suites.iter().map(String::as_str))?;
        let authorities = file("tls_ca_path", &config.tls_ca_path)?;
        let unchecked = config.tls_insecure_skip_verify;
        if unchecked {
            tracing::warn!(key = of("tls_insecure_skip_verify"), "peers are not verified: anybody can pose as them");
        }
        let needs_system = authorities.is_none() && !unchecked;
        let system = if needs_system { system_authorities(&of("tls_ca_path"))? } else { RootCertStore::empty() };
        let key = key.to_owned();
        let settings = Settings { key, identity, authorities, choices, unchecked, server_name, protocol, system };
        let texts = settings.read()?;
        let config = settings.build(&texts)?;
        let loaded = Arc::new(ArcSwap::from_pointee(Loaded { texts, config }));
        Ok(Self { settings: Arc::new(settings), loaded })
    }

    /// Shakes hands with `host` on a connection to it. Files that have changed are read again first.
    ///
    /// # Errors
    /// The peer is not who it should be, or does not speak TLS.
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.settings.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned())
                .map_err(|error| io::Error::other(format!("{host} is no name of a server: {error}")))?,
        };
        let current = self.config().await?;
        TlsConnector::from(current).connect(name, stream).await
    }

    /// What is in the files now, or the last that could be used.
    fn current(&self) -> Arc<ClientConfig> {
        let loaded = self.loaded.load_full();
        let fresh = self.settings.read().and_then(|texts| {
            if texts == loaded.texts {
                return Ok(None);
            }
            Ok(Some(Loaded { config: self.settings.build(&texts)?, texts }))
        });
        match fresh {
            Ok(None) => Arc::clone(&loaded.config),
            Ok(Some(fresh)) => {
                let config = Arc::clone(&fresh.config);
                self.loaded.store(Arc::new(fresh));
                config
            }
            Err(error) => {
                tracing::error!(error = error.text(), "read the TLS files again; the last ones stay in force");
                Arc::clone(&loaded.config)
            }
        }
    }
}

impl Settings {
    fn read(&self) -> Result<Texts, TlsError> {
        let identity = match &self.identity {
            Some((chain, private_key)) => Some((chain.read()?, private_key.read()?)),
            None => None,
        };
        Ok(Texts { identity, authorities: self.authorities.as_ref().map(Pem::read).transpose()? })
    }

    fn build(&self, texts: &Texts) -> Result<Arc<ClientConfig>, TlsError> {
        let failed = |source| TlsError::Unusable { key: self.key.clone(), source };
        let provider = self.choices.provider();
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.choices.versions())
            .map_err(failed)?;
        let builder = if self.unchecked {
            let verifier = Arc::new(Unchecked { mandatory: true, algorithms });
            builder.dangerous().with_custom_certificate_verifier(verifier)
        } else {
            let authorities = match (&self.authorities, &texts.authorities) {
                (Some(pem), Some(text)) => pem.authorities(text)?,
                _ => self.system.clone(),
            };
            match &self.server_name {
                None => builder.with_root_certificates(authorities),
                Some(name) => {
                    let verifier = Named::new(name.clone(), authorities, self.choices.provider()).map_err(failed)?;
                    builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
                }
            }
        };
        let mut config = match (&self.identity, &texts.identity) {
            (Some((chain, private_key)), Some((chain_text, key_text))) => builder
                .with_client_auth_cert(chain.certificates(chain_text)?, private_key.private_key(key_text)?)
                .map_err(failed)?,
            _ => builder.with_no_client_auth(),
        };
        if !self.protocol.is_empty() {
            config.alpn_protocols = vec![self.protocol.to_vec()];
        }
        Ok(Arc::new(config))
    }
}

/// Shakes hands on a blocking connection with whoever is there, verified by nothing: for asking the own process how it is.
///
/// # Errors
/// The peer does not speak TLS, or asks for a certificate.
pub fn unverified(host: &str, stream: TcpStream) -> io::Result<impl io::Read + io::Write> {
    let choices = Choices::default();
    let provider = choices.provider();
    let algorithms = provider.signature_verification_algorithms;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&choices.versions())
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked { mandatory: true, algorithms }))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connection = rustls::ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(rustls::StreamOwned::new(connection, stream))
}

/// The authorities that the operating system trusts.
fn system_authorities(key: &str) -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _ignored) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(TlsError::setting(key, format!("is empty, and the system has no authorities to trust{why}")));
    }
    Ok(roots)
}
