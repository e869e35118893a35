//! Which lines of the configuration make listeners.

use std::net::SocketAddr;

use vivace_distributor::config::Receiver;

use super::sockets::Transport;
use crate::config::{Config, Target};

/// A line that makes a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// The key, for instance `server.http_listen_port`.
    pub(super) key: String,
    /// Its value.
    pub(super) value: String,
    pub(super) port: u16,
    pub(super) transports: &'static [Transport],
    pub(super) tls: bool,
}

const TCP: &[Transport] = &[Transport::Tcp];
const BOTH: &[Transport] = &[Transport::Tcp, Transport::Udp];

/// The lines of this configuration that a process of the target makes listeners of. `http` and `grpc` are where the two servers really listen, as their ports may be left
/// to the system.
pub(crate) fn known(config: &Config, target: Target, http: SocketAddr, grpc: SocketAddr) -> Vec<Known> {
    let server = &config.server;
    let port = |key: &str, value: u16, port: u16, tls: bool, transports| Known {
        key: key.to_owned(),
        value: value.to_string(),
        port,
        transports,
        tls,
    };
    let has = |tls: &vivace_runtime::config::ServerTlsConfig| !tls.cert.is_empty() || !tls.cert_file.is_empty();
    let mut known = vec![
        port("server.http_listen_port", server.http_listen_port, http.port(), has(&server.http_tls_config), TCP),
        port("server.grpc_listen_port", server.grpc_listen_port, grpc.port(), has(&server.grpc_tls_config), TCP),
        port(
            "memberlist.bind_port",
            config.memberlist.bind_port,
            config.memberlist.bind_port,
            config.memberlist.tls_enabled,
            BOTH,
        ),
    ];
    if !matches!(target, Target::All | Target::Distributor) {
        // One file may serve every role: receivers are the distributor's.
        return known;
    }
    for (id, receiver) in config.distributor.receivers.effective() {
        let Receiver::Otlp(otlp) = receiver else { continue };
        let mut add = |protocol: &str, endpoint: &str, tls: bool| {
            // A receiver that lets the system choose cannot be told by its port.
            let port = endpoint.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).filter(|port| *port != 0);
            let key = format!("distributor.receivers.{id}.protocols.{protocol}.endpoint");
            known.extend(port.map(|port| Known { key, value: endpoint.to_owned(), port, transports: TCP, tls }));
        };
        if let Some(grpc) = &otlp.protocols.grpc.0 {
            add("grpc", &grpc.endpoint, grpc.tls.0.is_some());
        }
        if let Some(http) = &otlp.protocols.http.0 {
            add("http", &http.endpoint, http.tls.0.is_some());
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listener_has_its_line() {
        let mut config = Config::default();
        config.server.http_listen_port = 0;
        config.server.grpc_tls_config.cert_file = "/cert.pem".into();
        let of = |target| known(&config, target, "[::]:40001".parse().unwrap(), "[::]:9095".parse().unwrap());
        let known = of(Target::Distributor);
        let rows: Vec<_> = known.iter().map(|k| (k.key.as_str(), k.value.as_str(), k.port, k.tls)).collect();
        assert_eq!(
            rows,
            [
                ("server.http_listen_port", "0", 40001, false),
                ("server.grpc_listen_port", "9095", 9095, true),
                ("memberlist.bind_port", "7946", 7946, false),
                ("distributor.receivers.otlp.protocols.grpc.endpoint", "localhost:4317", 4317, false),
                ("distributor.receivers.otlp.protocols.http.endpoint", "localhost:4318", 4318, false),
            ]
        );
        assert_eq!(of(Target::Querier), known[..3], "it has no receivers, whatever the file says of them");
        assert_eq!(of(Target::All), known);
    }
}
