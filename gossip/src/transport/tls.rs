//! TLS of streams, with the keys `memberlist.tls_*`. Datagrams have none, so with TLS there are none.
//!
//! As in Tempo, the side that accepts shows its certificate and asks for none; labels and `memberlist.encryption_keys` say who
//! may take part.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use vivace_runtime::config::TlsClientConfig;
use vivace_runtime::tls::{Choices, ClientAuth, ClientTls, Pem, Socket, Tls, TlsError, TlsSettings};

use crate::config::Config;

/// Both sides of TLS between members. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct StreamTls {
    listener: Tls,
    dialler: ClientTls,
}

impl StreamTls {
    /// Reads what `memberlist.tls_*` says and the files that it names; none if TLS is off.
    ///
    /// # Errors
    /// A key is missing, or what it names cannot be used.
    pub(crate) fn of(config: &Config) -> Result<Option<Self>, TlsError> {
        let Some((listener, client)) = Self::settings(config)? else { return Ok(None) };
        let listener = Tls::open(listener)?;
        Ok(Some(Self { listener, dialler: ClientTls::open("memberlist", &client)? }))
    }

    /// What `memberlist.tls_*` says of both sides, without a look at files.
    ///
    /// # Errors
    /// A key is missing, or says what cannot be.
    pub(crate) fn settings(config: &Config) -> Result<Option<(TlsSettings, TlsClientConfig)>, TlsError> {
        if !config.tls_enabled {
            return Ok(None);
        }
        let file = |name: &str, path: &str| {
            let key = format!("memberlist.{name}");
            let found = Pem::either((String::new(), ""), (key.clone(), path))?;
            found.ok_or_else(|| TlsError::Setting { key, what: "is required with memberlist.tls_enabled".to_owned() })
        };
        let choices = Choices::default()
            .oldest("memberlist.tls_min_version", &config.tls_min_version)?
            .suites("memberlist.tls_cipher_suites", config.tls_cipher_suites.iter().map(String::as_str))?;
        let listener = TlsSettings {
            key: "memberlist".to_owned(),
            chain: file("tls_cert_path", &config.tls_cert_path)?,
            private_key: file("tls_key_path", &config.tls_key_path)?,
            client_auth: ClientAuth::NoClientCert,
            client_ca: None,
            choices,
            reload: Some(std::time::Duration::from_secs(10)),
        };
        let client = TlsClientConfig {
            tls_cert_path: config.tls_cert_path.clone(),
            tls_key_path: config.tls_key_path.clone(),
            tls_ca_path: config.tls_ca_path.clone(),
            tls_server_name: config.tls_server_name.clone(),
            tls_insecure_skip_verify: config.tls_insecure_skip_verify,
            tls_cipher_suites: config.tls_cipher_suites.clone(),
            tls_min_version: config.tls_min_version.clone(),
        };
        Ok(Some((listener, client)))
    }

    /// The listener's side, whose files are to be followed.
    pub(crate) fn listener(&self) -> Tls {
        self.listener.clone()
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Socket<TcpStream>> {
        self.listener.accept(stream).await
    }

    /// The name that the certificate must have is `memberlist.tls_server_name`, or the address.
    pub(super) async fn connect(&self, address: SocketAddr, stream: TcpStream) -> io::Result<Box<dyn Duplex>> {
        let stream = self.dialler.connect(&address.ip().to_string(), stream).await?;
        Ok(Box::new(stream))
    }
}

/// Both directions of a connection.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}
