//! Metrics queries: contributions of recent data and of blocks are added up as they arrive; series are made of the sum.
//!
//! Recent data is asked first and says which blocks hold what it has answered; these are not read. The lists of blocks are
//! asked for afterwards, so that what left recent data meanwhile is on them. So a span counts once.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::StatusCode;
use parking_lot::Mutex;
use tonic::{Code, Status};
use uuid::Uuid;
use vivace_protocol::vivace::{MetricsBatch, MetricsJob};
use vivace_protocol::{TenantId, tempopb};
use vivace_runtime::Deadline;
use vivace_runtime::config::GoDuration;
use vivace_storage::query as engine;
use vivace_traceql::{MetricsPartial, MetricsPlan, MetricsRequest, Query};

use super::notes::{Known, Notes};
use super::progress::Progress;
use super::sweep::{Done, Launch, Sweep};
use super::{DEFAULT_TIMEOUT, Planner, RecentData, refused};
use crate::coverage::Covered;
use crate::respond::Refusal;

/// Jobs may be on their way so much longer than the query.
const GRACE: Duration = Duration::from_millis(100);
/// Bytes that a group of cells takes beside its values, about.
const GROUP_BYTES: usize = 128;

/// A metrics query on its way.
pub(crate) struct Metrics {
    text: String,
    sweep: Sweep<Vec<MetricsBatch>>,
    /// Blocks that recent data has answered for.
    held: Arc<Mutex<Vec<String>>>,
    plan: MetricsPlan,
    sum: MetricsPartial,
    metrics: tempopb::SearchMetrics,
    covered: Covered,
    notes: Notes,
    /// Intervals that begin at or after this were told.
    told_ns: u64,
    deadline: Deadline,
    limits: Budget,
    require_complete: bool,
}

/// What one query may take.
#[derive(Debug, Clone, Copy)]
struct Budget {
    time: Duration,
    /// Of the series, at the frontend; 0 is any.
    bytes: usize,
}

impl Metrics {
    /// # Errors
    /// The query computes no series that the engine knows.
    pub(crate) fn new(
        planner: &Arc<Planner>,
        tenants: &[TenantId],
        query: &Query,
        request: &MetricsRequest,
        explain: bool,
    ) -> Result<Self, Refusal> {
        let plan =
            MetricsPlan::new(query, request).map_err(|error| Refusal::bad(format!("compiling query: {error}")))?;
        let (limits, text) = (planner.budget(), query.to_string());
        // Where `api_timeout` is set, whoever asked answers by it in Tempo's words; this is for what goes on nevertheless.
        let deadline = Deadline::after(limits.time + GRACE);
        let request = *request;
        let settled = planner.settled_ns();
        let (young, old) = shares(&request, settled);
        let held = Arc::new(Mutex::new(Vec::new()));
        let launch: Launch<_> = {
            let planner = Arc::clone(planner);
            let (text, held) = (text.clone(), Arc::clone(&held));
            Box::new(move |tenant, block_ids| {
                let held_block_ids = if block_ids.is_empty() { Vec::new() } else { held.lock().clone() };
                let (after_unix_nano, until_unix_nano) = if block_ids.is_empty() { young } else { old };
                let job = MetricsJob {
                    after_unix_nano,
                    until_unix_nano,
                    tenant: tenant.to_string(),
                    query: text.clone(),
                    start_unix_nano: request.start_ns,
                    end_unix_nano: request.end_ns,
                    step_nanos: request.step_ns,
                    instant: request.instant,
                    exemplars: request.exemplars,
                    max_series: u32::try_from(request.max_series).unwrap_or(u32::MAX),
                    block_ids,
                    explain,
                    held_block_ids,
                };
                let (planner, tenant) = (Arc::clone(&planner), tenant.clone());
                Box::pin(async move { planner.run_metrics(&tenant, job, deadline).await })
            })
        };
        // What no span can match is known without asking anybody.
        let tenants = if plan.is_empty() { &[] } else { tenants };
        // What recent data answers needs no block.
        let window = (request.start_ns, request.end_ns.min(settled));
        let sweep = Sweep::new(Arc::clone(planner), tenants, window, deadline, launch);
        Ok(Self {
            text,
            sweep: sweep.selecting(planner.for_metrics()),
            held,
            sum: plan.partial(),
            plan,
            metrics: tempopb::SearchMetrics::default(),
            covered: Covered::default(),
            notes: Notes::new(planner, deadline),
            told_ns: u64::MAX,
            deadline,
            limits,
            require_complete: planner.config.require_complete,
        })
    }

