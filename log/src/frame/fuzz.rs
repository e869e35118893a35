//! Fuzzing of the frame: as it stands in a file, and behind its checksum, where a wrong length would be believed.

use vivace_fuzzkit::{Campaign, likeness};

use super::*;

const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// That of the segment in the fixtures.
fn seed() -> Seed {
    Seed::new(LogId::from_bytes([7; 16]), Offset(3))
}

/// Frames of different shapes: empty, with a value, with headers, two in a row.
fn frames() -> Vec<Vec<u8>> {
    let header = |name: &'static [u8], value: &'static [u8]| Header {
        name: Bytes::from_static(name),
        value: Bytes::from_static(value),
    };
    let records = [
        Record::default(),
        Record { tenant: Bytes::from_static(b"single-tenant"), value: Bytes::from(vec![5; 300]), ..Record::default() },
        Record {
            tenant: Bytes::from_static(b"a"),
            value: Bytes::from_static(b"value"),
            headers: vec![header(b"vivace-seq", &[1; 24]), header(b"", b""), header(b"traceparent", b"00-1-2-03")],
            timestamp_ms: -1,
        },
    ];
    let mut frames: Vec<Vec<u8>> = records
        .iter()
        .map(|record| {
            let mut frame = Vec::new();
            encode(&mut frame, seed(), Offset(9), 120, record).expect("a small record fits");
            frame
        })
        .collect();
    frames.push(frames.concat());
    frames
}

fn campaign(target: &'static str) -> Campaign {
    frames().into_iter().fold(Campaign::new(PACKAGE, target), Campaign::seed_input)
}

/// What holds for any bytes: no part of a record comes from anywhere but the frame, and a frame that is taken is exactly
/// what its record is written as.
fn check(input: &[u8]) -> u64 {
    let bytes = Bytes::copy_from_slice(input);
    match decode(&bytes, seed()) {
        Ok(frame) => {
            assert!(frame.bytes <= input.len());
            let record = &frame.entry.record;
            let headers: usize = record.headers.iter().map(|h| HEADER_HEAD_BYTES + h.name.len() + h.value.len()).sum();
            assert_eq!(HEAD_BYTES + record.tenant.len() + record.value.len() + headers, frame.bytes);
            let mut again = Vec::new();
            encode(&mut again, seed(), frame.entry.offset, frame.batch_distance, record).expect("it was one");
            assert_eq!(again, input[..frame.bytes]);
            likeness(&format!("frame {}", "h".repeat(record.headers.len().min(20))))
        }
        Err(reason) => {
            if input.len() >= HEAD_BYTES
                && let Ok(claimed) = claimed_bytes(input)
            {
                assert!((HEAD_BYTES..=MAX_FRAME_BYTES).contains(&claimed), "what is read for it is bounded");
            }
            likeness(reason)
        }
    }
}

#[test]
fn a_frame_from_anywhere_is_refused_or_is_what_it_says() {
    campaign("frame").runs(2_500_000).run(check);
}

/// The length and the checksum are made right, so that the input reaches what trusts them.
#[test]
fn a_frame_behind_a_right_checksum_is_refused_or_is_what_it_says() {
    campaign("frame").runs(2_500_000).run(|input| {
        let mut frame = input.to_vec();
        if frame.len() < HEAD_BYTES {
            frame.resize(HEAD_BYTES, 0);
        }
        let length = u32::try_from(frame.len()).expect("inputs are small");
        frame[..4].copy_from_slice(&length.to_le_bytes());
        // Reserved bytes that are not zero would end it before the rest is looked at.
        frame[38..40].fill(0);
        let checksum = seed().checksum(&frame[..4], &frame[8..]);
        frame[4..8].copy_from_slice(&checksum.to_le_bytes());
        let like = check(&frame);
        assert_ne!(like, likeness("checksum does not match"));
        like
    });
}
