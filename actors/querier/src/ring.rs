//! Recent data in several live-stores: every partition is asked, one owner of each.
//!
//! ```text
//! question ──> partitions of the ring ──> order of owners ──> turns ──> pool of channels ──> live-stores
//!                     (rules)                (rules)         (rules)
//! ```
//!
//! An owner that fails, or says that its answer is not whole, gives the turn to the next; one that is slow gets company after
//! `querier.partition_ring.hedging_delay`. What no owner of a partition answers is a skipped source with the names of the owners
//! and their reasons, never an error of the question.

mod ask;
mod find;
mod order;
mod pool;
mod settings;
#[cfg(test)]
mod tests;
mod turns;
mod upkeep;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::{self, BoxStream, FuturesUnordered};
use parking_lot::Mutex;
use tonic::Status;
use vivace_protocol::vivace::{
    Coverage, FindTraceBatch, FindTraceRequest, MetricsBatch, MetricsJob, SearchBatch, SearchJob, Skipped, TagNamesJob,
    TagNamesReply, TagValuesJob, TagValuesReply,
};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Clock, Deadline, Rng};
use vivace_storage::query as engine;

use self::ask::{Asker, Outcome};
pub use self::settings::RingSettings;
use self::turns::Turns;
pub(crate) use self::upkeep::Upkeep;
use crate::live_stores::{LiveStores, Partition};
use crate::metrics::RingMetrics;

/// The router. Clones are one.
#[derive(Clone)]
pub(crate) struct Ring {
    pub(crate) stores: Arc<dyn LiveStores>,
    asker: Asker,
    rng: Arc<Mutex<Rng>>,
    /// Until then an empty ring is one that this process has not heard of yet.
    news_due: Instant,
}

/// A process hears of the ring within moments of its start; after this long it has, or there is none.
const NEWS: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// A partition that is to be asked.
pub(super) struct Plan {
    what: String,
    turns: Turns,
}

impl Ring {
    pub(crate) fn new(
        stores: Arc<dyn LiveStores>,
        settings: RingSettings,
        clock: Arc<dyn Clock>,
        rng: Rng,
        registry: &Registry,
    ) -> Self {
        let (metrics, news_due) = (RingMetrics::register(registry), clock.now() + NEWS);
        Self { stores, asker: Asker::new(settings, clock, metrics), rng: Arc::new(Mutex::new(rng)), news_due }
    }

    /// Waits until this process has heard of the ring, if it has just started: a querier that is new must not answer that
    /// nobody is there.
    pub(crate) async fn heard(&self) {
        while self.stores.partitions().is_empty() && self.asker.clock.now() < self.news_due {
            self.asker.clock.sleep(LOOK).await;
        }
    }

    pub(crate) fn upkeep(&self) -> Upkeep {
        Upkeep::new(Arc::clone(&self.stores), &self.asker)
    }

    /// Whom to ask about each partition, and what cannot be asked at all.
    fn plans(&self) -> (Vec<Plan>, Coverage) {
        let partitions = self.stores.partitions();
        if partitions.is_empty() {
            let reason = "the partition ring is empty: no live-store has joined, or this process has not heard of one";
            return (Vec::new(), missed("live-stores", reason));
        }
        let now = i64::try_from(self.asker.clock.unix().as_secs()).unwrap_or(i64::MAX);
        let settings = &self.asker.settings;
        let holds_data = |partition: &Partition| order::holds_data(partition, now, settings.settled_after);
        let mut rng = self.rng.lock();
        let plan = |partition: Partition| Plan {
            what: format!("partition {}", partition.id),
            turns: Turns::new(order::order(&partition, &settings.preferred_zone, &mut rng), settings.one_at_a_time),
        };
        (partitions.into_iter().filter(holds_data).map(plan).collect(), Coverage::default())
    }

