//! Listening sockets from the kernel, by netlink's `sock_diag`: the one source that knows whether an IPv6 socket takes IPv4
//! as well. No privilege is needed for sockets of the own network namespace.
//!
//! Layouts are those of `linux/netlink.h`, `linux/sock_diag.h` and `linux/inet_diag.h`.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::sockets::{Open, Transport};

const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// A request for everything that fits.
const REQUEST_DUMP: u16 = 0x301;
const INET_DIAG_SKV6ONLY: u16 = 11;
const HEAD: usize = 16;
const MESSAGE: usize = 72;
/// More sockets than any process has; a dump is cut there.
const SOCKETS_MAX: usize = 100_000;

/// What the kernel lists for one protocol and family.
pub(super) fn listening(transport: Transport, v6: bool) -> io::Result<Vec<Open>> {
    let domain = Domain::from(AF_NETLINK);
    let mut socket = Socket::new(domain, Type::RAW, Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    // Without a destination it goes to the kernel.
    socket.write_all(&request(transport, if v6 { AF_INET6 } else { AF_INET }))?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = socket.read(&mut buffer)?;
        if read_messages(&buffer[..length], transport, &mut found)? || length == 0 {
            return Ok(found);
        }
        if found.len() > SOCKETS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel lists more sockets than there can be"));
        }
    }
}

fn request(transport: Transport, family: u8) -> Vec<u8> {
    // TCP_LISTEN, and TCP_CLOSE, which is the state of a UDP socket that is not connected.
    let (protocol, states): (u8, u32) = match transport {
        Transport::Tcp => (6, 1 << 10),
        Transport::Udp => (17, 1 << 7),
    };
    let mut out = Vec::with_capacity(MESSAGE);
    out.extend(u32::to_ne_bytes(72));
    out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend(REQUEST_DUMP.to_ne_bytes());
    out.extend([0; 8]);
    out.extend([family, protocol, 0, 0]);
    out.extend(states.to_ne_bytes());
    // No particular socket: ports, addresses, interface and cookie are ignored in a dump.
    out.extend([0; 48]);
    out
}

/// Reads what one `read` brought. True once the dump is complete.
fn read_messages(mut bytes: &[u8], transport: Transport, found: &mut Vec<Open>) -> io::Result<bool> {
    let wrong = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    while !bytes.is_empty() {
        let head = bytes.first_chunk::<HEAD>().ok_or_else(|| wrong("a netlink message without a head"))?;
        let length = usize::try_from(u32_at(head, 0)).unwrap_or(usize::MAX);
        let message = bytes.get(HEAD..length).ok_or_else(|| wrong("a netlink message with a wrong length"))?;
        match u16_at(head, 4) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = i32::from_ne_bytes(*message.first_chunk().ok_or_else(|| wrong("an error without a code"))?);
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
                }
            }
            SOCK_DIAG_BY_FAMILY => found.extend(socket_of(message, transport)),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn socket_of(message: &[u8], transport: Transport) -> Option<Open> {
    let (fixed, attributes) = message.split_first_chunk::<MESSAGE>()?;
    let port = u16::from_be_bytes([fixed[4], fixed[5]]);
    let remote_port = u16::from_be_bytes([fixed[6], fixed[7]]);
    if transport == Transport::Udp && remote_port != 0 {
        return None;
    }
    let address: [u8; 16] = fixed[8..24].try_into().ok()?;
    let ip: IpAddr = match fixed[0] {
        AF_INET => Ipv4Addr::new(address[0], address[1], address[2], address[3]).into(),
        AF_INET6 => Ipv6Addr::from(address).into(),
        _ => return None,
    };
    let v6_only = match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(_) => {
            attribute(attributes, INET_DIAG_SKV6ONLY).and_then(|value| value.first().map(|flag| *flag != 0))
        }
    };
    let inode = u64::from(u32_at(fixed, 68));
    Some(Open { transport, address: SocketAddr::new(ip, port), v6_only, inode })
}

fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(head) = bytes.first_chunk::<4>() {
        let length = usize::from(u16_at(head, 0));
        let value = bytes.get(4..length)?;
        if u16_at(head, 2) == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(u32::try_from(HEAD + body.len()).unwrap().to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend([0; 10]);
        out.extend(body);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn socket(family: u8, port: u16, inode: u32, attributes: &[u8]) -> Vec<u8> {
        let mut body = vec![family, 10, 0, 0];
        body.extend(port.to_be_bytes());
        body.resize(68, 0);
        body.extend(inode.to_ne_bytes());
        body.extend(attributes);
        message(SOCK_DIAG_BY_FAMILY, &body)
    }

    #[test]
    fn sockets_are_read_with_the_flag_of_their_family() {
        let v6_only = [5_u16.to_ne_bytes(), INET_DIAG_SKV6ONLY.to_ne_bytes(), [1, 0], [0, 0]].concat();
        let mut bytes = socket(AF_INET6, 3200, 7, &v6_only);
        bytes.extend(socket(AF_INET, 9095, 8, &[]));
        bytes.extend(message(NLMSG_DONE, &[]));
        let mut found = Vec::new();
        assert!(read_messages(&bytes, Transport::Tcp, &mut found).unwrap());
        assert_eq!(
            (found[0].address.to_string(), found[0].v6_only, found[0].inode),
            ("[::]:3200".into(), Some(true), 7)
        );
        assert_eq!((found[1].address.to_string(), found[1].v6_only, found[1].inode), ("0.0.0.0:9095".into(), None, 8));
    }

    #[test]
    fn a_refusal_of_the_kernel_is_an_error() {
        let bytes = message(NLMSG_ERROR, &(-2_i32).to_ne_bytes());
        let error = read_messages(&bytes, Transport::Tcp, &mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(2));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut found = Vec::new();
            read_messages(&bytes, Transport::Udp, &mut found).ok();
            socket_of(&bytes, Transport::Tcp);
        }
    }
}
