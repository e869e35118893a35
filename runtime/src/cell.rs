//! The one actor type: hosts a part, catches its panics, rebuilds it behind the same address, drains it.
//!
//! ```text
//!              build ok                    panic, error, group
//!   Building ───────────> Running ─────────────────────────────┐
//!      ^  │ error             │ drain                          v
//!      │  └──────────────┐    v                   limit?   Away ──────> Failed
//!      │                 └──> Draining ──> Stopped           │  passed
//!      └─────────────────────────────────────────────────────┘ backoff over
//! ```
//!
//! A panic costs the message that panicked and the futures of that life; queued messages stay. Messages that arrive while the
//! part is away wait or are refused, by policy; what waits is held here and bounded by its permits.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, Context, Handler};
use futures::FutureExt;
use futures::future::{Either, select};
use tokio::sync::oneshot;
use tonic::Status;

use self::cx::Event;
pub use self::cx::{Cx, Timer};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::lifecycle::State;
use crate::mailbox::{Envelope, Pool};
use crate::part::{Building, Failure, Part, Reply, Serve};
use crate::restart::{Failures, Meanwhile, Restart, Verdict};
use crate::supervisor::{Report, Reports};
use crate::vitals::Vitals;

mod cx;

/// Makes a part, again and again.
pub(crate) type Factory<P> = Box<dyn FnMut(&mut Cx<P>) -> Building<P> + Send>;

/// What a cell is told by its supervisor. Never waits behind a bound.
pub(crate) enum Control {
    /// Futures left something in the inbox.
    Wake,
    /// The group or the parent wants a new life; `fresh` also forgets earlier failures.
    Rebuild { cause: Failure, fresh: bool },
    /// Finish, by the deadline, and tell.
    Drain { deadline: Deadline, done: oneshot::Sender<()> },
    /// End now; the time for draining is over.
    Stop,
    /// The part's picture of itself.
    Observe(oneshot::Sender<serde_json::Value>),
}

impl actix::Message for Control {
    type Result = ();
}

/// A message that waits for the part.
type Held<P> = Box<dyn FnOnce(&mut Cell<P>)>;

enum Life<P> {
    Building,
    Running(Box<P>),
    /// Waiting for the end of the backoff.
    Away,
    Draining(Box<P>),
    Stopped,
    Failed,
}

/// What a cell is made from.
pub(crate) struct Seed<P: Part> {
    pub(crate) addr: Addr<Cell<P>>,
    pub(crate) factory: Factory<P>,
    pub(crate) policy: Restart,
    pub(crate) pool: Arc<Pool>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) reports: Reports,
}

pub(crate) struct Cell<P: Part> {
    life: Life<P>,
    cx: Cx<P>,
    factory: Factory<P>,
    policy: Restart,
    failures: Failures,
    held: VecDeque<Held<P>>,
    vitals: Arc<Vitals>,
    reports: Reports,
    draining: Vec<(Deadline, oneshot::Sender<()>)>,
}

impl<P: Part> Cell<P> {
    pub(crate) fn new(seed: Seed<P>) -> Self {
        Self {
            life: Life::Building,
            cx: Cx::new(Arc::clone(&seed.vitals.name), seed.addr, seed.clock, seed.pool),
            factory: seed.factory,
            policy: seed.policy,
            failures: Failures::default(),
            held: VecDeque::new(),
            vitals: seed.vitals,
            reports: seed.reports,
            draining: Vec::new(),
        }
    }

    fn receive<M, R>(&mut self, envelope: Envelope<M, R>)
    where
        P: Serve<M, Reply = R>,
        M: Send + 'static,
        R: Send + 'static,
    {
        match &self.life {
            Life::Running(_) | Life::Draining(_) => self.serve(envelope),
            Life::Building | Life::Away if self.policy.meanwhile == Meanwhile::Wait => {
                self.held.push_back(Box::new(move |cell| cell.receive(envelope)));
            }
            Life::Building | Life::Away => refuse(envelope, &self.cx.name, "is restarting"),
            Life::Stopped => refuse(envelope, &self.cx.name, "has stopped"),
            Life::Failed => refuse(envelope, &self.cx.name, "has failed"),
        }
    }

