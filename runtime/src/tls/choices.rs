//! Versions and algorithms, by the names that the configuration uses.

use std::sync::Arc;

use rustls::crypto::ring::{self, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion, version};

use super::TlsError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    Tls12,
    Tls13,
}

/// What both sides may agree on: versions, cipher suites, key exchanges.
///
/// Suites of TLS 1.3 are not a choice, as in Go: naming suites restricts TLS 1.2 only.
#[derive(Debug, Clone)]
pub struct Choices {
    oldest: Version,
    newest: Version,
    suites: Vec<SupportedCipherSuite>,
    groups: Vec<&'static dyn SupportedKxGroup>,
}

impl Default for Choices {
    fn default() -> Self {
        let provider = ring::default_provider();
        Self {
            oldest: Version::Tls12,
            newest: Version::Tls13,
            suites: provider.cipher_suites,
            groups: provider.kx_groups,
        }
    }
}

/// The version of a name: `VersionTLS12` or `1.2`. `Ok(None)` for versions that are too old to be had.
fn version(key: &str, name: &str) -> Result<Option<Version>, TlsError> {
    match name {
        "VersionTLS13" | "1.3" => Ok(Some(Version::Tls13)),
        "VersionTLS12" | "1.2" => Ok(Some(Version::Tls12)),
        "VersionTLS10" | "VersionTLS11" | "1.0" | "1.1" => Ok(None),
        other => Err(TlsError::setting(
            key,
            format!("there is no version `{other}`; allowed are VersionTLS12 (1.2) and VersionTLS13 (1.3)"),
        )),
    }
}

/// The name of a suite in Go and at IANA.
fn name(suite: &SupportedCipherSuite) -> String {
    suite.suite().as_str().unwrap_or_default().replacen("TLS13_", "TLS_", 1)
}

/// Suites that Go knows and that are too weak to be had here.
fn is_weak(name: &str) -> bool {
    name.starts_with("TLS_")
        && (name.starts_with("TLS_RSA_") || ["_CBC_", "_RC4_", "_3DES_"].iter().any(|part| name.contains(part)))
}

impl Choices {
    /// Sets the oldest version; an empty name leaves it.
    ///
    /// # Errors
    /// No such version.
    pub fn oldest(mut self, key: &str, name: &str) -> Result<Self, TlsError> {
        if !name.is_empty() {
            match version(key, name)? {
                Some(version) => self.oldest = version,
                None => tracing::warn!(key, asked = name, "nothing older than TLS 1.2 is spoken"),
            }
        }
        Ok(self)
    }

    /// Sets the newest version; an empty name leaves it.
    ///
    /// # Errors
    /// No such version, or nothing is left.
    pub fn newest(mut self, key: &str, name: &str) -> Result<Self, TlsError> {
        if name.is_empty() {
            return Ok(self);
        }
        match version(key, name)? {
            Some(version) if version >= self.oldest => self.newest = version,
            Some(_) => return Err(TlsError::setting(key, format!("`{name}` is below the oldest version allowed"))),
            None => return Err(TlsError::setting(key, "nothing older than TLS 1.2 is spoken")),
        }
        Ok(self)
    }

