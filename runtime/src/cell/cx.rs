//! What a part can do besides answering: futures that report back to it, timers, failing on purpose.

use std::cell::{Cell as StdCell, RefCell};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Addr;
use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::{Cell, Control, panic_text};
use crate::child::post;
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::mailbox::{Mailbox, Pool};
use crate::part::{Failure, Part, Reply, Serve};

/// A piece of work on the part itself.
pub(super) type Job<P> = Box<dyn FnOnce(&mut P, &mut Cx<P>)>;

/// What comes back from futures to the thread of the part; not a message, because it need not be `Send`.
pub(super) enum Event<P: Part> {
    Job(Job<P>),
    Built(Result<P, Failure>),
    Failed(Failure),
    Retry,
    Drained,
}

/// Where futures leave their events: shared by the cell and everything that it spawned.
pub(super) struct Inbox<P: Part> {
    events: RefCell<VecDeque<(u64, Event<P>)>>,
    woken: StdCell<bool>,
    addr: Addr<Cell<P>>,
}

impl<P: Part> Inbox<P> {
    fn new(addr: Addr<Cell<P>>) -> Rc<Self> {
        Rc::new(Self { events: RefCell::default(), woken: StdCell::new(false), addr })
    }

    pub(super) fn put(&self, generation: u64, event: Event<P>) {
        self.events.borrow_mut().push_back((generation, event));
        if !self.woken.replace(true) {
            post(&self.addr, Control::Wake);
        }
    }

    pub(super) fn take(&self) -> Option<(u64, Event<P>)> {
        let event = self.events.borrow_mut().pop_front();
        if event.is_none() {
            self.woken.set(false);
        }
        event
    }
}

/// The surroundings of a part: handed to every handler.
pub struct Cx<P: Part> {
    pub(super) name: Arc<str>,
    pub(super) generation: u64,
    pub(super) inbox: Rc<Inbox<P>>,
    /// Ends every future and timer of this generation.
    pub(super) alive: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) pool: Arc<Pool>,
    pub(super) failed: Option<Failure>,
    pub(super) stop: bool,
}

/// A timer that was set. Dropping it leaves it running.
#[derive(Debug, Clone)]
pub struct Timer(CancellationToken);

impl Timer {
    /// Ends it; its function is not called again.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

impl<P: Part> Cx<P> {
    pub(super) fn new(name: Arc<str>, addr: Addr<Cell<P>>, clock: Arc<dyn Clock>, pool: Arc<Pool>) -> Self {
        Self {
            name,
            generation: 0,
            inbox: Inbox::new(addr),
            alive: CancellationToken::new(),
            tasks: TaskTracker::new(),
            clock,
            pool,
            failed: None,
            stop: false,
        }
    }

    /// The name of the part, as in `/status/actors`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How often the part has been rebuilt.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The process's clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Now, on the process's clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The part's own mailbox, to be given to others. Do not `ask` it from the part: that waits for oneself.
    #[must_use]
    pub fn mailbox<M: Send + 'static>(&self) -> Mailbox<M, P::Reply>
    where
        P: Serve<M>,
    {
        Mailbox::new(Arc::clone(&self.name), self.inbox.addr.clone().recipient(), Arc::clone(&self.pool), |_| 0)
    }

