//! A batch of records as it stands on the wire and in Kafka's files: encoded once, sent as often as it takes.

use std::io::{self, Write as _};

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record as KafkaRecord,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::failure::Failure;
use crate::record::Record;
use crate::sequence::Sequence;

/// As Tempo writes records: the tenant is the key, headers are few, the time is in milliseconds; and the sequence.
pub(crate) fn encode<'a>(
    records: impl Iterator<Item = (&'a Record, Sequence)>,
    compression: Compression,
) -> Result<Bytes, Failure> {
    let records: Vec<_> = (0..).zip(records).map(|(at, (record, sequence))| to_kafka(at, record, sequence)).collect();
    let mut batch = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression };
    let compress = |records: &mut BytesMut, batch: &mut BytesMut, compression| {
        batch.extend_from_slice(&compressed(records, compression)?);
        Ok(())
    };
    RecordBatchEncoder::encode_with_custom_compression(&mut batch, &records, &options, Some(compress))
        .map_err(|error| Failure::Refused(format!("records cannot be encoded: {error:#}")))?;
    Ok(batch.freeze())
}

fn to_kafka(at: i32, record: &Record, sequence: Sequence) -> KafkaRecord {
    let text = |name: &Bytes| StrBytes::from_string(String::from_utf8_lossy(name).into_owned());
    let mut headers: kafka_protocol::indexmap::IndexMap<_, _> =
        record.headers.iter().map(|header| (text(&header.name), Some(header.value.clone()))).collect();
    let sequence = Bytes::copy_from_slice(&sequence.to_bytes());
    headers.insert(StrBytes::from_static_str(Sequence::HEADER), Some(sequence));
    KafkaRecord {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: i64::from(at),
        // One batch has one base sequence: none, -1, and the encoder counts on from there.
        sequence: at - 1,
        timestamp: record.timestamp_ms,
        key: Some(record.tenant.clone()),
        value: Some(record.value.clone()),
        headers,
    }
}

/// Our own, because the library's lz4 is of the high compression kind, ten times slower.
fn compressed(records: &[u8], compression: Compression) -> io::Result<Vec<u8>> {
    match compression {
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(records)?;
            encoder.finish()
        }
        Compression::Snappy => snap::raw::Encoder::new().compress_vec(records).map_err(io::Error::other),
        Compression::Lz4 => {
            // Blocks that depend on each other are not read by Kafka's own client.
            let frame = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max256KB);
            let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
            encoder.write_all(records)?;
            encoder.finish().map_err(io::Error::other)
        }
        // zstd is refused when the configuration is read.
        Compression::None | Compression::Zstd => Ok(records.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::records::RecordBatchDecoder;

    use super::*;
    use crate::record::Header;

    fn record(value: &'static [u8]) -> Record {
        Record {
            tenant: Bytes::from_static(b"acme"),
            value: Bytes::from_static(value),
            headers: vec![Header { name: Bytes::from_static(b"traceparent"), value: Bytes::from_static(b"00") }],
            timestamp_ms: 1_795_179_067_523,
        }
    }

    #[test]
    fn a_record_is_keyed_by_its_tenant_and_carries_its_sequence() {
        let records = [record(b"one"), record(b"two")];
        let sequences = [1, 2].map(|number| Sequence { session: 7, number });
        let batch = encode(records.iter().zip(sequences), Compression::None).unwrap();
        // Format 2; no producer id, so that no broker takes the batch for one of an idempotent producer.
        assert_eq!((batch[16], &batch[43..51], &batch[53..57]), (2, [0xff; 8].as_slice(), [0xff; 4].as_slice()));
        let decoded = RecordBatchDecoder::decode(&mut batch.clone()).unwrap().records;
        assert_eq!(decoded.len(), 2);
        for ((got, sent), sequence) in decoded.iter().zip(&records).zip(sequences) {
            assert_eq!((got.key.as_ref(), got.value.as_ref()), (Some(&sent.tenant), Some(&sent.value)));
            assert_eq!(got.timestamp, 1_795_179_067_523);
            let headers: Vec<_> =
                got.headers.iter().map(|(name, value)| (name.as_str(), value.clone().unwrap())).collect();
            let expected = Bytes::copy_from_slice(&sequence.to_bytes());
            assert_eq!(headers, [("traceparent", Bytes::from_static(b"00")), ("vivace-seq", expected)]);
        }
        assert_eq!(
            batch.windows(3).filter(|window| *window == b"one").count(),
            1,
            "one batch, not one for each record"
        );
    }

    #[test]
    fn compressed_batches_are_one_batch_each_and_smaller() {
        static LARGE: [u8; 300_000] = [7; 300_000];
        let records = [record(&LARGE), record(&LARGE)];
        let sequence = Sequence { session: 1, number: 1 };
        for (compression, attribute) in [(Compression::Gzip, 1), (Compression::Snappy, 2), (Compression::Lz4, 3)] {
            let batch = encode(records.iter().map(|record| (record, sequence)), compression).unwrap();
            assert!(batch.len() < 60_000, "{compression:?}: {}", batch.len());
            assert_eq!(batch[22], attribute);
            assert_eq!(batch[57..61], 2_i32.to_be_bytes(), "two records in one batch");
        }
    }
}
