//! One request's way from a receiver into the log: admitted, sliced, appended, applied, acknowledged.
//!
//! Runs in the request's own future on the server's threads; large bodies are sliced on the compute pool. **An acknowledgement
//! is a promise**: it is given only after the log has made the records durable and, where a consumer's progress is known, after
//! that consumer has applied them. What is not known in time is answered as unknown, never as done.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use parking_lot::Mutex;
use tonic::Status;
use vivace_log::{Budget, Log, Offset, Partition, Permit, Progress, Record};
use vivace_protocol::slicer::{self, SliceError, Sliced};
use vivace_protocol::{Error, Kind, TenantId};
use vivace_runtime::config::Limits;
use vivace_runtime::{Clock, Compute, Deadline, Mailbox, Rng};

use crate::admission::Admit;
use crate::debug::SpanDebug;
use crate::fair_share::{FairShares, Share};
use crate::limiter::RateLimited;
use crate::limits::TenantLimits;
use crate::metrics::{Metrics, ReceiverMetrics, TurnedAway};
use crate::quiet::Quiet;
use crate::reservation::Reservation;

/// Slicing this much takes a few hundred microseconds, as long as a server thread may be kept from its other connections.
const INLINE_BYTES: usize = 1 << 20;
/// What a Kafka record may hold: 16 MB less room for the broker's bookkeeping. The same in every form of the log, so that
/// moving from one to another changes nothing.
const MAX_RECORD_BYTES: usize = 16_000_000 - 16_384;
/// A client that was told nothing for so long has given up by itself.
const ACK_TIMEOUT: Duration = Duration::from_secs(20);
/// Log lines about refused requests, and about cut attributes.
const ERROR_LINES_PER_SECOND: u64 = 10;
const TRUNCATION_LINES_PER_SECOND: u64 = 1;

/// Reasons of `tempo_discarded_spans_total`.
const RATE_LIMITED: &str = "rate_limited";
const TRACE_TOO_LARGE: &str = "trace_too_large";

/// A request as a receiver hands it over.
pub(crate) struct Push {
    pub(crate) tenant: TenantId,
    /// An encoded `ExportTraceServiceRequest`, decompressed.
    pub(crate) body: Bytes,
    /// What the body holds of the budget; given back as soon as the records are written.
    pub(crate) reservation: Reservation,
    /// The metrics generator leaves these spans out.
    pub(crate) skip_metrics: bool,
    /// When the client stops waiting, if it said so.
    pub(crate) deadline: Option<Deadline>,
}

/// Why a request was not acknowledged.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// The body is no export request: each protocol says so in its own way.
    Malformed(String),
    /// Anything else.
    Error(Error),
}

impl<E: Into<Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Shared by all receivers.
pub(crate) struct Pusher {
    pub(crate) limits: Arc<dyn TenantLimits>,
    pub(crate) admission: Mailbox<Admit, Result<(), RateLimited>>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) partition: Partition,
    pub(crate) progress: Option<Progress>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Mutex<Rng>,
    pub(crate) compute: Compute,
    pub(crate) metrics: Metrics,
    pub(crate) debug: Arc<SpanDebug>,
    pub(crate) shares: Arc<FairShares>,
    /// `distributor.max_attribute_bytes`.
    pub(crate) max_attribute_bytes: u64,
    /// `distributor.artificial_delay`.
    pub(crate) artificial_delay: Duration,
    /// `distributor.retry_after_on_resource_exhausted`.
    pub(crate) retry_after: Duration,
    pub(crate) error_lines: Quiet,
    pub(crate) truncation_lines: Quiet,
}

impl Pusher {
    pub(crate) const fn error_lines() -> Quiet {
        Quiet::new(ERROR_LINES_PER_SECOND)
    }

    pub(crate) const fn truncation_lines() -> Quiet {
        Quiet::new(TRUNCATION_LINES_PER_SECOND)
    }

    /// Nothing of a new request is held yet.
    pub(crate) fn reservation(&self, tenant: &TenantId) -> Reservation {
        Reservation::new(self.log.budget().clone(), self.shares.share(tenant.clone()))
    }

