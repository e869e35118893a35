//! Recent data: what no block covers yet, in one live-store of this process or in many behind a ring.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tonic::Status;
use vivace_protocol::find_trace::LONGEST;
use vivace_protocol::service;
use vivace_protocol::vivace::{
    Coverage, FindTraceBatch, FindTraceRequest, MetricsBatch, MetricsJob, SearchBatch, SearchJob, TagNamesJob,
    TagNamesReply, TagValuesJob, TagValuesReply,
};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Clock, Deadline, Endpoint, Peer, Replies, Rng, StreamEndpoint};

use crate::live_stores::LiveStores;
use crate::ring::{Ring, RingSettings, Upkeep};

/// What the querier asks of one live-store.
#[derive(Clone, Debug)]
pub struct LiveStore {
    /// The pieces of a trace.
    pub find: StreamEndpoint<FindTraceRequest, FindTraceBatch>,
    /// A search.
    pub search: StreamEndpoint<SearchJob, SearchBatch>,
    /// Names of tags.
    pub tag_names: Endpoint<TagNamesJob, TagNamesReply>,
    /// Values of a tag.
    pub tag_values: Endpoint<TagValuesJob, TagValuesReply>,
    /// A part of a metrics query.
    pub metrics: StreamEndpoint<MetricsJob, MetricsBatch>,
}

impl LiveStore {
    /// One in another process.
    #[must_use]
    pub fn remote(peer: &Peer) -> Self {
        Self {
            find: StreamEndpoint::remote(peer, service::LIVE_STORE),
            search: StreamEndpoint::remote(peer, service::LIVE_STORE),
            tag_names: Endpoint::remote(peer, service::LIVE_STORE),
            tag_values: Endpoint::remote(peer, service::LIVE_STORE),
            metrics: StreamEndpoint::remote(peer, service::LIVE_STORE),
        }
    }
}

/// Where recent data is. Clones are one.
#[derive(Clone)]
pub struct Recent(Form);

#[derive(Clone)]
enum Form {
    One(Box<LiveStore>),
    Ring(Ring),
}

impl From<LiveStore> for Recent {
    fn from(one: LiveStore) -> Self {
        Self(Form::One(Box::new(one)))
    }
}

/// The name of the one live-store in coverage.
const ONE: &str = "live-store";

impl Recent {
    /// In the live-stores of a ring. To be called inside the runtime of servers and clients: connections live there.
    #[must_use]
    pub fn ring(
        stores: Arc<dyn LiveStores>,
        settings: RingSettings,
        clock: Arc<dyn Clock>,
        rng: Rng,
        registry: &Registry,
    ) -> Self {
        Self(Form::Ring(Ring::new(stores, settings, clock, rng, registry)))
    }

    pub(crate) fn upkeep(&self) -> Option<Upkeep> {
        match &self.0 {
            Form::One(_) => None,
            Form::Ring(ring) => Some(ring.upkeep()),
        }
    }

    /// The pieces of a trace. Coverage comes in messages that add up; what could not be asked is in it. No wait for a live-store takes
    /// longer than `patience`.
    pub(crate) async fn find(
        &self,
        request: &FindTraceRequest,
        patience: Duration,
    ) -> BoxStream<'static, FindTraceBatch> {
        match &self.0 {
            Form::One(one) => one_find(one.find.call_patiently(request.clone(), patience, LONGEST).await),
            Form::Ring(ring) => {
                ring.heard().await;
                ring.find(request, patience)
            }
        }
    }

    /// # Errors
    /// What the live-store answers; of a ring, that the query is wrong or that owners have no room for it: all else is in the coverage.
    pub(crate) async fn search(&self, job: SearchJob, deadline: Deadline) -> Result<Replies<SearchBatch>, Status> {
        match &self.0 {
            Form::One(one) => one.search.call(job, deadline).await,
            Form::Ring(ring) => {
                ring.heard().await;
                Ok(ring.search(&job, deadline))
            }
        }
    }

    /// # Errors
    /// As [`Self::search`].
    pub(crate) async fn metrics(&self, job: MetricsJob, deadline: Deadline) -> Result<Replies<MetricsBatch>, Status> {
        match &self.0 {
            Form::One(one) => one.metrics.call(job, deadline).await,
            Form::Ring(ring) => {
                ring.heard().await;
                Ok(ring.metrics(&job, deadline))
            }
        }
    }

    /// # Errors
    /// As [`Self::search`].
    pub(crate) async fn tag_names(&self, job: TagNamesJob, deadline: Deadline) -> Result<TagNamesReply, Status> {
        match &self.0 {
            Form::One(one) => one.tag_names.call(job, deadline).await,
            Form::Ring(ring) => {
                ring.heard().await;
                ring.tag_names(&job, deadline).await
            }
        }
    }

    /// # Errors
    /// As [`Self::search`].
    pub(crate) async fn tag_values(&self, job: TagValuesJob, deadline: Deadline) -> Result<TagValuesReply, Status> {
        match &self.0 {
            Form::One(one) => one.tag_values.call(job, deadline).await,
            Form::Ring(ring) => {
                ring.heard().await;
                ring.tag_values(&job, deadline).await
            }
        }
    }
}

/// The pieces as they come; an error on the way is the last that is said, as coverage.
fn one_find(found: Result<Replies<FindTraceBatch>, Status>) -> BoxStream<'static, FindTraceBatch> {
    let replies = match found {
        Ok(replies) => replies,
        Err(status) => stream::iter([Err(status)]).boxed(),
    };
    // The coverage is held back to the end, so that a failure on the way does not come after "everything was read".
    let told = stream::unfold(Some((replies, Coverage::default())), |state| async move {
        let (mut replies, mut coverage) = state?;
        match replies.next().await {
            Some(Ok(mut batch)) => {
                if let Some(part) = batch.coverage.take() {
                    coverage = part;
                }
                Some((batch, Some((replies, coverage))))
            }
            Some(Err(status)) => {
                let coverage = Some(crate::ring::missed(ONE, status.message()));
                Some((FindTraceBatch { coverage, ..FindTraceBatch::default() }, None))
            }
            None => Some((FindTraceBatch { coverage: Some(coverage), ..FindTraceBatch::default() }, None)),
        }
    });
    told.boxed()
}
