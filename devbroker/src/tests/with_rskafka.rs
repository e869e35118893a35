//! The broker as rskafka sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rskafka::client::partition::{Compression, OffsetAt, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;

use crate::{DevBroker, Options, Running};

async fn client(broker: &Running) -> Client {
    ClientBuilder::new(vec![broker.addr().to_string()]).build().await.unwrap()
}

fn record(number: i64) -> Record {
    Record {
        key: Some(b"tenant".to_vec()),
        value: Some(format!("value {number}").into_bytes()),
        headers: BTreeMap::from([("header".to_owned(), vec![7])]),
        timestamp: rskafka::chrono::DateTime::from_timestamp_millis(1_600_000_000_000 + number).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_produced_with_any_codec_is_fetched_as_it_was() {
    let broker = DevBroker::start(Options::in_memory().topic("t", 2)).await.unwrap();
    let client = client(&broker).await;
    let partition = Arc::new(client.partition_client("t", 1, UnknownTopicHandling::Error).await.unwrap());
    let codecs = [Compression::NoCompression, Compression::Gzip, Compression::Lz4, Compression::Snappy];
    for (round, codec) in (0..).zip(codecs) {
        let records = (0..3).map(|number| record(round * 3 + number)).collect();
        let offsets = partition.produce(records, codec).await.unwrap();
        assert_eq!(offsets, [round * 3, round * 3 + 1, round * 3 + 2]);
    }
    // From the middle of a batch on.
    let (records, end) = partition.fetch_records(1, 1..1_000_000, 1000).await.unwrap();
    assert_eq!(end, 12);
    let found: Vec<_> = records.into_iter().map(|found| (found.offset, found.record)).collect();
    assert_eq!(found, (1..12).map(|number| (number, record(number))).collect::<Vec<_>>());
    assert_eq!(partition.get_offset(OffsetAt::Earliest).await.unwrap(), 0);
    assert_eq!(partition.get_offset(OffsetAt::Latest).await.unwrap(), 12);
    for number in 0..12 {
        let at = OffsetAt::Timestamp(record(number).timestamp);
        assert_eq!(partition.get_offset(at).await.unwrap(), number, "found by time in a batch of any codec");
    }
    broker.stop().await;
}
