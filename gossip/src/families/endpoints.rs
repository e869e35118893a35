//! What to listen on and what to tell others: one endpoint per family.
//!
//! | `bind_addr` | listens on | tells |
//! |---|---|---|
//! | empty, `::`, `::0`, `[::]` | everything, both families | the best address of each family |
//! | `0.0.0.0` | everything of IPv4 | the best IPv4 address |
//! | addresses | these | the first of each family |
//!
//! The best address: one that the host's routes lead over before others, then private before public for IPv4 and global
//! before unique-local for IPv6. With `advertise_addr` (one address, or one of each family with a comma between) that is
//! told, at `advertise_port`.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use super::Family;
use crate::config::Config;
use crate::ring::{Candidate, is_callable};

/// Where to listen, before sockets exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binds {
    /// Hosts for listeners, one each; `::` takes both families.
    pub hosts: Vec<IpAddr>,
}

/// What is told to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Endpoints {
    /// Over IPv4.
    pub v4: Option<SocketAddr>,
    /// Over IPv6.
    pub v6: Option<SocketAddr>,
}

/// A setting that cannot be used. Nothing was bound.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadEndpoints {
    /// Not an address.
    #[error("memberlist.{key}: {value:?} is not an IP address{}", zone_hint(.value))]
    NoIp {
        /// The key.
        key: &'static str,
        /// As written.
        value: String,
    },
    /// An address that nobody else can reach.
    #[error("memberlist.{key}: {ip} cannot be told to other members: it is {why}")]
    Uncallable {
        /// The key.
        key: &'static str,
        /// The address.
        ip: IpAddr,
        /// Why.
        why: &'static str,
    },
    /// Two addresses of one family.
    #[error("memberlist.advertise_addr: two addresses of {0}; one of each family can be told")]
    Doubled(Family),
    /// The host has no address that others could reach.
    #[error(
        "memberlist: no address of this host can be told to other members; found {found}; set memberlist.advertise_addr"
    )]
    None {
        /// What was found.
        found: String,
    },
}

impl Binds {
    /// Reads `bind_addr`.
    ///
    /// # Errors
    /// An item is not an address.
    pub fn of(config: &Config) -> Result<Self, BadEndpoints> {
        let mut hosts = Vec::new();
        for text in config.bind_addr.0.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
            let host = parse("bind_addr", text)?;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        let everything = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        if hosts.is_empty() || hosts.contains(&everything) {
            hosts = vec![everything];
        }
        Ok(Self { hosts })
    }

    /// The family to try first where a pair shares both: that of the first address.
    #[must_use]
    pub fn preferred(&self, config: &Config) -> Family {
        let named = config.bind_addr.0.iter().any(|text| !text.trim().is_empty());
        match self.hosts.first() {
            Some(IpAddr::V6(_)) if named => Family::V6,
            _ => Family::V4,
        }
    }

    /// Whether a call to `address` comes back to this process, listening on `port` of a host with these addresses.
    #[must_use]
    pub fn hear(&self, address: SocketAddr, port: u16, candidates: &[Candidate]) -> bool {
        let ip = address.ip().to_canonical();
        let of_host = ip.is_loopback() || candidates.iter().any(|candidate| candidate.ip == ip);
        let everything = |host: &IpAddr| host.is_unspecified() && (host.is_ipv6() || ip.is_ipv4()) && of_host;
        address.port() == port && self.hosts.iter().any(|host| *host == ip || everything(host))
    }

    /// What to tell others, listening on `port`.
    ///
    /// # Errors
    /// There is nothing that could be told, or what is configured cannot be.
    pub fn endpoints(&self, config: &Config, port: u16, candidates: &[Candidate]) -> Result<Endpoints, BadEndpoints> {
        if !config.advertise_addr.trim().is_empty() {
            return advertised(config);
        }
        let mut found = Endpoints::default();
        for host in &self.hosts {
            if host.is_unspecified() {
                let families: &[Family] = if host.is_ipv6() { &[Family::V4, Family::V6] } else { &[Family::V4] };
                for family in families {
                    if let Some(ip) = best(candidates, *family) {
                        found.fill(SocketAddr::new(ip, port));
                    }
                }
            } else {
                // Loopback was asked for by name: members of one host may use it.
                if let Some(why) = uncallable(*host).filter(|_| !host.is_loopback()) {
                    return Err(BadEndpoints::Uncallable { key: "bind_addr", ip: *host, why });
                }
                found.fill(SocketAddr::new(*host, port));
            }
        }
        if found == Endpoints::default() { Err(BadEndpoints::None { found: listed(candidates) }) } else { Ok(found) }
    }
}