    /// Runs a future beside the part and then a function on the part with its result. Both are dropped if the part is rebuilt
    /// meanwhile. The result need not be `Send`.
    pub fn spawn<T: 'static>(
        &self,
        future: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut P, T, &mut Self) + 'static,
    ) {
        let (inbox, generation) = (Rc::clone(&self.inbox), self.generation);
        self.run(async move {
            let output = future.await;
            inbox.put(generation, Event::Job(Box::new(move |part, cx| then(part, output, cx))));
        });
    }

    /// Runs a future beside the part.
    pub fn detach(&self, future: impl Future<Output = ()> + 'static) {
        self.run(future);
    }

    /// An answer in three steps: a future runs beside the part, then a function on the part turns its result into the answer.
    pub fn then<T: 'static, R: 'static>(
        &self,
        future: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut P, T, &mut Self) -> Result<R, Status> + 'static,
    ) -> Reply<R> {
        let (responder, reply) = Reply::deferred();
        self.spawn(future, move |part, output, cx| {
            responder.respond(then(part, output, cx));
        });
        reply
    }

    /// Calls a function on the part once, after a time.
    pub fn after(&self, delay: Duration, then: impl FnOnce(&mut P, &mut Self) + 'static) -> Timer {
        let timer = Timer(self.alive.child_token());
        let (cancelled, sleep) = (timer.0.clone(), self.clock.sleep(delay));
        let (inbox, generation, at_call) = (Rc::clone(&self.inbox), self.generation, timer.0.clone());
        self.run(async move {
            if cancelled.run_until_cancelled(sleep).await.is_some() {
                let call: Job<P> = Box::new(move |part, cx| {
                    // Cancelled between the ring and the call.
                    if !at_call.is_cancelled() {
                        then(part, cx);
                    }
                });
                inbox.put(generation, Event::Job(call));
            }
        });
        timer
    }

    /// Calls a function on the part again and again, the first time after one period. The next period begins when the call has
    /// returned, so a slow part is not buried.
    pub fn every(&self, period: Duration, call: impl FnMut(&mut P, &mut Self) + 'static) -> Timer {
        let timer = Timer(self.alive.child_token());
        let (cancelled, clock) = (timer.0.clone(), Arc::clone(&self.clock));
        let (inbox, generation) = (Rc::clone(&self.inbox), self.generation);
        let call = Rc::new(RefCell::new(call));
        self.run(async move {
            let at_call = cancelled.clone();
            let ticks = async move {
                loop {
                    clock.sleep(period).await;
                    let (called, was_called) = tokio::sync::oneshot::channel::<()>();
                    let (call, at_call) = (Rc::clone(&call), at_call.clone());
                    let tick: Job<P> = Box::new(move |part, cx| {
                        if !at_call.is_cancelled() {
                            (*call.borrow_mut())(part, cx);
                        }
                        drop(called);
                    });
                    inbox.put(generation, Event::Job(tick));
                    // Completes with an error, on purpose, when the tick is dropped after its run.
                    was_called.await.ok();
                }
            };
            cancelled.run_until_cancelled(ticks).await;
        });
        timer
    }

    /// Waits by the process's clock; for use inside futures.
    pub fn sleep(&self, duration: Duration) -> futures::future::BoxFuture<'static, ()> {
        self.clock.sleep(duration)
    }

    /// Declares that the part cannot go on: after this handler it is rebuilt, as after a panic.
    pub fn fail(&mut self, cause: impl Into<Failure>) {
        self.failed = Some(cause.into());
    }

    /// Ends the part after this handler, well: it is drained and not rebuilt.
    pub fn stop(&mut self) {
        self.stop = true;
    }

    /// A token that is cancelled when this generation of the part ends, for work handed to other threads.
    #[must_use]
    pub fn alive(&self) -> CancellationToken {
        self.alive.clone()
    }

    /// Waits until `deadline` for a future, as [`Deadline::bound`] does, naming this part's question.
    pub fn bounded<T>(
        &self,
        deadline: impl Into<Deadline>,
        what: &'static str,
        future: impl Future<Output = Result<T, Status>>,
    ) -> impl Future<Output = Result<T, Status>> {
        deadline.into().bound(what, future)
    }

    /// Spawns on this thread; a panic inside becomes a failure of the part.
    pub(super) fn run(&self, future: impl Future<Output = ()> + 'static) {
        let (inbox, generation, alive) = (Rc::clone(&self.inbox), self.generation, self.alive.clone());
        let guarded = async move {
            if let Some(Err(panic)) = alive.run_until_cancelled(AssertUnwindSafe(future).catch_unwind()).await {
                inbox.put(generation, Event::Failed(Failure::new(panic_text(&*panic))));
            }
        };
        // The handle is not needed: the tracker counts the task and the token ends it.
        drop(self.tasks.spawn_local(guarded));
    }

    /// Begins a new life: everything that the last one left running is dropped.
    pub(super) fn renew(&mut self) {
        self.alive.cancel();
        self.alive = CancellationToken::new();
        self.tasks = TaskTracker::new();
        self.generation += 1;
        self.failed = None;
        self.stop = false;
    }
}
