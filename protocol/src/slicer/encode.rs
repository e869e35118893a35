//! Writing what was sliced.

use bytes::{BufMut, BytesMut};

use super::{Chain, NONE, Sliced, SlicedTrace, Truncated, index};
use crate::wire;

impl Sliced {
    /// The traces, in the order of their first span.
    pub fn traces(&self) -> &[SlicedTrace] {
        &self.traces
    }

    /// Spans in the request.
    pub fn span_count(&self) -> usize {
        self.span_count
    }

    /// Attribute keys and values that were cut.
    pub fn truncated(&self) -> Truncated {
        self.truncated
    }

    /// Texts that were not UTF-8 and were repaired.
    pub fn repaired(&self) -> usize {
        self.repaired
    }

    /// Bytes that [`Sliced::encode_push_bytes`] writes.
    pub fn push_bytes_len(&self, skip_metrics: bool) -> usize {
        let traces: usize = self.traces.iter().map(SlicedTrace::push_bytes_len).sum();
        traces + if skip_metrics { 2 } else { 0 }
    }

    /// Writes all traces as one `tempopb.PushBytesRequest`, reserving the room in one step.
    pub fn encode_push_bytes(&self, skip_metrics: bool, buf: &mut BytesMut) {
        buf.reserve(self.push_bytes_len(skip_metrics));
        self.put_push_bytes(self.traces.iter(), skip_metrics, buf);
    }

    /// Writes the traces at these indexes of [`Sliced::traces`] as one `tempopb.PushBytesRequest`. Indexes beyond the end are
    /// left out.
    pub fn encode_push_bytes_of(&self, indexes: &[usize], skip_metrics: bool, buf: &mut BytesMut) {
        let traces = indexes.iter().filter_map(|at| self.traces.get(*at));
        buf.reserve(traces.clone().map(SlicedTrace::push_bytes_len).sum::<usize>() + 2);
        self.put_push_bytes(traces, skip_metrics, buf);
    }

    /// Writes one trace as a `tempopb.Trace`: [`SlicedTrace::encoded_len`] bytes.
    pub fn encode_trace(&self, trace: &SlicedTrace, buf: &mut BytesMut) {
        buf.reserve(trace.encoded_len);
        self.put_trace(trace, buf);
    }

    fn put_push_bytes<'a>(
        &'a self,
        traces: impl Iterator<Item = &'a SlicedTrace> + Clone,
        skip_metrics: bool,
        buf: &mut BytesMut,
    ) {
        for trace in traces.clone() {
            put_len_key(0x12, trace.encoded_len, buf);
            self.put_trace(trace, buf);
        }
        for trace in traces {
            buf.put_slice(&[0x1a, 16]);
            buf.put_slice(trace.id.as_bytes());
        }
        if skip_metrics {
            buf.put_slice(&[0x28, 1]);
        }
    }

    fn put_trace(&self, trace: &SlicedTrace, buf: &mut BytesMut) {
        let mut at = trace.first_group;
        while at != NONE {
            let group = &self.groups[index(at)];
            let scope = &self.scopes[index(group.scope)];
            put_len_key(0x0a, index(group.resource_spans_len), buf);
            self.put_chain(&self.resources[index(scope.resource)], buf);
            put_len_key(0x12, index(group.scope_spans_len), buf);
            self.put_chain(&scope.head, buf);
            self.put_chain(&group.spans, buf);
            at = group.next;
        }
    }

    #[inline]
    fn put_chain(&self, chain: &Chain, buf: &mut BytesMut) {
        let mut at = chain.first;
        while at != NONE {
            let segment = self.segments[index(at)];
            let (start, end) = (index(segment.start), index(segment.end));
            match self.body.get(start..end) {
                Some(bytes) => buf.put_slice(bytes),
                None => {
                    // Rewritten bytes follow one byte behind the body.
                    let base = self.body.len() + 1;
                    buf.put_slice(&self.rewritten[start - base..end - base]);
                }
            }
            at = segment.next;
        }
    }
}

impl SlicedTrace {
    /// What this trace adds to a `PushBytesRequest`: the trace and its id.
    pub fn push_bytes_len(&self) -> usize {
        wire::len_field_size(self.encoded_len) + 18
    }
}

#[inline]
fn put_len_key(key: u8, len: usize, buf: &mut BytesMut) {
    buf.put_u8(key);
    wire::put_varint(buf, len as u64);
}