impl Endpoints {
    /// Sets the endpoint of a family unless there is one.
    fn fill(&mut self, endpoint: SocketAddr) {
        let slot = match Family::of(endpoint) {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        };
        slot.get_or_insert(endpoint);
    }
}

fn advertised(config: &Config) -> Result<Endpoints, BadEndpoints> {
    let mut found = Endpoints::default();
    for text in config.advertise_addr.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let ip = parse("advertise_addr", text)?;
        if let Some(why) = uncallable(ip).filter(|_| !ip.is_loopback()) {
            return Err(BadEndpoints::Uncallable { key: "advertise_addr", ip, why });
        }
        let endpoint = SocketAddr::new(ip, config.advertise_port);
        let before = found;
        found.fill(endpoint);
        if found == before {
            return Err(BadEndpoints::Doubled(Family::of(endpoint)));
        }
    }
    Ok(found)
}

/// An address as people write it: IPv6 with or without brackets.
fn parse(key: &'static str, text: &str) -> Result<IpAddr, BadEndpoints> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>()
        .map(|ip| ip.to_canonical())
        .map_err(|_error| BadEndpoints::NoIp { key, value: text.to_owned() })
}

fn zone_hint(text: &str) -> &'static str {
    if text.contains('%') { " (zones are not supported)" } else { "" }
}

fn uncallable(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    match ip {
        _ if is_callable(ip) => None,
        _ if ip.is_unspecified() => Some("unspecified"),
        _ if ip.is_loopback() => Some("loopback"),
        _ if ip.is_multicast() => Some("multicast"),
        _ if link_local => Some("link-local"),
        _ => Some("not an address of a host"),
    }
}

fn best(candidates: &[Candidate], family: Family) -> Option<IpAddr> {
    let scope = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u8::from(!ip.is_private()),
        IpAddr::V6(ip) => u8::from(ip.is_unique_local()),
    };
    candidates
        .iter()
        .filter(|candidate| candidate.ip.is_ipv6() == (family == Family::V6) && is_callable(candidate.ip))
        .min_by_key(|candidate| (Reverse(candidate.routed), scope(candidate.ip), candidate.ip))
        .map(|candidate| candidate.ip)
}

