//! Fetch: batches of several partitions, at once or when there are enough of them. There are no sessions: session 0 tells the
//! client to name all partitions each time.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::future::select_all;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};
use uuid::Uuid;

use crate::api::{code_of, wire_offset};
use crate::batch;
use crate::broker::Call;
use crate::code::{self, Code};
use crate::replica::{Read, Shown};
use crate::slot::Slot;

/// Versions from here on name topics by id.
const IDS_FROM: i16 = 13;
/// The longest answer, unless one batch is longer.
const MAX_ANSWER_BYTES: usize = 50 << 20;
/// The longest wait, whatever the client asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

struct Asked {
    name: TopicName,
    id: Uuid,
    partitions: Vec<AskedPartition>,
}

struct AskedPartition {
    index: i32,
    offset: i64,
    max_bytes: usize,
    /// Where it is, or why it is not here.
    target: Result<Arc<Slot>, Code>,
}

/// What one partition gives.
struct Given {
    code: Code,
    shown: Option<Shown>,
    read: Read,
}

pub(crate) async fn handle(call: Call<'_>, request: FetchRequest) -> FetchResponse {
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(LONGEST_WAIT);
    let until = call.broker.clock.now() + wait;
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).clamp(1, MAX_ANSWER_BYTES);
    let asked: Vec<Asked> = request.topics.into_iter().map(|topic| find(call, topic)).collect();
    // Before the first look, so that nothing that comes after it is missed.
    let slots = asked.iter().flat_map(|topic| &topic.partitions).filter_map(|partition| partition.target.as_ref().ok());
    let mut news: Vec<_> = slots.map(|slot| slot.subscribe()).collect();
    let given = loop {
        let given = look(&asked, max_bytes).await;
        let bytes: usize = given.iter().map(|given| given.read.bytes).sum();
        let failed = given.iter().any(|given| given.code != code::NONE);
        if failed || bytes >= min_bytes || news.is_empty() || call.broker.clock.now() >= until {
            break given;
        }
        let left = until.saturating_duration_since(call.broker.clock.now());
        let any = select_all(news.iter_mut().map(|news| Box::pin(news.changed())));
        tokio::select! {
            _ = any => {}
            () = call.broker.clock.sleep(left) => {}
        }
    };
    answer(call, &asked, given)
}

fn find(call: Call<'_>, topic: kafka_protocol::messages::fetch_request::FetchTopic) -> Asked {
    let id = (call.version >= IDS_FROM).then_some(topic.topic_id);
    let found = call.topic(id, &topic.topic);
    let unknown = if id.is_some() { code::UNKNOWN_TOPIC_ID } else { code::UNKNOWN_TOPIC_OR_PARTITION };
    let partitions = topic.partitions.iter().map(|partition| {
        let index = partition.partition;
        let target = match &found {
            None => Err(unknown),
            Some(topic) => match topic.slot(index) {
                None => Err(code::UNKNOWN_TOPIC_OR_PARTITION),
                Some(_) if !call.leads(&topic.name, index) => Err(code::NOT_LEADER_OR_FOLLOWER),
                Some(slot) => {
                    let fault = call.broker.faults.error(call.key, Some((&topic.name, index)));
                    fault.map_or(Ok(Arc::clone(slot)), Err)
                }
            },
        };
        let max_bytes = usize::try_from(partition.partition_max_bytes).unwrap_or(0);
        AskedPartition { index, offset: partition.fetch_offset, max_bytes, target }
    });
    let partitions = partitions.collect();
    Asked { name: topic.topic, id: topic.topic_id, partitions }
}

/// Reads what is there. The first batch is given however long it is, so that a reader always gets on.
async fn look(asked: &[Asked], max_bytes: usize) -> Vec<Given> {
    let mut left = max_bytes;
    let mut nothing_yet = true;
    let mut all = Vec::new();
    for partition in asked.iter().flat_map(|topic| &topic.partitions) {
        let mut given = Given { code: code::NONE, shown: None, read: Read::default() };
        match &partition.target {
            Err(code) => given.code = *code,
            Ok(slot) => {
                let room = partition.max_bytes.min(left);
                match slot.read(partition.offset, room).await {
                    Ok(read) if nothing_yet || read.bytes <= left => given.read = read,
                    Ok(_too_long) => {}
                    Err(refusal) => {
                        tracing::debug!(partition = partition.index, reason = %refusal, "refuse to read");
                        given.code = code_of(&refusal);
                    }
                }
                match slot.shown().await {
                    Ok(shown) => given.shown = Some(shown),
                    Err(refusal) => given.code = code_of(&refusal),
                }
            }
        }
        nothing_yet &= given.read.bytes == 0;
        left = left.saturating_sub(given.read.bytes);
        all.push(given);
    }
    all
}

fn answer(call: Call<'_>, asked: &[Asked], given: Vec<Given>) -> FetchResponse {
    let epoch = call.broker.faults.leader_epoch();
    let mut given = given.into_iter();
    let topics = asked.iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(given.by_ref()).map(|(partition, given)| {
            let mut records = BytesMut::with_capacity(given.read.bytes);
            for stored in &given.read.batches {
                batch::put(&mut records, &stored.batch, stored.base_offset, epoch);
            }
            let end = given.shown.map_or(-1, |shown| wire_offset(shown.end));
            PartitionData::default()
                .with_partition_index(partition.index)
                .with_error_code(given.code)
                .with_high_watermark(end)
                .with_last_stable_offset(end)
                .with_log_start_offset(given.shown.map_or(-1, |shown| wire_offset(shown.start)))
                .with_aborted_transactions(None)
                .with_records(Some(records.freeze()))
        });
        let partitions = partitions.collect();
        FetchableTopicResponse::default()
            .with_topic(topic.name.clone())
            .with_topic_id(topic.id)
            .with_partitions(partitions)
    });
    FetchResponse::default().with_responses(topics.collect())
}

/// What the request touches, for faults.
pub(crate) fn places(call: Call<'_>, request: &FetchRequest) -> Vec<(String, i32)> {
    let mut places = Vec::new();
    for asked in &request.topics {
        let Some(topic) = call.topic((call.version >= IDS_FROM).then_some(asked.topic_id), &asked.topic) else {
            continue;
        };
        places.extend(asked.partitions.iter().map(|partition| (topic.name.clone(), partition.partition)));
    }
    places
}
