//! The sockets of this process that take connections or datagrams.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::diag;

/// Which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// A socket that is open for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
    /// Whether an IPv6 socket takes IPv6 alone; unknown where the kernel was not asked, or for IPv4.
    pub(super) v6_only: Option<bool>,
    pub(super) inode: u64,
}

/// Where the list came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// `sock_diag`: complete.
    Kernel,
    /// The tables below `/proc`, which do not know the flag of IPv6 sockets.
    Tables,
}

/// The sockets of this process. Reads files and asks the kernel: short, but not for an arbiter.
pub(super) fn of_this_process() -> io::Result<(Origin, Vec<Open>)> {
    let mine = inodes()?;
    let (origin, mut all) = match from_kernel() {
        Ok(all) => (Origin::Kernel, all),
        // Kernels without the module, and sandboxes that forbid netlink.
        Err(_) => (Origin::Tables, from_tables()?),
    };
    all.retain(|socket| mine.contains(&socket.inode));
    all.sort_by_key(|socket| (socket.transport, socket.address.port(), socket.address.ip()));
    Ok((origin, all))
}

const KINDS: [(Transport, bool, &str); 4] = [
    (Transport::Tcp, false, "/proc/self/net/tcp"),
    (Transport::Tcp, true, "/proc/self/net/tcp6"),
    (Transport::Udp, false, "/proc/self/net/udp"),
    (Transport::Udp, true, "/proc/self/net/udp6"),
];

fn from_kernel() -> io::Result<Vec<Open>> {
    let mut all = Vec::new();
    for (transport, v6, _) in KINDS {
        all.extend(diag::listening(transport, v6)?);
    }
    Ok(all)
}

fn from_tables() -> io::Result<Vec<Open>> {
    let mut all = Vec::new();
    for (transport, _, path) in KINDS {
        match fs::read_to_string(path) {
            Ok(text) => all.extend(text.lines().skip(1).filter_map(|line| row(line, transport))),
            // A host without IPv6 has no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// One line of a table: `sl local remote state queues timer retransmits uid timeout inode …`.
fn row(line: &str, transport: Transport) -> Option<Open> {
    let mut columns = line.split_ascii_whitespace();
    let (local, remote, state) = (columns.nth(1)?, columns.next()?, columns.next()?);
    let wanted = match transport {
        Transport::Tcp => "0A",
        Transport::Udp => "07",
    };
    if state != wanted || (transport == Transport::Udp && !remote.ends_with(":0000")) {
        return None;
    }
    let inode = columns.nth(5)?.parse().ok()?;
    Some(Open { transport, address: address(local)?, v6_only: None, inode })
}

/// Addresses are words of four bytes in the order of the machine, ports are as people write them.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The sockets that this process has open.
fn inodes() -> io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        // A descriptor that was closed meanwhile is none of ours any more.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let inode =
            target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok());
        inodes.extend(inode);
    }
    Ok(inodes)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn lines_of_the_tables_are_read() {
        let line =
            "   0: 0100007F:0C80 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100";
        let open = row(line, Transport::Tcp).unwrap();
        assert_eq!((open.address.to_string(), open.inode), ("127.0.0.1:3200".to_owned(), 4711));
        assert!(row(&line.replace(" 0A ", " 01 "), Transport::Tcp).is_none(), "a connection");
        let ip = "00000000000000000000000001000000";
        let line = format!("   1: {ip}:1F0A {} 0A 0:0 00:0 0 0 0 12", format_args!("{}:0000", "0".repeat(32)));
        assert_eq!(row(&line, Transport::Tcp).unwrap().address.to_string(), "[::1]:7946");
        for garbage in ["", "sl local", "0: zz:11 x 0A", "0: 0100007F:0C80 0:0 0A a b c d e f"] {
            assert!(row(garbage, Transport::Tcp).is_none());
        }
    }

    #[test]
    fn what_this_process_opens_is_found_in_both_ways() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let wanted = [(Transport::Tcp, tcp.local_addr().unwrap()), (Transport::Udp, udp.local_addr().unwrap())];
        let mine = inodes().unwrap();
        for all in [of_this_process().unwrap().1, from_tables().unwrap()] {
            for (transport, address) in wanted {
                let found = all.iter().find(|open| open.transport == transport && open.address == address);
                assert!(found.is_some_and(|open| mine.contains(&open.inode)), "{address} in {all:?}");
            }
        }
        let (connected, peer) = (UdpSocket::bind("127.0.0.1:0").unwrap(), udp.local_addr().unwrap());
        connected.connect(peer).unwrap();
        let address = connected.local_addr().unwrap();
        let (_, all) = of_this_process().unwrap();
        assert!(all.iter().all(|open| open.address != address), "a connected socket takes nothing from others");
    }

    #[test]
    fn the_kernel_tells_sockets_for_both_families_from_those_for_one() {
        use vivace_runtime::{Listen, Network};
        if TcpListener::bind("[::1]:0").is_err() {
            return;
        }
        let listen = |network| Listen { key: "k".into(), network, host: "::".into(), port: 0 }.bind().unwrap();
        let (both, one) = (listen(Network::Tcp), listen(Network::Tcp6));
        let (origin, all) = of_this_process().unwrap();
        let flag = |listener: &TcpListener| {
            let address = listener.local_addr().unwrap();
            all.iter().find(|open| open.address == address).unwrap().v6_only
        };
        let known = |flag| if origin == Origin::Kernel { Some(flag) } else { None };
        assert_eq!((flag(&both), flag(&one)), (known(false), known(true)));
    }
}
