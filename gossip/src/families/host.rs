//! The addresses of this host, and which of them it would be reached by.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;

use crate::ring::Candidate;

/// Where a host would send to on its way out. Nothing is sent: connecting a datagram socket only asks the routes.
const OUTSIDE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// Every address of every interface that is up.
///
/// # Errors
/// The system does not list its interfaces.
pub fn host_candidates() -> io::Result<Vec<Candidate>> {
    let routed: Vec<IpAddr> = OUTSIDE.iter().filter_map(|outside| source_towards(outside)).collect();
    let mut candidates = Vec::new();
    for interface in getifaddrs()? {
        let up = interface.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP);
        let Some(address) = interface.address.filter(|_| up) else { continue };
        let ip = if let Some(v4) = address.as_sockaddr_in() {
            IpAddr::V4(v4.ip())
        } else if let Some(v6) = address.as_sockaddr_in6() {
            IpAddr::V6(v6.ip())
        } else {
            continue;
        };
        candidates.push(Candidate { interface: interface.interface_name, ip, routed: routed.contains(&ip) });
    }
    Ok(candidates)
}

/// The source address that the routes choose for a destination; none where no route leads.
fn source_towards(outside: &str) -> Option<IpAddr> {
    let outside: SocketAddr = outside.parse().ok()?;
    let any = if outside.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(outside).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_at_least_its_loopback() {
        let candidates = host_candidates().unwrap();
        assert!(candidates.iter().any(|candidate| candidate.ip.is_loopback()));
    }
}
