//! What a listener asks of its clients' certificates.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::TlsError;

/// What is asked of clients. The names are Go's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// Nothing.
    #[default]
    NoClientCert,
    /// A certificate, which may be missing and which nobody checks.
    RequestClientCert,
    /// A certificate, which nobody checks.
    RequireAnyClientCert,
    /// A certificate of a known authority, which may be missing.
    VerifyClientCertIfGiven,
    /// A certificate of a known authority.
    RequireAndVerifyClientCert,
}

impl ClientAuth {
    /// Reads a name; empty is [`ClientAuth::NoClientCert`].
    ///
    /// # Errors
    /// No such name.
    pub fn parse(key: &str, name: &str) -> Result<Self, TlsError> {
        match name {
            "" | "NoClientCert" => Ok(Self::NoClientCert),
            "RequestClientCert" => Ok(Self::RequestClientCert),
            // Go's libraries know the second name, too.
            "RequireAnyClientCert" | "RequireClientCert" => Ok(Self::RequireAnyClientCert),
            "VerifyClientCertIfGiven" => Ok(Self::VerifyClientCertIfGiven),
            "RequireAndVerifyClientCert" => Ok(Self::RequireAndVerifyClientCert),
            other => Err(TlsError::setting(
                key,
                format!(
                    "there is no `{other}`; there are NoClientCert, RequestClientCert, RequireAnyClientCert, \
                     VerifyClientCertIfGiven, RequireAndVerifyClientCert"
                ),
            )),
        }
    }

    pub(super) fn verifies(self) -> bool {
        matches!(self, Self::VerifyClientCertIfGiven | Self::RequireAndVerifyClientCert)
    }

    /// Who judges clients; `None` if nothing is asked of them. `roots` counts only where certificates are verified.
    pub(super) fn verifier(
        self,
        roots: RootCertStore,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, Error> {
        let any = |mandatory| -> Arc<dyn ClientCertVerifier> {
            Arc::new(Unchecked { mandatory, algorithms: provider.signature_verification_algorithms })
        };
        let builder = || WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let failed = |error: rustls::server::VerifierBuilderError| Error::General(error.to_string());
        Ok(match self {
            Self::NoClientCert => None,
            Self::RequestClientCert => Some(any(false)),
            Self::RequireAnyClientCert => Some(any(true)),
            Self::VerifyClientCertIfGiven => Some(builder().allow_unauthenticated().build().map_err(failed)?),
            Self::RequireAndVerifyClientCert => Some(builder().build().map_err(failed)?),
        })
    }
}

/// Takes every certificate, but only from whoever holds its key.
#[derive(Debug)]
pub(super) struct Unchecked {
    pub(super) mandatory: bool,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Unchecked {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The same for servers: `tls_insecure_skip_verify`.
impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
