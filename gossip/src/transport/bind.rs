//! Binding: TCP first, then UDP at the same port.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use vivace_runtime::{Listen, ListenError, Network};

use crate::families::Binds;

/// Gossip cannot listen.
#[derive(Debug, Error)]
pub(crate) enum BindError {
    /// A TCP listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A socket does not do what sockets do.
    #[error("memberlist.bind_addr: prepare a socket")]
    Socket(#[from] io::Error),
}

/// Bound sockets that do not take part in anything yet.
#[derive(Debug)]
pub(crate) struct Bound {
    listeners: Vec<std::net::TcpListener>,
    sockets: Vec<UdpSocket>,
    port: u16,
}

impl Bound {
    /// Binds every host. Port 0: the system chooses one, and the same for all of them.
    ///
    /// UDP is an advantage, not a need: where a socket cannot be had, the log says so and streams carry everything. Without
    /// `datagrams` none is tried.
    ///
    /// # Errors
    /// A TCP port cannot be had.
    pub(crate) fn new(binds: &Binds, port: u16, datagrams: bool) -> Result<Self, BindError> {
        let (mut listeners, mut port) = (Vec::new(), port);
        for host in &binds.hosts {
            let key = "memberlist.bind_addr".to_owned();
            // Everything of both families is what an empty host means, on hosts without IPv6 too.
            let host =
                if *host == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) { String::new() } else { host.to_string() };
            let listener = Listen { key, network: Network::Tcp, host, port }.bind()?;
            port = listener.local_addr()?.port();
            listeners.push(listener);
        }
        let mut sockets = Vec::new();
        for listener in listeners.iter().filter(|_| datagrams) {
            let address = listener.local_addr()?;
            match datagram_socket(address) {
                Ok(socket) => sockets.push(socket),
                Err(error) => tracing::warn!(%address, %error, "no UDP for gossip; everything goes by TCP"),
            }
        }
        Ok(Self { listeners, sockets, port })
    }

    /// The port of all listeners.
    #[must_use]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether datagrams can be heard.
    #[must_use]
    pub(crate) fn datagrams(&self) -> bool {
        !self.sockets.is_empty()
    }

    pub(super) fn into_tokio(self) -> Result<(Vec<tokio::net::TcpListener>, Vec<tokio::net::UdpSocket>), BindError> {
        let listeners = self.listeners.into_iter().map(tokio::net::TcpListener::from_std);
        let sockets = self.sockets.into_iter().map(tokio::net::UdpSocket::from_std);
        Ok((listeners.collect::<io::Result<_>>()?, sockets.collect::<io::Result<_>>()?))
    }
}

fn datagram_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
