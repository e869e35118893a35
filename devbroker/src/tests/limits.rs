//! What a client may do, and what ends its connection and nobody else's.

use kafka_protocol::messages::{
    ApiVersionsRequest, FindCoordinatorRequest, MetadataRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
};

use super::raw::{Raw, text};
use crate::request::samples;
use crate::{DevBroker, Options, code};

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_its_own_connection_alone() {
    let broker = DevBroker::start(Options { max_request_bytes: 1000, ..Options::in_memory() }).await.unwrap();
    let mut good = Raw::to(&broker).await;
    let metadata = |body: &[u8]| {
        let frame = [&[0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xff], body].concat();
        samples::with_length(&frame)
    };
    for (what, bytes) in [
        ("a negative length", vec![0xff; 4]),
        ("a long request", 1001_i32.to_be_bytes().to_vec()),
        ("no head", samples::with_length(&[0, 3]).to_vec()),
        ("an unknown kind", samples::with_length(&[0x7f, 0xff, 0, 0, 0, 0, 0, 7, 0xff, 0xff]).to_vec()),
        ("transactions", samples::with_length(&[0, 24, 0, 0, 0, 0, 0, 7, 0xff, 0xff]).to_vec()),
        ("two thousand million topics", metadata(&i32::MAX.to_be_bytes()).to_vec()),
        ("a topic that is cut off", metadata(&[0, 0, 0, 1, 0, 9, b't']).to_vec()),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ] {
        let mut bad = Raw::to(&broker).await;
        bad.send(&bytes).await;
        assert_eq!(bad.receive().await, None, "{what}");
        assert_eq!(good.ask(4, &ApiVersionsRequest::default()).await.error_code, code::NONE, "{what}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_room_comes_back() {
    let broker = DevBroker::start(Options { max_connections: 2, ..Options::in_memory() }).await.unwrap();
    let ask = ApiVersionsRequest::default();
    let (mut first, mut second) = (Raw::to(&broker).await, Raw::to(&broker).await);
    assert!(first.try_ask(4, &ask).await.is_some());
    assert!(second.try_ask(4, &ask).await.is_some());
    // Closed before it was read: the request cannot be sent, or is not answered.
    assert_eq!(Raw::to(&broker).await.receive().await, None);
    drop(first);
    // Each attempt is a whole connection, so this waits for the broker and not for a time.
    while Raw::to(&broker).await.try_ask(4, &ask).await.is_none() {}
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sasl_nobody_is_served_before_they_say_who_they_are() {
    let options = Options { sasl_plain: Some(("user".to_owned(), "secret".to_owned())), ..Options::in_memory() };
    let broker = DevBroker::start(options).await.unwrap();
    let plain = SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
    let say = |what: &'static [u8]| SaslAuthenticateRequest::default().with_auth_bytes(what.into());

    let mut stranger = Raw::to(&broker).await;
    assert_eq!(stranger.ask(4, &ApiVersionsRequest::default()).await.error_code, code::NONE);
    assert_eq!(stranger.try_ask(9, &MetadataRequest::default()).await, None);

    let mut client = Raw::to(&broker).await;
    assert_eq!(client.ask(2, &say(b"\0user\0secret")).await.error_code, code::ILLEGAL_SASL_STATE);
    let other = SaslHandshakeRequest::default().with_mechanism(text("SCRAM-SHA-256"));
    assert_eq!(client.ask(1, &other).await.error_code, code::UNSUPPORTED_SASL_MECHANISM);
    assert_eq!(client.ask(1, &plain).await.error_code, code::NONE);
    for wrong in [&b"\0user\0guess"[..], b"\0user", b"", b"\0\0secret"] {
        let say = SaslAuthenticateRequest::default().with_auth_bytes(bytes::Bytes::from_static(wrong));
        assert_eq!(client.ask(2, &say).await.error_code, code::SASL_AUTHENTICATION_FAILED);
    }
    assert_eq!(client.ask(2, &say(b"\0user\0secret")).await.error_code, code::NONE);
    assert_eq!(client.ask(9, &MetadataRequest::default()).await.brokers.len(), 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_coordinator_for_groups_and_none_for_transactions() {
    let broker = DevBroker::start(Options::in_memory()).await.unwrap();
    let mut client = Raw::to(&broker).await;
    let ask = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("a"), text("b")]);
    let answer = client.ask(4, &ask).await;
    let port = i32::from(broker.addr().port());
    assert!(answer.coordinators.iter().all(|found| found.port == port && *found.node_id == 1));
    assert_eq!(answer.coordinators.len(), 2);
    let ask = FindCoordinatorRequest::default().with_key(text("a")).with_key_type(1);
    assert_eq!(client.ask(2, &ask).await.error_code, code::INVALID_REQUEST);
    broker.stop().await;
}