    /// Acknowledges (`Ok`) or refuses a request.
    pub(crate) async fn push(&self, push: Push, receiver: &ReceiverMetrics) -> Result<(), Refusal> {
        let started = self.clock.now();
        let tenant = push.tenant.clone();
        let limits = self.limits.limits(&tenant);
        let result = self.counted(push, &limits, receiver).await;
        if let Err(refusal) = &result {
            self.note(&tenant, refusal);
        }
        self.delay(&tenant, &limits, started).await;
        self.metrics.pushed(self.clock.now().saturating_duration_since(started));
        result
    }

    async fn counted(&self, push: Push, limits: &Limits, receiver: &ReceiverMetrics) -> Result<(), Refusal> {
        let spans = slicer::count_spans(&push.body).map_err(|error| Refusal::Malformed(error.to_string()))?;
        let result = self.admit_and_append(push, spans, limits).await;
        receiver.count(spans, &result);
        result
    }

    async fn admit_and_append(&self, push: Push, spans: usize, limits: &Limits) -> Result<(), Refusal> {
        let Push { tenant, body, reservation, skip_metrics, deadline } = push;
        self.metrics.ingress(&tenant, body.len());
        if spans == 0 {
            return Ok(());
        }
        let ours = Deadline::after(ACK_TIMEOUT);
        let deadline = deadline.map_or(ours, |theirs| theirs.min(ours));
        if let Err(refused) = self.admit(&tenant, body.len(), spans, limits, deadline).await {
            if refused.kind() == Kind::SlowDown && self.debug.tells_discarded() {
                let (debug, tenant, pinned) = (Arc::clone(&self.debug), tenant.clone(), body.len());
                let tell = move || debug.discarded(&tenant, RATE_LIMITED, &body);
                // Lines for debugging; without room on the pool there are none.
                self.compute.run(pinned, tell).await.ok();
            }
            return Err(refused.into());
        }
        self.metrics.received(&tenant, body.len(), spans);

        let record = Record {
            tenant: Bytes::copy_from_slice(tenant.as_str().as_bytes()),
            timestamp_ms: i64::try_from(self.clock.unix().as_millis()).unwrap_or(i64::MAX),
            ..Record::default()
        };
        let max_attribute_bytes = match limits.ingestion.max_attribute_bytes {
            0 => self.max_attribute_bytes,
            own => own,
        };
        let work = Slicing {
            tenant: tenant.clone(),
            debug: Arc::clone(&self.debug),
            body,
            reservation,
            record,
            skip_metrics,
            max_attribute_bytes: usize::try_from(max_attribute_bytes).unwrap_or(usize::MAX),
            budget: self.log.budget().clone(),
        };
        let prepared = if work.body.len() <= INLINE_BYTES {
            work.run()
        } else {
            let pinned = work.body.len();
            self.compute.run(pinned, move || work.run()).await.map_err(Error::from)?
        };
        let prepared = prepared.map_err(|error| self.unslicable(error, &tenant, spans))?;
        self.metrics.sliced(&tenant, prepared.traces, prepared.truncated, prepared.repaired);
        if prepared.truncated.total() > 0 && self.truncation_lines.allows(self.clock.unix()) {
            let (tenant, attributes) = (tenant.as_str(), prepared.truncated.total());
            tracing::warn!(tenant, attributes, max_attribute_bytes, "cut attributes of a request");
        }
        let appended = self.append(prepared.records, deadline).await;
        drop(prepared.share);
        appended.map_err(Refusal::Error)
    }

    async fn admit(
        &self,
        tenant: &TenantId,
        bytes: usize,
        spans: usize,
        limits: &Limits,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let admit = Admit { tenant: tenant.clone(), bytes: bytes as u64 };
        // A full mailbox is our own lack of room: RESOURCE_EXHAUSTED without a hint would make clients drop the spans.
        let answer = self.admission.try_ask(admit, deadline).map_err(|refused| overloaded(refused.status))?;
        let admitted = answer.await.map_err(|status| Error::retry(status.message()))?;
        admitted.map_err(|refused| {
            self.metrics.discarded(tenant, RATE_LIMITED, spans);
            let hint = Some(self.retry_after).filter(|after| !after.is_zero() && limits.retry_info_enabled());
            Error::slow_down(refused.to_string(), hint)
        })
    }

