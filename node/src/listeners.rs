//! `/status/listeners` and `vivace listeners`: every socket on which this process takes connections or datagrams, as the
//! kernel has it, with the line of the configuration that made it. What `ss -ltn` shows, in a container without a shell.

mod ask;
mod diag;
mod known;
mod sockets;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use vivace_runtime::Compute;

pub(crate) use ask::main;
pub(crate) use known::{Known, known};

use sockets::{Open, Origin, Transport};

/// A listener as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    protocol: Transport,
    address: String,
    family: &'static str,
    v6_only: &'static str,
    tls: &'static str,
    config: String,
}

#[derive(Debug, Serialize)]
struct Listing {
    listeners: Vec<Row>,
    /// Where the list came from: `kernel` knows the flag of IPv6 sockets, `tables` does not.
    source: Origin,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// What the route needs.
struct Listeners {
    known: Vec<Known>,
    compute: Compute,
}

/// The route. Reading sockets takes a moment: it is done on `compute`.
pub(crate) fn router(known: Vec<Known>, compute: Compute) -> Router {
    Router::new().route("/status/listeners", get(show)).with_state(Arc::new(Listeners { known, compute }))
}

async fn show(State(listeners): State<Arc<Listeners>>, headers: HeaderMap) -> Response {
    let state = Arc::clone(&listeners);
    let read = listeners
        .compute
        .run(0, move || sockets::of_this_process().map(|(origin, open)| list(&state.known, origin, open)));
    let listing = match read.await {
        Ok(Ok(listing)) => listing,
        Ok(Err(error)) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, format!("the sockets cannot be read: {error}\n"))
                .into_response();
        }
        Err(status) => return (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", status.message())).into_response(),
    };
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if accept.contains("application/json") {
        let text = serde_json::to_string(&listing).unwrap_or_default();
        return ([(header::CONTENT_TYPE, "application/json")], text).into_response();
    }
    format!("GET /status/listeners\n{}", text(&listing)).into_response()
}

fn list(known: &[Known], source: Origin, open: Vec<Open>) -> Listing {
    let lines = |open: &Open| -> Vec<&Known> {
        known
            .iter()
            .filter(|line| line.port == open.address.port() && line.transports.contains(&open.transport))
            .collect()
    };
    let mut notes = Vec::new();
    for line in known {
        let there = |transport: &Transport| {
            open.iter().any(|open| open.transport == *transport && open.address.port() == line.port)
        };
        // Only some configurations use gossip, and only some of those UDP: its absence is no fault.
        if !line.key.starts_with("memberlist.") && !line.transports.iter().any(there) {
            notes.push(format!("{}: {} makes a listener, and there is none", line.key, line.value));
        }
    }
    if source == Origin::Tables {
        notes.push(
            "the kernel could not be asked by netlink; whether IPv6 sockets take IPv4 as well is not known".into(),
        );
    }
    let listeners = open
        .iter()
        .map(|open| {
            let lines = lines(open);
            let tls = match lines.as_slice() {
                [] => "unknown",
                lines if lines.iter().any(|line| line.tls) => "yes",
                _ => "no",
            };
            let config: Vec<String> = lines.iter().map(|line| format!("{}: {}", line.key, line.value)).collect();
            Row {
                protocol: open.transport,
                address: open.address.to_string(),
                family: family(open),
                v6_only: match (open.address.is_ipv6(), open.v6_only) {
                    (false, _) => "-",
                    (true, Some(true)) => "yes",
                    (true, Some(false)) => "no",
                    (true, None) => "unknown",
                },
                tls,
                config: if config.is_empty() { "none that is known".to_owned() } else { config.join(", ") },
            }
        })
        .collect();
    Listing { listeners, source, notes }
}

/// A wildcard IPv6 socket that is not for IPv6 alone takes both.
fn family(open: &Open) -> &'static str {
    match (open.address.is_ipv6(), open.v6_only, open.address.ip().is_unspecified()) {
        (false, ..) => "IPv4",
        (true, Some(false), true) => "IPv4+IPv6",
        (true, ..) => "IPv6",
    }
}

fn text(listing: &Listing) -> String {
    let mut rows = vec![["PROTOCOL", "ADDRESS", "FAMILY", "V6ONLY", "TLS", "CONFIGURATION"].map(str::to_owned)];
    rows.extend(listing.listeners.iter().map(|row| {
        let protocol = match row.protocol {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        [protocol, &row.address, row.family, row.v6_only, row.tls, &row.config].map(str::to_owned)
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    for note in &listing.notes {
        out.push_str("note: ");
        out.push_str(note);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use axum::body::{Body, to_bytes};
    use tower::ServiceExt as _;

    use super::*;

    fn line(key: &str, port: u16, tls: bool) -> Known {
        Known { key: key.into(), value: port.to_string(), port, transports: &[Transport::Tcp], tls }
    }

    fn open(address: &str, v6_only: Option<bool>) -> Open {
        Open { transport: Transport::Tcp, address: address.parse().unwrap(), v6_only, inode: 1 }
    }

    #[test]
    fn families_flags_and_lines_are_shown() {
        let known = [line("server.http_listen_port", 3200, true), line("server.grpc_listen_port", 9095, false)];
        let sockets = vec![
            open("[::]:3200", Some(false)),
            open("[::]:3201", Some(true)),
            open("127.0.0.1:4317", None),
            open("[::1]:1", None),
        ];
        let listing = list(&known, Origin::Kernel, sockets);
        let shown: Vec<_> = listing.listeners.iter().map(|row| (row.family, row.v6_only, row.tls)).collect();
        assert_eq!(
            shown,
            [
                ("IPv4+IPv6", "no", "yes"),
                ("IPv6", "yes", "unknown"),
                ("IPv4", "-", "unknown"),
                ("IPv6", "unknown", "unknown")
            ]
        );
        let text = text(&listing);
        assert!(text.starts_with("PROTOCOL  ADDRESS"), "{text}");
        assert!(
            text.contains("[::]:3200       IPv4+IPv6  no       yes      server.http_listen_port: 3200\n"),
            "{text}"
        );
        assert!(text.contains("note: server.grpc_listen_port: 9095 makes a listener, and there is none"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_said() {
        let listing = list(&[], Origin::Tables, vec![open("[::]:1", None)]);
        assert!(listing.notes[0].contains("is not known"));
    }

    #[tokio::test]
    async fn the_page_shows_the_sockets_of_this_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let known = vec![line("server.http_listen_port", address.port(), false)];
        let get = async |accept: &str| {
            let request = http::Request::get("/status/listeners").header("accept", accept).body(Body::empty()).unwrap();
            let response = router(known.clone(), Compute::inline()).oneshot(request).await.unwrap();
            String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
        };
        let text = get("text/plain").await;
        let row = text.lines().find(|row| row.contains(&address.to_string())).unwrap_or_else(|| panic!("{text}"));
        assert!(row.contains(&format!("server.http_listen_port: {}", address.port())), "{row}");
        let json: serde_json::Value = serde_json::from_str(&get("application/json").await).unwrap();
        let rows = json["listeners"].as_array().unwrap();
        assert!(rows.iter().any(|row| row["address"] == address.to_string() && row["protocol"] == "tcp"), "{json}");
    }
}
