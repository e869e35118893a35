//! Binding TCP listeners as people spell addresses.
//!
//! | host | network | socket |
//! |---|---|---|
//! | empty | `tcp` | `[::]`, both families; `0.0.0.0` on a host without IPv6 |
//! | `::` `::0` `[::]` `[::0]` | `tcp` | `[::]`, both families |
//! | `::` … | `tcp6` | `[::]`, IPv6 only |
//! | empty | `tcp4`, `tcp6` | all addresses of that family |
//! | `0.0.0.0` | `tcp`, `tcp4` | IPv4 only |
//! | a name | any | its first address of a permitted family, IPv4 first |

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// Which families a listener takes: `*_listen_network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Both.
    #[default]
    Tcp,
    /// IPv4.
    Tcp4,
    /// IPv6.
    Tcp6,
}

/// Where to listen, and the configuration key that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Named in every error, for instance `server.http_listen_port`.
    pub key: String,
    /// The families.
    pub network: Network,
    /// The host, in any spelling of the table above.
    pub host: String,
    /// The port; 0 lets the system choose.
    pub port: u16,
}

/// Why a listener could not be bound. Nothing is listening then.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {what}")]
pub struct ListenError {
    key: String,
    address: String,
    what: &'static str,
    source: io::Error,
}

impl ListenError {
    /// The configuration key to change.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What kind of error the operating system reported.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// A host as written, understood.
#[derive(Debug, PartialEq, Eq)]
enum Host {
    /// Every address of every permitted family, however many there are.
    Any,
    Ip(IpAddr),
    Name(String),
}

impl Host {
    fn parse(text: &str) -> Self {
        let text = text.trim();
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        match bare {
            "" => Self::Any,
            // Go's spelling of the unspecified address; the standard parser takes it as well, this says so.
            "::0" => Self::Ip(Ipv6Addr::UNSPECIFIED.into()),
            other => other.parse().map_or_else(|_| Self::Name(other.to_owned()), Self::Ip),
        }
    }
}

impl Listen {
    /// Binds and listens. The socket does not block, fit for tokio.
    ///
    /// # Errors
    /// Names the key and what to do: address in use, no permission, no such address, wrong family.
    pub fn bind(&self) -> Result<TcpListener, ListenError> {
        let v6 = |ip: Ipv6Addr| SocketAddr::from((ip, self.port));
        let v4 = |ip: Ipv4Addr| SocketAddr::from((ip, self.port));
        let bound = match (Host::parse(&self.host), self.network) {
            (Host::Any, Network::Tcp) => match socket(v6(Ipv6Addr::UNSPECIFIED), false) {
                Err(error) if lacks_ipv6(&error) => socket(v4(Ipv4Addr::UNSPECIFIED), false),
                other => other,
            },
            (Host::Any, Network::Tcp4) => socket(v4(Ipv4Addr::UNSPECIFIED), false),
            (Host::Any, Network::Tcp6) => socket(v6(Ipv6Addr::UNSPECIFIED), true),
            (Host::Ip(IpAddr::V6(ip)), Network::Tcp) => socket(v6(ip), !ip.is_unspecified()),
            (Host::Ip(IpAddr::V6(ip)), Network::Tcp6) => socket(v6(ip), true),
            (Host::Ip(IpAddr::V4(ip)), Network::Tcp | Network::Tcp4) => socket(v4(ip), false),
            (Host::Ip(_), Network::Tcp4 | Network::Tcp6) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the address is of the family that the network excludes",
            )),
            (Host::Name(name), network) => self.named(&name, network),
        };
        bound.map_err(|source| self.explain(source))
    }

    /// As [`Listen::bind`], for use inside a tokio runtime.
    ///
    /// # Errors
    /// As [`Listen::bind`].
    pub fn bind_tokio(&self) -> Result<tokio::net::TcpListener, ListenError> {
        tokio::net::TcpListener::from_std(self.bind()?).map_err(|source| self.explain(source))
    }

    fn named(&self, name: &str, network: Network) -> io::Result<TcpListener> {
        let mut found: Vec<SocketAddr> = (name, self.port)
            .to_socket_addrs()?
            .filter(|addr| match network {
                Network::Tcp => true,
                Network::Tcp4 => addr.is_ipv4(),
                Network::Tcp6 => addr.is_ipv6(),
            })
            .collect();
        found.sort_by_key(SocketAddr::is_ipv6);
        let first =
            found.first().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no such address"))?;
        socket(*first, first.is_ipv6())
    }

    fn explain(&self, source: io::Error) -> ListenError {
        let what = match source.kind() {
            io::ErrorKind::AddrInUse => "the address is in use by another listener or process",
            io::ErrorKind::PermissionDenied => "no permission; ports below 1024 need CAP_NET_BIND_SERVICE",
            io::ErrorKind::AddrNotAvailable => "this host does not have the address",
            io::ErrorKind::InvalidInput => "the address does not fit the listen network",
            _ if lacks_ipv6(&source) => "this host has no IPv6",
            _ => "the system refuses",
        };
        ListenError { key: self.key.clone(), address: self.to_string(), what, source }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Host::parse(&self.host) {
            Host::Any => write!(f, ":{}", self.port),
            Host::Ip(ip) => write!(f, "{}", SocketAddr::from((ip, self.port))),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT (97 on Linux): no IPv6 in the kernel. EADDRNOTAVAIL: switched off by sysctl.
    error.raw_os_error() == Some(97) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn socket(address: SocketAddr, v6_only: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Said either way: the system's default differs by sysctl.
        socket.set_only_v6(v6_only)?;
    }
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn listen(host: &str, network: Network) -> Listen {
        Listen { key: "server.http_listen_port".into(), network, host: host.into(), port: 0 }
    }

    fn reaches(host: &str, listener: &TcpListener) -> bool {
        TcpStream::connect((host, listener.local_addr().unwrap().port())).is_ok()
    }

    fn has_ipv6() -> bool {
        TcpListener::bind("[::1]:0").is_ok()
    }

    #[test]
    fn every_spelling_of_everything_takes_both_families() {
        for host in ["", "::", "::0", "[::]", "[::0]"] {
            if host.is_empty() || has_ipv6() {
                let listener = listen(host, Network::Tcp).bind().unwrap();
                assert!(reaches("127.0.0.1", &listener), "{host:?}");
                assert_eq!(reaches("::1", &listener), has_ipv6(), "{host:?}");
            }
        }
    }

    #[test]
    fn a_network_restricts_the_family() {
        let v4 = listen("", Network::Tcp4).bind().unwrap();
        assert!(reaches("127.0.0.1", &v4) && !reaches("::1", &v4));
        let v4 = listen("0.0.0.0", Network::Tcp).bind().unwrap();
        assert!(reaches("127.0.0.1", &v4) && !reaches("::1", &v4));
        if has_ipv6() {
            let v6 = listen("::", Network::Tcp6).bind().unwrap();
            assert!(reaches("::1", &v6) && !reaches("127.0.0.1", &v6));
        }
        let error = listen("::1", Network::Tcp4).bind().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn names_are_resolved() {
        assert!(reaches("localhost", &listen("localhost", Network::Tcp).bind().unwrap()));
    }

    #[test]
    fn an_address_in_use_names_the_key() {
        let first = listen("127.0.0.1", Network::Tcp).bind().unwrap();
        let second = Listen { port: first.local_addr().unwrap().port(), ..listen("127.0.0.1", Network::Tcp) };
        let error = second.bind().unwrap_err();
        assert_eq!(error.key(), "server.http_listen_port");
        let text = error.to_string();
        assert!(
            text.starts_with("server.http_listen_port: cannot listen on 127.0.0.1:") && text.contains("in use"),
            "{text}"
        );
    }
}