    fn serve<M, R>(&mut self, envelope: Envelope<M, R>)
    where
        P: Serve<M, Reply = R>,
        R: Send + 'static,
    {
        let (Life::Running(part) | Life::Draining(part)) = &mut self.life else { return };
        let Envelope { message, permit, reply, span } = envelope;
        let cx = &mut self.cx;
        match catch_unwind(AssertUnwindSafe(|| span.in_scope(|| part.serve(message, cx)))) {
            Ok(Reply::Now(result)) => {
                // First the room, then the answer: who asks again at once finds room.
                drop(permit);
                answer(reply, result);
            }
            Ok(later @ (Reply::Later(_) | Reply::Awaited(_))) => {
                let name = Arc::clone(&cx.name);
                let (inbox, generation) = (std::rc::Rc::clone(&cx.inbox), cx.generation);
                cx.run(async move {
                    let mut reply = reply;
                    let Some(result) = outcome(later, &mut reply).await else { return };
                    drop(permit);
                    match result {
                        Ok(result) => answer(reply, result),
                        Err(panic) => {
                            answer(reply, Err(panicked(&name)));
                            inbox.put(generation, Event::Failed(Failure::new(panic_text(&*panic))));
                        }
                    }
                });
            }
            Err(panic) => {
                drop(permit);
                answer(reply, Err(panicked(&cx.name)));
                self.failed(Failure::new(panic_text(&*panic)));
            }
        }
        self.settle();
    }

    /// Does what a handler or continuation asked for through its context.
    fn settle(&mut self) {
        if let Some(cause) = self.cx.failed.take() {
            self.failed(cause);
        } else if std::mem::take(&mut self.cx.stop) {
            self.drain(Deadline::after(Duration::from_secs(3600)), oneshot::channel().0);
        }
    }

    fn handle_event(&mut self, event: Event<P>) {
        match event {
            Event::Job(job) => {
                let (Life::Running(part) | Life::Draining(part)) = &mut self.life else { return };
                let cx = &mut self.cx;
                match catch_unwind(AssertUnwindSafe(|| job(part, cx))) {
                    Ok(()) => self.settle(),
                    Err(panic) => self.failed(Failure::new(panic_text(&*panic))),
                }
            }
            Event::Built(Ok(part)) => self.up(part),
            Event::Built(Err(cause)) | Event::Failed(cause) => self.failed(cause),
            Event::Retry => self.build(),
            Event::Drained => self.stopped(),
        }
    }

    fn build(&mut self) {
        self.life = Life::Building;
        self.vitals.set_state(State::Starting);
        let (factory, cx) = (&mut self.factory, &mut self.cx);
        let building = match catch_unwind(AssertUnwindSafe(|| factory(cx))) {
            Ok(building) => building,
            Err(panic) => return self.failed(Failure::new(panic_text(&*panic))),
        };
        // Looked at once right here: a part that needs no time to build is never away, not even at the start.
        let mut building = building;
        match catch_unwind(AssertUnwindSafe(|| (&mut building).now_or_never())) {
            Ok(Some(Ok(part))) => self.up(part),
            Ok(Some(Err(cause))) => self.failed(cause),
            Ok(None) => {
                let (inbox, generation) = (std::rc::Rc::clone(&self.cx.inbox), self.cx.generation);
                self.cx.run(async move { inbox.put(generation, Event::Built(building.await)) });
            }
            Err(panic) => self.failed(Failure::new(panic_text(&*panic))),
        }
    }

    fn up(&mut self, part: P) {
        let mut part = Box::new(part);
        let cx = &mut self.cx;
        let started = catch_unwind(AssertUnwindSafe(|| part.started(cx)));
        self.life = Life::Running(part);
        if let Err(panic) = started {
            return self.failed(Failure::new(panic_text(&*panic)));
        }
        if let Some((deadline, done)) = self.draining.pop() {
            // Asked to end before it was there: what waited is handled first.
            self.release();
            return self.drain(deadline, done);
        }
        self.vitals.set_state(State::Running);
        self.reports.send(Report::Changed);
        tracing::debug!(part = %self.cx.name, generation = self.cx.generation, "part is running");
        self.release();
        self.settle();
    }

