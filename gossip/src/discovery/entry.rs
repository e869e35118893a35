//! One entry of `memberlist.join_members`, understood.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// The port of an entry that names none, whatever `memberlist.bind_port` says.
pub const DEFAULT_PORT: u16 = 7946;

/// Where to look for members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An address.
    Address(SocketAddr),
    /// A host, of which every address counts.
    Host {
        /// Its name.
        host: String,
        /// The port of every address.
        port: u16,
    },
    /// SRV records.
    Service {
        /// Their name.
        name: String,
        /// The port instead of that of the records.
        port: Option<u16>,
    },
}

/// An entry that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadEntry {
    /// The prefix is none of ours.
    #[error("invalid lookup scheme {0:?}; use host:port, dns+host:port, dnssrv+name or dnssrvnoa+name")]
    Scheme(String),
    /// `dns+` takes a port.
    #[error("missing port in {0:?}: write dns+host:port")]
    NoPort(String),
    /// The port is no number up to 65,535.
    #[error("bad port in {0:?}")]
    Port(String),
    /// There is no host.
    #[error("no host in {0:?}")]
    NoHost(String),
    /// Zones belong to one host and mean nothing to others.
    #[error("{0:?} has a zone: a link-local address cannot be joined")]
    Zone(String),
}

impl FromStr for Entry {
    type Err = BadEntry;

    fn from_str(text: &str) -> Result<Self, BadEntry> {
        let text = text.trim();
        let Some((scheme, rest)) = text.split_once('+') else { return plain(text) };
        match scheme {
            "dns" => match split(rest, text)? {
                (host, Some(port)) => Ok(located(host, port)),
                (_, None) => Err(BadEntry::NoPort(text.to_owned())),
            },
            "dnssrv" | "dnssrvnoa" => {
                let (name, port) = split(rest, text)?;
                Ok(Self::Service { name: name.to_owned(), port })
            }
            other => Err(BadEntry::Scheme(other.to_owned())),
        }
    }
}

fn plain(text: &str) -> Result<Entry, BadEntry> {
    // The name of a node may stand before its address; whoever answers says its name itself.
    let address = text.split_once('/').map_or(text, |(_, address)| address);
    let (host, port) = split(address, text)?;
    Ok(located(host, port.unwrap_or(DEFAULT_PORT)))
}

fn located(host: &str, port: u16) -> Entry {
    match host.parse::<IpAddr>() {
        Ok(ip) => Entry::Address(SocketAddr::new(ip.to_canonical(), port)),
        Err(_) => Entry::Host { host: host.to_owned(), port },
    }
}

/// Host and port of `rest`; `whole` is for errors.
fn split<'a>(rest: &'a str, whole: &str) -> Result<(&'a str, Option<u16>), BadEntry> {
    let owned = || whole.to_owned();
    if rest.contains('%') {
        return Err(BadEntry::Zone(owned()));
    }
    let (host, port) = if let Some(inner) = rest.strip_prefix('[') {
        let (host, after) = inner.split_once(']').ok_or_else(|| BadEntry::NoHost(owned()))?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(BadEntry::Port(owned())),
        }
    } else if rest.parse::<IpAddr>().is_ok() {
        // An IPv6 address without brackets: its colons are its own.
        (rest, None)
    } else {
        match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        }
    };
    if host.is_empty() {
        return Err(BadEntry::NoHost(owned()));
    }
    let port = port.map(|port| port.parse::<u16>().map_err(|_error| BadEntry::Port(owned()))).transpose()?;
    Ok((host, port))
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Service { name, port: None } => write!(f, "SRV {name}"),
            Self::Service { name, port: Some(port) } => write!(f, "SRV {name}, port {port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(host: &str, port: u16) -> Entry {
        Entry::Host { host: host.into(), port }
    }

    #[test]
    fn every_documented_spelling_is_understood() {
        let address = |text: &str| Entry::Address(text.parse().unwrap());
        let cases = [
            ("tempo-0", host("tempo-0", 7946)),
            ("tempo-0:17946", host("tempo-0", 17946)),
            ("node/tempo-0:17946", host("tempo-0", 17946)),
            ("192.0.2.1", address("192.0.2.1:7946")),
            ("192.0.2.1:1", address("192.0.2.1:1")),
            ("[2001:db8::1]:1", address("[2001:db8::1]:1")),
            ("[2001:db8::1]", address("[2001:db8::1]:7946")),
            ("2001:db8::1", address("[2001:db8::1]:7946")),
            ("dns+gossip-ring.tracing.svc.cluster.local.:7946", host("gossip-ring.tracing.svc.cluster.local.", 7946)),
            ("dns+[2001:db8::1]:1", address("[2001:db8::1]:1")),
            ("dnssrv+_gossip._tcp.ring", Entry::Service { name: "_gossip._tcp.ring".into(), port: None }),
            ("dnssrv+ring:1", Entry::Service { name: "ring".into(), port: Some(1) }),
            ("dnssrvnoa+ring", Entry::Service { name: "ring".into(), port: None }),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_explained() {
        let error = |text: &str| text.parse::<Entry>().unwrap_err().to_string();
        assert!(error("srv+x:1").starts_with("invalid lookup scheme \"srv\""));
        assert!(error("dns+host").contains("missing port"));
        assert!(error("host:http").contains("bad port"));
        assert!(error(":7946").contains("no host"));
        assert!(error("[fe80::1%eth0]:7946").contains("zone"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            text.parse::<Entry>().ok();
        }
    }
}