    /// The pieces of a trace, with their coverage in messages that add up. No wait for an owner takes longer than `patience`.
    pub(crate) fn find(&self, request: &FindTraceRequest, patience: Duration) -> BoxStream<'static, FindTraceBatch> {
        let (plans, coverage) = self.plans();
        let head = FindTraceBatch { coverage: Some(coverage), ..FindTraceBatch::default() };
        let finds = plans.into_iter().map(|plan| find::find(self.asker.clone(), plan, request.clone(), patience));
        stream::iter([head]).chain(stream::select_all(finds)).boxed()
    }

    /// # Errors
    /// The query is wrong.
    pub(crate) fn search(
        &self,
        job: &SearchJob,
        deadline: Deadline,
    ) -> BoxStream<'static, Result<SearchBatch, Status>> {
        let (plans, coverage) = self.plans();
        let head = SearchBatch { coverage: Some(coverage), ..SearchBatch::default() };
        let asked: FuturesUnordered<_> = plans
            .into_iter()
            .map(|Plan { what, mut turns }| {
                let (asker, job) = (self.asker.clone(), job.clone());
                async move {
                    let ask = move |store: crate::LiveStore| {
                        let job = job.clone();
                        async move { all(store.search.call(job, deadline).await?).await }
                    };
                    let missing =
                        |batches: &Vec<SearchBatch>| lacks(batches.iter().map(|batch| batch.coverage.as_ref()));
                    let outcome = asker.ask(&mut turns, deadline, ask, missing).await;
                    let (batches, coverage) = settle(&what, outcome)?;
                    let strip = |batch: SearchBatch| SearchBatch { coverage: None, ..batch };
                    let told = SearchBatch { coverage: Some(coverage), ..SearchBatch::default() };
                    Ok(batches.unwrap_or_default().into_iter().map(strip).chain([told]).collect::<Vec<_>>())
                }
            })
            .collect();
        stream::iter([Ok(head)]).chain(asked.flat_map(|answer| stream::iter(spread(answer)))).boxed()
    }

    /// # Errors
    /// The query is wrong, or over its budget.
    pub(crate) fn metrics(
        &self,
        job: &MetricsJob,
        deadline: Deadline,
    ) -> BoxStream<'static, Result<MetricsBatch, Status>> {
        let (plans, coverage) = self.plans();
        let head = MetricsBatch { coverage: Some(coverage), ..MetricsBatch::default() };
        let asked: FuturesUnordered<_> = plans
            .into_iter()
            .map(|Plan { what, mut turns }| {
                let (asker, job) = (self.asker.clone(), job.clone());
                async move {
                    let ask = move |store: crate::LiveStore| {
                        let job = job.clone();
                        async move { all(store.metrics.call(job, deadline).await?).await }
                    };
                    let missing =
                        |batches: &Vec<MetricsBatch>| lacks(batches.iter().map(|batch| batch.coverage.as_ref()));
                    // The answer of one owner is taken whole or not at all: spans would count twice.
                    let outcome = asker.ask(&mut turns, deadline, ask, missing).await;
                    let (batches, coverage) = settle(&what, outcome)?;
                    let strip = |batch: MetricsBatch| MetricsBatch { coverage: None, ..batch };
                    let told = MetricsBatch { coverage: Some(coverage), ..MetricsBatch::default() };
                    Ok(batches.unwrap_or_default().into_iter().map(strip).chain([told]).collect::<Vec<_>>())
                }
            })
            .collect();
        stream::iter([Ok(head)]).chain(asked.flat_map(|answer| stream::iter(spread(answer)))).boxed()
    }

    /// # Errors
    /// The query is wrong.
    pub(crate) async fn tag_names(&self, job: &TagNamesJob, deadline: Deadline) -> Result<TagNamesReply, Status> {
        let (plans, mut coverage) = self.plans();
        let mut asked: FuturesUnordered<_> = plans
            .into_iter()
            .map(|Plan { what, mut turns }| {
                let (asker, job) = (self.asker.clone(), job.clone());
                async move {
                    let ask = move |store: crate::LiveStore| {
                        let job = job.clone();
                        async move { store.tag_names.call(job, deadline).await }
                    };
                    let missing = |reply: &TagNamesReply| lacks([reply.coverage.as_ref()]);
                    settle(&what, asker.ask(&mut turns, deadline, ask, missing).await)
                }
            })
            .collect();
        let mut replies = Vec::new();
        while let Some(answer) = asked.next().await {
            let (reply, part) = answer?;
            add(&mut coverage, part);
            replies.extend(reply);
        }
        let mut reply = engine::merge_tag_names(replies, job.max_per_scope);
        reply.coverage = Some(coverage);
        Ok(reply)
    }

    /// # Errors
    /// The query is wrong.
    pub(crate) async fn tag_values(&self, job: &TagValuesJob, deadline: Deadline) -> Result<TagValuesReply, Status> {
        let (plans, mut coverage) = self.plans();
        let mut asked: FuturesUnordered<_> = plans
            .into_iter()
            .map(|Plan { what, mut turns }| {
                let (asker, job) = (self.asker.clone(), job.clone());
                async move {
                    let ask = move |store: crate::LiveStore| {
                        let job = job.clone();
                        async move { store.tag_values.call(job, deadline).await }
                    };
                    let missing = |reply: &TagValuesReply| lacks([reply.coverage.as_ref()]);
                    settle(&what, asker.ask(&mut turns, deadline, ask, missing).await)
                }
            })
            .collect();
        let mut replies = Vec::new();
        while let Some(answer) = asked.next().await {
            let (reply, part) = answer?;
            add(&mut coverage, part);
            replies.extend(reply);
        }
        let mut reply = engine::merge_tag_values(replies, job.max_values);
        reply.coverage = Some(coverage);
        Ok(reply)
    }
}

