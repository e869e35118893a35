//! Every spelling of every address of both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use vivace_integration::http;
use vivace_integration::process::Setup;
use vivace_integration::skip;

#[test]
fn every_wildcard_takes_ipv4_and_ipv6() {
    let v6 = TcpListener::bind("[::1]:0").is_ok();
    if !v6 {
        skip::skip("the IPv6 half of listening on every wildcard: this machine has no IPv6");
    }
    for address in ["", "::", "::0", "'[::]'"] {
        let dir = tempfile::tempdir().unwrap();
        let mut setup = Setup::new(dir.path());
        setup.env = vec![
            ("VIVACE_SERVER__HTTP_LISTEN_ADDRESS".into(), address.trim_matches('\'').into()),
            ("VIVACE_SERVER__GRPC_LISTEN_ADDRESS".into(), address.trim_matches('\'').into()),
        ];
        let node = setup.spawn().unwrap();
        for listener in ["http", "grpc"] {
            let port = node.addr(listener).unwrap().port();
            let mut hosts = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
            if v6 {
                hosts.push(IpAddr::V6(Ipv6Addr::LOCALHOST));
            }
            for host in hosts {
                let to = SocketAddr::new(host, port);
                if listener == "http" {
                    assert_eq!(http::get(to, "/api/echo").unwrap().text(), "echo\n", "{address:?} {to}");
                } else {
                    std::net::TcpStream::connect(to).unwrap_or_else(|e| panic!("{address:?} {to}: {e}"));
                }
            }
        }
        node.stop().unwrap();
    }
}

#[test]
fn a_taken_port_fails_the_start_and_names_the_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut setup = Setup::new(dir.path());
    setup.env = vec![("VIVACE_SERVER__HTTP_LISTEN_PORT".into(), taken.local_addr().unwrap().port().to_string())];
    let node = setup.spawn().unwrap();
    let line = node.wait_log(|l| l.contains("level=error")).unwrap();
    assert!(line.contains("server.http_listen_port") && line.contains("in use"), "{line}");
}