    /// How the query was run, once it has ended.
    pub(crate) async fn explain(&mut self, tenants: &[TenantId]) -> Result<serde_json::Value, Refusal> {
        let request = self.plan.request();
        let known = Known {
            kind: "metrics",
            query: self.text.clone(),
            window: (request.start_ns, request.end_ns),
            step_ns: Some(request.step_ns),
            fetches: self.plan.fetches(),
            output: None,
            totals: self.sweep.totals(),
            spans: self.metrics.inspected_spans,
            traces: self.metrics.inspected_traces.into(),
            covered: &self.covered,
        };
        self.notes.explain(tenants, known).await
    }

    fn take(&mut self, done: Done<Vec<MetricsBatch>>) -> Result<(), Refusal> {
        let batches = match done.result {
            Ok(batches) => batches,
            Err(status) if status.code() == Code::DeadlineExceeded && self.deadline.is_over() => {
                return Err(self.limits.too_slow());
            }
            Err(status) if status.code() == Code::OutOfRange => return Err(too_large(status)),
            Err(status) => match refused(status) {
                Ok(refusal) => return Err(refusal),
                Err(status) => {
                    self.covered.miss(done.what, done.parts, status.message());
                    return Ok(());
                }
            },
        };
        for batch in batches {
            for block in &batch.held_block_ids {
                let block = Uuid::parse_str(block).map_err(|error| {
                    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("id of a block of recent data: {error}"))
                })?;
                self.sweep.selection().hold(block);
            }
            self.held.lock().extend(batch.held_block_ids);
            if let Some(partial) = batch.partial {
                engine::merge_metrics(&self.plan, &mut self.sum, partial).map_err(too_large)?;
                self.limits.check(&self.sum)?;
            }
            let metrics = batch.metrics.unwrap_or_default();
            self.metrics.inspected_traces = self.metrics.inspected_traces.saturating_add(metrics.inspected_traces);
            self.metrics.inspected_bytes += metrics.inspected_bytes;
            self.metrics.inspected_spans += metrics.inspected_spans;
            self.covered.add(batch.coverage);
            self.notes.take(batch.profile);
        }
        Ok(())
    }

    fn metrics(&self) -> tempopb::SearchMetrics {
        let totals = self.sweep.totals();
        tempopb::SearchMetrics {
            total_blocks: totals.blocks,
            total_jobs: totals.jobs,
            completed_jobs: totals.completed,
            total_block_bytes: totals.block_bytes,
            ..self.metrics.clone()
        }
    }

    fn answer(&self, partial: MetricsPartial) -> tempopb::QueryRangeResponse {
        let mut answer = engine::range_response(self.plan.finish(partial));
        answer.metrics = Some(self.metrics());
        if !self.covered.complete() {
            answer.status = tempopb::PartialStatus::Partial.into();
            let told = std::mem::take(&mut answer.message);
            let parts = [told, self.covered.message()];
            answer.message = parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("; ");
        }
        answer
    }
}

impl Progress for Metrics {
    type Answer = tempopb::QueryRangeResponse;

    async fn advance(&mut self) -> Result<bool, Refusal> {
        match self.sweep.next(|_newest| true).await {
            Some(done) => {
                self.take(done)?;
                Ok(true)
            }
            None => {
                self.covered.check(self.require_complete)?;
                Ok(false)
            }
        }
    }

