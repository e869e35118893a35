//! What is kept of a query beside its answer, for who asks how it was run.

use std::sync::Arc;
use std::time::Instant;

use vivace_protocol::TenantId;
use vivace_protocol::vivace::Profile;
use vivace_runtime::Deadline;
use vivace_storage::profile;
use vivace_traceql::{FetchSpec, LoadSpec};

use super::Planner;
use super::sweep::Totals;
use crate::coverage::Covered;
use crate::explain::Explained;
use crate::respond::Refusal;

/// See the module. Costs nothing when nobody asks: jobs send no notes then.
pub(super) struct Notes {
    planner: Arc<Planner>,
    began: Instant,
    deadline: Deadline,
    profile: Profile,
}

/// What a query knows of itself.
pub(super) struct Known<'a> {
    pub(super) kind: &'static str,
    /// In normal form.
    pub(super) query: String,
    pub(super) window: (u64, u64),
    pub(super) step_ns: Option<u64>,
    pub(super) fetches: Vec<FetchSpec>,
    pub(super) output: Option<LoadSpec>,
    pub(super) totals: Totals,
    pub(super) spans: u64,
    pub(super) traces: u64,
    pub(super) covered: &'a Covered,
}

impl Notes {
    pub(super) fn new(planner: &Arc<Planner>, deadline: Deadline) -> Self {
        Self { planner: Arc::clone(planner), began: planner.clock.now(), deadline, profile: Profile::default() }
    }

    pub(super) fn take(&mut self, profile: Option<Profile>) {
        if let Some(more) = profile {
            profile::add(&mut self.profile, more);
        }
    }

    pub(super) async fn explain(&self, tenants: &[TenantId], known: Known<'_>) -> Result<serde_json::Value, Refusal> {
        let elapsed = self.planner.clock.now().saturating_duration_since(self.began);
        let listed = self.planner.listed(tenants, self.deadline).await?;
        let explained = Explained {
            kind: known.kind,
            query: known.query,
            window: known.window,
            step_ns: known.step_ns,
            fetches: known.fetches,
            output: known.output,
            listed,
            chosen: known.totals.blocks.into(),
            jobs: (known.totals.jobs, known.totals.completed),
            spans: known.spans,
            traces: known.traces,
            covered: known.covered,
            profile: &self.profile,
            elapsed,
        };
        Ok(explained.json())
    }
}
