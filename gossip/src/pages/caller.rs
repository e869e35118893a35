//! Calls addresses of members, so that a page can tell a dead process from a dead port and from one that hangs.
//!
//! A call is a connection with a few bytes and the wait for one byte: of an HTTP request to a gossip port, which answers it
//! with a line; of HTTP/2's greeting to a gRPC port. A gRPC port that answers is asked for its health as well, which tells a
//! proxy that has lost its process from one that has not. What came of a call is kept for a moment, so that many readers of
//! a page cause no more calls than one.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use vivace_runtime::Clock;

use super::evidence::{Checked, Contact};

/// How long a call is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long its health is waited for, behind a port that answers.
const HEALTH: Duration = Duration::from_millis(400);
/// How long its result is believed.
const KEPT: Duration = Duration::from_secs(4);
/// Calls at once, and calls for one page: the oldest results are renewed first.
const AT_ONCE: usize = 16;
const PER_PAGE: usize = 64;
/// Results kept; beyond, all of them are forgotten.
const RESULTS_MAX: usize = 4096;

/// Sent to a gossip port.
const GOSSIP_GREETING: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
/// HTTP/2: the preface and empty settings.
const SERVICE_GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// What listens at an address, if anything does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Port {
    /// Gossip.
    Gossip,
    /// gRPC, or a proxy before it.
    Service,
}

/// What came of calls, and when.
type Results = HashMap<(Port, String), (std::time::Instant, Contact)>;

/// Calls addresses and remembers what came of it.
#[derive(Clone)]
pub(super) struct Caller {
    clock: Arc<dyn Clock>,
    results: Arc<Mutex<Results>>,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}

impl Caller {
    /// With nothing known.
    #[must_use]
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, results: Arc::default() }
    }

    /// Calls those addresses of which nothing recent is known, and returns what is known of all, by address. Takes little
    /// more than a second, however many there are.
    pub(super) async fn call(&self, wanted: Vec<(Port, String)>) -> HashMap<(Port, String), Checked> {
        let now = self.clock.now();
        let mut due: Vec<(Option<std::time::Instant>, (Port, String))> = {
            let results = self.results.lock();
            let age = |key: &(Port, String)| results.get(key).map(|(at, _)| *at);
            let old = |at: &Option<std::time::Instant>| at.is_none_or(|at| now.saturating_duration_since(at) >= KEPT);
            wanted.iter().map(|key| (age(key), key.clone())).filter(|(at, _)| old(at)).collect()
        };
        due.sort_by_key(|(at, _)| *at);
        due.truncate(PER_PAGE);
        let all = futures::stream::iter(due.into_iter().map(|(_, key)| async {
            let contact = call(&key).await;
            self.note(key.clone(), contact);
            if key.0 == Port::Service
                && contact == Contact::Answers
                && let Some(contact) = health(&key.1).await
            {
                self.note(key, contact);
            }
        }));
        let mut called = all.buffer_unordered(AT_ONCE);
        let clock = Arc::clone(&self.clock);
        let mut over = clock.sleep(PATIENCE + PATIENCE / 2);
        loop {
            tokio::select! {
                one = called.next() => if one.is_none() { break },
                () = &mut over => break,
            }
        }
        let results = self.results.lock();
        let known = wanted.into_iter().filter_map(|key| {
            let (_, contact) = results.get(&key)?;
            let checked = Checked { address: key.1.clone(), contact: *contact };
            Some((key, checked))
        });
        known.collect()
    }

    fn note(&self, key: (Port, String), contact: Contact) {
        let mut results = self.results.lock();
        if results.len() >= RESULTS_MAX {
            results.clear();
        }
        results.insert(key, (self.clock.now(), contact));
    }
}

async fn call((port, address): &(Port, String)) -> Contact {
    let greeting = match port {
        Port::Gossip => GOSSIP_GREETING,
        Port::Service => SERVICE_GREETING,
    };
    let mut stream = match tokio::time::timeout(PATIENCE, TcpStream::connect(address.as_str())).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return Contact::Refused,
        Ok(Err(_)) | Err(_) => return Contact::Unreachable,
    };
    let exchange = async {
        stream.write_all(greeting).await?;
        stream.read(&mut [0_u8; 1]).await
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(1..)) => Contact::Answers,
        // Whoever closes the connection is awake; at a gRPC port it is not what a server does.
        Ok(Ok(_) | Err(_)) if *port == Port::Gossip => Contact::Answers,
        Ok(Ok(_) | Err(_)) | Err(_) => Contact::Silent,
    }
}

