//! One request's way from a receiver into the log: admitted, sliced, appended, applied, acknowledged.
//!
//! Runs in the request's own future on the server's threads; large bodies are sliced on the compute pool. **An acknowledgement
//! is a promise**: it is given only after the log has made the records durable and, where a consumer's progress is known, after
//! that consumer has applied them. What is not known in time is answered as unknown, never as done.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use vivace_log::{Log, Offset, Progress, Record};
use vivace_protocol::slicer::{self, SliceError};
use vivace_protocol::{Error, Kind, TenantId};
use vivace_runtime::config::Limits;
use vivace_runtime::{Clock, Compute, Deadline, Mailbox, Rng};

use crate::admission::Admit;
use crate::debug::SpanDebug;
use crate::fair_share::FairShares;
use crate::limiter::RateLimited;
use crate::limits::TenantLimits;
use crate::metrics::{Metrics, ReceiverMetrics, TurnedAway};
use crate::partitions::Partitions;
use crate::quiet::Quiet;
use crate::reservation::Reservation;
use crate::slicing::{PrepareError, Routed, Slicing, TRACE_TOO_LARGE};

/// Slicing this much takes a few hundred microseconds, as long as a server thread may be kept from its other connections.
const INLINE_BYTES: usize = 1 << 20;
/// What a Kafka record may hold: 16 MB less room for the broker's bookkeeping. The same in every form of the log, so that
/// moving from one to another changes nothing.
pub const MAX_RECORD_BYTES: usize = 16_000_000 - 16_384;
/// A client that was told nothing for so long has given up by itself.
const ACK_TIMEOUT: Duration = Duration::from_secs(20);
/// When the process stops, what waits for the log may wait so much longer: a log that is away must not use up the time of the end.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Log lines about refused requests, and about cut attributes.
const ERROR_LINES_PER_SECOND: u64 = 10;
const TRUNCATION_LINES_PER_SECOND: u64 = 1;

/// Reason of `tempo_discarded_spans_total`.
const RATE_LIMITED: &str = "rate_limited";

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
    pub(crate) partitions: Arc<dyn Partitions>,
    /// What one record may hold.
    pub(crate) max_record_bytes: usize,
    pub(crate) progress: Option<Progress>,
    pub(crate) clock: Arc<dyn Clock>,
    /// A receiver drains.
    pub(crate) stopping: CancellationToken,
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
            partitions: Arc::clone(&self.partitions),
            shard_size: usize::try_from(limits.ingestion.tenant_shard_size).unwrap_or(usize::MAX),
            max_record_bytes: self.max_record_bytes,
        };
        let prepared = if work.body.len() <= INLINE_BYTES {
            work.run()
        } else {
            let pinned = work.body.len();
            self.compute.run(pinned, move || work.run()).await.map_err(Error::from)?
        };
        let prepared = prepared.map_err(|error| self.unslicable(error, &tenant, spans))?;
        self.metrics.sliced(&tenant, prepared.traces, prepared.truncated, prepared.repaired);
        if self.partitions.only().is_none() {
            self.metrics.divided(&prepared.records_per_partition);
        }
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
            PrepareError::NoActivePartition(nobody) => Error::retry(nobody.to_string()).into(),
            PrepareError::Overloaded(error) => Refusal::Error(log_error(error)),
        }
    }

    /// Resolves when all records are durable and, as far as we can know it, applied.
    async fn append(&self, records: Vec<Routed>, deadline: Deadline) -> Result<(), Error> {
        // All are queued before the first is awaited, in order.
        let appends: Vec<_> = records
            .into_iter()
            .map(|Routed { partition, record, permit }| self.log.append_reserved(partition, record, permit))
            .collect();
        let stopped = async {
            self.stopping.cancelled().await;
            self.clock.sleep(STOP_PATIENCE).await;
        };
        let durable = tokio::select! {
            biased;
            durable = try_join_all(appends) => durable.map_err(log_error)?,
            () = deadline.reached() => return Err(log_error(vivace_log::Error::DeadlineExceeded)),
            () = stopped => return Err(log_error(vivace_log::Error::DeadlineExceeded)),
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
        Log::NotDurable(_) | Log::Io { .. } | Log::BrokerUnavailable { .. } | Log::Closed => Error::retry(text),
        Log::RecordTooLarge { .. } | Log::TooLargeForBroker { .. } => Error::fix_request(text),
        Log::DeadlineExceeded => {
            Error::new(Kind::CheckOutcome, "spans were not confirmed in time; whether they are stored is unknown")
        }
        // An operator's matter, and mended without the sender's help: it may come back with the same spans.
        Log::BrokerRefused { .. } => Error::retry(text),
        Log::TopicReplaced { .. } => Error::retry(format!("{text}; this distributor has to be restarted")),
        Log::OutOfRange { .. }
        | Log::UnknownPartition(_)
        | Log::ForeignSegment { .. }
        | Log::Unreadable { .. }
        | Log::Configuration { .. } => Error::report(text),
    };
    told.with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_log_become_what_the_client_can_do() {
        let after = Duration::from_millis(10);
        let told = log_error(vivace_log::Error::Overloaded { retry_after: after });
        assert_eq!((told.kind(), told.retry_after()), (Kind::Retry, Some(Duration::from_secs(1))));
        assert_eq!(log_error(vivace_log::Error::Closed).kind(), Kind::Retry);
        assert_eq!(log_error(vivace_log::Error::DeadlineExceeded).kind(), Kind::CheckOutcome);
        assert_eq!(log_error(vivace_log::Error::RecordTooLarge { bytes: 2, limit_bytes: 1 }).kind(), Kind::FixRequest);
        let [expected, found] = [1, 2].map(|n| vivace_log::LogId::from_random([n; 16]));
        let told = log_error(vivace_log::Error::TopicReplaced { topic: "t".into(), expected, found });
        assert_eq!(told.kind(), Kind::Retry);
        assert!(told.to_string().ends_with("; this distributor has to be restarted"), "{told}");
    }
}
