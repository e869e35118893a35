//! TLS of receivers: the collector's keys as settings of a listener.

use std::time::Duration;

use vivace_runtime::tls::{Choices, ClientAuth, Pem, Tls, TlsError, TlsSettings};

use crate::config::ReceiverTlsConfig;

/// Between two looks at the authorities of clients when only `client_ca_file_reload` asks for them.
const RELOAD_CLIENT_CA: Duration = Duration::from_secs(10);

/// Reads the files of a receiver's section `tls`, whose key is given.
pub(crate) fn open(key: String, config: &ReceiverTlsConfig) -> Result<Tls, TlsError> {
    Tls::open(settings(key, config)?)
}

fn settings(key: String, config: &ReceiverTlsConfig) -> Result<TlsSettings, TlsError> {
    let of = |name: &str| format!("{key}.{name}");
    let missing = |name: &str| TlsError::Setting { key: of(name), what: "is required for TLS".to_owned() };
    let chain = Pem::either((of("cert_pem"), &config.cert_pem), (of("cert_file"), &config.cert_file))?;
    let private_key = Pem::either((of("key_pem"), config.key_pem.expose()), (of("key_file"), &config.key_file))?;
    let client_ca = Pem::either((String::new(), ""), (of("client_ca_file"), &config.client_ca_file))?;
    let choices = Choices::default()
        .oldest(&of("min_version"), &config.min_version)?
        .newest(&of("max_version"), &config.max_version)?
        .suites(&of("cipher_suites"), config.cipher_suites.iter().map(String::as_str))?
        .groups(&of("curve_preferences"), config.curve_preferences.iter().map(String::as_str))?;
    let interval = config.reload_interval.get();
    let reload = match (interval.is_zero(), config.client_ca_file_reload) {
        (false, _) => Some(interval),
        (true, true) => Some(RELOAD_CLIENT_CA),
        (true, false) => None,
    };
    Ok(TlsSettings {
        chain: chain.ok_or_else(|| missing("cert_file"))?,
        private_key: private_key.ok_or_else(|| missing("key_file"))?,
        client_auth: if client_ca.is_some() {
            ClientAuth::RequireAndVerifyClientCert
        } else {
            ClientAuth::NoClientCert
        },
        client_ca,
        choices,
        reload,
        key,
    })
}

#[cfg(test)]
mod tests {
    use vivace_runtime::config::GoDuration;

    use super::*;

    fn complete() -> ReceiverTlsConfig {
        ReceiverTlsConfig { cert_file: "/c".into(), key_file: "/k".into(), ..ReceiverTlsConfig::default() }
    }

    #[test]
    fn clients_are_verified_when_an_authority_is_named_and_files_are_followed_as_asked() {
        let of = |config: &ReceiverTlsConfig| settings("tls".into(), config).unwrap();
        assert_eq!((of(&complete()).client_auth, of(&complete()).reload), (ClientAuth::NoClientCert, None));
        let config = ReceiverTlsConfig { client_ca_file: "/ca".into(), client_ca_file_reload: true, ..complete() };
        assert_eq!(of(&config).client_auth, ClientAuth::RequireAndVerifyClientCert);
        assert_eq!(of(&config).reload, Some(RELOAD_CLIENT_CA));
        let config = ReceiverTlsConfig { reload_interval: GoDuration::secs(3), ..config };
        assert_eq!(of(&config).reload, Some(Duration::from_secs(3)));
    }

    #[test]
    fn faults_name_their_key() {
        let fault = |config: &ReceiverTlsConfig| settings("receiver.tls".into(), config).unwrap_err().to_string();
        let empty = ReceiverTlsConfig::default();
        assert_eq!(fault(&empty), "receiver.tls.cert_file: is required for TLS");
        let config = ReceiverTlsConfig { cert_pem: "x".into(), ..complete() };
        assert_eq!(fault(&config), "receiver.tls.cert_pem: cannot be set together with receiver.tls.cert_file");
        let config = ReceiverTlsConfig { max_version: "1.0".into(), ..complete() };
        assert!(fault(&config).starts_with("receiver.tls.max_version: "), "{}", fault(&config));
        let config = ReceiverTlsConfig { curve_preferences: vec!["P1".into()], ..complete() };
        assert!(fault(&config).starts_with("receiver.tls.curve_preferences: "), "{}", fault(&config));
    }
}
