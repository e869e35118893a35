//! Names and values of tags.

use std::collections::BTreeMap;
use std::sync::Arc;

use vivace_protocol::vivace::{TagNamesJob, TagNamesReply, TagValuesJob, TagValuesReply};
use vivace_protocol::{TenantId, tempopb};
use vivace_runtime::Deadline;

use super::Planner;
use super::progress::Progress;
use super::sweep::{Done, Launch, Sweep};
use crate::collected::{Bounds, Collected};
use crate::coverage::Covered;
use crate::respond::Refusal;

/// A checked query for tag names or values.
#[derive(Debug, Clone)]
pub(crate) struct TagPlan {
    pub(crate) scope: String,
    pub(crate) tag: String,
    /// Only of spans that meet this, empty for all.
    pub(crate) query: String,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    /// Entries, of names in each scope; 0 for all.
    pub(crate) limit: u32,
    /// Repeats in a row after which the rest is not looked at; 0 for never.
    pub(crate) max_stale: u32,
    /// Whether values of different types are different.
    pub(crate) typed: bool,
}

impl TagPlan {
    fn bounds(&self, planner: &Planner, tenants: &[TenantId]) -> Bounds {
        let size = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        // One tenant without a limit has none; of several the largest counts, as the answer holds them all.
        let bytes = tenants.iter().map(|tenant| planner.limits.max_bytes_per_tag_values_query(tenant));
        let bytes = bytes.max_by_key(|bytes| bytes.wrapping_sub(1)).unwrap_or(0);
        Bounds { entries: size(self.limit), bytes, stale: size(self.max_stale) }
    }
}

/// What all tag queries share.
struct Gathering<R> {
    sweep: Sweep<R>,
    covered: Covered,
    inspected_bytes: u64,
    planner: Arc<Planner>,
    deadline: Deadline,
}

impl<R: Send + 'static> Gathering<R> {
    fn new(
        planner: &Arc<Planner>,
        tenants: &[TenantId],
        window: (u64, u64),
        deadline: Deadline,
        launch: Launch<R>,
    ) -> Self {
        Self {
            sweep: Sweep::new(Arc::clone(planner), tenants, window, deadline, launch),
            covered: Covered::default(),
            inspected_bytes: 0,
            planner: Arc::clone(planner),
            deadline,
        }
    }

    /// The next reply; none at the end.
    async fn next(&mut self, full: bool) -> Result<Option<Result<R, ()>>, Refusal> {
        match self.sweep.next(|_| !full).await {
            Some(Done { result: Ok(reply), .. }) => Ok(Some(Ok(reply))),
            Some(Done { result: Err(status), what, parts }) => {
                let status = match self.planner.judge(status, self.deadline) {
                    Ok(refusal) => return Err(refusal),
                    Err(status) => status,
                };
                self.covered.miss(what, parts, status.message());
                Ok(Some(Err(())))
            }
            None => {
                self.covered.check(self.planner.config.require_complete)?;
                Ok(None)
            }
        }
    }

    fn metrics(&self) -> Option<tempopb::MetadataMetrics> {
        let totals = self.sweep.totals();
        Some(tempopb::MetadataMetrics {
            inspected_bytes: self.inspected_bytes,
            total_jobs: totals.jobs,
            completed_jobs: totals.completed,
            total_blocks: totals.blocks,
            total_block_bytes: totals.block_bytes,
            ..tempopb::MetadataMetrics::default()
        })
    }
}

/// How names are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grouping {
    /// By scope, each with the limit.
    Scopes,
    /// All in one, whose name is empty.
    One,
}

/// A query for tag names on its way. It ends when some scope is full.
pub(crate) struct TagNames {
    gathering: Gathering<TagNamesReply>,
    grouping: Grouping,
    bounds: Bounds,
    scopes: BTreeMap<String, Collected<String>>,
}

impl TagNames {
    /// `known` are names that are there in any case, by scope.
    pub(crate) fn new(
        planner: &Arc<Planner>,
        tenants: &[TenantId],
        plan: TagPlan,
        grouping: Grouping,
        known: &[(&str, &[&str])],
    ) -> Self {
        let bounds = plan.bounds(planner, tenants);
        let window = (plan.start_ns, plan.end_ns);
        // No source knows intrinsics.
        let tenants = if plan.scope == "intrinsic" { &[] } else { tenants };
        let deadline = planner.deadline();
        let launch: Launch<_> = {
            let planner = Arc::clone(planner);
            Box::new(move |tenant, block_ids| {
                let job = TagNamesJob {
                    tenant: tenant.to_string(),
                    scope: plan.scope.clone(),
                    query: plan.query.clone(),
                    start_unix_nano: plan.start_ns,
                    end_unix_nano: plan.end_ns,
                    block_ids,
                    max_per_scope: plan.limit,
                    max_stale: plan.max_stale,
                    max_bytes: planner.config.search.max_result_bytes,
                };
                let (planner, tenant) = (Arc::clone(&planner), tenant.clone());
                Box::pin(async move {
                    let call = || planner.queriers.tag_names.call(job.clone(), deadline);
                    planner.attempt(&tenant, deadline, call).await
                })
            })
        };
        let gathering = Gathering::new(planner, tenants, window, deadline, launch);
        let mut names = Self { gathering, grouping, bounds, scopes: BTreeMap::new() };
        for (scope, tags) in known {
            // What is known never ends the query, and in a scope of its own it is told whole.
            if grouping == Grouping::Scopes {
                names.scopes.insert((*scope).to_owned(), Collected::new(Bounds::default()));
            }
            let set = names.scope(scope);
            tags.iter().for_each(|tag| set.insert((*tag).to_owned(), tag.len()));
        }
        names
    }

