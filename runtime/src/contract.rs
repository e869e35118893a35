//! For tests of other crates: runs one body against an endpoint in each of its forms. A component's contract tests call these
//! for every message that it serves, so that moving it to another process changes nothing.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::dial::Dial;
use crate::endpoint::{Endpoint, EndpointRouter, StreamEndpoint, Wire};
use crate::part::Failure;
use crate::server::Server;

/// Which form of an endpoint a test body is given, for its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In the process.
    Local,
    /// Over gRPC on the loopback interface.
    Remote,
}

/// Runs the body with the local endpoint and then with the same one over gRPC on a loopback port.
///
/// # Errors
/// No loopback listener can be had.
pub async fn each_form<Q: Wire, R: Wire>(
    local: Endpoint<Q, R>,
    mut body: impl AsyncFnMut(Form, Endpoint<Q, R>),
) -> Result<(), Failure> {
    body(Form::Local, local.clone()).await;
    let (address, stop) = expose(EndpointRouter::new().unary(local)).await?;
    body(Form::Remote, Endpoint::remote(Dial::default().channel(&address)?, "loopback")).await;
    stop.cancel();
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
    let (address, stop) = expose(EndpointRouter::new().streaming(local)).await?;
    body(Form::Remote, StreamEndpoint::remote(Dial::default().channel(&address)?, "loopback")).await;
    stop.cancel();
    Ok(())
}

/// Serves a router on a free loopback port of 127.0.0.1; gives the address, and what stops it.
///
/// # Errors
/// No loopback listener can be had.
pub async fn expose(endpoints: EndpointRouter) -> Result<(String, CancellationToken), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let stop = CancellationToken::new();
    let until = stop.clone();
    tokio::spawn(async move {
        Server::default().serve(listener, endpoints.into_router(), until, Duration::from_secs(5)).await;
    });
    Ok((address, stop))
}