    fn unslicable(&self, error: PrepareError, tenant: &TenantId, spans: usize) -> Refusal {
        match error {
            PrepareError::Slice(error) => {
                let malformed = match &error {
                    // Ids of another length are a fault of the encoding, those that are absent or zero one of the data.
                    SliceError::TraceId { bits } if *bits > 0 => Some("unmarshal: invalid TraceID length".to_owned()),
                    SliceError::SpanId { bits } if *bits > 0 => Some("unmarshal: invalid SpanID length".to_owned()),
                    SliceError::Malformed(wire) => Some(wire.to_string()),
                    SliceError::TraceId { .. } | SliceError::SpanId { .. } | SliceError::TooLarge { .. } => None,
                };
                if let Some(text) = malformed {
                    return Refusal::Malformed(text);
                }
                if let Some(reason) = error.discard_reason() {
                    self.metrics.discarded(tenant, reason, spans);
                }
                error.into()
            }
            PrepareError::TraceTooLarge { .. } => {
                self.metrics.discarded(tenant, TRACE_TOO_LARGE, spans);
                Error::fix_request(error.to_string()).into()
            }
            PrepareError::Overloaded(error) => Refusal::Error(log_error(error)),
        }
    }

    /// Resolves when all records are durable and, as far as we can know it, applied.
    async fn append(&self, records: Vec<(Record, Permit)>, deadline: Deadline) -> Result<(), Error> {
        // All are queued before the first is awaited, in order.
        let appends: Vec<_> = records
            .into_iter()
            .map(|(record, permit)| self.log.append_reserved(self.partition, record, permit))
            .collect();
        let durable = tokio::select! {
            biased;
            durable = try_join_all(appends) => durable.map_err(log_error)?,
            () = deadline.reached() => return Err(log_error(vivace_log::Error::DeadlineExceeded)),
        };
        let last: Option<Offset> = durable.iter().map(|appended| appended.offset).max();
        match (&self.progress, last) {
            (Some(progress), Some(last)) => progress.applied(last, deadline.reached()).await.map_err(log_error),
            _ => Ok(()),
        }
    }

    fn note(&self, tenant: &TenantId, refusal: &Refusal) {
        if let Refusal::Error(error) = refusal {
            match error.kind() {
                Kind::Retry if error.retry_after().is_some() => self.metrics.turned_away(TurnedAway::Overloaded),
                Kind::Retry => self.metrics.turned_away(TurnedAway::LogUnavailable),
                Kind::CheckOutcome => self.metrics.turned_away(TurnedAway::Deadline),
                Kind::SlowDown
                | Kind::FixRequest
                | Kind::Authenticate
                | Kind::AskPermission
                | Kind::NotFound
                | Kind::Reopen
                | Kind::GiveUp
                | Kind::NotSupported
                | Kind::FixData
                | Kind::Report => {}
            }
        }
        if self.error_lines.allows(self.clock.unix()) {
            match refusal {
                Refusal::Malformed(error) => {
                    tracing::warn!(tenant = tenant.as_str(), error, "refuse malformed request")
                }
                Refusal::Error(error) => tracing::warn!(tenant = tenant.as_str(), %error, "refuse request"),
            }
        }
    }

    /// Holds the answer back so that the request takes as long as configured, ten percent more or less.
    async fn delay(&self, tenant: &TenantId, limits: &Limits, started: std::time::Instant) {
        let target = limits.ingestion.artificial_delay.map_or(self.artificial_delay, |own| own.get());
        if target.is_zero() {
            return;
        }
        let taken = self.clock.now().saturating_duration_since(started);
        let jitter = 0.9 + self.rng.lock().unit() * 0.2;
        let rest = target.saturating_sub(taken).mul_f64(jitter);
        self.metrics.delayed(tenant, rest);
        self.clock.sleep(rest).await;
    }
}

