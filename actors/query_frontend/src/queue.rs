//! Queue: decides whose job runs next, fairly between tenants.
//!
//! Owns the waiting jobs per tenant and the number of running ones. Consumes `Enter`, answers with a `Turn` when the job may
//! run; dropping the turn frees its place. As many run as queriers have opened links, or as `max_running` says where the querier
//! is in this process. Mailbox 65,536: a message is a tenant's name; what waits is bounded per tenant by
//! `query_frontend.max_outstanding_per_tenant`.
//! On restart: the jobs that waited end with UNAVAILABLE, and their queries with it; running jobs go on.

mod waiting;

use std::sync::Weak;

use tokio::sync::watch;
use tonic::Status;
use vivace_runtime::{Cx, Mailbox, Part, Reply, Responder, Serve};

use self::waiting::Waiting;

/// Ask for a turn.
pub(crate) struct Enter {
    pub(crate) tenant: String,
    /// Gone when nobody waits for the turn any more.
    pub(crate) asker: Weak<()>,
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

/// A job that waits.
struct Job {
    asker: Weak<()>,
    turn: Responder<Turn>,
}

impl Job {
    fn is_wanted(&self) -> bool {
        self.asker.strong_count() > 0
    }
}

/// How many jobs run at once.
#[derive(Debug, Clone)]
pub(crate) enum Running {
    /// So many.
    Most(usize),
    /// One on each link.
    Links(watch::Receiver<usize>),
}

/// The part.
pub(crate) struct Queue {
    waiting: Waiting<Job>,
    most: Running,
    max_running: usize,
    running: usize,
}

impl Queue {
    pub(crate) fn new(max_outstanding: usize, most: Running) -> Self {
        let max_running = match &most {
            Running::Most(most) => *most,
            Running::Links(_) => 0,
        };
        Self { waiting: Waiting::new(max_outstanding), most, max_running, running: 0 }
    }

    fn next(&mut self, cx: &mut Cx<Self>) {
        while self.running < self.max_running {
            let Some(job) = self.waiting.pop() else { return };
            if !job.is_wanted() {
                continue;
            }
            self.running += 1;
            // Answered to nobody, the turn is dropped here and frees its place by its message.
            job.turn.respond(Ok(Turn { generation: cx.generation(), left: cx.mailbox() }));
        }
    }

    /// Follows the number of links.
    fn follow(&mut self, cx: &mut Cx<Self>) {
        let Running::Links(links) = &self.most else { return };
        let mut links = links.clone();
        self.max_running = *links.borrow_and_update();
        self.next(cx);
        cx.spawn(async move { links.changed().await.is_ok() }, |queue, there, cx| {
            if there {
                queue.follow(cx);
            }
        });
    }
}

impl Part for Queue {
    fn started(&mut self, cx: &mut Cx<Self>) {
        self.follow(cx);
    }

    fn observe(&self) -> serde_json::Value {
        serde_json::json!({
            "running": self.running,
            "max_running": self.max_running,
            "waiting": self.waiting.len(),
            "tenants_waiting": self.waiting.tenants(),
        })
    }
}

impl Serve<Enter> for Queue {
    type Reply = Turn;

    fn serve(&mut self, Enter { tenant, asker }: Enter, cx: &mut Cx<Self>) -> Reply<Turn> {
        let (turn, reply) = Reply::deferred();
        if !self.waiting.push(&tenant, Job { asker, turn }, Job::is_wanted) {
            return Reply::err(Status::resource_exhausted("job queue full"));
        }
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
