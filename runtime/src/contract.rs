//! For tests of other crates: runs one body against an endpoint in each of its forms. A component's contract tests call these
//! for every message that it serves, so that moving it to another process changes nothing.

use std::fmt::Debug;
use std::time::Duration;

use axum::Router;
use futures::StreamExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::dial::Dial;
use crate::endpoint::{Endpoint, EndpointRouter, Peer, StreamEndpoint, Wire};
use crate::link::{LinkTo, Links};
use crate::part::Failure;
use crate::server::Server;

/// Which form of an endpoint a test body is given, for its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In the process.
    Local,
    /// Over gRPC on the loopback interface.
    Remote,
    /// Over links that the answering side opened, on the loopback interface.
    Link,
}

/// The name of the component in these tests.
const SERVICE: &str = "vivace.test.Contract";
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Calls that can run at once over links.
const LINKS: usize = 8;

/// Runs the body with the local endpoint, with the same one over gRPC on a loopback port, and over links.
///
/// # Errors
/// No loopback listener can be had.
pub async fn each_form<Q: Wire, R: Wire>(
    local: Endpoint<Q, R>,
    mut body: impl AsyncFnMut(Form, Endpoint<Q, R>),
) -> Result<(), Failure> {
    body(Form::Local, local.clone()).await;
    let router = EndpointRouter::of(SERVICE).unary(local);
    let (address, stop) = expose(router.clone().into_router()).await?;
    body(Form::Remote, Endpoint::remote(&peer(&address)?, SERVICE)).await;
    stop.cancel();
    let linked = Linking::to(&router, LINKS).await?;
    body(Form::Link, Endpoint::linked(&linked.links, SERVICE)).await;
    linked.end();
    Ok(())
}

/// As [`each_form`], for endpoints that answer with a stream.
///
/// # Errors
/// No loopback listener can be had.
pub async fn each_stream_form<Q: Wire, R: Wire>(
    local: StreamEndpoint<Q, R>,
    mut body: impl AsyncFnMut(Form, StreamEndpoint<Q, R>),
) -> Result<(), Failure> {
    body(Form::Local, local.clone()).await;
    let router = EndpointRouter::of(SERVICE).streaming(local);
    let (address, stop) = expose(router.clone().into_router()).await?;
    body(Form::Remote, StreamEndpoint::remote(&peer(&address)?, SERVICE)).await;
    stop.cancel();
    let linked = Linking::to(&router, LINKS).await?;
    body(Form::Link, StreamEndpoint::linked(&linked.links, SERVICE)).await;
    linked.end();
    Ok(())
}

/// Asks the same in every form. What a caller sees must be the same: the reply, or code, message, details and metadata of the
/// error. Gives what was seen.
///
/// # Errors
/// A form answers differently; no loopback listener can be had.
pub async fn alike<Q: Wire + Clone, R: Wire + Debug>(
    endpoint: &Endpoint<Q, R>,
    requests: &[Q],
) -> Result<Vec<String>, Failure> {
    let mut seen = Vec::new();
    each_form(endpoint.clone(), async |form, endpoint| {
        let mut answers = Vec::new();
        for request in requests {
            answers.push(told(endpoint.call(request.clone(), PATIENCE).await));
        }
        seen.push((form, answers));
    })
    .await?;
    compare(seen)
}

/// [`alike`] for endpoints that answer with a stream.
///
/// # Errors
/// As there.
pub async fn alike_stream<Q: Wire + Clone, R: Wire + Debug>(
    endpoint: &StreamEndpoint<Q, R>,
    requests: &[Q],
) -> Result<Vec<String>, Failure> {
    let mut seen = Vec::new();
    each_stream_form(endpoint.clone(), async |form, endpoint| {
        let mut answers = Vec::new();
        for request in requests {
            answers.push(match endpoint.call(request.clone(), PATIENCE).await {
                Ok(replies) => replies.map(told).collect::<Vec<_>>().await.join(", "),
                Err(status) => told::<R>(Err(status)),
            });
        }
        seen.push((form, answers));
    })
    .await?;
    compare(seen)
}

/// What a caller sees of an answer.
fn told<R: Debug>(answer: Result<R, Status>) -> String {
    match answer {
        Ok(reply) => format!("{reply:?}"),
        Err(status) => {
            // What the transport adds is not the answer's.
            let mut headers = status.metadata().clone().into_headers();
            ["content-type", "date", "grpc-accept-encoding", "content-length"].iter().for_each(|name| {
                headers.remove(*name);
            });
            format!("{:?} {:?} {:?} {headers:?}", status.code(), status.message(), status.details())
        }
    }
}

fn compare(seen: Vec<(Form, Vec<String>)>) -> Result<Vec<String>, Failure> {
    let mut seen = seen.into_iter();
    let (_, local) = seen.next().unwrap_or((Form::Local, Vec::new()));
    for (form, answers) in seen {
        if answers != local {
            return Err(Failure::new(format!("{form:?} answers {answers:?}, in the process it is {local:?}")));
        }
    }
    Ok(local)
}

/// A peer at an address of this host, in the clear.
///
/// # Errors
/// The address cannot be understood.
pub fn peer(address: &str) -> Result<Peer, Failure> {
    Ok(Peer::new(Dial::default().channel(address)?, address))
}

/// Endpoints of this process behind links to itself.
#[derive(Debug)]
pub struct Linking {
    /// The asker's side.
    pub links: Links,
    server: CancellationToken,
    /// What opened each link, to be ended one by one.
    pub workers: Vec<tokio::task::JoinHandle<()>>,
}

impl Linking {
    /// Opens `count` links and waits until they are there.
    ///
    /// # Errors
    /// No loopback listener can be had.
    pub async fn to(router: &EndpointRouter, count: usize) -> Result<Self, Failure> {
        let links = Links::new("loopback");
        let (address, server) = expose(links.router()).await?;
        let mut workers = Vec::new();
        for at in 0..count {
            // Each as if it were a process of its own.
            let (name, process) = (format!("worker-{at}"), u64::try_from(at)?);
            let link = LinkTo { peer: peer(&address)?, name, process, answers: router.answers() };
            // How it ends is seen by the other side.
            workers.push(tokio::spawn(async move { drop(link.serve(CancellationToken::new()).await) }));
        }
        let mut connected = links.watch();
        connected.wait_for(|connected| *connected == count).await?;
        Ok(Self { links, server, workers })
    }

    /// Ends everything.
    pub fn end(self) {
        self.links.close();
        self.server.cancel();
        self.workers.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Serves a router on a free loopback port of 127.0.0.1; gives the address, and what stops it.
///
/// # Errors
/// No loopback listener can be had.
pub async fn expose(router: Router) -> Result<(String, CancellationToken), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let stop = CancellationToken::new();
    let until = stop.clone();
    tokio::spawn(async move {
        Server::default().serve(listener, router, until, Duration::from_secs(5)).await;
    });
    Ok((address, stop))
}