/// A refusal for want of room in this process, with a hint.
fn overloaded(cause: Status) -> Error {
    Error::retry("too many requests in flight").with_retry_after(Duration::from_secs(1)).with_source(cause)
}

/// What a client is told about an error of the log.
pub(crate) fn log_error(error: vivace_log::Error) -> Error {
    use vivace_log::Error as Log;
    let text = error.to_string();
    let told = match &error {
        Log::Overloaded { retry_after } => {
            Error::retry("too many bytes in flight").with_retry_after((*retry_after).max(Duration::from_secs(1)))
        }
        Log::DiskFull { retry_after } => Error::retry(text).with_retry_after(*retry_after),
        Log::NotDurable(_) | Log::Io { .. } | Log::Closed => Error::retry(text),
        Log::RecordTooLarge { .. } => Error::fix_request(text),
        Log::DeadlineExceeded => {
            Error::new(Kind::CheckOutcome, "spans were not confirmed in time; whether they are stored is unknown")
        }
        Log::OutOfRange { .. } | Log::UnknownPartition(_) | Log::ForeignSegment { .. } | Log::Unreadable { .. } => {
            Error::report(text)
        }
    };
    told.with_source(error)
}

/// The part of the work that is compute: it waits for nothing.
struct Slicing {
    tenant: TenantId,
    debug: Arc<SpanDebug>,
    body: Bytes,
    reservation: Reservation,
    /// Tenant and time; the value is what is missing.
    record: Record,
    skip_metrics: bool,
    max_attribute_bytes: usize,
    budget: Budget,
}

struct Prepared {
    records: Vec<(Record, Permit)>,
    traces: usize,
    truncated: slicer::Truncated,
    repaired: usize,
    /// Held until the request is answered.
    share: Share,
}

