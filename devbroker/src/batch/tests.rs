use super::*;

/// A batch as a client writes it: no codec, one record for each time, values of one byte.
pub(crate) fn batch(times_ms: &[i64]) -> Vec<u8> {
    let base = times_ms.first().copied().unwrap_or(0);
    let mut records = Vec::new();
    for (number, time) in times_ms.iter().enumerate() {
        let mut record = vec![0];
        varint(&mut record, time - base);
        varint(&mut record, i64::try_from(number).unwrap());
        varint(&mut record, -1);
        varint(&mut record, 1);
        record.push(b'v');
        varint(&mut record, 0);
        varint(&mut records, i64::try_from(record.len()).unwrap());
        records.extend(record);
    }
    let count = i32::try_from(times_ms.len()).unwrap();
    let mut batch = Vec::new();
    batch.put_i64(0);
    batch.put_i32(0);
    batch.put_i32(-1);
    batch.put_u8(2);
    batch.put_u32(0);
    batch.put_i16(0);
    batch.put_i32(count - 1);
    batch.put_i64(base);
    batch.put_i64(times_ms.iter().copied().max().unwrap_or(base));
    batch.put_i64(-1);
    batch.put_i16(-1);
    batch.put_i32(-1);
    batch.put_i32(count);
    batch.extend(records);
    seal(&mut batch);
    batch
}

/// Makes length and checksum right.
pub(crate) fn seal(batch: &mut [u8]) {
    let length = i32::try_from(batch.len() - LENGTH_END).unwrap();
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c(&batch[CHECKED_START..]);
    batch[CRC_START..CHECKED_START].copy_from_slice(&checksum.to_be_bytes());
}

fn varint(into: &mut Vec<u8>, value: i64) {
    let mut value = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while value >= 0x80 {
        into.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    into.push(u8::try_from(value).unwrap());
}

#[test]
fn a_batch_is_taken_as_it_is_and_any_changed_bit_of_it_is_not() {
    let good = batch(&[10, 20, 15]);
    let head = Head::check(&good).unwrap();
    assert_eq!((head.last_offset_delta, head.base_timestamp_ms, head.max_timestamp_ms), (2, 10, 20));
    for at in CRC_START..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(Head::check(&bad), Err(BadBatch::Checksum), "byte {at}");
    }
    for length in 0..good.len() {
        assert!(Head::check(&good[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn what_this_broker_does_not_do_is_refused_by_name() {
    let changed = |at: usize, value: u8| {
        let mut batch = batch(&[1]);
        batch[at] = value;
        seal(&mut batch);
        Head::check(&batch)
    };
    assert_eq!(changed(16, 1), Err(BadBatch::Magic(1)));
    assert_eq!(changed(22, 0x10), Err(BadBatch::Transactional));
    assert_eq!(changed(22, 0x20), Err(BadBatch::Control));
    assert_eq!(changed(22, 7), Err(BadBatch::Codec(7)));
    assert_eq!(changed(26, 1), Err(BadBatch::Count));
    assert_eq!(Head::check(&[batch(&[1]), batch(&[2])].concat()), Err(BadBatch::SeveralBatches));
    assert_eq!(Head::check(&[]), Err(BadBatch::Empty));
}

#[test]
fn only_base_offset_and_leader_epoch_are_written_anew() {
    let stored = Bytes::from(batch(&[10, 20]));
    let mut answer = BytesMut::new();
    put(&mut answer, &stored, 77, 3);
    assert_eq!(answer[..8], 77_i64.to_be_bytes());
    assert_eq!(answer[12..16], 3_i32.to_be_bytes());
    assert_eq!(answer[8..12], stored[8..12]);
    assert_eq!(answer[16..], stored[16..]);
    assert!(Head::check(&answer).is_ok());
}

#[test]
fn a_time_is_found_within_a_batch() {
    let batch = batch(&[10, 20, 15, 30]);
    let head = Head::check(&batch).unwrap();
    let at = |ms| lookup::first_at_or_after(&batch, &head, ms).offset_delta;
    assert_eq!([at(0), at(10), at(11), at(16), at(21), at(30)], [0, 0, 1, 1, 3, 3]);
    assert_eq!(at(31), 0, "the caller asks only where the head promises one");
}
