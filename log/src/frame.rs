//! The frame: one record as it stands in a segment. Frozen as format 1; the picture is in the crate's README.
//!
//! Two fields are there for the bad day:
//!
//! * The checksum starts from a seed of the log id and the segment's first offset. Payloads come from clients, so bytes
//!   that look like a frame can stand inside a damaged frame; without the seed nobody can make them pass the checksum, and
//!   frames of another file never pass for ours.
//! * `batch_distance` says how far before this frame its commit batch starts. A batch is written only when everything
//!   before it is durable. So when a valid frame follows bad bytes, and its batch starts *after* them, the bad bytes were
//!   durable once and the disk has damaged them; when its batch starts at or before them, a torn write explains them.

use bytes::Bytes;

use crate::error::Error;
use crate::log_id::LogId;
use crate::record::{Entry, Header, Offset, Record};

/// Bytes before the tenant.
pub(crate) const HEAD_BYTES: usize = 40;
/// The longest frame. Kafka's record bound in Tempo is 16 MB; the reader allocates at most this for one frame.
pub(crate) const MAX_FRAME_BYTES: usize = 32 << 20;
/// Name and value lengths before each header.
const HEADER_HEAD_BYTES: usize = 6;

/// Where a segment's checksums start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(id: LogId, segment_first: Offset) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(id.as_bytes()), &segment_first.0.to_le_bytes()))
    }

    fn checksum(self, length_field: &[u8], after_checksum: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, length_field), after_checksum)
    }
}

/// A decoded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) entry: Entry,
    pub(crate) bytes: usize,
    pub(crate) batch_distance: u32,
}

/// Why bytes are not a frame.
pub(crate) type Bad = &'static str;

/// How long the record's frame is.
///
/// # Errors
/// [`Error::RecordTooLarge`] when some part is longer than the format can say or the whole is above the bound.
pub(crate) fn encoded_bytes(record: &Record) -> Result<usize, Error> {
    let headers: usize = record.headers.iter().map(|h| HEADER_HEAD_BYTES + h.name.len() + h.value.len()).sum();
    let bytes = HEAD_BYTES + record.tenant.len() + headers + record.value.len();
    let name_bytes = record.headers.iter().map(|h| h.name.len()).max().unwrap_or(0);
    for (bytes, limit_bytes) in
        [(bytes, MAX_FRAME_BYTES), (name_bytes, usize::from(u16::MAX)), (record.headers.len(), usize::from(u16::MAX))]
    {
        if bytes > limit_bytes {
            return Err(Error::RecordTooLarge { bytes, limit_bytes });
        }
    }
    Ok(bytes)
}

