//! Searches.

use std::sync::Arc;

use futures::StreamExt;
use tonic::Status;
use vivace_protocol::vivace::{SearchBatch, SearchJob};
use vivace_protocol::{TenantId, tempopb};
use vivace_runtime::Deadline;
use vivace_traceql::{Query, SearchPlan as Compiled};

use super::Planner;
use super::notes::{Known, Notes};
use super::progress::Progress;
use super::sweep::{Done, Launch, Sweep};
use crate::coverage::Covered;
use crate::merge::Merge;
use crate::respond::Refusal;

/// A checked search.
#[derive(Debug, Clone)]
pub(crate) struct SearchPlan {
    pub(crate) query: String,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) limit: u32,
    pub(crate) spans_per_span_set: u32,
    /// Tell of a trace only when no newer one can follow. The answer is the newest traces with and without.
    pub(crate) most_recent: bool,
    /// Answer without spans.
    pub(crate) metadata_only: bool,
    /// Keep notes of how it is run.
    pub(crate) explain: bool,
}

/// A search on its way. It ends as soon as nothing older can change the answer.
pub(crate) struct Search {
    sweep: Sweep<Vec<SearchBatch>>,
    merge: Merge,
    covered: Covered,
    most_recent: bool,
    metadata_only: bool,
    planner: Arc<Planner>,
    deadline: Deadline,
    pad_ids: bool,
    notes: Notes,
    query: String,
    window: (u64, u64),
}

impl Search {
    pub(crate) fn new(planner: &Arc<Planner>, tenants: &[TenantId], plan: SearchPlan) -> Self {
        let deadline = planner.deadline();
        let (window, limit) = ((plan.start_ns, plan.end_ns), plan.limit);
        let (most_recent, metadata_only) = (plan.most_recent, plan.metadata_only);
        let query = plan.query.clone();
        let launch: Launch<_> = {
            let planner = Arc::clone(planner);
            Box::new(move |tenant, block_ids| {
                let job = SearchJob {
                    tenant: tenant.to_string(),
                    query: plan.query.clone(),
                    start_unix_nano: plan.start_ns,
                    end_unix_nano: plan.end_ns,
                    limit: plan.limit,
                    spans_per_span_set: plan.spans_per_span_set,
                    block_ids,
                    explain: plan.explain,
                    max_bytes: planner.config.search.max_result_bytes,
                };
                let (planner, tenant) = (Arc::clone(&planner), tenant.clone());
                Box::pin(async move { planner.run_search(&tenant, job, deadline).await })
            })
        };
        Self {
            sweep: Sweep::new(Arc::clone(planner), tenants, window, deadline, launch).selecting(planner.for_newest()),
            merge: Merge::new(limit),
            covered: Covered::default(),
            most_recent,
            metadata_only,
            planner: Arc::clone(planner),
            deadline,
            pad_ids: tenants.iter().any(|tenant| planner.limits.left_pad_trace_ids(tenant)),
            notes: Notes::new(planner, deadline),
            query,
            window,
        }
    }

    /// How the search was run, once it has ended.
    pub(crate) async fn explain(&mut self, tenants: &[TenantId]) -> Result<serde_json::Value, Refusal> {
        let invalid = |error: &dyn std::fmt::Display| Refusal::bad(format!("invalid TraceQL query: {error}"));
        let query = Query::parse(&self.query).map_err(|error| invalid(&error))?;
        let plan = Compiled::new(&query).map_err(|error| invalid(&error))?;
        let known = Known {
            kind: "search",
            query: query.to_string(),
            window: self.window,
            step_ns: None,
            fetches: vec![plan.spec(None)],
            output: Some(plan.output().clone()),
            totals: self.sweep.totals(),
            spans: self.merge.metrics.inspected_spans,
            traces: self.merge.metrics.inspected_traces.into(),
            covered: &self.covered,
        };
        self.notes.explain(tenants, known).await
    }

    fn answer(&self, mut traces: Vec<tempopb::TraceSearchMetadata>) -> tempopb::SearchResponse {
        for trace in &mut traces {
            trace.trace_id = spelled(&trace.trace_id, self.pad_ids);
            if self.metadata_only {
                trace.span_set = None;
                trace.span_sets.clear();
            }
        }
        let totals = self.sweep.totals();
        let metrics = tempopb::SearchMetrics {
            total_blocks: totals.blocks,
            total_jobs: totals.jobs,
            completed_jobs: totals.completed,
            total_block_bytes: totals.block_bytes,
            ..self.merge.metrics.clone()
        };
        tempopb::SearchResponse { traces, metrics: Some(metrics) }
    }

    fn take(&mut self, done: Done<Vec<SearchBatch>>) -> Result<(), Refusal> {
        match done.result {
            Ok(batches) => {
                for batch in batches {
                    self.merge.add(batch.traces);
                    self.planner.check_result(self.merge.bytes())?;
                    self.merge.count(&batch.metrics.unwrap_or_default());
                    self.covered.add(batch.coverage);
                    self.notes.take(batch.profile);
                }
            }
            Err(status) => match self.planner.judge(status, self.deadline) {
                Ok(refusal) => return Err(refusal),
                Err(status) => self.covered.miss(done.what, done.parts, status.message()),
            },
        }
        Ok(())
    }
}

impl Progress for Search {
    type Answer = tempopb::SearchResponse;

    async fn advance(&mut self) -> Result<bool, Refusal> {
        let merge = &self.merge;
        match self.sweep.next(|newest| merge.wants(newest)).await {
            Some(done) => {
                self.take(done)?;
                Ok(true)
            }
            None => {
                self.covered.check(self.planner.config.require_complete)?;
                Ok(false)
            }
        }
    }

    fn changes(&mut self) -> tempopb::SearchResponse {
        let from = if self.most_recent { self.sweep.outstanding_ns() } else { 0 };
        let traces = self.merge.changes(from);
        self.answer(traces)
    }

    fn finish(&mut self) -> tempopb::SearchResponse {
        let traces = self.merge.finish();
        self.answer(traces)
    }

    fn covered(&self) -> &Covered {
        &self.covered
    }
}

impl Planner {
    async fn run_search(
        &self,
        tenant: &TenantId,
        job: SearchJob,
        deadline: Deadline,
    ) -> Result<Vec<SearchBatch>, Status> {
        self.attempt(tenant, deadline, || async {
            let mut batches = self.queriers.search.call(job.clone(), deadline).await?;
            let mut all = Vec::new();
            while let Some(batch) = batches.next().await {
                all.push(batch?);
            }
            Ok(all)
        })
        .await
    }
}

/// A trace id as search answers show it: without leading zeros, or padded to 32 digits.
fn spelled(id: &str, pad: bool) -> String {
    if pad { format!("{id:0>32}") } else { id.trim_start_matches('0').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_without_leading_zeros_or_padded() {
        assert_eq!(spelled("000000000000000010aa000000000001", false), "10aa000000000001");
        assert_eq!(spelled("10aa000000000001", true), "000000000000000010aa000000000001");
    }
}