#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error("request cannot be sliced")]
    Slice(#[source] SliceError),
    #[error("spans of one trace in one request take {bytes} bytes, and a record holds {MAX_RECORD_BYTES}")]
    TraceTooLarge { bytes: usize },
    #[error("no room for the records")]
    Overloaded(#[source] vivace_log::Error),
}

impl Slicing {
    fn run(self) -> Result<Prepared, PrepareError> {
        let limits = slicer::Limits { max_attribute_bytes: self.max_attribute_bytes };
        self.debug.received(&self.tenant, &self.body);
        let sliced = slicer::slice(&self.body, &limits).map_err(|error| {
            if let Some(reason) = error.discard_reason() {
                self.debug.discarded(&self.tenant, reason, &self.body);
            }
            PrepareError::Slice(error)
        })?;
        let records = self.records(&sliced, MAX_RECORD_BYTES).inspect_err(|error| {
            if matches!(error, PrepareError::TraceTooLarge { .. }) {
                self.debug.discarded(&self.tenant, TRACE_TOO_LARGE, &self.body);
            }
        })?;
        let (traces, truncated, repaired) = (sliced.traces().len(), sliced.truncated(), sliced.repaired());
        drop(sliced);
        // The body is no longer needed, and nothing of the budget is held for it while the log waits for its disk.
        Ok(Prepared { records, traces, truncated, repaired, share: self.reservation.into_share() })
    }

    fn records(&self, sliced: &Sliced, max_bytes: usize) -> Result<Vec<(Record, Permit)>, PrepareError> {
        let whole = sliced.push_bytes_len(self.skip_metrics);
        if whole <= max_bytes {
            return Ok(vec![self.record(whole, |buf| sliced.encode_push_bytes(self.skip_metrics, buf))?]);
        }
        let mut records = Vec::new();
        for Part { traces, bytes } in parts(sliced, max_bytes)? {
            records.push(self.record(bytes, |buf| sliced.encode_push_bytes_of(&traces, self.skip_metrics, buf))?);
        }
        Ok(records)
    }

    /// Takes the permit, then the memory.
    fn record(&self, bytes: usize, encode: impl FnOnce(&mut BytesMut)) -> Result<(Record, Permit), PrepareError> {
        let charge = bytes + self.record.charged_bytes();
        let permit = self.budget.acquire(charge).map_err(PrepareError::Overloaded)?;
        let mut buf = BytesMut::with_capacity(bytes);
        encode(&mut buf);
        debug_assert!(buf.len() <= bytes);
        Ok((Record { value: buf.freeze(), ..self.record.clone() }, permit))
    }
}

/// The traces that go into one record, and the bytes of its value.
struct Part {
    traces: Vec<usize>,
    bytes: usize,
}

/// Packs traces into records in order, as many into each as fit. A trace is never cut in two.
fn parts(sliced: &Sliced, max_bytes: usize) -> Result<Vec<Part>, PrepareError> {
    // The mark that metrics skip these spans.
    const MARK_BYTES: usize = 2;
    let mut parts = vec![Part { traces: Vec::new(), bytes: MARK_BYTES }];
    for (index, trace) in sliced.traces().iter().enumerate() {
        let bytes = trace.push_bytes_len();
        if bytes + MARK_BYTES > max_bytes {
            return Err(PrepareError::TraceTooLarge { bytes });
        }
        match parts.last_mut() {
            Some(part) if part.bytes + bytes <= max_bytes => {
                part.traces.push(index);
                part.bytes += bytes;
            }
            _ => parts.push(Part { traces: vec![index], bytes: MARK_BYTES + bytes }),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use vivace_protocol::otlp::collector::ExportTraceServiceRequest;
    use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span};
    use vivace_protocol::tempopb::PushBytesRequest;
    use vivace_runtime::metrics::Registry;

    use super::*;
    use crate::config::Config;
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
        }
    }

    #[test]
    fn a_request_above_the_record_limit_is_split_between_traces_and_keeps_its_mark() {
        let budget = Budget::new(1 << 20, Duration::from_secs(1));
        let work = slicing(request(10, 1000), &budget);
        let sliced = slicer::slice(&work.body, &slicer::Limits { max_attribute_bytes: 0 }).unwrap();
        let records = work.records(&sliced, 3500).unwrap();
        assert_eq!(records.len(), 4);
        let mut ids = Vec::new();
        for (record, permit) in &records {
            assert!(record.value.len() <= 3500);
            assert!(permit.bytes() >= record.charged_bytes());
            let push = PushBytesRequest::decode(record.value.clone()).unwrap();
            assert!(push.skip_metrics_generation);
            assert_eq!(push.ids.len(), push.traces.len());
            ids.extend(push.ids);
        }
        assert_eq!(ids, (1..=10).map(|trace| vec![trace; 16]).collect::<Vec<_>>());
        drop(records);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_trace_above_the_record_limit_is_refused_for_good() {
        let budget = Budget::new(1 << 20, Duration::from_secs(1));
        let work = slicing(request(1, 1000), &budget);
        let sliced = slicer::slice(&work.body, &slicer::Limits { max_attribute_bytes: 0 }).unwrap();
        assert!(matches!(work.records(&sliced, 900), Err(PrepareError::TraceTooLarge { .. })));
    }

    #[test]
    fn records_take_their_permit_before_their_memory() {
        let budget = Budget::new(1000, Duration::from_secs(1));
        let _other = budget.acquire(1).unwrap();
        assert!(matches!(slicing(request(3, 1000), &budget).run(), Err(PrepareError::Overloaded(_))));
    }

    #[test]
    fn errors_of_the_log_become_what_the_client_can_do() {
        let after = Duration::from_millis(10);
        let told = log_error(vivace_log::Error::Overloaded { retry_after: after });
        assert_eq!((told.kind(), told.retry_after()), (Kind::Retry, Some(Duration::from_secs(1))));
        assert_eq!(log_error(vivace_log::Error::Closed).kind(), Kind::Retry);
        assert_eq!(log_error(vivace_log::Error::DeadlineExceeded).kind(), Kind::CheckOutcome);
        assert_eq!(log_error(vivace_log::Error::RecordTooLarge { bytes: 2, limit_bytes: 1 }).kind(), Kind::FixRequest);
    }
}