/// What the health service at an address says. None where nothing is learnt: it speaks TLS, has no such service, is late.
async fn health(address: &str) -> Option<Contact> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?.connect_timeout(HEALTH);
    let asked = async {
        let channel = endpoint.connect().await.ok()?;
        Some(HealthClient::new(channel).check(HealthCheckRequest::default()).await)
    };
    match tokio::time::timeout(HEALTH, asked).await.ok()?? {
        Ok(answer) if answer.get_ref().status == ServingStatus::Serving as i32 => Some(Contact::Answers),
        Ok(_) => Some(Contact::NotServing),
        // It was said by the other side, not found out here about the connection.
        Err(status) if status.code() == tonic::Code::Unavailable && std::error::Error::source(&status).is_none() => {
            Some(Contact::NothingBehind)
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use vivace_runtime::{FakeClock, SystemClock};

    use super::*;

    async fn contact(caller: &Caller, port: Port, address: &str) -> Contact {
        caller.call(vec![(port, address.to_owned())]).await[&(port, address.to_owned())].contact
    }

    /// A listener that does `then` with each connection.
    async fn listener<F: Future<Output = ()> + Send + 'static>(
        then: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(then(stream));
            }
        });
        address
    }

    #[tokio::test]
    async fn a_port_that_answers_one_that_refuses_and_one_that_is_silent_are_told_apart() {
        let caller = Caller::new(Arc::new(SystemClock));
        let answering = listener(|mut stream| async move {
            let mut greeting = vec![0; SERVICE_GREETING.len()];
            stream.read_exact(&mut greeting).await.unwrap();
            assert_eq!(greeting, SERVICE_GREETING);
            stream.write_all(&[0]).await.unwrap();
        })
        .await;
        // A stopped process: the kernel accepts, nobody reads.
        let stopped = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = stopped.local_addr().unwrap().to_string();
        let refused = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap().to_string()
        };
        assert_eq!(contact(&caller, Port::Service, &answering).await, Contact::Answers);
        assert_eq!(contact(&caller, Port::Service, &refused).await, Contact::Refused);
        assert_eq!(contact(&caller, Port::Gossip, &silent).await, Contact::Silent);
        let closing = listener(|stream| async move { drop(stream) }).await;
        assert_eq!(contact(&caller, Port::Service, &closing).await, Contact::Silent);
    }

    #[tokio::test]
    async fn a_port_that_answers_is_asked_for_its_health() {
        let (reporter, service) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let routes = tonic::service::Routes::new(service).into_axum_router();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        // Each time anew: results are kept.
        let now = async || contact(&Caller::new(Arc::new(SystemClock)), Port::Service, &address).await;
        reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
        assert_eq!(now().await, Contact::Answers);
        reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        assert_eq!(now().await, Contact::NotServing);
        // A service that is not there at all is no reason to complain: it answers.
        let other = listening(axum::Router::new()).await;
        assert_eq!(contact(&Caller::new(Arc::new(SystemClock)), Port::Service, &other).await, Contact::Answers);
        // What a proxy says whose process is gone.
        let proxy = axum::Router::new().fallback(async || http::StatusCode::SERVICE_UNAVAILABLE);
        let proxy = listening(proxy).await;
        assert_eq!(contact(&Caller::new(Arc::new(SystemClock)), Port::Service, &proxy).await, Contact::NothingBehind);
    }

    async fn listening(router: axum::Router) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn results_are_kept_for_a_moment() {
        let clock = FakeClock::at(Duration::from_secs(1));
        let caller = Caller::new(Arc::new(clock.clone()));
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = gone.local_addr().unwrap().to_string();
        drop(gone);
        assert_eq!(contact(&caller, Port::Gossip, &address).await, Contact::Refused);
        let back = TcpListener::bind(&address).await.unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = back.accept().await {
                drop(stream);
            }
        });
        assert_eq!(contact(&caller, Port::Gossip, &address).await, Contact::Refused, "not called again");
        clock.advance(KEPT);
        assert_eq!(contact(&caller, Port::Gossip, &address).await, Contact::Answers);
    }
}
