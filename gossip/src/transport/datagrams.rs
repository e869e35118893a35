//! UDP: one socket for each bound address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Dropped, Incoming};
use crate::frame::DATAGRAM_BYTES_MAX;
use crate::swim::Channel;

#[derive(Debug)]
pub(super) struct Datagrams(Vec<(SocketAddr, Arc<UdpSocket>)>);

impl Datagrams {
    pub(super) fn start(
        sockets: Vec<UdpSocket>,
        incoming: &mpsc::Sender<Incoming>,
        tasks: &mut JoinSet<()>,
        dropped: &Arc<Dropped>,
    ) -> Self {
        let mut bound = Vec::new();
        for socket in sockets {
            let Ok(local) = socket.local_addr() else { continue };
            let socket = Arc::new(socket);
            tasks.spawn(receive(Arc::clone(&socket), incoming.clone(), Arc::clone(dropped)));
            bound.push((local, socket));
        }
        Self(bound)
    }

    /// Sends from the socket of that family; a full buffer loses the datagram, as the network would.
    pub(super) fn send(&self, to: SocketAddr, frame: &[u8]) -> bool {
        let own = self.0.iter().find(|(local, _)| local.is_ipv4() == to.is_ipv4());
        let both = || self.0.iter().find(|(local, _)| local.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED));
        let Some((local, socket)) = own.or_else(both) else { return false };
        let to = match to.ip() {
            IpAddr::V4(ip) if local.is_ipv6() => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            _ => to,
        };
        socket.try_send_to(frame, to).is_ok()
    }
}

async fn receive(socket: Arc<UdpSocket>, incoming: mpsc::Sender<Incoming>, dropped: Arc<Dropped>) {
    // One more than a frame may have: a longer datagram arrives too long instead of cut to a right length.
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, remote)) => {
                let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
                let frame = buffer[..length].to_vec();
                let message = Incoming::Frame { remote, channel: Channel::Datagram, frame };
                match incoming.try_send(message) {
                    Ok(()) => {}
                    Err(mpsc::error::TrySendError::Full(_)) => dropped.add(),
                    Err(mpsc::error::TrySendError::Closed(_)) => return,
                }
            }
            // What came back for a datagram that nobody heard; the socket goes on.
            Err(error) => {
                tracing::trace!(%error, "receive a gossip datagram");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}
