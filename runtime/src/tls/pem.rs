//! Where a PEM text comes from, and what is in it.

use std::fs::File;
use std::io::Read;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use crate::config::Secret;

/// The bundle of all public authorities takes a quarter of a MiB.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A PEM text: inline, or in a file that may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pem {
    /// In the configuration itself.
    Inline {
        /// The key that holds it.
        key: String,
        /// The text.
        text: Secret,
    },
    /// In a file.
    File {
        /// The key that names it.
        key: String,
        /// Its path.
        path: String,
    },
}

impl Pem {
    /// Of the two keys that can hold a text, (key, text) and (key, path), the one that does.
    ///
    /// # Errors
    /// Both do.
    pub fn either(inline: (String, &str), file: (String, &str)) -> Result<Option<Self>, TlsError> {
        match (inline, file) {
            ((_, ""), (_, "")) => Ok(None),
            ((key, text), (_, "")) => Ok(Some(Self::Inline { key, text: Secret::new(text) })),
            ((_, ""), (key, path)) => Ok(Some(Self::File { key, path: path.to_owned() })),
            ((inline, _), (file, _)) => Err(TlsError::setting(inline, format!("cannot be set together with {file}"))),
        }
    }

    /// The key that holds the text or names the file.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Inline { key, .. } | Self::File { key, .. } => key,
        }
    }

    /// The text as it is now. Blocks on the disk.
    pub(super) fn read(&self) -> Result<Vec<u8>, TlsError> {
        let (key, path) = match self {
            Self::Inline { text, .. } => return Ok(text.expose().as_bytes().to_vec()),
            Self::File { key, path } => (key, path),
        };
        let failed = |source| TlsError::Read { key: key.clone(), path: path.clone(), source };
        let mut text = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(self.content(format!("larger than {MAX_FILE_BYTES} bytes, so no PEM file of certificates")));
        }
        Ok(text)
    }

    fn content(&self, what: impl Into<String>) -> TlsError {
        let place = match self {
            Self::Inline { key, .. } => key.clone(),
            Self::File { key, path } => format!("{key}: {path}"),
        };
        TlsError::Content { place, what: what.into() }
    }

    /// The certificates in a text that was read from here, at least one.
    pub(super) fn certificates(&self, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        match found {
            Ok(found) if found.is_empty() => Err(self.content("there is no certificate in it")),
            Ok(found) => Ok(found),
            Err(error) => Err(self.content(format!("it is not PEM: {error}"))),
        }
    }

    /// The private key in a text that was read from here.
    pub(super) fn private_key(&self, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => self.content("there is no private key in it"),
            error => self.content(format!("it is not PEM: {error}")),
        })
    }

    /// The authorities in a text that was read from here.
    pub(super) fn authorities(&self, text: &[u8]) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(text)? {
            roots.add(certificate).map_err(|error| self.content(format!("it holds no usable authority: {error}")))?;
        }
        Ok(roots)
    }
}