    /// Handles what waited. A failure in the middle leaves the rest waiting or refuses it, by policy.
    fn release(&mut self) {
        for held in std::mem::take(&mut self.held) {
            held(self);
        }
    }

    fn failed(&mut self, cause: Failure) {
        if matches!(self.life, Life::Stopped | Life::Failed) {
            return;
        }
        let was_draining = matches!(self.life, Life::Draining(_));
        self.end_life();
        self.vitals.failed(&cause);
        if was_draining || !self.draining.is_empty() {
            tracing::error!(part = %self.cx.name, %cause, "part failed while it was being drained");
            return self.stopped();
        }
        match self.failures.another(&self.policy, self.cx.clock.now()) {
            Verdict::RebuildAfter(pause) => {
                tracing::error!(part = %self.cx.name, %cause, ?pause, "part failed and is rebuilt");
                self.rebuild_after(pause);
                self.reports.send(Report::Failed { child: Arc::clone(&self.vitals.name), cause });
            }
            Verdict::GiveUp => {
                tracing::error!(part = %self.cx.name, %cause, "part failed too often and is given up");
                self.life = Life::Failed;
                self.vitals.set_state(State::Failed);
                self.release();
                self.reports.send(Report::GaveUp { child: Arc::clone(&self.vitals.name), cause });
            }
        }
    }

    fn rebuild_after(&mut self, pause: Duration) {
        self.life = Life::Away;
        self.vitals.restarted();
        self.vitals.set_state(State::Starting);
        let (inbox, generation) = (std::rc::Rc::clone(&self.cx.inbox), self.cx.generation);
        let sleep = self.cx.clock.sleep(pause);
        self.cx.run(async move {
            sleep.await;
            inbox.put(generation, Event::Retry);
        });
    }

    /// Drops the part and everything that it left running. A panic in a destructor is caught as well.
    fn end_life(&mut self) {
        self.cx.renew();
        let life = std::mem::replace(&mut self.life, Life::Away);
        if catch_unwind(AssertUnwindSafe(|| drop(life))).is_err() {
            tracing::error!(part = %self.cx.name, "part panicked while it was dropped");
        }
    }

    fn rebuild(&mut self, cause: &Failure, fresh: bool) {
        if fresh {
            self.failures.forget();
        }
        match self.life {
            Life::Running(_) | Life::Building => {}
            Life::Failed if fresh => {}
            // On its way already, or ended.
            Life::Away | Life::Failed | Life::Draining(_) | Life::Stopped => return,
        }
        tracing::warn!(part = %self.cx.name, %cause, "part is rebuilt with its group");
        self.end_life();
        self.rebuild_after(self.policy.first_backoff);
        self.reports.send(Report::Changed);
    }

    fn drain(&mut self, deadline: Deadline, done: oneshot::Sender<()>) {
        self.vitals.set_state(State::Stopping);
        match std::mem::replace(&mut self.life, Life::Stopped) {
            Life::Running(mut part) => {
                let cx = &mut self.cx;
                let draining = catch_unwind(AssertUnwindSafe(|| part.drain(cx)));
                self.life = Life::Draining(part);
                self.draining.push((deadline, done));
                match draining {
                    Ok(future) => {
                        let name = Arc::clone(&self.cx.name);
                        let (inbox, generation) = (std::rc::Rc::clone(&self.cx.inbox), self.cx.generation);
                        self.cx.run(async move {
                            if tokio::time::timeout(deadline.left(), future).await.is_err() {
                                tracing::warn!(part = %name, "part did not finish draining in time");
                            }
                            inbox.put(generation, Event::Drained);
                        });
                    }
                    Err(panic) => self.failed(Failure::new(panic_text(&*panic))),
                }
            }
            // What waits for the part is owed an answer: let the building finish, then drain. The deadline is kept by the caller.
            life @ (Life::Building | Life::Away) if !self.held.is_empty() => {
                self.life = life;
                self.draining.push((deadline, done));
            }
            life @ Life::Draining(_) => {
                self.life = life;
                self.draining.push((deadline, done));
            }
            life @ Life::Failed => {
                self.life = life;
                self.vitals.set_state(State::Failed);
                done.send(()).ok();
            }
            Life::Building | Life::Away | Life::Stopped => {
                self.draining.push((deadline, done));
                self.stopped();
            }
        }
    }