    /// Allows only these suites of TLS 1.2; no names leave all of them.
    ///
    /// # Errors
    /// A name that does not exist, or only names of suites that are too weak to be had.
    pub fn suites<'a>(mut self, key: &str, names: impl IntoIterator<Item = &'a str>) -> Result<Self, TlsError> {
        let (mut named, mut left_out) = (Vec::new(), Vec::new());
        for wanted in names.into_iter().map(str::trim).filter(|name| !name.is_empty()) {
            // Go's older name has no hash at its end.
            let full = if wanted.ends_with("_CHACHA20_POLY1305") { &format!("{wanted}_SHA256") } else { wanted };
            match self.suites.iter().find(|suite| name(suite) == full) {
                Some(suite) => named.push(*suite),
                None if is_weak(full) => left_out.push(wanted),
                None => {
                    let known: Vec<_> = self.suites.iter().map(name).collect();
                    let known = known.join(", ");
                    return Err(TlsError::setting(key, format!("there is no suite `{wanted}`; there are {known}")));
                }
            }
        }
        if !left_out.is_empty() {
            let left_out = left_out.join(", ");
            if named.is_empty() {
                return Err(TlsError::setting(key, format!("nothing is left: {left_out} are too weak to be had")));
            }
            tracing::warn!(key, suites = left_out, "suites left out: they are too weak to be had");
        }
        if !named.is_empty() {
            self.suites.retain(|suite| suite.tls13().is_some());
            self.suites.extend(named.into_iter().filter(|suite| suite.tls13().is_none()));
        }
        Ok(self)
    }

    /// Allows only these key exchanges (`X25519`, `P256`, `P384`), the first one first; no names leave all of them.
    ///
    /// # Errors
    /// A name that does not exist, or nothing is left.
    pub fn groups<'a>(mut self, key: &str, names: impl IntoIterator<Item = &'a str>) -> Result<Self, TlsError> {
        let mut named: Vec<&'static dyn SupportedKxGroup> = Vec::new();
        let mut any = false;
        for wanted in names {
            any = true;
            match wanted {
                "X25519" => named.push(kx_group::X25519),
                "P256" => named.push(kx_group::SECP256R1),
                "P384" => named.push(kx_group::SECP384R1),
                "P521" | "X25519MLKEM768" => tracing::warn!(key, curve = wanted, "curve left out: it is not there"),
                other => {
                    return Err(TlsError::setting(key, format!("there is no `{other}`; there are X25519, P256, P384")));
                }
            }
        }
        if any && named.is_empty() {
            return Err(TlsError::setting(key, "nothing is left; there are X25519, P256, P384"));
        }
        if any {
            self.groups = named;
        }
        Ok(self)
    }

    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        Arc::new(CryptoProvider {
            cipher_suites: self.suites.clone(),
            kx_groups: self.groups.clone(),
            ..ring::default_provider()
        })
    }

    pub(super) fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let has_12 = self.suites.iter().any(|suite| suite.tls13().is_none());
        let all = [(Version::Tls12, &version::TLS12), (Version::Tls13, &version::TLS13)];
        let allowed =
            |version| version >= self.oldest && version <= self.newest && (version == Version::Tls13 || has_12);
        all.into_iter().filter(|(version, _)| allowed(*version)).map(|(_, version)| version).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices() -> Choices {
        Choices::default()
    }

    fn spoken(choices: &Choices) -> Vec<String> {
        choices.versions().iter().map(|version| format!("{:?}", version.version)).collect()
    }

    #[test]
    fn versions_are_a_range_and_nothing_old_is_spoken() {
        assert_eq!(spoken(&choices()), ["TLSv1_2", "TLSv1_3"]);
        assert_eq!(spoken(&choices().oldest("k", "VersionTLS13").unwrap()), ["TLSv1_3"]);
        assert_eq!(spoken(&choices().oldest("k", "VersionTLS10").unwrap()), ["TLSv1_2", "TLSv1_3"]);
        assert_eq!(spoken(&choices().newest("k", "1.2").unwrap()), ["TLSv1_2"]);
        let error = choices().oldest("server.tls_min_version", "1.4").unwrap_err().to_string();
        assert!(error.starts_with("server.tls_min_version: there is no version `1.4`"), "{error}");
        assert!(choices().newest("k", "1.1").is_err());
        assert!(choices().oldest("k", "1.3").unwrap().newest("k", "1.2").is_err());
    }

    #[test]
    fn suites_restrict_tls_1_2_alone_and_weak_ones_are_left_out() {
        let of = |names: &[&str]| choices().suites("k", names.iter().copied());
        let names = |choices: Choices| choices.suites.iter().map(name).collect::<Vec<_>>();
        let one = of(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA"]).unwrap();
        assert_eq!(spoken(&one), ["TLSv1_2", "TLSv1_3"]);
        let left: Vec<_> = names(one).into_iter().filter(|name| name.contains("_WITH_")).collect();
        assert_eq!(left, ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
        assert!(names(of(&["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"]).unwrap()).len() == 4);
        assert_eq!(spoken(&of(&["TLS_AES_128_GCM_SHA256"]).unwrap()), ["TLSv1_3"]);
        assert_eq!(names(of(&[]).unwrap()).len(), 9);
        assert!(of(&["TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"]).unwrap_err().to_string().contains("nothing is left"));
        assert!(
            of(&["TLS_SOMETHING"]).unwrap_err().to_string().contains("there is no suite `TLS_SOMETHING`; there are ")
        );
    }

    #[test]
    fn key_exchanges_keep_their_order() {
        let of = |names: &[&str]| choices().groups("k", names.iter().copied());
        let names: Vec<_> = of(&["P384", "P521", "X25519"]).unwrap().groups.iter().map(|group| group.name()).collect();
        assert_eq!(names, [rustls::NamedGroup::secp384r1, rustls::NamedGroup::X25519]);
        assert_eq!(of(&[]).unwrap().groups.len(), 3);
        assert!(of(&["P521"]).is_err() && of(&["P1"]).is_err());
    }
}
