//! Evaluates jobs over live traces: on all threads of the pool, the newest traces first where only they are shown.
//!
//! A search begins alone: it usually has enough among the newest. Groups of traces that have been walked often are encoded on the
//! background pool, for the queries that come after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::try_join_all;
use tonic::Status;
use vivace_protocol::vivace::{
    MetricsBatch, MetricsJob, SearchBatch, SearchJob, TagNamesJob, TagNamesReply, TagValuesJob, TagValuesReply,
};
use vivace_runtime::Compute;
use vivace_storage::query::{self as engine, Budget};
use vivace_storage::{Decoded, LiveScan, LiveShare, LiveView};

/// Units that a search takes before others join in.
const ALONE: usize = 5;
/// To find out when so much is takes less time than to ask others for help.
const MEASURED_ALONE: u64 = 4 << 20;

/// The means; clones share them.
#[derive(Clone)]
pub(crate) struct LiveReaders {
    pub(crate) compute: Compute,
    /// Where groups are encoded.
    pub(crate) background: Compute,
    /// Of groups that are.
    pub(crate) decoded: Decoded,
}

impl LiveReaders {
    pub(crate) async fn search(
        &self,
        view: LiveView,
        job: &Arc<SearchJob>,
        budget: &Budget,
        ended: &Arc<AtomicBool>,
    ) -> Result<SearchBatch, Status> {
        let scan = self.scan(view, ended).await?;
        let (own, held) = (Arc::clone(job), budget.clone());
        let search = move |share: &LiveShare| engine::search_part(share, &own, &held);
        let (alone, first) = (scan.beginning(ALONE), search.clone());
        let first = self.compute.run(0, move || first(&alone)).await??;
        if scan.is_done() {
            return Ok(engine::found_of_parts(vec![first]));
        }
        let others = self.together(&scan, search).await?;
        let parts = std::iter::once(first).chain(others).collect();
        let found = self.compute.run(0, move || engine::found_of_parts(parts)).await?;
        self.encode(&scan);
        Ok(found)
    }

    pub(crate) async fn metrics(
        &self,
        view: LiveView,
        job: &Arc<MetricsJob>,
        ended: &Arc<AtomicBool>,
    ) -> Result<MetricsBatch, Status> {
        let scan = self.scan(view, ended).await?;
        let (own, flag) = (Arc::clone(job), Arc::clone(ended));
        let observe = move |share: &LiveShare| engine::metrics(share, &own, &|| flag.load(Ordering::Relaxed));
        let parts = self.together(&scan, observe).await?;
        let own = Arc::clone(job);
        let batch = self.compute.run(0, move || engine::metrics_of_parts(&own, parts)).await??;
        self.encode(&scan);
        Ok(batch)
    }

    pub(crate) async fn tag_names(
        &self,
        view: LiveView,
        job: &Arc<TagNamesJob>,
        ended: &Arc<AtomicBool>,
    ) -> Result<Vec<TagNamesReply>, Status> {
        let own = Arc::clone(job);
        self.apart(view, ended, move |share| engine::tag_names(share, &own)).await
    }

    pub(crate) async fn tag_values(
        &self,
        view: LiveView,
        job: &Arc<TagValuesJob>,
        ended: &Arc<AtomicBool>,
    ) -> Result<Vec<TagValuesReply>, Status> {
        let own = Arc::clone(job);
        self.apart(view, ended, move |share| engine::tag_values_of(share, &own)).await
    }

    /// A scan of traces of which it is known when they are.
    async fn scan(&self, view: LiveView, ended: &Arc<AtomicBool>) -> Result<Arc<LiveScan>, Status> {
        let scan = LiveScan::new(view, ended);
        if scan.unmeasured() > MEASURED_ALONE {
            let workers = self.compute.threads();
            let each = (0..workers).map(|worker| {
                let scan = Arc::clone(&scan);
                self.compute.run(0, move || scan.measure(worker, workers))
            });
            try_join_all(each).await?;
        }
        Ok(scan)
    }

    /// Several workers on one scan.
    async fn together<T: Send + 'static>(
        &self,
        scan: &Arc<LiveScan>,
        work: impl Fn(&LiveShare) -> Result<T, Status> + Clone + Send + 'static,
    ) -> Result<Vec<T>, Status> {
        let workers = (0..scan.workers(self.compute.threads())).map(|_| {
            let (share, work) = (scan.share(), work.clone());
            self.compute.run(0, move || work(&share))
        });
        try_join_all(workers).await?.into_iter().collect()
    }

    /// Each group on its own.
    async fn apart<T: Send + 'static>(
        &self,
        view: LiveView,
        ended: &Arc<AtomicBool>,
        work: impl Fn(&LiveShare) -> Result<T, Status> + Clone + Send + 'static,
    ) -> Result<Vec<T>, Status> {
        let scans: Vec<_> = view.split().into_iter().map(|view| LiveScan::new(view, ended)).collect();
        let workers = scans.iter().map(|scan| {
            let (share, work) = (scan.share(), work.clone());
            self.compute.run(0, move || work(&share))
        });
        let replies = try_join_all(workers).await?;
        scans.iter().for_each(|scan| self.encode(scan));
        replies.into_iter().collect()
    }

    /// Has those groups encoded that were walked often enough, if there is room for such work now.
    fn encode(&self, scan: &LiveScan) {
        for part in &scan.view().parts {
            if !part.group.claim() {
                continue;
            }
            let (group, decoded) = (Arc::clone(&part.group), self.decoded.clone());
            match self.background.try_run(0, move || group.encode(&decoded)) {
                // Nobody waits for it.
                Ok(encoding) => drop(encoding),
                // The pool is busy with blocks that are to leave: a later query asks again.
                Err(_no_room) => part.group.release(),
            }
        }
    }
}