/// Appends the record's frame to `buffer`. `batch_distance` is how many bytes of this batch stand before it.
///
/// # Errors
/// As [`encoded_bytes`]; the buffer is then unchanged.
pub(crate) fn encode(
    buffer: &mut Vec<u8>,
    seed: Seed,
    offset: Offset,
    batch_distance: u32,
    record: &Record,
) -> Result<(), Error> {
    let bytes = encoded_bytes(record)?;
    let too_large = |_| Error::RecordTooLarge { bytes, limit_bytes: MAX_FRAME_BYTES };
    let start = buffer.len();
    buffer.reserve(bytes);
    buffer.extend_from_slice(&u32::try_from(bytes).map_err(too_large)?.to_le_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&offset.0.to_le_bytes());
    buffer.extend_from_slice(&record.timestamp_ms.to_le_bytes());
    buffer.extend_from_slice(&batch_distance.to_le_bytes());
    buffer.extend_from_slice(&u32::try_from(record.tenant.len()).map_err(too_large)?.to_le_bytes());
    buffer.extend_from_slice(&u32::try_from(record.value.len()).map_err(too_large)?.to_le_bytes());
    buffer.extend_from_slice(&u16::try_from(record.headers.len()).map_err(too_large)?.to_le_bytes());
    buffer.extend_from_slice(&[0; 2]);
    buffer.extend_from_slice(&record.tenant);
    for header in &record.headers {
        buffer.extend_from_slice(&u16::try_from(header.name.len()).map_err(too_large)?.to_le_bytes());
        buffer.extend_from_slice(&u32::try_from(header.value.len()).map_err(too_large)?.to_le_bytes());
        buffer.extend_from_slice(&header.name);
        buffer.extend_from_slice(&header.value);
    }
    buffer.extend_from_slice(&record.value);
    let frame = &buffer[start..];
    let checksum = seed.checksum(&frame[..4], &frame[8..]);
    buffer[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// How long the frame says it is, if its head can be one at all. `head` holds at least [`HEAD_BYTES`].
pub(crate) fn claimed_bytes(head: &[u8]) -> Result<usize, Bad> {
    let mut fields = Fields(head);
    let bytes = fields.u32().ok_or("head is cut off")? as usize;
    if bytes == 0 {
        return Err("length is zero");
    }
    if !(HEAD_BYTES..=MAX_FRAME_BYTES).contains(&bytes) {
        return Err("length is impossible");
    }
    let parts = (|| {
        fields.take(24)?;
        let (tenant, value) = (fields.u32()? as usize, fields.u32()? as usize);
        let headers = usize::from(fields.u16()?);
        let reserved = fields.u16()?;
        Some((HEAD_BYTES.checked_add(tenant)?.checked_add(value)?.checked_add(headers * HEADER_HEAD_BYTES)?, reserved))
    })();
    match parts {
        Some((least, 0)) if least <= bytes => Ok(bytes),
        Some(_) => Err("lengths contradict each other"),
        None => Err("head is cut off"),
    }
}

/// The offset that a head claims, before any checksum is looked at.
pub(crate) fn claimed_offset(head: &[u8]) -> Option<Offset> {
    let mut fields = Fields(head);
    fields.take(8)?;
    fields.u64().map(Offset)
}

/// Decodes the frame at the start of `bytes`; the record's parts share that buffer.
pub(crate) fn decode(bytes: &Bytes, seed: Seed) -> Result<Frame, Bad> {
    if bytes.len() < HEAD_BYTES {
        return Err("head is cut off");
    }
    let length = claimed_bytes(bytes)?;
    let frame = bytes.get(..length).ok_or("frame is cut off")?;
    let mut fields = Fields(&frame[4..]);
    let stored = fields.u32().ok_or("head is cut off")?;
    if seed.checksum(&frame[..4], &frame[8..]) != stored {
        return Err("checksum does not match");
    }
    parse_body(bytes, length).ok_or("lengths contradict each other")
}

/// Everything behind the checksum. `None` when the parts do not fill the frame exactly.
fn parse_body(bytes: &Bytes, length: usize) -> Option<Frame> {
    let mut fields = Fields(bytes.get(8..length)?);
    let offset = Offset(fields.u64()?);
    let timestamp_ms = i64::from_le_bytes(fields.array()?);
    let batch_distance = fields.u32()?;
    let (tenant_bytes, value_bytes) = (fields.u32()? as usize, fields.u32()? as usize);
    let header_count = usize::from(fields.u16()?);
    fields.u16()?;
    let tenant = bytes.slice_ref(fields.take(tenant_bytes)?);
    // The count is bounded by what the remaining bytes can hold, so a lying count allocates nothing.
    let mut headers = Vec::with_capacity(header_count.min(fields.0.len() / HEADER_HEAD_BYTES));
    for _ in 0..header_count {
        let (name_bytes, header_value_bytes) = (usize::from(fields.u16()?), fields.u32()? as usize);
        let name = bytes.slice_ref(fields.take(name_bytes)?);
        let value = bytes.slice_ref(fields.take(header_value_bytes)?);
        headers.push(Header { name, value });
    }
    let value = bytes.slice_ref(fields.take(value_bytes)?);
    if !fields.0.is_empty() {
        return None;
    }
    let entry = Entry { offset, record: Record { tenant, value, headers, timestamp_ms } };
    Some(Frame { entry, bytes: length, batch_distance })
}

/// Little-endian fields, taken from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seed() -> Seed {
        Seed::new(LogId::from_bytes([7; 16]), Offset(3))
    }

    fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
    }

    fn record() -> impl Strategy<Value = Record> {
        let header = (bytes(20), bytes(40)).prop_map(|(name, value)| Header { name, value });
        (bytes(20), bytes(300), proptest::collection::vec(header, 0..4), any::<i64>())
            .prop_map(|(tenant, value, headers, timestamp_ms)| Record { tenant, value, headers, timestamp_ms })
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_whole(record in record(), offset in any::<u64>(), distance in any::<u32>(), rest in bytes(60)) {
            let mut buffer = Vec::new();
            encode(&mut buffer, seed(), Offset(offset), distance, &record).unwrap();
            prop_assert_eq!(buffer.len(), encoded_bytes(&record).unwrap());
            let length = buffer.len();
            buffer.extend_from_slice(&rest);
            let frame = decode(&Bytes::from(buffer), seed()).unwrap();
            prop_assert_eq!(frame, Frame { entry: Entry { offset: Offset(offset), record }, bytes: length, batch_distance: distance });
        }

        #[test]
        fn any_changed_bit_and_any_cut_is_noticed(record in record(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut buffer = Vec::new();
            encode(&mut buffer, seed(), Offset(9), 0, &record).unwrap();
            let at = at.index(buffer.len());
            prop_assert!(decode(&Bytes::copy_from_slice(&buffer[..at]), seed()).is_err());
            buffer[at] ^= 1 << bit;
            prop_assert!(decode(&Bytes::from(buffer), seed()).is_err());
        }

        #[test]
        fn arbitrary_bytes_behind_a_right_checksum_never_panic(mut body in proptest::collection::vec(any::<u8>(), HEAD_BYTES..400)) {
            let length = u32::try_from(body.len()).unwrap();
            body[..4].copy_from_slice(&length.to_le_bytes());
            // Small lengths, so that many cases pass the first checks and reach the header loop.
            for position in [30, 31, 34, 35, 37, 38, 39] {
                body[position] = 0;
            }
            let checksum = seed().checksum(&body[..4], &body[8..]);
            body[4..8].copy_from_slice(&checksum.to_le_bytes());
            if let Ok(frame) = decode(&Bytes::from(body.clone()), seed()) {
                let mut again = Vec::new();
                encode(&mut again, seed(), frame.entry.offset, frame.batch_distance, &frame.entry.record).unwrap();
                prop_assert_eq!(again, body);
            }
        }
    }

    #[test]
    fn a_frame_of_another_log_or_segment_does_not_pass() {
        let mut buffer = Vec::new();
        encode(&mut buffer, seed(), Offset(9), 0, &Record::default()).unwrap();
        let buffer = Bytes::from(buffer);
        assert!(decode(&buffer, Seed::new(LogId::from_bytes([8; 16]), Offset(3))).is_err());
        assert!(decode(&buffer, Seed::new(LogId::from_bytes([7; 16]), Offset(4))).is_err());
    }

    #[test]
    fn what_the_format_cannot_say_is_refused() {
        let header = Header { name: Bytes::from(vec![0; 70_000]), value: Bytes::new() };
        let record = Record { headers: vec![header], ..Record::default() };
        let mut buffer = Vec::new();
        assert!(matches!(encode(&mut buffer, seed(), Offset(0), 0, &record), Err(Error::RecordTooLarge { .. })));
        assert!(buffer.is_empty());
    }
}
