//! The part of a request's way that is compute: from the bytes of a request to the records of its partitions. It waits for nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use vivace_log::{Budget, Partition, Permit, Record};
use vivace_protocol::TenantId;
use vivace_protocol::slicer::{self, SliceError, Sliced};

use crate::debug::SpanDebug;
use crate::fair_share::Share;
use crate::partitions::{NoActivePartition, Partitions};
use crate::reservation::Reservation;

/// Reason of `tempo_discarded_spans_total`.
pub(crate) const TRACE_TOO_LARGE: &str = "trace_too_large";

/// One request, admitted.
pub(crate) struct Slicing {
    pub(crate) tenant: TenantId,
    pub(crate) debug: Arc<SpanDebug>,
    pub(crate) body: Bytes,
    pub(crate) reservation: Reservation,
    /// Tenant and time; the value is what is missing.
    pub(crate) record: Record,
    pub(crate) skip_metrics: bool,
    pub(crate) max_attribute_bytes: usize,
    pub(crate) budget: Budget,
    pub(crate) partitions: Arc<dyn Partitions>,
    /// The tenant's `ingestion.tenant_shard_size`.
    pub(crate) shard_size: usize,
    /// What one record may hold.
    pub(crate) max_record_bytes: usize,
}

/// A record and where it goes. The room that it takes is held until it is written.
pub(crate) struct Routed {
    pub(crate) partition: Partition,
    pub(crate) record: Record,
    pub(crate) permit: Permit,
}

