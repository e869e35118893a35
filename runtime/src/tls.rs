//! TLS of listeners and of channels: one rustls with ring, settings from the configuration, files read again when they change.
//!
//! ```text
//! keys of the configuration -> TlsSettings ── read, build ──> rustls config ──> Tls::accept, one per handshake
//!                                                 ^ every few seconds and on SIGHUP; what cannot be used leaves the last good
//! ```
//!
//! Reading order: [`Pem`] (where a text comes from), [`Choices`] (versions and algorithms), [`ClientAuth`], [`TlsSettings`] and
//! [`Tls`] (listeners), [`ClientTls`] (channels). Names are those of Go and of the OpenTelemetry Collector, as in the
//! configuration; what rustls does not have, because it is weak, is refused or left out with a warning, never passed over.

use std::io;

mod choices;
mod client_auth;
mod dialler;
mod listener;
mod named;
mod pem;
mod socket;
#[cfg(test)]
mod tests;

pub use choices::Choices;
pub use client_auth::ClientAuth;
pub use dialler::{ClientTls, unverified};
pub use listener::{Tls, TlsSettings};
pub use pem::Pem;
pub use socket::Socket;

/// Why TLS cannot be used as configured. Expected: a wrong key or a wrong file; what was in force stays in force.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read; a later attempt may succeed.
    #[error("{key}: read {path}")]
    Read {
        /// The key that names the file.
        key: String,
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file or an inline text does not hold what it should.
    #[error("{place}: {what}")]
    Content {
        /// The key, and the file that it names.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// A key is missing, excludes another, or has a value that does not exist.
    #[error("{key}: {what}")]
    Setting {
        /// The key.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// The parts do not fit together, for instance a key that is not the certificate's.
    #[error("{key} cannot be used")]
    Unusable {
        /// The section, or the key.
        key: String,
        /// What the TLS library says.
        source: rustls::Error,
    },
}

impl TlsError {
    fn setting(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Setting { key: key.into(), what: what.into() }
    }

    /// The whole chain in one line, for log lines.
    fn text(&self) -> String {
        match self {
            Self::Read { source, .. } => format!("{self}: {source}"),
            Self::Unusable { source, .. } => format!("{self}: {source}"),
            Self::Content { .. } | Self::Setting { .. } => self.to_string(),
        }
    }
}
