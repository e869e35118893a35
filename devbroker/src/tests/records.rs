//! Producing and fetching with plain requests.

use bytes::{Buf as _, Bytes};
use kafka_protocol::messages::{
    DeleteRecordsRequest, InitProducerIdRequest, ListOffsetsRequest, ProduceRequest, delete_records_request,
    list_offsets_request,
};
use kafka_protocol::protocol::StrBytes;

use super::raw::{Raw, base_offsets, fetch_by_id, fetch_request, numbered, produce_request};
use crate::batch::tests::{batch, seal};
use crate::{DevBroker, Options, code};

async fn listed(client: &mut Raw, at_ms: i64) -> (i64, i64) {
    let partition = list_offsets_request::ListOffsetsPartition::default().with_timestamp(at_ms);
    let asked = list_offsets_request::ListOffsetsTopic::default()
        .with_name(StrBytes::from_static_str("t").into())
        .with_partitions(vec![partition]);
    let answer = client.ask(6, &ListOffsetsRequest::default().with_topics(vec![asked])).await;
    let found = &answer.topics[0].partitions[0];
    assert_eq!(found.error_code, code::NONE);
    (found.timestamp, found.offset)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_given_back_as_it_came_from_any_of_its_offsets_on() {
    let broker = DevBroker::start(Options::in_memory().topic("t", 1)).await.unwrap();
    let mut client = Raw::to(&broker).await;
    let (first, second) = (batch(&[10, 20, 30]), batch(&[40, 50]));
    assert_eq!(client.produce("t", 0, first.clone()).await.base_offset, 0);
    assert_eq!(client.produce("t", 0, second.clone()).await.base_offset, 3);
    for offset in 0..3 {
        let records = client.fetch("t", 0, offset).await.records.unwrap();
        assert_eq!(base_offsets(&records), [0, 3], "from {offset}");
        assert_eq!(records[16..first.len()], first[16..]);
        assert_eq!(records[first.len() + 16..], second[16..]);
    }
    for offset in 3..5 {
        assert_eq!(base_offsets(&client.fetch("t", 0, offset).await.records.unwrap()), [3]);
    }
    let end = client.fetch("t", 0, 5).await;
    assert_eq!((end.high_watermark, end.log_start_offset, end.records.unwrap().len()), (5, 0, 0));
    for offset in [-1, 6] {
        assert_eq!(client.fetch("t", 0, offset).await.error_code, code::OFFSET_OUT_OF_RANGE);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_batch_is_refused_with_its_code_and_stores_nothing() {
    let broker =
        DevBroker::start(Options { max_message_bytes: 200, ..Options::in_memory().topic("t", 1) }).await.unwrap();
    let mut client = Raw::to(&broker).await;
    let mut broken = batch(&[1]);
    broken[61] ^= 1;
    let mut transactional = batch(&[1]);
    transactional[22] |= 0x10;
    seal(&mut transactional);
    for (batch, code) in [
        (broken, code::CORRUPT_MESSAGE),
        (transactional, code::INVALID_RECORD),
        (Vec::new(), code::INVALID_RECORD),
        (batch(&[1; 100]), code::MESSAGE_TOO_LARGE),
        ([batch(&[1]), batch(&[2])].concat(), code::INVALID_RECORD),
    ] {
        let answer = client.produce("t", 0, batch).await;
        assert_eq!((answer.error_code, answer.base_offset), (code, -1));
        assert!(answer.error_message.is_some());
    }
    for (topic, partition) in [("t", 1), ("t", -1), ("none", 0)] {
        let code = client.produce(topic, partition, batch(&[1])).await.error_code;
        assert_eq!(code, code::UNKNOWN_TOPIC_OR_PARTITION);
    }
    let mut request = produce_request("t", 0, batch(&[1]));
    request.acks = 2;
    let answer = client.ask(9, &request).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, code::INVALID_REQUIRED_ACKS);
    assert_eq!(listed(&mut client, -1).await, (-1, 0));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_acknowledgement_there_is_no_answer_and_an_error_ends_the_connection() {
    let broker = DevBroker::start(Options::in_memory().topic("t", 1)).await.unwrap();
    let mut client = Raw::to(&broker).await;
    let silent = |partition| produce_request("t", partition, batch(&[1])).with_acks(0);
    client.tell(7, &silent(0)).await;
    client.tell(7, &silent(0)).await;
    // The next answer is that of the next request.
    assert_eq!(listed(&mut client, -1).await, (-1, 2));
    client.tell(7, &silent(9)).await;
    assert_eq!(client.receive().await, None);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_fetch_is_answered_when_there_is_enough_or_time_is_up() {
    let broker = DevBroker::start(Options::in_memory().topic("t", 2)).await.unwrap();
    let (mut reader, mut writer) = (Raw::to(&broker).await, Raw::to(&broker).await);
    let mut request = fetch_request("t", 0, 0).with_min_bytes(1).with_max_wait_ms(30_000);
    let mut second = request.topics[0].partitions[0].clone();
    second.partition = 1;
    request.topics[0].partitions.push(second);
    reader.tell(11, &request).await;
    // To the second of the two partitions that are waited for.
    writer.produce("t", 1, batch(&[1])).await;
    let answer = reader.hear::<kafka_protocol::messages::FetchRequest>(11).await.unwrap();
    let given: Vec<_> = answer.responses[0].partitions.iter().map(|p| p.records.as_ref().unwrap().len()).collect();
    assert_eq!(given[0], 0);
    assert!(given[1] > 0);

    let patience = std::time::Duration::from_millis(50);
    let began = std::time::Instant::now();
    let answer = reader.ask(11, &fetch_request("t", 1, 0).with_min_bytes(100_000).with_max_wait_ms(50)).await;
    assert!(began.elapsed() >= patience, "less than was asked for is given only after the wait");
    assert!(!answer.responses[0].partitions[0].records.as_ref().unwrap().is_empty());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_holds_what_fits_and_one_batch_at_least() {
    let broker = DevBroker::start(Options::in_memory().topic("t", 2)).await.unwrap();
    let mut client = Raw::to(&broker).await;
    let one = batch(&[1; 50]);
    for partition in [0, 0, 0, 1] {
        client.produce("t", partition, one.clone()).await;
    }
    let mut request = fetch_request("t", 0, 0).with_max_bytes(1);
    let mut second = request.topics[0].partitions[0].clone();
    second.partition = 1;
    request.topics[0].partitions.push(second);
    let answer = client.ask(11, &request).await;
    let given: Vec<_> = answer.responses[0].partitions.iter().map(|p| p.records.as_ref().unwrap().len()).collect();
    assert_eq!(given, [one.len(), 0], "the first batch, and nothing of the next partition");
    assert_eq!(answer.responses[0].partitions[1].high_watermark, 50);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_versions_name_topics_by_id() {
    let broker = DevBroker::start(Options::in_memory().topic("t", 1)).await.unwrap();
    let id = broker.broker().topics.get("t").unwrap().id;
    let mut client = Raw::to(&broker).await;
    let mut request: ProduceRequest = produce_request("", 0, batch(&[1]));
    request.topic_data[0].topic_id = id;
    let answer = client.ask(13, &request).await;
    assert_eq!((answer.responses[0].topic_id, answer.responses[0].partition_responses[0].error_code), (id, 0));
    let answer = client.ask(16, &fetch_by_id(id, 0)).await;
    assert!(!answer.responses[0].partitions[0].records.as_ref().unwrap().is_empty());
    let unknown = uuid::Uuid::from_u128(1);
    let answer = client.ask(13, &fetch_by_id(unknown, 0)).await;
    assert_eq!(answer.responses[0].partitions[0].error_code, code::UNKNOWN_TOPIC_ID);
    request.topic_data[0].topic_id = unknown;
    let answer = client.ask(13, &request).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, code::UNKNOWN_TOPIC_ID);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_batch_sent_twice_is_stored_once() {
    let broker = DevBroker::start(Options::in_memory().topic("t", 1)).await.unwrap();
    let mut client = Raw::to(&broker).await;
    let ask = InitProducerIdRequest::default().with_transactional_id(None);
    let (a, b) = (client.ask(4, &ask).await, client.ask(0, &ask).await);
    assert_ne!(*a.producer_id, *b.producer_id);
    let id = *a.producer_id;
    assert_eq!(client.produce("t", 0, numbered(id, 0, 0, &[1, 2])).await.base_offset, 0);
    assert_eq!(client.produce("t", 0, numbered(id, 0, 2, &[3])).await.base_offset, 2);
    assert_eq!(client.produce("t", 0, numbered(id, 0, 0, &[1, 2])).await.base_offset, 0, "as before");
    let gap = client.produce("t", 0, numbered(id, 0, 9, &[3])).await;
    assert_eq!(gap.error_code, code::OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_eq!(listed(&mut client, -1).await.1, 3);
    let transactional = ask.with_transactional_id(Some(StrBytes::from_static_str("x").into()));
    assert_eq!(client.ask(4, &transactional).await.error_code, code::INVALID_REQUEST);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_leads_to_the_first_record_at_or_after_it() {
    let broker = DevBroker::start(Options::in_memory().topic("t", 1)).await.unwrap();
    let mut client = Raw::to(&broker).await;
    for number in 0..40_i64 {
        let from = number * 100;
        client.produce("t", 0, batch(&[from, from + 50, from + 25])).await;
    }
    assert_eq!(listed(&mut client, 0).await, (0, 0));
    assert_eq!(listed(&mut client, 1).await, (50, 1));
    assert_eq!(listed(&mut client, 1926).await, (1950, 58));
    assert_eq!(listed(&mut client, 1951).await, (2000, 60));
    assert_eq!(listed(&mut client, 3951).await, (-1, -1));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_are_gone_though_their_segment_is_not() {
    let broker = DevBroker::start(Options::in_memory().topic("t", 1)).await.unwrap();
    let mut client = Raw::to(&broker).await;
    client.produce("t", 0, batch(&[10, 20, 30])).await;
    let below = |offset: i64| {
        let partition = delete_records_request::DeleteRecordsPartition::default().with_offset(offset);
        let asked = delete_records_request::DeleteRecordsTopic::default()
            .with_name(StrBytes::from_static_str("t").into())
            .with_partitions(vec![partition]);
        DeleteRecordsRequest::default().with_topics(vec![asked])
    };
    let deleted = client.ask(2, &below(2)).await;
    assert_eq!(deleted.topics[0].partitions[0].low_watermark, 2);
    assert_eq!(client.fetch("t", 0, 1).await.error_code, code::OFFSET_OUT_OF_RANGE);
    assert_eq!(client.fetch("t", 0, 2).await.log_start_offset, 2);
    assert_eq!((listed(&mut client, -2).await.1, listed(&mut client, 0).await.1), (2, 2));
    assert_eq!(client.ask(2, &below(4)).await.topics[0].partitions[0].error_code, code::OFFSET_OUT_OF_RANGE);
    assert_eq!(client.ask(0, &below(-1)).await.topics[0].partitions[0].low_watermark, 3);
    let records: Bytes = client.fetch("t", 0, 3).await.records.unwrap();
    assert!(!records.has_remaining());
    broker.stop().await;
}