    fn stopped(&mut self) {
        self.end_life();
        self.life = Life::Stopped;
        self.vitals.set_state(State::Stopped);
        self.cx.pool.close();
        self.release();
        for (_, done) in self.draining.drain(..) {
            done.send(()).ok();
        }
        self.reports.send(Report::Stopped { child: Arc::clone(&self.vitals.name) });
    }

    fn observe(&self) -> serde_json::Value {
        match &self.life {
            Life::Running(part) | Life::Draining(part) => {
                catch_unwind(AssertUnwindSafe(|| part.observe())).unwrap_or_else(|_| "panicked".into())
            }
            Life::Building | Life::Away | Life::Stopped | Life::Failed => serde_json::Value::Null,
        }
    }
}

impl<P: Part> Actor for Cell<P> {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.build();
    }
}

impl<P, M, R> Handler<Envelope<M, R>> for Cell<P>
where
    P: Serve<M, Reply = R>,
    M: Send + 'static,
    R: Send + 'static,
{
    type Result = ();

    fn handle(&mut self, envelope: Envelope<M, R>, context: &mut Self::Context) {
        self.receive(envelope);
        if matches!(self.life, Life::Stopped) {
            context.stop();
        }
    }
}

impl<P: Part> Handler<Control> for Cell<P> {
    type Result = ();

    fn handle(&mut self, control: Control, context: &mut Self::Context) {
        match control {
            Control::Wake => {
                while let Some((generation, event)) = self.cx.inbox.take() {
                    if generation == self.cx.generation {
                        self.handle_event(event);
                    }
                }
            }
            Control::Rebuild { cause, fresh } => self.rebuild(&cause, fresh),
            Control::Drain { deadline, done } => self.drain(deadline, done),
            Control::Stop => self.stopped(),
            Control::Observe(reply) => drop(reply.send(self.observe())),
        }
        if matches!(self.life, Life::Stopped) {
            context.stop();
        }
    }
}

/// What becomes of a later answer, or the panic on the way to it; none when nobody waits for it any more and it may be given up.
async fn outcome<R>(
    reply: Reply<R>,
    asker: &mut Option<oneshot::Sender<Result<R, Status>>>,
) -> Option<Result<Result<R, Status>, Box<dyn Any + Send>>> {
    match (reply, asker) {
        (Reply::Now(result), _) => Some(Ok(result)),
        (Reply::Awaited(future), Some(asker)) => {
            let (future, gone) = (AssertUnwindSafe(future).catch_unwind(), pin!(asker.closed()));
            match select(future, gone).await {
                Either::Left((result, _)) => Some(result),
                Either::Right(_) => None,
            }
        }
        (Reply::Later(future) | Reply::Awaited(future), _) => Some(AssertUnwindSafe(future).catch_unwind().await),
    }
}

fn answer<R>(reply: Option<oneshot::Sender<Result<R, Status>>>, result: Result<R, Status>) {
    if let Some(reply) = reply {
        // Who stopped waiting has dropped its end.
        drop(reply.send(result));
    }
}

fn refuse<M, R>(envelope: Envelope<M, R>, name: &str, what: &str) {
    drop(envelope.permit);
    answer(envelope.reply, Err(Status::unavailable(format!("{name} {what}"))));
}

fn panicked(name: &str) -> Status {
    Status::internal(format!("{name} panicked on this request"))
}

/// The text of a panic, as far as it has one.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without a text"))
}

#[cfg(test)]
mod tests;
