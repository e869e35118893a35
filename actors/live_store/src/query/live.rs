//! Evaluates jobs over live traces: on all threads of the pool, the newest traces first where only they are shown.
//!
//! A search begins alone: it usually has enough among the newest. What is worth finding out about groups that are asked again is
//! found out on the background pool, for the queries that come after.

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
    /// Where groups are prepared.
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
        let found = if scan.is_done() {
            engine::found_of_parts(vec![first])
        } else {
            let others = self.together(&scan, search).await?;
            let parts = std::iter::once(first).chain(others).collect();
            self.compute.run(0, move || engine::found_of_parts(parts)).await?
        };
        self.prepare(&scan);
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
        self.prepare(&scan);
        Ok(batch)
    }

    pub(crate) async fn tag_names(
        &self,
        view: LiveView,
        job: &Arc<TagNamesJob>,
        ended: &Arc<AtomicBool>,
    ) -> Result<Vec<TagNamesReply>, Status> {
        let own = Arc::clone(job);
        // As of blocks, of groups that overlap the window all names are meant.
        let names = move |share: &LiveShare| match share.overlaps(own.start_unix_nano, own.end_unix_nano) {
            true => engine::tag_names(share, &own),
            false => Ok(TagNamesReply::default()),
        };
        self.apart(view, ended, names).await
    }

    pub(crate) async fn tag_values(
        &self,
        view: LiveView,
        job: &Arc<TagValuesJob>,
        ended: &Arc<AtomicBool>,
    ) -> Result<Vec<TagValuesReply>, Status> {
        let own = Arc::clone(job);
        let values = move |share: &LiveShare| match share.overlaps(own.start_unix_nano, own.end_unix_nano) {
            true => engine::tag_values_of(share, &own),
            false => Ok(TagValuesReply::default()),
        };
        self.apart(view, ended, values).await
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
            let (share, work, flag) = (scan.share(), work.clone(), Arc::clone(ended));
            self.compute.run(0, move || match flag.load(Ordering::Relaxed) {
                true => Err(Status::cancelled("nobody waits for the answer any more")),
                false => work(&share),
            })
        });
        let replies = try_join_all(workers).await?;
        scans.iter().for_each(|scan| self.prepare(scan));
        replies.into_iter().collect()
    }

    /// Has those groups prepared that were asked often enough, if there is room for such work now.
    fn prepare(&self, scan: &LiveScan) {
        for part in &scan.view().parts {
            let Some(work) = part.group.claim() else { continue };
            let (group, decoded) = (Arc::clone(&part.group), self.decoded.clone());
            match self.background.try_run(0, move || group.prepare(work, &decoded)) {
                // Nobody waits for it.
                Ok(preparing) => drop(preparing),
                // The pool is busy with blocks that are to leave: a later query asks again.
                Err(_no_room) => part.group.release(work),
            }
        }
    }
}
