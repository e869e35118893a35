//! Where a broker listens, what it tells clients of it, and when it refuses to start.

use kafka_protocol::messages::MetadataRequest;

use super::raw::Raw;
use crate::{DevBroker, Error, Options};

async fn refused(options: Options) -> Error {
    match DevBroker::start(options).await {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_for_development_and_refuses_to_be_more() {
    let error = refused(Options::in_memory().listen(&["0.0.0.0:0"])).await;
    assert!(matches!(error, Error::Remote { .. }));
    assert!(error.to_string().contains("for development only"), "{error}");
    let admin = Options { admin: Some("0.0.0.0:0".to_owned()), allow_remote: true, ..Options::in_memory() };
    assert!(matches!(refused(admin).await, Error::RemoteAdmin { .. }));
    let permitted = Options { allow_remote: true, ..Options::in_memory().listen(&["0.0.0.0:0"]) };
    let broker = DevBroker::start(permitted).await.unwrap();
    // Clients are told the address by which they came, not the one that means all of them.
    let mut client = Raw::to_address(([127, 0, 0, 1], broker.addr().port()).into()).await;
    assert_eq!(client.ask(9, &MetadataRequest::default()).await.brokers[0].host.as_str(), "127.0.0.1");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_address_families_are_served_at_once_and_each_client_stays_in_its_own() {
    let broker = DevBroker::start(Options::in_memory().listen(&["127.0.0.1:0", "[::1]:0"])).await.unwrap();
    for (address, host) in broker.addrs().iter().zip(["127.0.0.1", "::1"]) {
        let mut client = Raw::to_address(*address).await;
        let answer = client.ask(12, &MetadataRequest::default().with_topics(None)).await;
        assert_eq!((answer.brokers[0].host.as_str(), answer.brokers[0].port), (host, i32::from(address.port())));
        assert_eq!(*answer.controller_id, *answer.brokers[0].node_id);
    }
    broker.stop().await;
    let advertised = Options { advertise: Some("[fd00::1]:9092".to_owned()), ..Options::in_memory() };
    let broker = DevBroker::start(advertised).await.unwrap();
    let answer = Raw::to(&broker).await.ask(9, &MetadataRequest::default()).await;
    assert_eq!((answer.brokers[0].host.as_str(), answer.brokers[0].port), ("fd00::1", 9092));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_named() {
    for (options, said) in [
        (Options::in_memory().listen(&[]), "there is no address to listen on"),
        (Options::in_memory().listen(&["::1:9092"]), "address to listen on `::1:9092` is not host:port"),
        (Options { advertise: Some("kafka".to_owned()), ..Options::in_memory() }, "advertised address `kafka` is not"),
        (Options { max_message_bytes: 1 << 30, ..Options::in_memory() }, "the longest message is 1073741824 bytes"),
        (Options { default_partitions: 0, ..Options::in_memory() }, "at least 1"),
        (Options::in_memory().topic("a b", 1), "topic `a b`: a topic's name has"),
    ] {
        let error = refused(options).await.to_string();
        assert!(error.contains(said), "{error}");
    }
    let broker = DevBroker::start(Options::in_memory()).await.unwrap();
    let taken = broker.addr().to_string();
    assert!(matches!(refused(Options::in_memory().listen(&[&taken])).await, Error::Listen(_)));
    broker.stop().await;
}