    /// The samples and exemplars of the intervals that nothing can change any more and that were not told yet.
    fn changes(&mut self) -> tempopb::QueryRangeResponse {
        let (request, from) = (*self.plan.request(), self.sweep.outstanding_ns());
        // An instant query has one interval, which is complete at the end.
        if request.instant || from >= self.told_ns {
            return tempopb::QueryRangeResponse { metrics: Some(self.metrics()), ..Default::default() };
        }
        let mut answer = self.answer(self.sum.clone());
        let told = std::mem::replace(&mut self.told_ns, from);
        narrow(&mut answer, request.step_ns, from, told);
        // Only the whole answer is known to be complete or not.
        (answer.status, answer.message) = (0, String::new());
        answer
    }

    fn finish(&mut self) -> tempopb::QueryRangeResponse {
        let empty = self.plan.partial();
        let sum = std::mem::replace(&mut self.sum, empty);
        self.answer(sum)
    }

    fn covered(&self) -> &Covered {
        &self.covered
    }
}

/// From where to where spans start that recent data counts, and that blocks do, after the first instant and up to the second; 0 and
/// 0 is all of the range. `settled` is the youngest start that blocks are asked for.
fn shares(request: &MetricsRequest, settled: u64) -> ((u64, u64), (u64, u64)) {
    if settled == u64::MAX {
        return ((0, 0), (0, 0));
    }
    let (start, end) = (request.start_ns, request.end_ns);
    // An empty share must not look like all of the range.
    let until = settled.clamp(start.max(1), end.max(1));
    ((until, end.max(1)), (start, until))
}

/// Leaves of an answer the samples of intervals that begin in `from..until` and the exemplars within them.
fn narrow(answer: &mut tempopb::QueryRangeResponse, step_ns: u64, from: u64, until: u64) {
    let millis = |ns: u64| i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX);
    // A sample carries the end of its interval.
    let (first, end) = (millis(from.saturating_add(step_ns)), millis(until.saturating_add(step_ns)));
    let (start, last) = (millis(from), millis(until));
    for series in &mut answer.series {
        series.samples.retain(|sample| sample.timestamp_ms >= first && sample.timestamp_ms < end);
        series.exemplars.retain(|exemplar| exemplar.timestamp_ms >= start && exemplar.timestamp_ms < last);
    }
    answer.series.retain(|series| !series.samples.is_empty());
}

/// The same as the answer of an instant query: of each series its only value.
pub(crate) fn at_once(answer: tempopb::QueryRangeResponse) -> tempopb::QueryInstantResponse {
    let series = answer.series.into_iter().filter_map(|series| {
        let value = series.samples.first()?.value;
        Some(tempopb::InstantSeries { labels: series.labels, value })
    });
    tempopb::QueryInstantResponse {
        series: series.collect(),
        metrics: answer.metrics,
        status: answer.status,
        message: answer.message,
    }
}

impl Budget {
    fn too_slow(self) -> Refusal {
        let (limit, default) = (GoDuration::from(self.time), GoDuration::from(DEFAULT_TIMEOUT));
        Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!(
                "the query took longer than {limit} (limit query_frontend.api_timeout, where 0 means {default}): use a \
                 shorter range, a more selective filter or fewer by() fields"
            ),
        )
    }

    fn check(self, sum: &MetricsPartial) -> Result<(), Refusal> {
        if self.bytes == 0 || size(sum) <= self.bytes {
            return Ok(());
        }
        Err(Refusal::bad(format!(
            "the series of the query take more than {} bytes (limit query_frontend.metrics.max_series_bytes): use fewer by() \
             fields, a larger step, a shorter range or maxSeries",
            self.bytes
        )))
    }
}

