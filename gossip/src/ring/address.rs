//! Which addresses a member tells the others.
//!
//! Only addresses that another host can call: never unspecified, never link-local. Of each family the best candidate:
//! on an interface that is named in the configuration before others, then one that the host's routes lead over, then
//! by scope. Loopback counts only when nothing else is there and the ring is in this process alone.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv6Addr};

use super::settings::{Families, RingSettings, Store};
use crate::state::{Address, Via};

/// An address of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The interface that has it.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
    /// Whether the host would send from it to other hosts of its family.
    pub routed: bool,
}

/// No address can be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{section}: no usable address for the ring ({wanted}); found: {found}; set {section}.instance_addr, \
     instance_interface_names or enable_inet6"
)]
pub struct NoAddress {
    section: &'static str,
    wanted: &'static str,
    found: String,
}

/// The addresses of this member, the preferred one first.
///
/// With a proxy's port, the process's own port follows at the same addresses, for diagnosis: callers keep to the proxy.
///
/// # Errors
/// Lists the candidates and why none of them serves.
pub fn choose_addresses(settings: &RingSettings, candidates: &[Candidate]) -> Result<Vec<Address>, NoAddress> {
    let hosts = match &settings.address {
        Some(address) => vec![address.clone()],
        None => chosen(settings, candidates)?.iter().map(ToString::to_string).collect(),
    };
    let at = |via, port| hosts.iter().map(move |host| Address { via, host: host.clone(), port });
    let mut addresses: Vec<Address> = Vec::new();
    if settings.proxied {
        addresses.extend(at(Via::Proxy, settings.port));
    }
    addresses.extend(at(Via::Direct, settings.listen_port));
    Ok(addresses)
}

fn chosen(settings: &RingSettings, candidates: &[Candidate]) -> Result<Vec<IpAddr>, NoAddress> {
    let best = |v6: bool| {
        candidates
            .iter()
            .filter(|candidate| candidate.ip.is_ipv6() == v6 && is_callable(candidate.ip))
            .min_by_key(|candidate| rank(settings, candidate))
            .map(|candidate| candidate.ip)
    };
    let loopback = |v6: bool| {
        let local = candidates.iter().any(|candidate| candidate.ip.is_loopback() && candidate.ip.is_ipv6() == v6);
        (local && settings.store == Store::Memory)
            .then(|| if v6 { Ipv6Addr::LOCALHOST.into() } else { IpAddr::from([127, 0, 0, 1]) })
    };
    let order = match settings.families {
        Families::Detect => vec![false, true],
        Families::V4 => vec![false],
        Families::PreferV6 => vec![true, false],
    };
    let mut found: Vec<IpAddr> = order.iter().filter_map(|v6| best(*v6)).collect();
    if found.is_empty() {
        found = order.iter().filter_map(|v6| loopback(*v6)).collect();
    }
    if found.is_empty() {
        let wanted = if settings.families == Families::V4 { "IPv4 only" } else { "IPv4 or IPv6" };
        return Err(NoAddress { section: settings.section, wanted, found: listed(candidates) });
    }
    Ok(found)
}

/// Lower is better.
fn rank(settings: &RingSettings, candidate: &Candidate) -> (usize, Reverse<bool>, u8, IpAddr) {
    let named = settings.interface_names.iter().position(|name| *name == candidate.interface);
    (named.unwrap_or(usize::MAX), Reverse(candidate.routed), scope(candidate.ip), candidate.ip)
}

/// Private networks before public ones, as clusters live in the former; IPv6 global before unique-local.
fn scope(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => u8::from(!ip.is_private()),
        IpAddr::V6(ip) => u8::from(ip.is_unique_local()),
    }
}

/// Whether another host can call the address at all.
#[must_use]
pub fn is_callable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast()),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast()),
    }
}

