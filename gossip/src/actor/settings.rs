//! `memberlist` settings as the member takes them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use vivace_runtime::tls::TlsError;

use crate::config::Config;
use crate::discovery::{BadEntry, Discovery};
use crate::families::{BadEndpoints, Binds};
use crate::frame::{BadKey, Keys};
use crate::swim::Tuning;
use crate::transport::StreamTls;

/// A setting that cannot be used. Nothing was done.
#[derive(Debug, Error)]
pub enum BadSetting {
    /// A member to join.
    #[error("memberlist.join_members")]
    Join(#[source] BadEntry),
    /// An address.
    #[error(transparent)]
    Endpoints(#[from] BadEndpoints),
    /// A key.
    #[error("memberlist.encryption_keys: {0}")]
    Key(String),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl From<BadKey> for BadSetting {
    fn from(bad: BadKey) -> Self {
        Self::Key(bad.to_string())
    }
}

/// Finds what cannot be used on any host. What depends on one, its addresses and files, is found when they are looked at: a
/// configuration may be checked elsewhere.
///
/// # Errors
/// The first setting of `memberlist` that cannot be used.
pub fn check(config: &Config) -> Result<(), BadSetting> {
    Discovery::new(&config.join_members.0).map_err(BadSetting::Join)?;
    match Binds::of(config)?.endpoints(config, config.bind_port, &[]) {
        Ok(_) | Err(BadEndpoints::None { .. }) => {}
        Err(bad) => return Err(bad.into()),
    }
    keys(config)?;
    StreamTls::settings(config)?;
    Ok(())
}

/// The keys of encryption.
pub(super) fn keys(config: &Config) -> Result<Keys, BadSetting> {
    let texts = config.encryption_keys.expose().split(',').map(str::trim).filter(|text| !text.is_empty());
    let decode = |(index, text): (usize, &str)| {
        let bad = |error| BadSetting::Key(format!("key {} is not base64: {error}", index + 1));
        STANDARD.decode(text).map_err(bad)
    };
    let keys: Vec<Vec<u8>> = texts.enumerate().map(decode).collect::<Result<_, _>>()?;
    Ok(Keys::new(&keys)?)
}

/// Times and counts. Probes, suspicion and rounds of gossip have figures of their own, which do not depend on settings
/// that were chosen for another protocol.
pub(super) fn tuning(config: &Config) -> Tuning {
    Tuning {
        retransmit_factor: u32::try_from(config.retransmit_factor).unwrap_or(u32::MAX),
        pull_push_interval: config.pull_push_interval.get(),
        rejoin_min: config.min_join_backoff.get().max(Duration::from_millis(100)),
        rejoin_max: config.max_join_backoff.get().max(Duration::from_millis(100)),
        ..Tuning::default()
    }
}

/// How long to wait for the first exchange before the process goes on alone, or stops: as long as the configured attempts
/// would take, at least 3 s, and at most 10 s where the process goes on anyway.
pub(super) fn join_patience(config: &Config) -> Duration {
    let mut total = Duration::ZERO;
    let mut wait = config.min_join_backoff.get();
    for _ in 0..config.max_join_retries.min(100) {
        total = total.saturating_add(wait);
        wait = wait.saturating_mul(2).min(config.max_join_backoff.get());
    }
    let least = Duration::from_secs(3);
    if config.abort_if_cluster_join_fails { total.max(least) } else { total.clamp(least, Duration::from_secs(10)) }
}

/// The name of the member: configured or the host's, by default with eight random digits.
#[must_use]
pub fn member_name(config: &Config, host_name: &str, id: u64) -> String {
    let name = if config.node_name.is_empty() { host_name } else { &config.node_name };
    if config.randomize_node_name { format!("{name}-{:08x}", id >> 32) } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use vivace_runtime::config::Secret;

    use super::*;
    use crate::config::Addresses;

    #[test]
    fn names_are_as_configured() {
        let mut config = Config::default();
        assert_eq!(member_name(&config, "host", 0xabcd_0123_0000_0000), "host-abcd0123");
        config.node_name = "live-store-1".into();
        config.randomize_node_name = false;
        assert_eq!(member_name(&config, "host", 1), "live-store-1");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let with = |entry: &str| Config { join_members: Addresses(vec![entry.into()]), ..Config::default() };
        assert!(matches!(check(&with("srv+x:1")), Err(BadSetting::Join(BadEntry::Scheme(_)))));
        let error = check(&Config { tls_enabled: true, ..Config::default() }).unwrap_err().to_string();
        assert_eq!(error, "memberlist.tls_cert_path: is required with memberlist.tls_enabled");
        assert!(check(&with("dns+ring:7946")).is_ok());
        let keyed = |keys: &str| Config { encryption_keys: Secret::new(keys), ..Config::default() };
        let error = |keys: &str| check(&keyed(keys)).unwrap_err().to_string();
        assert_eq!(error("AAAA"), "memberlist.encryption_keys: gossip key 1 has 3 bytes; it takes 32");
        assert!(error("!").starts_with("memberlist.encryption_keys: key 1 is not base64"));
        assert!(check(&keyed(&format!("{}, {}", STANDARD.encode([1; 32]), STANDARD.encode([2; 32])))).is_ok());
    }

    #[test]
    fn a_process_that_may_go_on_alone_waits_no_longer_than_ten_seconds() {
        let mut config = Config::default();
        assert_eq!(join_patience(&config), Duration::from_secs(10));
        config.abort_if_cluster_join_fails = true;
        assert!(join_patience(&config) > Duration::from_secs(60));
    }
}
