//! Making gRPC channels: keep-alive, sizes, timeouts and TLS in one place, because each missing one is an outage somewhere.
//!
//! Without HTTP/2 keep-alive a channel whose peer vanished behind a network split goes on timing out for ever after it has
//! healed; with it the channel fails fast and reconnects.

use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::config::GrpcClientConfig;
use crate::tls::{ClientTls, TlsError};

/// The largest gRPC request that we send or take between our own processes: 16 MiB.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The largest message of an answer between our own processes: 64 MiB. What is larger by nature comes in parts of a few MiB.
pub const MAX_REPLY_BYTES: usize = 64 << 20;

/// What may be under way to a process on one stream before it has read it: a part of a large answer.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// The same on all streams of a connection. The HTTP/2 library counts small frames that were not read yet against half of this, 256 bytes
/// for each, and ends the connection with all its calls above that: with its own window of 64 KiB some 140 small replies do it, which a
/// process that is busy for a moment has before it.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// How channels are made.
#[derive(Debug, Clone)]
pub struct Dial {
    /// How long a TCP and TLS handshake may take.
    pub connect_timeout: Duration,
    /// How long the peer may be silent before it is asked for a sign of life.
    pub keep_alive_interval: Duration,
    /// How long the sign of life may take.
    pub keep_alive_timeout: Duration,
    /// TLS; without it, plain text.
    pub tls: Option<ClientTls>,
    /// What we call ourselves.
    pub user_agent: String,
}

impl Default for Dial {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(5),
            tls: None,
            user_agent: concat!("vivace/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Why no channel could be made.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Expected: a wrong configuration. Nothing was dialled.
    #[error("address {address:?} is not host:port")]
    Address {
        /// As given.
        address: String,
        /// What the parser says.
        source: tonic::transport::Error,
    },
}

impl Dial {
    /// As a section of the configuration says, whose key is `key`.
    ///
    /// # Errors
    /// The files or values of TLS cannot be used.
    pub fn of(key: &str, config: &GrpcClientConfig) -> Result<Self, TlsError> {
        let tls = config.tls().map(|tls| ClientTls::open(key, &tls)).transpose()?;
        let connect_timeout = match config.connect_timeout.get() {
            zero if zero.is_zero() => Self::default().connect_timeout,
            some => some,
        };
        Ok(Self { connect_timeout, tls, ..Self::default() })
    }

    /// A channel that connects on first use and again after every loss. Needs to be called inside a tokio runtime.
    ///
    /// `address` is `host:port`, where the host is a name, an IPv4 address, or an IPv6 address with or without brackets, or
    /// a whole URL.
    ///
    /// # Errors
    /// The address cannot be understood.
    pub fn channel(&self, address: &str) -> Result<Channel, DialError> {
        self.channel_to(address, None)
    }

    /// As [`Self::channel`], where the address is one of those that `name` was resolved to: TLS expects the name.
    ///
    /// # Errors
    /// The address cannot be understood.
    pub fn channel_to(&self, address: &str, name: Option<&str>) -> Result<Channel, DialError> {
        let failed = |source| DialError::Address { address: address.to_owned(), source };
        let endpoint = Endpoint::from_shared(self.url(address))
            .and_then(|endpoint| endpoint.user_agent(self.user_agent.clone()))
            .map_err(failed)?
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(self.keep_alive_interval)
            .keep_alive_timeout(self.keep_alive_timeout)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let Some(tls) = self.tls.clone() else { return Ok(endpoint.connect_lazy()) };
        // The library's own TLS knows neither suites nor versions nor changing files, so hands are shaken here; the library
        // must then believe that it speaks plain text, and requests carry the scheme all the same.
        let mut origin = endpoint.uri().clone().into_parts();
        origin.scheme = Some(http::uri::Scheme::HTTPS);
        let endpoint = match Uri::from_parts(origin) {
            Ok(origin) => endpoint.origin(origin),
            Err(_) => endpoint,
        };
        let name: Option<std::sync::Arc<str>> = name.map(Into::into);
        let connect = tower::service_fn(move |url: Uri| {
            let (tls, name) = (tls.clone(), name.clone());
            async move {
                let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
                let stream = TcpStream::connect((host, url.port_u16().unwrap_or(443))).await?;
                stream.set_nodelay(true)?;
                std::io::Result::Ok(TokioIo::new(tls.connect(name.as_deref().unwrap_or(host), stream).await?))
            }
        });
        Ok(endpoint.connect_with_connector_lazy(connect))
    }

    fn url(&self, address: &str) -> String {
        if let Some(rest) = address.strip_prefix("https://").filter(|_| self.tls.is_some()) {
            return format!("http://{rest}");
        }
        if address.contains("://") {
            return address.to_owned();
        }
        let scheme = "http";
        match address.rsplit_once(':') {
            // An IPv6 address without brackets: the last colon still separates the port.
            Some((host, port)) if host.contains(':') && !host.starts_with('[') => format!("{scheme}://[{host}]:{port}"),
            _ => format!("{scheme}://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_spelling_of_an_address_makes_a_channel() {
        let dial = Dial::default();
        for address in ["localhost:9095", "127.0.0.1:1", "[::1]:9095", "::1:9095", "http://a:1"] {
            assert!(dial.channel(address).is_ok(), "{address}");
        }
        assert_eq!(dial.url("fd00::1:9095"), "http://[fd00::1]:9095");
        assert!(dial.channel("not an address").is_err());
    }
}
