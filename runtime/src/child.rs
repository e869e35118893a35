//! One row of a supervisor's table: the part's name, bounds, policy, group and place. Its mailboxes exist before it runs, so a
//! component can be wired in any order.

use std::sync::Arc;

use actix::dev::channel::{AddressReceiver, channel};
use actix::{Actor, Addr, AsyncContext, Context};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::cell::{Cell, Control, Factory, Seed};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::lifecycle::State;
use crate::mailbox::{Bounds, Mailbox, Pool};
use crate::part::{Part, Serve};
use crate::placement::Placement;
use crate::restart::Restart;
use crate::supervisor::Reports;
use crate::vitals::Vitals;

/// A part to be: hand it to [`Supervisor::add`](crate::Supervisor::add) together with its factory.
pub struct Child<P: Part> {
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) addr: Addr<Cell<P>>,
    receiver: AddressReceiver<Cell<P>>,
    pub(crate) policy: Restart,
    pub(crate) group: Option<&'static str>,
    pub(crate) placement: Option<Placement>,
    pub(crate) waits_for: Vec<String>,
}

impl<P: Part> Child<P> {
    /// A part of this name whose mailboxes share these bounds.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, bounds: Bounds) -> Self {
        // 0 = no bound in actix: the bound is ours.
        let (sender, receiver) = channel(0);
        Self {
            vitals: Vitals::new(name.into()),
            pool: Pool::new(bounds),
            addr: Addr::new(sender),
            receiver,
            policy: Restart::default(),
            group: None,
            placement: None,
            waits_for: Vec::new(),
        }
    }

    /// How it comes back after a failure.
    #[must_use]
    pub fn restart(mut self, policy: Restart) -> Self {
        self.policy = policy;
        self
    }

    /// The group that it fails with: when one of the group fails, all are rebuilt.
    #[must_use]
    pub fn group(mut self, group: &'static str) -> Self {
        self.group = Some(group);
        self
    }

    /// The thread that it runs on; without this, the supervisor's.
    #[must_use]
    pub fn place(mut self, placement: Placement) -> Self {
        self.placement = Some(placement);
        self
    }

    /// Declares that it waits for room in, or an answer of, another part of this component (its name) or another component
    /// (`component/name`): an edge of [`Flow`](crate::Flow).
    #[must_use]
    pub fn waits_for(mut self, name: impl Into<String>) -> Self {
        self.waits_for.push(name.into());
        self
    }

    /// The mailbox for one type of message, each of which counts one and no bytes.
    #[must_use]
    pub fn mailbox<M: Send + 'static>(&self) -> Mailbox<M, P::Reply>
    where
        P: Serve<M>,
    {
        self.weighed(|_| 0)
    }

    /// The mailbox for one type of message whose bytes are counted by `weigh`: the memory that it pins.
    #[must_use]
    pub fn weighed<M: Send + 'static>(
        &self,
        weigh: impl Fn(&M) -> usize + Send + Sync + 'static,
    ) -> Mailbox<M, P::Reply>
    where
        P: Serve<M>,
    {
        Mailbox::new(Arc::clone(&self.vitals.name), self.addr.clone().recipient(), Arc::clone(&self.pool), weigh)
    }

    /// Turns the plan into something that can be started, whatever the type of the part.
    pub(crate) fn seat(self, factory: Factory<P>, clock: Arc<dyn Clock>, reports: Reports, place: Placement) -> Seat {
        let (addr, receiver) = (self.addr.clone(), self.receiver);
        let seed = Seed {
            addr: self.addr,
            factory,
            policy: self.policy,
            pool: Arc::clone(&self.pool),
            vitals: Arc::clone(&self.vitals),
            clock,
            reports,
        };
        let launch = move || {
            // Dropped at once: the cell's own address and the supervisor's keep it.
            drop(Context::with_receiver(receiver).run(Cell::new(seed)));
        };
        Seat {
            vitals: self.vitals,
            pool: self.pool,
            policy: self.policy,
            group: self.group,
            waits_for: self.waits_for,
            placement: self.placement.unwrap_or(place),
            launch: Mutex::new(Some(Box::new(launch))),
            control: Box::new(move |control| post(&addr, control)),
        }
    }
}

/// Puts a control message into a cell's queue, past every bound.
pub(crate) fn post<P: Part>(addr: &Addr<Cell<P>>, control: Control)
where
    Cell<P>: Actor<Context = Context<Cell<P>>>,
    Context<Cell<P>>: AsyncContext<Cell<P>>,
{
    #[expect(clippy::disallowed_methods, reason = "control is few, and must not wait behind the data")]
    addr.do_send(control);
}

/// A child whose type is forgotten.
pub(crate) struct Seat {
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) policy: Restart,
    pub(crate) group: Option<&'static str>,
    pub(crate) waits_for: Vec<String>,
    pub(crate) placement: Placement,
    launch: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    control: Box<dyn Fn(Control) + Send + Sync>,
}

impl Seat {
    pub(crate) fn start(&self) {
        let Some(launch) = self.launch.lock().take() else { return };
        if !self.placement.run(launch) {
            tracing::error!(part = %self.vitals.name, "the arbiter of the part is gone");
            self.vitals.set_state(State::Failed);
        }
    }

    pub(crate) fn control(&self, control: Control) {
        (self.control)(control);
    }

    /// Lets what was accepted be handled, then ends the part. True if both happened in time.
    pub(crate) async fn drain(&self, deadline: Deadline) -> bool {
        if self.launch.lock().take().is_some() {
            self.pool.close();
            self.vitals.set_state(State::Stopped);
            return true;
        }
        if matches!(self.vitals.state(), State::Stopped | State::Failed) {
            self.pool.close();
            return true;
        }
        let emptied = tokio::time::timeout(deadline.left(), self.pool.emptied()).await.is_ok();
        self.pool.close();
        let (done, drained) = oneshot::channel();
        self.control(Control::Drain { deadline, done });
        // A cell that ended before has dropped its end: that is drained, too.
        let ended = tokio::time::timeout(deadline.left(), drained).await.is_ok();
        if !ended {
            self.control(Control::Stop);
        }
        if !(emptied && ended) {
            let left = self.pool.load().depth;
            tracing::warn!(part = %self.vitals.name, left, "part was not drained in time");
        }
        emptied && ended
    }

    pub(crate) async fn observe(&self, deadline: Deadline) -> serde_json::Value {
        let (reply, observed) = oneshot::channel();
        self.control(Control::Observe(reply));
        match tokio::time::timeout(deadline.left(), observed).await {
            Ok(Ok(value)) => value,
            Ok(Err(_)) => serde_json::Value::Null,
            Err(_) => "busy: no answer in time".into(),
        }
    }
}