fn listed(candidates: &[Candidate]) -> String {
    let each = candidates.iter().map(|candidate| {
        let why = uncallable(candidate.ip).unwrap_or("of a family that is not listened on");
        format!("{} on {} ({why})", candidate.ip, candidate.interface)
    });
    let all = each.collect::<Vec<_>>().join(", ");
    if all.is_empty() { "no address at all".to_owned() } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Addresses;

    fn config(bind: &[&str], advertise: &str) -> Config {
        Config {
            bind_addr: Addresses(bind.iter().map(ToString::to_string).collect()),
            advertise_addr: advertise.to_owned(),
            ..Config::default()
        }
    }

    fn host(addresses: &[(&str, &str, bool)]) -> Vec<Candidate> {
        addresses
            .iter()
            .map(|(interface, ip, routed)| Candidate {
                interface: (*interface).to_owned(),
                ip: ip.parse().unwrap(),
                routed: *routed,
            })
            .collect()
    }

    fn told(config: &Config, host: &[Candidate]) -> Result<(Option<String>, Option<String>), BadEndpoints> {
        let endpoints = Binds::of(config)?.endpoints(config, 7946, host)?;
        Ok((endpoints.v4.map(|e| e.to_string()), endpoints.v6.map(|e| e.to_string())))
    }

    fn usual() -> Vec<Candidate> {
        host(&[
            ("lo", "127.0.0.1", false),
            ("lo", "::1", false),
            ("docker0", "172.17.0.1", false),
            ("eth0", "10.1.2.3", true),
            ("eth0", "fe80::1", false),
            ("eth0", "fd00::3", false),
            ("eth0", "2001:db8::3", true),
        ])
    }

    #[test]
    fn every_spelling_of_everything_tells_both_families() {
        for bind in [&[][..], &[""], &["::"], &["::0"], &["[::]"], &["0.0.0.0", "::"]] {
            let told = told(&config(bind, ""), &usual()).unwrap();
            assert_eq!(told, (Some("10.1.2.3:7946".into()), Some("[2001:db8::3]:7946".into())), "{bind:?}");
        }
        assert_eq!(told(&config(&["0.0.0.0"], ""), &usual()).unwrap(), (Some("10.1.2.3:7946".into()), None));
    }

    #[test]
    fn addresses_named_are_told_the_first_of_each_family() {
        let told = told(&config(&["10.9.9.9", "fd00::9", "10.8.8.8"], ""), &usual()).unwrap();
        assert_eq!(told, (Some("10.9.9.9:7946".into()), Some("[fd00::9]:7946".into())));
    }

    #[test]
    fn link_local_and_unspecified_are_never_told() {
        let only = host(&[("eth0", "fe80::1", true), ("eth0", "169.254.1.1", true), ("lo", "127.0.0.1", false)]);
        let error = told(&config(&["::"], ""), &only).unwrap_err().to_string();
        assert!(error.contains("fe80::1 on eth0 (link-local)"), "{error}");
        assert!(error.contains("127.0.0.1 on lo (loopback)"), "{error}");
        assert!(error.contains("set memberlist.advertise_addr"), "{error}");
        for address in ["fe80::1", "0.0.0.0", "169.254.1.1"] {
            assert!(told(&config(&[], address), &usual()).is_err(), "{address}");
        }
        assert!(told(&config(&["fe80::1"], ""), &usual()).is_err());
    }

    #[test]
    fn an_advertised_address_of_each_family_is_told_at_the_advertised_port() {
        let mut config = config(&["::"], "198.51.100.7, [2001:db8::7]");
        config.advertise_port = 1234;
        let told = told(&config, &usual()).unwrap();
        assert_eq!(told, (Some("198.51.100.7:1234".into()), Some("[2001:db8::7]:1234".into())));
        config.advertise_addr = "198.51.100.7,198.51.100.8".into();
        assert_eq!(super::advertised(&config), Err(BadEndpoints::Doubled(Family::V4)));
    }

    #[test]
    fn what_is_no_address_is_named() {
        let error = Binds::of(&config(&["eth0"], "")).unwrap_err().to_string();
        assert_eq!(error, "memberlist.bind_addr: \"eth0\" is not an IP address");
        let error = told(&config(&[], "fe80::1%eth0"), &usual()).unwrap_err().to_string();
        assert!(error.contains("zones are not supported"), "{error}");
    }

    #[test]
    fn the_first_address_says_which_family_is_tried_first() {
        let preferred = |bind: &[&str]| {
            let config = config(bind, "");
            Binds::of(&config).unwrap().preferred(&config)
        };
        assert_eq!(preferred(&[]), Family::V4);
        assert_eq!(preferred(&["::"]), Family::V6);
        assert_eq!(preferred(&["10.0.0.1", "fd00::1"]), Family::V4);
    }

    #[test]
    fn a_call_to_an_address_that_is_listened_on_comes_back() {
        let host = host(&[("eth0", "10.0.0.7", true), ("eth0", "2001:db8::7", true)]);
        let heard = |bind: &[&str], address: &str| {
            Binds::of(&config(bind, "")).unwrap().hear(address.parse().unwrap(), 7946, &host)
        };
        for own in ["10.0.0.7:7946", "[2001:db8::7]:7946", "127.0.1.1:7946", "[::1]:7946", "[::ffff:10.0.0.7]:7946"] {
            assert!(heard(&[], own), "{own}");
            assert!(!heard(&["192.0.2.1"], own), "{own}: another address is listened on");
        }
        for other in ["10.0.0.8:7946", "10.0.0.7:7947", "[2001:db8::8]:7946"] {
            assert!(!heard(&[], other), "{other}");
        }
        assert!(heard(&["0.0.0.0"], "10.0.0.7:7946") && !heard(&["0.0.0.0"], "[2001:db8::7]:7946"));
        assert!(heard(&["10.0.0.7"], "10.0.0.7:7946") && !heard(&["10.0.0.7"], "127.0.0.1:7946"));
    }
}
