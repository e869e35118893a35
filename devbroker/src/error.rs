//! Why a broker does not start.

use vivace_log::Error as LogError;
use vivace_runtime::ListenError;

/// Why a broker does not start. Nothing is listening then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that is not `host:port`.
    #[error("{what} `{address}` is not host:port (an IPv6 address stands in brackets)")]
    Address {
        /// Which option.
        what: &'static str,
        /// What it says.
        address: String,
    },
    /// No address at all.
    #[error("there is no address to listen on")]
    NoAddress,
    /// An address that others can reach, without permission.
    #[error(
        "{address} can be reached from other machines, and this broker is for development only: it neither encrypts nor asks who \
         may do what. Use a loopback address, or --allow-remote if you mean it; in production use Apache Kafka"
    )]
    Remote {
        /// The address.
        address: std::net::SocketAddr,
    },
    /// An address that others can reach, for the admin port.
    #[error("the admin port can be on a loopback address only, not on {address}")]
    RemoteAdmin {
        /// The address.
        address: std::net::SocketAddr,
    },
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A number that makes no sense.
    #[error("{0}")]
    Option(String),
    /// A topic to make at start is not possible.
    #[error("topic `{name}`: {message}")]
    Topic {
        /// Its name.
        name: String,
        /// Why.
        message: String,
    },
    /// The folder cannot be used.
    #[error("open the broker's folder")]
    Log(#[from] LogError),
    /// The operating system refuses threads or sockets.
    #[error("{action}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}
