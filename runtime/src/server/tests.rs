use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

async fn start(
    limits: ServerLimits,
    router: Router,
) -> (std::net::SocketAddr, CancellationToken, Arc<Traffic>, tokio::task::JoinHandle<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (server, stop) = (Server::new(limits), CancellationToken::new());
    let (traffic, until) = (server.traffic(), stop.clone());
    let serving = tokio::spawn(async move { server.serve(listener, router, until, Duration::from_secs(60)).await });
    (address, stop, traffic, serving)
}

async fn request(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn requests_in_flight_finish_after_the_stop_and_bytes_are_counted() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let (arrived, mut arrival) = tokio::sync::mpsc::channel::<std::net::SocketAddr>(1);
    let handler = move |axum::extract::ConnectInfo(peer): axum::extract::ConnectInfo<std::net::SocketAddr>| async move {
        arrived.send(peer).await.unwrap();
        gate.clone().wait_for(|open| *open).await.unwrap();
        "finished"
    };
    let (address, stop, traffic, serving) =
        start(ServerLimits::default(), Router::new().route("/x", get(handler))).await;
    let asking = tokio::spawn(request(address));
    assert!(arrival.recv().await.unwrap().ip().is_loopback());
    stop.cancel();
    assert!(!serving.is_finished());
    go.send(true).unwrap();
    assert!(asking.await.unwrap().ends_with("finished"));
    assert!(serving.await.unwrap());
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!((traffic.connections.load(Ordering::Relaxed), traffic.open.load(Ordering::Relaxed)), (1, 0));
    assert!(traffic.received_bytes.load(Ordering::Relaxed) > 40 && traffic.sent_bytes.load(Ordering::Relaxed) > 60);
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_their_turn() {
    let limits = ServerLimits { connections: Some(1), ..ServerLimits::default() };
    let (address, stop, traffic, serving) = start(limits, Router::new().route("/x", get(|| async { "ok" }))).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut byte = [0];
    idle.read_exact(&mut byte).await.unwrap();
    let second = tokio::spawn(request(address));
    tokio::task::yield_now().await;
    assert_eq!(traffic.connections.load(Ordering::Relaxed), 1);
    drop(idle);
    assert!(second.await.unwrap().ends_with("ok"));
    stop.cancel();
    assert!(serving.await.unwrap());
}

#[tokio::test]
async fn a_client_that_never_finishes_its_header_is_cut_off() {
    let limits = ServerLimits { read_header_timeout: Duration::from_millis(20), ..ServerLimits::default() };
    let (address, stop, _, serving) = start(limits, Router::new()).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.unwrap();
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    stop.cancel();
    assert!(serving.await.unwrap());
}

#[tokio::test]
async fn a_connection_that_is_old_enough_is_asked_to_go_once_its_request_is_done() {
    let limits = ServerLimits { connection_age: Some(Duration::from_millis(20)), ..ServerLimits::default() };
    let (address, stop, traffic, serving) = start(limits, Router::new().route("/x", get(|| async { "ok" }))).await;
    let mut kept = TcpStream::connect(address).await.unwrap();
    kept.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    // The client would keep the connection: it is the server that closes it.
    let mut answer = String::new();
    kept.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    assert_eq!(traffic.connections.load(Ordering::Relaxed), 1);
    stop.cancel();
    assert!(serving.await.unwrap());
}

#[test]
fn the_limits_of_both_listeners_come_from_the_section_server() {
    let seconds = GoDuration::secs;
    let (http, grpc) =
        (ServerLimits::of_http(&ServerConfig::default()), ServerLimits::of_grpc(&ServerConfig::default()));
    assert_eq!((http.connections, http.read_header_timeout), (None, Duration::from_secs(120)));
    assert_eq!((grpc.connections, grpc.connection_age, grpc.connection_age_grace), (None, None, None));
    assert_eq!((http.concurrent_streams, grpc.concurrent_streams), (100, 100));
    let server = ServerConfig {
        http_listen_conn_limit: 1,
        grpc_listen_conn_limit: 2,
        http_server_read_header_timeout: seconds(7),
        http_server_idle_timeout: seconds(3),
        grpc_server_max_connection_age: seconds(60),
        grpc_server_max_connection_age_grace: seconds(5),
        grpc_server_max_concurrent_streams: 0,
        ..ServerConfig::default()
    };
    let (http, grpc) = (ServerLimits::of_http(&server), ServerLimits::of_grpc(&server));
    assert_eq!((http.connections, http.read_header_timeout), (Some(1), Duration::from_secs(7)));
    assert_eq!((grpc.connections, grpc.connection_age), (Some(2), Some(Duration::from_secs(60))));
    assert_eq!((grpc.connection_age_grace, grpc.concurrent_streams), (Some(Duration::from_secs(5)), u32::MAX));
}

#[tokio::test]
async fn a_request_that_outlives_the_grace_of_an_old_connection_is_cut() {
    let (age, grace) = (Some(Duration::from_millis(10)), Some(Duration::from_millis(10)));
    let limits = ServerLimits { connection_age: age, connection_age_grace: grace, ..ServerLimits::default() };
    let router = Router::new().route("/x", get(|| async { std::future::pending::<&'static str>().await }));
    let (address, stop, traffic, serving) = start(limits, router).await;
    assert_eq!(request(address).await, "");
    assert_eq!(traffic.open.load(Ordering::Relaxed), 0);
    stop.cancel();
    assert!(serving.await.unwrap());
}
