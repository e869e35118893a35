//! One ring's records as they are stored: what `viewKey` and `downloadKey` of `/memberlist` answer.

use serde_json::{Value, json};

use super::words::seconds;
use crate::state::{Body, Entry, GraveReason, Key, Record};

/// The records of a ring as JSON; none if there are none.
pub(super) fn as_json(records: &[Record], ring: &str) -> Option<Value> {
    let mine: Vec<Value> = records.iter().filter(|record| record.key().ring() == ring).map(record).collect();
    (!mine.is_empty()).then_some(Value::Array(mine))
}

/// The records of a ring as they travel, each with four bytes of length before it; none if there are none.
pub(super) fn as_bytes(records: &[Record], ring: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for record in records.iter().filter(|record| record.key().ring() == ring) {
        let encoded = record.encode();
        bytes.extend(u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(encoded);
    }
    (!bytes.is_empty()).then_some(bytes)
}

fn record(record: &Record) -> Value {
    let key = match record.key() {
        Key::Instance { id, .. } => json!({"instance": &**id}),
        Key::Rival { id, nonce, .. } => json!({"rival": &**id, "process": format!("{nonce:016x}")}),
        Key::Partition { id, .. } => json!({"partition": id}),
    };
    let value = match record.entry() {
        Entry::Claim(claim) => {
            let body = match &claim.body {
                Body::Live(instance) => json!({
                    "state": instance.state,
                    "member": instance.member,
                    "addresses": instance.addresses,
                    "zone": instance.zone,
                    "tokens": instance.tokens,
                    "partition": instance.partition,
                    "registered": seconds(instance.registered_at),
                    "read_only": instance.read_only,
                    "software": instance.software,
                }),
                Body::Grave(grave) => json!({
                    "tombstone": match grave.reason {
                        GraveReason::Left => "left by itself",
                        GraveReason::Forgotten => "forgotten by hand",
                        GraveReason::Expired => "forgotten after its time",
                    },
                    "by": grave.by,
                }),
            };
            json!({
                "generation": claim.generation,
                "version": claim.version,
                "process": format!("{:016x}", claim.nonce),
                "body": body,
            })
        }
        Entry::Partition(partition) => json!({
            "state": {
                "value": partition.state.value.enum_name(),
                "version": partition.state.version,
                "writer": partition.state.writer,
                "changed": seconds(partition.state.changed_at),
            },
            "lock": {
                "value": partition.lock.value,
                "version": partition.lock.version,
                "writer": partition.lock.writer,
                "changed": seconds(partition.lock.changed_at),
            },
        }),
    };
    json!({"key": key, "record": value, "stamp": format!("{:016x}", record.stamp().0), "bytes": record.encode().len()})
}