pub(crate) struct Prepared {
    pub(crate) records: Vec<Routed>,
    /// How many records each partition got.
    pub(crate) records_per_partition: Vec<usize>,
    pub(crate) traces: usize,
    pub(crate) truncated: slicer::Truncated,
    pub(crate) repaired: usize,
    /// Held until the request is answered.
    pub(crate) share: Share,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error("request cannot be sliced")]
    Slice(#[source] SliceError),
    #[error("spans of one trace in one request take {bytes} bytes, and a record holds {max_bytes}")]
    TraceTooLarge { bytes: usize, max_bytes: usize },
    #[error(transparent)]
    NoActivePartition(#[from] NoActivePartition),
    #[error("no room for the records")]
    Overloaded(#[source] vivace_log::Error),
}

impl Slicing {
    pub(crate) fn run(self) -> Result<Prepared, PrepareError> {
        let limits = slicer::Limits { max_attribute_bytes: self.max_attribute_bytes };
        self.debug.received(&self.tenant, &self.body);
        let sliced = slicer::slice(&self.body, &limits).map_err(|error| {
            if let Some(reason) = error.discard_reason() {
                self.debug.discarded(&self.tenant, reason, &self.body);
            }
            PrepareError::Slice(error)
        })?;
        let parts = self.parts(&sliced).inspect_err(|error| {
            if matches!(error, PrepareError::TraceTooLarge { .. }) {
                self.debug.discarded(&self.tenant, TRACE_TOO_LARGE, &self.body);
            }
        })?;
        let mut records_per_partition = BTreeMap::new();
        let mut records = Vec::with_capacity(parts.len());
        for part in parts {
            *records_per_partition.entry(part.partition).or_insert(0) += 1;
            records.push(self.record(&sliced, &part)?);
        }
        let records_per_partition = records_per_partition.into_values().collect();
        let (traces, truncated, repaired) = (sliced.traces().len(), sliced.truncated(), sliced.repaired());
        drop(sliced);
        // The body is no longer needed, and nothing of the budget is held for it while the log waits for its disk.
        Ok(Prepared {
            records,
            records_per_partition,
            traces,
            truncated,
            repaired,
            share: self.reservation.into_share(),
        })
    }

    /// What goes into which record. A request that stays whole is not asked for its traces.
    fn parts(&self, sliced: &Sliced) -> Result<Vec<Part>, PrepareError> {
        let max_bytes = self.max_record_bytes;
        let whole = sliced.push_bytes_len(self.skip_metrics);
        let fits = whole <= max_bytes;
        let mut groups: BTreeMap<Partition, Vec<usize>> = BTreeMap::new();
        match self.partitions.only() {
            Some(partition) if fits => return Ok(vec![Part { partition, traces: Traces::All, bytes: whole }]),
            Some(partition) => {
                groups.insert(partition, (0..sliced.traces().len()).collect());
            }
            None => {
                let ids: Vec<_> = sliced.traces().iter().map(slicer::SlicedTrace::id).collect();
                let chosen = self.partitions.choose(&self.tenant, self.shard_size, &ids)?;
                for (trace, partition) in chosen.into_iter().enumerate() {
                    groups.entry(partition).or_default().push(trace);
                }
            }
        }
        if let (1, true, Some(partition)) = (groups.len(), fits, groups.keys().next()) {
            return Ok(vec![Part { partition: *partition, traces: Traces::All, bytes: whole }]);
        }
        let mut parts = Vec::new();
        for (partition, traces) in groups {
            pack(sliced, partition, traces, max_bytes, &mut parts)?;
        }
        Ok(parts)
    }

    /// Takes the permit, then the memory.
    fn record(&self, sliced: &Sliced, part: &Part) -> Result<Routed, PrepareError> {
        let charge = part.bytes + self.record.charged_bytes();
        let permit = self.budget.acquire(charge).map_err(PrepareError::Overloaded)?;
        let mut buf = BytesMut::with_capacity(part.bytes);
        match &part.traces {
            Traces::All => sliced.encode_push_bytes(self.skip_metrics, &mut buf),
            Traces::Some(traces) => sliced.encode_push_bytes_of(traces, self.skip_metrics, &mut buf),
        }
        debug_assert!(buf.len() <= part.bytes);
        let record = Record { value: buf.freeze(), ..self.record.clone() };
        Ok(Routed { partition: part.partition, record, permit })
    }
}

/// The traces that go into one record, and the bytes of its value.
struct Part {
    partition: Partition,
    traces: Traces,
    bytes: usize,
}

enum Traces {
    All,
    Some(Vec<usize>),
}

/// Packs traces of one partition into records in order, as many into each as fit. A trace is never cut in two.
fn pack(
    sliced: &Sliced,
    partition: Partition,
    traces: Vec<usize>,
    max_bytes: usize,
    parts: &mut Vec<Part>,
) -> Result<(), PrepareError> {
    // The mark that metrics skip these spans.
    const MARK_BYTES: usize = 2;
    let (mut packed, mut packed_bytes) = (Vec::new(), MARK_BYTES);
    for index in traces {
        let bytes = sliced.traces()[index].push_bytes_len();
        if bytes + MARK_BYTES > max_bytes {
            return Err(PrepareError::TraceTooLarge { bytes, max_bytes });
        }
        if packed_bytes + bytes > max_bytes {
            let full = std::mem::take(&mut packed);
            parts.push(Part { partition, traces: Traces::Some(full), bytes: packed_bytes });
            packed_bytes = MARK_BYTES;
        }
        packed.push(index);
        packed_bytes += bytes;
    }
    parts.push(Part { partition, traces: Traces::Some(packed), bytes: packed_bytes });
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use vivace_protocol::otlp::collector::ExportTraceServiceRequest;
    use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span};
    use vivace_protocol::tempopb::PushBytesRequest;
    use vivace_runtime::metrics::Registry;

    use std::time::Duration;

    use vivace_protocol::TraceId;

    use super::*;
    use crate::config::Config;
    use crate::partitions::OnePartition;
    use crate::reservation::tests::reservation;

    fn request(traces: u8, name_bytes: usize) -> Bytes {
        let span = |trace: u8| Span {
            trace_id: vec![trace + 1; 16],
            span_id: vec![1; 8],
            name: "n".repeat(name_bytes),
            ..Span::default()
        };
        let scope_spans = ScopeSpans { spans: (0..traces).map(span).collect(), ..ScopeSpans::default() };
        let resource_spans = ResourceSpans { scope_spans: vec![scope_spans], ..ResourceSpans::default() };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec().into()
    }

    fn slicing(body: Bytes, budget: &Budget) -> Slicing {
        Slicing {
            tenant: TenantId::single(),
            debug: Arc::new(SpanDebug::new(&Config::default(), &Registry::new())),
            body,
            reservation: reservation(budget),
            record: Record { tenant: Bytes::from_static(b"t"), ..Record::default() },
            skip_metrics: true,
            max_attribute_bytes: 2048,
            budget: budget.clone(),
            partitions: Arc::new(OnePartition(Partition(0))),
            shard_size: 0,
            max_record_bytes: 1 << 20,
        }
    }

    /// By the first byte of the id.
    struct ByFirstByte(u8);

    impl Partitions for ByFirstByte {
        fn choose(
            &self,
            _tenant: &TenantId,
            _shard_size: usize,
            traces: &[TraceId],
        ) -> Result<Vec<Partition>, NoActivePartition> {
            match self.0 {
                0 => Err(NoActivePartition { known: 3 }),
                count => Ok(traces.iter().map(|id| Partition(i32::from(id.0[0] % count))).collect()),
            }
        }
    }

    fn ids(record: &Record) -> Vec<u8> {
        PushBytesRequest::decode(record.value.clone()).unwrap().ids.iter().map(|id| id[0]).collect()
    }

    #[test]
    fn a_request_becomes_one_record_for_each_partition() {
        let budget = Budget::new(1 << 20, Duration::from_secs(1));
        let work = Slicing { partitions: Arc::new(ByFirstByte(3)), ..slicing(request(8, 100), &budget) };
        let prepared = work.run().unwrap();
        let got: Vec<_> = prepared.records.iter().map(|routed| (routed.partition.0, ids(&routed.record))).collect();
        assert_eq!(got, [(0, vec![3, 6]), (1, vec![1, 4, 7]), (2, vec![2, 5, 8])]);
        assert_eq!(prepared.records_per_partition, [1, 1, 1]);
        assert_eq!(prepared.traces, 8);
    }

    #[test]
    fn traces_of_one_partition_stay_one_record_byte_for_byte() {
        let budget = Budget::new(1 << 20, Duration::from_secs(1));
        let whole = slicing(request(5, 100), &budget).run().unwrap();
        let work = Slicing { partitions: Arc::new(ByFirstByte(1)), ..slicing(request(5, 100), &budget) };
        let chosen = work.run().unwrap();
        assert_eq!(chosen.records.len(), 1);
        assert_eq!(chosen.records[0].record, whole.records[0].record);
    }

    #[test]
    fn each_partition_is_split_by_itself() {
        let budget = Budget::new(1 << 20, Duration::from_secs(1));
        let work = Slicing {
            partitions: Arc::new(ByFirstByte(2)),
            max_record_bytes: 3500,
            ..slicing(request(10, 1000), &budget)
        };
        let prepared = work.run().unwrap();
        let got: Vec<_> = prepared.records.iter().map(|routed| (routed.partition.0, ids(&routed.record))).collect();
        assert_eq!(got, [(0, vec![2, 4, 6]), (0, vec![8, 10]), (1, vec![1, 3, 5]), (1, vec![7, 9])]);
        assert_eq!(prepared.records_per_partition, [2, 2]);
    }

    #[test]
    fn without_an_active_partition_nothing_is_encoded() {
        let budget = Budget::new(1 << 20, Duration::from_secs(1));
        let work = Slicing { partitions: Arc::new(ByFirstByte(0)), ..slicing(request(2, 100), &budget) };
        let refused = work.run().err().unwrap();
        assert!(matches!(refused, PrepareError::NoActivePartition(NoActivePartition { known: 3 })));
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_request_above_the_record_limit_is_split_between_traces_and_keeps_its_mark() {
        let budget = Budget::new(1 << 20, Duration::from_secs(1));
        let work = Slicing { max_record_bytes: 3500, ..slicing(request(10, 1000), &budget) };
        let Prepared { records, share, .. } = work.run().unwrap();
        assert_eq!(records.len(), 4);
        let mut ids = Vec::new();
        for Routed { record, permit, .. } in &records {
            assert!(record.value.len() <= 3500);
            assert!(permit.bytes() >= record.charged_bytes());
            let push = PushBytesRequest::decode(record.value.clone()).unwrap();
            assert!(push.skip_metrics_generation);
            assert_eq!(push.ids.len(), push.traces.len());
            ids.extend(push.ids);
        }
        assert_eq!(ids, (1..=10).map(|trace| vec![trace; 16]).collect::<Vec<_>>());
        drop((records, share));
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_trace_above_the_record_limit_is_refused_for_good() {
        let budget = Budget::new(1 << 20, Duration::from_secs(1));
        let work = Slicing { max_record_bytes: 900, ..slicing(request(1, 1000), &budget) };
        assert!(matches!(work.run(), Err(PrepareError::TraceTooLarge { max_bytes: 900, .. })));
    }

    #[test]
    fn records_take_their_permit_before_their_memory() {
        let budget = Budget::new(1000, Duration::from_secs(1));
        let _other = budget.acquire(1).unwrap();
        assert!(matches!(slicing(request(3, 1000), &budget).run(), Err(PrepareError::Overloaded(_))));
    }
}
