//! Where a process of a cluster runs and how it is reached.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::Command;

use super::{GOSSIP, GRPC, HTTP, KAFKA, OTLP_GRPC, OTLP_HTTP};

/// A host, or an address of this one.
#[derive(Debug, Clone)]
pub struct Home {
    /// Its addresses. The test uses the first one; so do the other processes, unless the cluster has names.
    pub addresses: Vec<IpAddr>,
    /// Program and arguments that go before a program which is to run there.
    pub wrapper: Vec<String>,
}

impl Home {
    pub(super) fn loopback(address: Ipv4Addr) -> Self {
        Self { addresses: vec![IpAddr::V4(address)], wrapper: Vec::new() }
    }

    /// The address that is used where there are no names.
    ///
    /// # Panics
    /// It has none.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        *self.addresses.first().expect("a host has an address")
    }

    /// The program there.
    pub(super) fn command(&self, program: &std::path::Path) -> Command {
        match self.wrapper.split_first() {
            Some((first, arguments)) => {
                let mut command = Command::new(first);
                command.args(arguments).arg(program);
                command
            }
            None => Command::new(program),
        }
    }
}

/// A distance at which all ports are free at `host`: below those that the system gives to clients.
pub(super) fn distance(host: Ipv4Addr) -> Option<u16> {
    let is_free = |port: u16| TcpListener::bind((host, port)).is_ok();
    let ports = [HTTP, GRPC, GOSSIP, OTLP_GRPC, OTLP_HTTP, KAFKA];
    (10_000..20_000).step_by(500).find(|distance| ports.iter().all(|port| is_free(port + distance)))
}
