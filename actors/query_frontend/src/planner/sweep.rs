//! A query's way over time: a job on recent data for each tenant, then the lists of blocks, then jobs on blocks from the newest
//! on. Some jobs run at once; their results come in the order of the jobs, so that an answer that ends early does not depend
//! on which job was quicker.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesOrdered;
use tonic::Status;
use vivace_protocol::TenantId;
use vivace_runtime::Deadline;

use super::Planner;
use super::jobs::{Job, RECENT, Selection};

/// Runs one job, tries included.
pub(super) type Launch<R> = Box<dyn Fn(&TenantId, Vec<String>) -> BoxFuture<'static, Result<R, Status>> + Send + Sync>;

/// The end of one job.
pub(super) struct Done<R> {
    /// What it was about, for coverage.
    pub(super) what: &'static str,
    /// Sources that it should have read.
    pub(super) parts: u32,
    pub(super) result: Result<R, Status>,
}

/// What is known of a query's size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) jobs: u32,
    pub(super) completed: u32,
    pub(super) blocks: u32,
    pub(super) block_bytes: u64,
}

/// See the module.
pub(super) struct Sweep<R> {
    planner: Arc<Planner>,
    tenants: Vec<TenantId>,
    window: (u64, u64),
    deadline: Deadline,
    launch: Launch<R>,
    listed: bool,
    waiting: VecDeque<(TenantId, Job)>,
    /// With each, the latest start of a span that it may find.
    running: FuturesOrdered<BoxFuture<'static, Done<R>>>,
    newest: VecDeque<u64>,
    failed_lists: Vec<Status>,
    totals: Totals,
    selection: Selection,
}

impl<R: Send + 'static> Sweep<R> {
    pub(super) fn new(
        planner: Arc<Planner>,
        tenants: &[TenantId],
        window: (u64, u64),
        deadline: Deadline,
        launch: Launch<R>,
    ) -> Self {
        let recent = || Job { block_ids: RECENT, newest_ns: u64::MAX, bytes: 0 };
        Self {
            selection: planner.for_search(),
            planner,
            tenants: tenants.to_vec(),
            window,
            deadline,
            launch,
            listed: false,
            waiting: tenants.iter().map(|tenant| (tenant.clone(), recent())).collect(),
            running: FuturesOrdered::new(),
            newest: VecDeque::new(),
            failed_lists: Vec::new(),
            totals: Totals { jobs: count(tenants.len()), ..Totals::default() },
        }
    }

    /// With another choice of blocks.
    pub(super) fn selecting(mut self, selection: Selection) -> Self {
        self.selection = selection;
        self
    }

    /// The choice of blocks, which may change until the lists are there: while jobs on recent data end.
    pub(super) fn selection(&mut self) -> &mut Selection {
        &mut self.selection
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// The latest start of a span that may still be found, 0 when everything was read.
    pub(super) fn outstanding_ns(&self) -> u64 {
        if !self.listed {
            return u64::MAX;
        }
        self.newest.front().copied().or_else(|| self.waiting.front().map(|(_, job)| job.newest_ns)).unwrap_or(0)
    }

    /// The next job's end; none when there is no job left that `wants` wants. It is asked with the latest start of a span that
    /// a job may find, in descending order.
    pub(super) async fn next(&mut self, wants: impl Fn(u64) -> bool) -> Option<Done<R>> {
        loop {
            if let Some(status) = self.failed_lists.pop() {
                return Some(Done { what: "blocklist", parts: 1, result: Err(status) });
            }
            self.start(&wants);
            match self.newest.pop_front() {
                Some(newest) if wants(newest) => {
                    let done = self.running.next().await;
                    self.totals.completed += 1;
                    return done;
                }
                // What runs is older than everything that could still matter.
                Some(_) => {
                    self.stop();
                    return None;
                }
                // Nothing at all is wanted any more, whatever its age.
                None if self.listed || !wants(u64::MAX) => return None,
                // Recent data before the list of blocks: what moves into a block meanwhile is on the list by then.
                None => self.list().await,
            }
        }
    }

    fn start(&mut self, wants: &impl Fn(u64) -> bool) {
        // Jobs on recent data all start at once.
        let ended = self.totals.completed.saturating_sub(count(self.tenants.len()));
        let ended = if self.listed { usize::try_from(ended).unwrap_or(usize::MAX) } else { usize::MAX };
        let most = self.selection.at_once(ended);
        while self.running.len() < most
            && let Some((_, job)) = self.waiting.front()
            && wants(job.newest_ns)
            && let Some((tenant, job)) = self.waiting.pop_front()
        {
            let (what, parts) =
                if job.block_ids.is_empty() { ("live-store", 1) } else { ("blocks", job.block_ids.len()) };
            let (running, parts) = ((self.launch)(&tenant, job.block_ids), count(parts));
            self.running.push_back(Box::pin(async move { Done { what, parts, result: running.await } }));
            self.newest.push_back(job.newest_ns);
        }
    }

    async fn list(&mut self) {
        self.listed = true;
        let (start, end) = self.window;
        let (planner, selection) = (&self.planner, &self.selection);
        let lists = self.tenants.iter().map(|tenant| planner.jobs(tenant, start, end, self.deadline, selection));
        let lists = join_all(lists).await;
        let mut jobs = Vec::new();
        for (tenant, list) in self.tenants.iter().zip(lists) {
            match list {
                Ok(list) => jobs.extend(list.into_iter().map(|job| (tenant.clone(), job))),
                Err(status) => self.failed_lists.push(status),
            }
        }
        // Stable: what is equally new keeps the order of the tenants.
        jobs.sort_by_key(|(_, job)| std::cmp::Reverse(job.newest_ns));
        self.totals.jobs += count(jobs.len());
        for (_, job) in &jobs {
            self.totals.blocks += count(job.block_ids.len());
            self.totals.block_bytes += job.bytes;
        }
        self.waiting = jobs.into();
    }

    fn stop(&mut self) {
        self.running = FuturesOrdered::new();
        self.newest.clear();
        self.waiting.clear();
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