fn listed(candidates: &[Candidate]) -> String {
    if candidates.is_empty() {
        return "no address at all".to_owned();
    }
    let why = |ip: IpAddr| match ip {
        _ if ip.is_loopback() => " (loopback)",
        IpAddr::V4(ip) if ip.is_link_local() => " (link-local)",
        IpAddr::V6(ip) if ip.is_unicast_link_local() => " (link-local)",
        _ if ip.is_unspecified() => " (unspecified)",
        IpAddr::V6(_) => " (IPv6)",
        IpAddr::V4(_) => "",
    };
    let items: Vec<String> =
        candidates.iter().map(|one| format!("{} {}{}", one.interface, one.ip, why(one.ip))).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use vivace_runtime::config::RingConfig;

    use super::super::settings::Host;
    use super::*;

    fn candidate(interface: &str, ip: &str, routed: bool) -> Candidate {
        Candidate { interface: interface.into(), ip: ip.parse().unwrap(), routed }
    }

    fn told(enable_inet6: Option<bool>, candidates: &[Candidate]) -> Result<Vec<String>, NoAddress> {
        let config = RingConfig { enable_inet6, ..RingConfig::default() };
        let settings = RingSettings::live_store(&config, Host { name: "a-0", grpc_port: 9095 }).unwrap();
        Ok(choose_addresses(&settings, candidates)?.iter().map(ToString::to_string).collect())
    }

    fn dual() -> Vec<Candidate> {
        vec![
            candidate("lo", "127.0.0.1", false),
            candidate("eth0", "fe80::1", false),
            candidate("docker0", "172.17.0.1", false),
            candidate("eth0", "10.0.0.5", true),
            candidate("eth0", "fd00::5", true),
            candidate("eth1", "192.0.2.7", true),
        ]
    }

    #[test]
    fn one_address_of_each_family_is_told_in_the_order_of_enable_inet6() {
        assert_eq!(told(None, &dual()).unwrap(), ["10.0.0.5:9095", "[fd00::5]:9095"]);
        assert_eq!(told(Some(false), &dual()).unwrap(), ["10.0.0.5:9095"]);
        assert_eq!(told(Some(true), &dual()).unwrap(), ["[fd00::5]:9095", "10.0.0.5:9095"]);
    }

    #[test]
    fn without_a_named_interface_the_route_decides() {
        let hosts = [candidate("docker0", "172.17.0.1", false), candidate("ens5", "10.2.0.9", true)];
        assert_eq!(told(None, &hosts).unwrap(), ["10.2.0.9:9095"]);
    }

    #[test]
    fn link_local_and_unspecified_addresses_are_never_told() {
        let hosts = [candidate("eth0", "fe80::1", true), candidate("eth0", "169.254.1.1", true)];
        let error = told(None, &hosts).unwrap_err().to_string();
        assert!(error.contains("eth0 fe80::1 (link-local)") && error.contains("169.254.1.1 (link-local)"), "{error}");
        assert!(error.contains("live_store.ring.instance_addr"), "{error}");
        let v6_only = [candidate("eth0", "2001:db8::1", true)];
        assert!(told(Some(false), &v6_only).unwrap_err().to_string().contains("2001:db8::1 (IPv6)"));
    }

    #[test]
    fn behind_a_proxy_both_ports_are_told_and_the_proxys_first() {
        let config = RingConfig { instance_port: 12345, ..RingConfig::default() };
        let settings = RingSettings::live_store(&config, Host { name: "a-0", grpc_port: 9095 }).unwrap();
        let addresses = choose_addresses(&settings, &dual()).unwrap();
        let told: Vec<String> = addresses.iter().map(|a| format!("{:?} {a}", a.via)).collect();
        assert_eq!(
            told,
            ["Proxy 10.0.0.5:12345", "Proxy [fd00::5]:12345", "Direct 10.0.0.5:9095", "Direct [fd00::5]:9095"]
        );
    }

    #[test]
    fn a_ring_in_memory_makes_do_with_loopback() {
        let config = RingConfig::default();
        let settings = RingSettings::live_store(&config, Host { name: "a", grpc_port: 9095 }).unwrap();
        let hosts = [candidate("lo", "::1", false)];
        assert!(choose_addresses(&settings, &hosts).is_err());
        let memory = RingSettings { store: Store::Memory, ..settings };
        assert_eq!(choose_addresses(&memory, &hosts).unwrap()[0].to_string(), "[::1]:9095");
    }
}