/// All of a stream; its first error is the error of the whole.
async fn all<T>(mut replies: BoxStream<'static, Result<T, Status>>) -> Result<Vec<T>, Status> {
    let mut all = Vec::new();
    while let Some(reply) = replies.next().await {
        all.push(reply?);
    }
    Ok(all)
}

fn spread<T>(answer: Result<Vec<T>, Status>) -> Vec<Result<T, Status>> {
    match answer {
        Ok(batches) => batches.into_iter().map(Ok).collect(),
        Err(status) => vec![Err(status)],
    }
}

/// What an answer says that it lacks; none if it is whole.
fn lacks<'a>(coverages: impl IntoIterator<Item = Option<&'a Coverage>>) -> Option<String> {
    let (mut reasons, mut short) = (Vec::new(), false);
    for coverage in coverages.into_iter().flatten() {
        short |= coverage.read < coverage.total;
        reasons.extend(coverage.skipped.iter().map(|skipped| skipped.reason.as_str()));
    }
    match (reasons.is_empty(), short) {
        (true, false) => None,
        (true, true) => Some("it has not read everything".to_owned()),
        (false, _) => Some(reasons.join(", ")),
    }
}

/// What is there, and the coverage of the one source that a partition is.
///
/// # Errors
/// The question itself is wrong.
fn settle<T>(what: &str, outcome: Outcome<T>) -> Result<(Option<T>, Coverage), Status> {
    match outcome {
        Outcome::Whole(_, answer) => Ok((Some(answer), Coverage { total: 1, read: 1, ..Coverage::default() })),
        Outcome::Part(answer, reason) => Ok((Some(answer), missed(what, &reason))),
        Outcome::Nothing(reason) => Ok((None, missed(what, &reason))),
        Outcome::Wrong(status) => Err(status),
    }
}

pub(crate) fn missed(what: &str, reason: &str) -> Coverage {
    let skipped = vec![Skipped { what: what.to_owned(), reason: reason.to_owned() }];
    Coverage { total: 1, skipped, ..Coverage::default() }
}

fn add(sum: &mut Coverage, part: Coverage) {
    sum.total += part.total;
    sum.read += part.read;
    sum.skipped.extend(part.skipped);
}

/// All addresses that the ring advertises.
fn addresses(partitions: &[Partition]) -> HashSet<String> {
    partitions
        .iter()
        .flat_map(|partition| &partition.owners)
        .flat_map(|owner| owner.addresses.iter().cloned())
        .collect()
}
