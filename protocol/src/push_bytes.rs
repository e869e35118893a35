//! Reading the value of a log record, a `tempopb.PushBytesRequest`, without copying.

use bytes::Bytes;

use crate::TraceId;
use crate::wire::{self, Reader, WireError};

/// Why a record's value cannot be used. It stays so: the record is to be quarantined, not retried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushBytesError {
    #[error("record value cannot be decoded")]
    Malformed(#[source] WireError),
    #[error("record has a trace id of {len} bytes")]
    TraceId { len: usize },
    #[error("record has {traces} traces but {ids} ids")]
    Count { traces: usize, ids: usize },
}

impl From<WireError> for PushBytesError {
    fn from(error: WireError) -> Self {
        Self::Malformed(error)
    }
}

/// The traces of one record. Each is a slice of the record's value and keeps all of it alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushBytes {
    traces: Vec<(TraceId, Bytes)>,
    skip_metrics: bool,
}

impl PushBytes {
    /// Finds the traces in `value`. The traces themselves are not looked into.
    ///
    /// # Errors
    /// If the message cannot be read, an id has not 16 bytes, or there are not as many ids as traces.
    pub fn walk(value: &Bytes) -> Result<Self, PushBytesError> {
        let mut traces = Vec::new();
        let mut ids = 0;
        let mut skip_metrics = false;
        // Traces come before ids in what we write, but any order is allowed; places are filled as they come.
        let mut found = 0;
        let mut reader = Reader::new(value);
        while let Some(key) = reader.key()? {
            match key {
                0x12 => {
                    let trace = value.slice_ref(reader.bytes()?);
                    place(&mut traces, found).1 = trace;
                    found += 1;
                }
                0x1a => {
                    let id = reader.bytes()?;
                    let id = TraceId::from_slice(id).ok_or(PushBytesError::TraceId { len: id.len() })?;
                    place(&mut traces, ids).0 = id;
                    ids += 1;
                }
                0x28 => skip_metrics = reader.varint()? != 0,
                _ if matches!(key >> 3, 2 | 3 | 5) => return Err(WireError::WireType.into()),
                _ => reader.skip(key, wire::GROUP_DEPTH)?,
            }
        }
        if found != ids {
            return Err(PushBytesError::Count { traces: found, ids });
        }
        Ok(Self { traces, skip_metrics })
    }

    /// Whether the metrics generator must leave these traces alone.
    pub fn skip_metrics(&self) -> bool {
        self.skip_metrics
    }

    /// Number of traces.
    pub fn len(&self) -> usize {
        self.traces.len()
    }

    /// Whether there is no trace.
    pub fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// Id and encoded `tempopb.Trace` of each.
    pub fn iter(&self) -> std::slice::Iter<'_, (TraceId, Bytes)> {
        self.traces.iter()
    }
}

impl IntoIterator for PushBytes {
    type Item = (TraceId, Bytes);
    type IntoIter = std::vec::IntoIter<(TraceId, Bytes)>;

    fn into_iter(self) -> Self::IntoIter {
        self.traces.into_iter()
    }
}

impl<'a> IntoIterator for &'a PushBytes {
    type Item = &'a (TraceId, Bytes);
    type IntoIter = std::slice::Iter<'a, (TraceId, Bytes)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The entry at `at`, which is at most one beyond the end.
fn place(traces: &mut Vec<(TraceId, Bytes)>, at: usize) -> &mut (TraceId, Bytes) {
    if at >= traces.len() {
        traces.push(Default::default());
    }
    &mut traces[at]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::tempopb::PushBytesRequest;

    fn request(traces: &[&'static [u8]], ids: &[Vec<u8>]) -> Bytes {
        let traces = traces.iter().map(|t| Bytes::from_static(t)).collect();
        PushBytesRequest { traces, ids: ids.to_vec(), skip_metrics_generation: true }.encode_to_vec().into()
    }

    #[test]
    fn traces_and_ids_are_paired_in_any_field_order() {
        let value = request(&[b"one", b"two"], &[vec![1; 16], vec![2; 16]]);
        let walked = PushBytes::walk(&value).unwrap();
        assert!(walked.skip_metrics());
        let expected = vec![(TraceId([1; 16]), Bytes::from("one")), (TraceId([2; 16]), Bytes::from("two"))];
        assert_eq!(walked.into_iter().collect::<Vec<_>>(), expected);

        let mut ids_first = request(&[], &[vec![1; 16], vec![2; 16]]).to_vec();
        ids_first.extend_from_slice(&request(&[b"one", b"two"], &[]));
        let walked = PushBytes::walk(&ids_first.into()).unwrap();
        assert_eq!(walked.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn ids_of_another_length_or_number_are_errors() {
        let short = PushBytes::walk(&request(&[b"one"], &[vec![1; 8]]));
        assert_eq!(short, Err(PushBytesError::TraceId { len: 8 }));
        let missing = PushBytes::walk(&request(&[b"one", b"two"], &[vec![1; 16]]));
        assert_eq!(missing, Err(PushBytesError::Count { traces: 2, ids: 1 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_only_if_prost_reads_them(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let value = Bytes::from(bytes);
            if PushBytes::walk(&value).is_ok() {
                prop_assert!(PushBytesRequest::decode(value).is_ok());
            }
        }
    }
}
