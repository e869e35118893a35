//! Recent data in several live-stores: every partition is asked, one owner of each.
//!
//! ```text
//! question ──> partitions of the ring ──> order of owners ──> turns ──> pool of channels ──> live-stores
//!                     (rules)                (rules)         (rules)
//! ```
//!
//! An owner that fails, or says that its answer is not whole, gives the turn to the next; one that is slow gets company after
//! `querier.partition_ring.hedging_delay`. What no owner of a partition answers is a skipped source with the names of the owners
//! and their reasons; an error of the question only where one of them had no room for it, so that it is worth asking again.

mod answer;
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
    Coverage, FindTraceBatch, FindTraceRequest, MetricsBatch, MetricsJob, SearchBatch, SearchJob, TagNamesJob,
    TagNamesReply, TagValuesJob, TagValuesReply,
};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Clock, Deadline, Endpoint, Rng, StreamEndpoint, Wire};
use vivace_storage::query as engine;

pub(crate) use self::answer::missed;
use self::answer::{Told, add, lacks, settle};
use self::ask::Asker;
pub use self::settings::RingSettings;
use self::turns::Turns;
pub(crate) use self::upkeep::Upkeep;
use crate::LiveStore;
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
    /// The query is wrong, or over its budget; or RESOURCE_EXHAUSTED, where a partition has no owner that has room for it now.
    pub(crate) fn search(
        &self,
        job: &SearchJob,
        deadline: Deadline,
    ) -> BoxStream<'static, Result<SearchBatch, Status>> {
        self.stream(job, deadline, |store| &store.search)
    }

    /// # Errors
    /// As [`Self::search`].
    pub(crate) fn metrics(
        &self,
        job: &MetricsJob,
        deadline: Deadline,
    ) -> BoxStream<'static, Result<MetricsBatch, Status>> {
        self.stream(job, deadline, |store| &store.metrics)
    }

    /// Messages of all partitions. The answer of one owner is taken whole or not at all: what it has counted would count twice.
    fn stream<Q: Wire + Clone, R: Wire + Told>(
        &self,
        job: &Q,
        deadline: Deadline,
        endpoint: fn(&LiveStore) -> &StreamEndpoint<Q, R>,
    ) -> BoxStream<'static, Result<R, Status>> {
        let (plans, coverage) = self.plans();
        let head = R::default().telling(Some(coverage));
        let asked: FuturesUnordered<_> = plans
            .into_iter()
            .map(|Plan { what, mut turns }| {
                let (asker, job) = (self.asker.clone(), job.clone());
                async move {
                    let ask = move |store: LiveStore| {
                        let job = job.clone();
                        async move { all(endpoint(&store).call(job, deadline).await?).await }
                    };
                    let missing = |messages: &Vec<R>| lacks(messages.iter().map(Told::coverage));
                    let outcome = asker.ask(&mut turns, deadline, ask, missing).await;
                    let (messages, coverage) = settle(&what, outcome)?;
                    let own = messages.unwrap_or_default().into_iter().map(|message| message.telling(None));
                    Ok(own.chain([R::default().telling(Some(coverage))]).collect::<Vec<_>>())
                }
            })
            .collect();
        stream::iter([Ok(head)]).chain(asked.flat_map(|answer| stream::iter(spread(answer)))).boxed()
    }

    /// # Errors
    /// As [`Self::search`].
    pub(crate) async fn tag_names(&self, job: &TagNamesJob, deadline: Deadline) -> Result<TagNamesReply, Status> {
        let mut names = engine::TagNamesSum::new(job.max_per_scope, job.max_bytes);
        let coverage = self.gather(job, deadline, |store| &store.tag_names, |reply| names.add(reply)).await?;
        Ok(names.finish().telling(Some(coverage)))
    }

    /// # Errors
    /// As [`Self::search`].
    pub(crate) async fn tag_values(&self, job: &TagValuesJob, deadline: Deadline) -> Result<TagValuesReply, Status> {
        let mut values = engine::TagValuesSum::new(job.max_values, job.max_bytes);
        let coverage = self.gather(job, deadline, |store| &store.tag_values, |reply| values.add(reply)).await?;
        Ok(values.finish().telling(Some(coverage)))
    }

    /// One message of each partition; gives their coverage.
    async fn gather<Q: Wire + Clone, R: Wire + Told>(
        &self,
        job: &Q,
        deadline: Deadline,
        endpoint: fn(&LiveStore) -> &Endpoint<Q, R>,
        mut take: impl FnMut(R) -> Result<(), Status>,
    ) -> Result<Coverage, Status> {
        let (plans, mut coverage) = self.plans();
        let mut asked: FuturesUnordered<_> = plans
            .into_iter()
            .map(|Plan { what, mut turns }| {
                let (asker, job) = (self.asker.clone(), job.clone());
                async move {
                    let ask = move |store: LiveStore| {
                        let job = job.clone();
                        async move { endpoint(&store).call(job, deadline).await }
                    };
                    let missing = |reply: &R| lacks([reply.coverage()]);
                    settle(&what, asker.ask(&mut turns, deadline, ask, missing).await)
                }
            })
            .collect();
        while let Some(answer) = asked.next().await {
            let (reply, part) = answer?;
            add(&mut coverage, part);
            reply.map_or(Ok(()), &mut take)?;
        }
        Ok(coverage)
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

/// All addresses that the ring advertises.
fn addresses(partitions: &[Partition]) -> HashSet<String> {
    partitions
        .iter()
        .flat_map(|partition| &partition.owners)
        .flat_map(|owner| owner.addresses.iter().cloned())
        .collect()
}
