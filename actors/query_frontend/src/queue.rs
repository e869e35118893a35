//! Queue: decides whose job runs next, fairly between tenants.
//!
//! Owns the waiting jobs per tenant and the number of running ones. Consumes `Enter`, answers with a `Turn` when the job may
//! run; dropping the turn frees its place. Mailbox 65,536: a message is a tenant's name; what waits is bounded per tenant by
//! `query_frontend.max_outstanding_per_tenant`.
//! On restart: the jobs that waited end with UNAVAILABLE, and their queries with it; running jobs go on.

use std::collections::{HashMap, VecDeque};

use tonic::Status;
use vivace_runtime::{Cx, Mailbox, Part, Reply, Responder, Serve};

/// Ask for a turn.
pub(crate) struct Enter {
    pub(crate) tenant: String,
}

/// The right to run one job.
#[derive(Debug)]
pub(crate) struct Turn {
    generation: u64,
    left: Mailbox<Left>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // A queue that is gone has nothing to count.
        self.left.try_tell(Left { generation: self.generation }).ok();
    }
}

/// A turn is over.
pub(crate) struct Left {
    generation: u64,
}

/// The part.
pub(crate) struct Queue {
    max_outstanding: usize,
    max_running: usize,
    running: usize,
    waiting: HashMap<String, VecDeque<Responder<Turn>>>,
    /// Tenants that wait, in the order in which they are served.
    order: VecDeque<String>,
}

impl Queue {
    pub(crate) fn new(max_outstanding: usize, max_running: usize) -> Self {
        Self { max_outstanding, max_running, running: 0, waiting: HashMap::new(), order: VecDeque::new() }
    }

    fn next(&mut self, cx: &mut Cx<Self>) {
        while self.running < self.max_running {
            let Some(tenant) = self.order.pop_front() else { return };
            let Some(jobs) = self.waiting.get_mut(&tenant) else { continue };
            let Some(job) = jobs.pop_front() else { continue };
            if jobs.is_empty() {
                self.waiting.remove(&tenant);
            } else {
                self.order.push_back(tenant);
            }
            self.running += 1;
            // Answered to nobody, the turn is dropped here and frees its place by its message.
            job.respond(Ok(Turn { generation: cx.generation(), left: cx.mailbox() }));
        }
    }
}

impl Part for Queue {
    fn observe(&self) -> serde_json::Value {
        let waiting: usize = self.waiting.values().map(VecDeque::len).sum();
        serde_json::json!({ "running": self.running, "waiting": waiting, "tenants_waiting": self.order.len() })
    }
}

impl Serve<Enter> for Queue {
    type Reply = Turn;

    fn serve(&mut self, enter: Enter, cx: &mut Cx<Self>) -> Reply<Turn> {
        let jobs = self.waiting.entry(enter.tenant.clone()).or_default();
        if jobs.len() >= self.max_outstanding {
            return Reply::err(Status::resource_exhausted("job queue full"));
        }
        let (responder, reply) = Reply::deferred();
        if jobs.is_empty() {
            self.order.push_back(enter.tenant);
        }
        jobs.push_back(responder);
        self.next(cx);
        reply
    }
}

impl Serve<Left> for Queue {
    type Reply = ();

    fn serve(&mut self, left: Left, cx: &mut Cx<Self>) -> Reply<()> {
        // Turns of an earlier life are not counted in this one.
        if left.generation == cx.generation() {
            self.running = self.running.saturating_sub(1);
            self.next(cx);
        }
        Reply::ok(())
    }
}