    fn scope(&mut self, name: &str) -> &mut Collected<String> {
        let name = if self.grouping == Grouping::One { "" } else { name };
        let bounds = self.bounds;
        self.scopes.entry(name.to_owned()).or_insert_with(|| Collected::new(bounds))
    }

    fn full(&self) -> bool {
        self.scopes.iter().any(|(name, tags)| name != "intrinsic" && tags.is_full())
    }

    fn answer(&mut self, mut take: impl FnMut(&mut Collected<String>) -> Vec<String>) -> tempopb::SearchTagsV2Response {
        let scopes = self.scopes.iter_mut().map(|(name, tags)| (name.clone(), take(tags)));
        let scopes = scopes.filter(|(_, tags)| !tags.is_empty());
        tempopb::SearchTagsV2Response {
            scopes: scopes.map(|(name, tags)| tempopb::SearchTagsV2Scope { name, tags }).collect(),
            metrics: self.gathering.metrics(),
        }
    }
}

impl Progress for TagNames {
    type Answer = tempopb::SearchTagsV2Response;

    async fn advance(&mut self) -> Result<bool, Refusal> {
        let full = self.full();
        let Some(reply) = self.gathering.next(full).await? else { return Ok(false) };
        if let Ok(reply) = reply {
            self.gathering.inspected_bytes += reply.inspected_bytes;
            self.gathering.covered.add(reply.coverage);
            for scope in reply.scopes {
                let set = self.scope(&scope.name);
                for tag in scope.tags {
                    let bytes = tag.len();
                    set.insert(tag, bytes);
                }
            }
            let bytes = self.scopes.values().map(Collected::bytes).sum();
            self.gathering.planner.check_result(bytes)?;
        }
        Ok(true)
    }

    fn changes(&mut self) -> Self::Answer {
        self.answer(Collected::take_fresh)
    }

    fn finish(&mut self) -> Self::Answer {
        self.answer(Collected::take_all)
    }

    fn covered(&self) -> &Covered {
        &self.gathering.covered
    }
}

/// A query for the values of a tag on its way. It ends when the set is full.
pub(crate) struct TagValues {
    gathering: Gathering<TagValuesReply>,
    values: Collected<(String, String)>,
    typed: bool,
}

impl TagValues {
    pub(crate) fn new(planner: &Arc<Planner>, tenants: &[TenantId], plan: TagPlan) -> Self {
        let values = Collected::new(plan.bounds(planner, tenants));
        let typed = plan.typed;
        let window = (plan.start_ns, plan.end_ns);
        let deadline = planner.deadline();
        let launch: Launch<_> = {
            let planner = Arc::clone(planner);
            Box::new(move |tenant, block_ids| {
                let job = TagValuesJob {
                    tenant: tenant.to_string(),
                    tag: plan.tag.clone(),
                    query: plan.query.clone(),
                    start_unix_nano: plan.start_ns,
                    end_unix_nano: plan.end_ns,
                    block_ids,
                    max_values: plan.limit,
                    max_stale: plan.max_stale,
                    max_bytes: planner.config.search.max_result_bytes,
                };
                let (planner, tenant) = (Arc::clone(&planner), tenant.clone());
                Box::pin(async move {
                    let call = || planner.queriers.tag_values.call(job.clone(), deadline);
                    planner.attempt(&tenant, deadline, call).await
                })
            })
        };
        Self { gathering: Gathering::new(planner, tenants, window, deadline, launch), values, typed }
    }

    /// Values that are known without asking anybody.
    pub(crate) fn known(planner: &Arc<Planner>, plan: TagPlan, values: &[&str]) -> Self {
        let mut known = Self::new(planner, &[], plan);
        values.iter().for_each(|value| known.values.insert((String::new(), (*value).to_owned()), value.len()));
        known
    }

    fn answer(&self, values: Vec<(String, String)>) -> tempopb::SearchTagValuesV2Response {
        let tag_values = values.into_iter().map(|(kind, value)| tempopb::TagValue { r#type: kind, value }).collect();
        tempopb::SearchTagValuesV2Response { tag_values, metrics: self.gathering.metrics() }
    }
}

impl Progress for TagValues {
    type Answer = tempopb::SearchTagValuesV2Response;

    async fn advance(&mut self) -> Result<bool, Refusal> {
        let Some(reply) = self.gathering.next(self.values.is_full()).await? else { return Ok(false) };
        if let Ok(reply) = reply {
            self.gathering.inspected_bytes += reply.inspected_bytes;
            self.gathering.covered.add(reply.coverage);
            for value in reply.values {
                let kind = if self.typed { value.r#type } else { String::new() };
                let bytes = kind.len() + value.value.len();
                self.values.insert((kind, value.value), bytes);
            }
            self.gathering.planner.check_result(self.values.bytes())?;
        }
        Ok(true)
    }

    fn changes(&mut self) -> Self::Answer {
        let values = self.values.take_fresh();
        self.answer(values)
    }

    fn finish(&mut self) -> Self::Answer {
        let values = self.values.take_all();
        self.answer(values)
    }

    fn covered(&self) -> &Covered {
        &self.gathering.covered
    }
}