/// Series too large for a job are too large for the query: the client has to change it. (RESOURCE_EXHAUSTED says that a queue is full,
/// here, at a querier or at a live-store, and is told as 429: the same query may be answered later.)
fn too_large(status: Status) -> Refusal {
    match status.code() {
        Code::OutOfRange => Refusal::bad(status.message()),
        _ => status.into(),
    }
}

/// About how much memory the sum takes.
fn size(sum: &MetricsPartial) -> usize {
    let groups = sum.leaves().iter().flat_map(|leaf| leaf.groups());
    groups
        .map(|group| {
            let cells = group.cells.iter().map(|run| run.counts.len() + run.values.len() + run.errors.len());
            GROUP_BYTES + 8 * cells.sum::<usize>()
        })
        .sum()
}

impl Planner {
    /// The youngest start of a span that blocks are asked for.
    fn settled_ns(&self) -> u64 {
        match self.recent {
            RecentData::HandedOver => u64::MAX,
            RecentData::Shared => {
                let age: Duration = self.config.metrics.query_backend_after.into();
                let settled = self.clock.unix().saturating_sub(age);
                u64::try_from(settled.as_nanos()).unwrap_or(u64::MAX - 1)
            }
        }
    }

    fn budget(&self) -> Budget {
        let time: Duration = self.config.api_timeout.into();
        Budget {
            time: if time.is_zero() { DEFAULT_TIMEOUT } else { time },
            bytes: usize::try_from(self.config.metrics.max_series_bytes).unwrap_or(usize::MAX),
        }
    }

    async fn run_metrics(
        &self,
        tenant: &TenantId,
        job: MetricsJob,
        deadline: Deadline,
    ) -> Result<Vec<MetricsBatch>, Status> {
        self.attempt(tenant, deadline, || async {
            let mut batches = self.queriers.metrics.call(job.clone(), deadline).await?;
            let mut all = Vec::new();
            while let Some(batch) = batches.next().await {
                all.push(batch?);
            }
            Ok(all)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vivace_protocol::tempopb::{Exemplar, QueryRangeResponse, Sample, TimeSeries};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Ten intervals of a second each, with an exemplar in the middle of each.
    fn whole() -> QueryRangeResponse {
        let at = |n: i64| (100 + n) * 1000;
        let series = TimeSeries {
            samples: (1..=10).map(|n| Sample { value: 1.0, timestamp_ms: at(n) }).collect(),
            exemplars: (0..10).map(|n| Exemplar { timestamp_ms: at(n) + 500, ..Exemplar::default() }).collect(),
            ..TimeSeries::default()
        };
        QueryRangeResponse { series: vec![series], ..QueryRangeResponse::default() }
    }

    proptest! {
        #[test]
        fn windows_from_the_newest_on_tell_every_sample_and_exemplar_once(mut cuts in prop::collection::vec(95_000_u64..115_000, 0..5)) {
            cuts.sort_unstable_by(|a, b| b.cmp(a));
            let mut until = u64::MAX;
            let (mut samples, mut exemplars) = (Vec::new(), Vec::new());
            for from in cuts.into_iter().map(|millis| millis * 1_000_000).chain([0]) {
                let mut told = whole();
                narrow(&mut told, SECOND, from, until);
                for series in told.series {
                    // What begins before the window may still change.
                    prop_assert!(series.samples.iter().all(|s| s.timestamp_ms * 1_000_000 >= i64::try_from(from).unwrap()));
                    samples.extend(series.samples.iter().map(|sample| sample.timestamp_ms));
                    exemplars.extend(series.exemplars.iter().map(|exemplar| exemplar.timestamp_ms));
                }
                until = from;
            }
            samples.sort_unstable();
            prop_assert_eq!(samples, (1..=10).map(|n| (100 + n) * 1000).collect::<Vec<i64>>());
            prop_assert!(exemplars.len() <= 10);
        }
    }

    #[test]
    fn an_instant_answer_has_the_only_value_of_each_series() {
        let range = whole();
        assert_eq!(at_once(range).series[0].value, 1.0);
    }
}
