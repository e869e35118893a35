//! A table of children, what to do when one fails, and how they begin and end together.
//!
//! ```text
//! root ── live-store ── consumer   group "partition-7"  restart with backoff   5 a minute, then the component fails
//!      │             ├─ flusher                         restart                3 a minute, then quarantine
//!      │             └─ ...
//!      └─ querier ── ...
//! ```
//!
//! A supervisor has no thread and no task: it acts, under a short lock, on the thread of whoever reports. A failure goes from
//! part to supervisor to parent; at the root it ends the process ([`Supervisor::failure`]).
//!
//! **Order of the rows is the order of the data flow**: draining goes from the first to the last, each one empty before the
//! next is asked to end, so nothing that was accepted is cut off.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::cell::{Control, Cx};
use crate::child::{Child, Seat};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::flow::Flow;
use crate::lifecycle::{Service, State};
use crate::part::{Failure, Part};
use crate::placement::Placement;
use crate::restart::{Beyond, Failures, Restart, Verdict};
use crate::tree::{Kind, Node};

/// A handle to one supervisor. Clones are the same one.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    parent: Weak<Inner>,
    policy: Restart,
    clock: Arc<dyn Clock>,
    placement: Placement,
    table: Mutex<Table>,
    state: watch::Sender<State>,
    failure: watch::Sender<Option<Failure>>,
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    phase: Phase,
    failures: Failures,
    restarts: u64,
    last_error: Option<String>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Planned,
    Started,
    Draining,
    Drained,
    Failed,
}

#[derive(Clone)]
enum Row {
    Part(Arc<Seat>),
    Component(Supervisor),
}

/// What a cell tells its supervisor.
pub(crate) enum Report {
    Changed,
    Failed { child: Arc<str>, cause: Failure },
    GaveUp { child: Arc<str>, cause: Failure },
    Stopped { child: Arc<str> },
}

/// A cell's way to its supervisor; it does not keep it alive.
#[derive(Clone)]
pub(crate) struct Reports(Weak<Inner>);

impl Reports {
    pub(crate) fn send(&self, report: Report) {
        if let Some(inner) = self.0.upgrade() {
            Supervisor(inner).hear(report);
        }
    }
}

impl Supervisor {
    /// The top of a tree. Its children run at `placement` unless they say otherwise.
    #[must_use]
    pub fn root(name: impl Into<Arc<str>>, clock: Arc<dyn Clock>, placement: Placement) -> Self {
        Self::make(name.into(), Weak::new(), Restart::default(), clock, placement)
    }

    fn make(name: Arc<str>, parent: Weak<Inner>, policy: Restart, clock: Arc<dyn Clock>, placement: Placement) -> Self {
        Self(Arc::new(Inner {
            name,
            parent,
            policy,
            clock,
            placement,
            table: Mutex::default(),
            state: watch::Sender::new(State::Starting),
            failure: watch::Sender::new(None),
        }))
    }

    /// A supervisor below this one, in the next row: a component. When one of its parts gives up, all its parts begin anew,
    /// as often as `policy` says; then this supervisor fails in turn.
    #[must_use]
    pub fn component(&self, name: impl Into<Arc<str>>, policy: Restart, placement: Placement) -> Self {
        let clock = Arc::clone(&self.0.clock);
        let component = Self::make(name.into(), Arc::downgrade(&self.0), policy, clock, placement);
        self.add_row(Row::Component(component.clone()));
        component
    }

    /// Adds a part, in the next row. It starts with the supervisor, or at once if that is started: then call this from a thread
    /// that fits the part's placement.
    pub fn add<P: Part>(
        &self,
        child: Child<P>,
        mut factory: impl FnMut(&mut Cx<P>) -> Result<P, Failure> + Send + 'static,
    ) {
        self.add_async(child, move |cx| std::future::ready(factory(cx)));
    }

    /// Adds a part that takes time to build, for instance because it first replays its log. Until then messages wait or are
    /// refused by the child's [`Meanwhile`](crate::Meanwhile).
    pub fn add_async<P: Part, F>(&self, child: Child<P>, mut factory: impl FnMut(&mut Cx<P>) -> F + Send + 'static)
    where
        F: Future<Output = Result<P, Failure>> + 'static,
    {
        let boxed = Box::new(move |cx: &mut Cx<P>| -> crate::part::Building<P> { Box::pin(factory(cx)) });
        let reports = Reports(Arc::downgrade(&self.0));
        let seat = child.seat(boxed, Arc::clone(&self.0.clock), reports, self.0.placement.clone());
        self.add_row(Row::Part(Arc::new(seat)));
    }

    fn add_row(&self, row: Row) {
        let phase = {
            let mut table = self.0.table.lock();
            table.rows.push(row.clone());
            table.phase
        };
        if phase == Phase::Started {
            row.start();
        }
        self.publish();
    }

    /// Starts everything, from the last row to the first: who receives is there before who sends.
    pub fn start(&self) {
        let rows = {
            let mut table = self.0.table.lock();
            if table.phase != Phase::Planned {
                return;
            }
            table.phase = Phase::Started;
            table.rows.clone()
        };
        for row in rows.iter().rev() {
            row.start();
        }
        self.publish();
    }

    /// How far along the whole is; changes are announced. Drives `/ready`.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.0.state.subscribe()
    }

    /// Completes when the whole is running.
    ///
    /// # Errors
    /// The cause when it fails before, or "stopped".
    pub async fn running(&self) -> Result<(), Failure> {
        let mut state = self.state();
        let reached = state.wait_for(|state| !matches!(state, State::Starting)).await.map(|state| *state);
        match reached {
            Ok(State::Running) => Ok(()),
            _ => Err(self.0.failure.borrow().clone().unwrap_or_else(|| Failure::new("stopped"))),
        }
    }

    /// Completes with the cause when this supervisor has failed beyond its policy. At the root: the process must end.
    pub async fn failure(&self) -> Failure {
        let mut failure = self.0.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(cause) => cause.clone().unwrap_or_else(|| Failure::new("failed")),
            Err(_) => std::future::pending().await,
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Ends everything by the deadline, row after row: each handles what it has accepted, then is drained, then the next. One
    /// slow row cannot use up the time of all. True if everything was finished in time.
    pub async fn drain(&self, deadline: impl Into<Deadline>) -> bool {
        let deadline = deadline.into();
        let rows = {
            let mut table = self.0.table.lock();
            if table.phase != Phase::Failed {
                table.phase = Phase::Draining;
            }
            table.rows.clone()
        };
        self.publish();
        let mut finished = true;
        let count = rows.len();
        for (index, row) in rows.into_iter().enumerate() {
            // Twice a fair share: most rows need next to nothing.
            let share = u32::try_from(count - index).unwrap_or(u32::MAX).saturating_add(1);
            let allotted = Deadline::after(deadline.left().saturating_mul(2) / share).min(deadline);
            finished &= match row {
                Row::Part(seat) => seat.drain(allotted).await,
                Row::Component(component) => Box::pin(component.drain(allotted)).await,
            };
        }
        {
            let mut table = self.0.table.lock();
            if table.phase == Phase::Draining {
                table.phase = Phase::Drained;
            }
        }
        self.publish();
        finished
    }

    /// Drains the first child of this name and forgets it. False if there is none or it was not finished in time.
    pub async fn remove(&self, name: &str, deadline: impl Into<Deadline>) -> bool {
        let found = self.0.table.lock().rows.iter().find(|row| row.name() == name).cloned();
        let finished = match &found {
            None => false,
            Some(Row::Part(seat)) => seat.drain(deadline.into()).await,
            Some(Row::Component(component)) => Box::pin(component.drain(deadline)).await,
        };
        if let Some(gone) = found {
            self.0.table.lock().rows.retain(|row| !row.same(&gone));
            self.publish();
        }
        finished
    }

    /// The live tree. Parts that do not answer by the deadline are shown as busy.
    pub async fn tree(&self, deadline: impl Into<Deadline>) -> Node {
        let deadline = deadline.into();
        let (rows, mut node) = self.outline_here();
        let children = rows.iter().map(|row| async move {
            match row {
                Row::Part(seat) => Node { observed: seat.observe(deadline).await, ..Node::of_part(seat) },
                Row::Component(component) => Box::pin(component.tree(deadline)).await,
            }
        });
        node.children = futures::future::join_all(children).await;
        node
    }

    /// The tree without asking the parts: cheap, for metrics.
    #[must_use]
    pub fn outline(&self) -> Node {
        let (rows, mut node) = self.outline_here();
        let outline = |row: &Row| match row {
            Row::Part(seat) => Node::of_part(seat),
            Row::Component(component) => component.outline(),
        };
        node.children = rows.iter().map(outline).collect();
        node
    }

    fn outline_here(&self) -> (Vec<Row>, Node) {
        let table = self.0.table.lock();
        let node = Node {
            name: self.0.name.to_string(),
            kind: Kind::Supervisor,
            state: *self.0.state.borrow(),
            group: None,
            placement: self.0.placement.word(),
            restarts: table.restarts,
            failures: 0,
            last_error: table.last_error.clone(),
            load: None,
            observed: serde_json::Value::Null,
            children: Vec::new(),
        };
        (table.rows.clone(), node)
    }

    /// One line per component for `/status/services`.
    #[must_use]
    pub fn services(&self) -> Vec<Service> {
        let service = |row: &Row| match row {
            Row::Part(seat) => Service { name: seat.vitals.name.to_string(), state: seat.vitals.state() },
            Row::Component(component) => {
                Service { name: component.name().to_owned(), state: *component.0.state.borrow() }
            }
        };
        self.0.table.lock().rows.iter().map(service).collect()
    }

    /// Who waits for whom, as declared by [`Child::waits_for`]; names are `component/part`.
    #[must_use]
    pub fn flow(&self) -> Flow {
        let mut flow = Flow::default();
        self.add_flow(&mut flow);
        flow
    }

    fn add_flow(&self, flow: &mut Flow) {
        let rows = self.0.table.lock().rows.clone();
        for row in rows {
            match row {
                Row::Part(seat) => {
                    for on in &seat.waits_for {
                        let on = if on.contains('/') { on.clone() } else { format!("{}/{on}", self.0.name) };
                        flow.waits(format!("{}/{}", self.0.name, seat.vitals.name), on);
                    }
                }
                Row::Component(component) => component.add_flow(flow),
            }
        }
    }

    fn hear(&self, report: Report) {
        match report {
            Report::Changed => {}
            Report::Failed { child, cause } => {
                self.0.table.lock().last_error = Some(format!("{child}: {cause}"));
                self.rebuild_group(&child, &cause);
            }
            Report::GaveUp { child, cause } => self.gave_up(&child, cause),
            Report::Stopped { child } => {
                let mut table = self.0.table.lock();
                // One that ended by itself leaves the table; during a drain the table is the record.
                if table.phase == Phase::Started {
                    table.rows.retain(|row| !row.is(&child));
                }
            }
        }
        self.publish();
    }

    fn rebuild_group(&self, child: &Arc<str>, cause: &Failure) {
        let table = self.0.table.lock();
        let group = table.rows.iter().find(|row| row.is(child)).and_then(Row::group);
        let Some(group) = group else { return };
        for row in table.rows.iter().filter(|row| row.group() == Some(group) && !row.is(child)) {
            if let Row::Part(seat) = row {
                let cause = Failure::new(format!("group {group}: {child} failed: {cause}"));
                seat.control(Control::Rebuild { cause, fresh: false });
            }
        }
    }

    fn gave_up(&self, child: &Arc<str>, cause: Failure) {
        let cause = Failure::new(format!("{child}: {cause}"));
        let quarantined = {
            let mut table = self.0.table.lock();
            table.last_error = Some(cause.to_string());
            let beyond = table.rows.iter().find(|row| row.is(child)).and_then(Row::beyond);
            beyond == Some(Beyond::Quarantine)
        };
        if !quarantined {
            self.escalate(&cause);
        }
    }

    /// This supervisor cannot go on. Its parent may let it begin anew; the root, or one past its policy, fails for good.
    fn escalate(&self, cause: &Failure) {
        let parent = self.0.parent.upgrade().map(Supervisor);
        let again = {
            let mut table = self.0.table.lock();
            if !matches!(table.phase, Phase::Started) {
                return;
            }
            let again =
                parent.is_some() && table.failures.another(&self.0.policy, self.0.clock.now()) != Verdict::GiveUp;
            if again {
                table.restarts += 1;
            } else {
                table.phase = Phase::Failed;
            }
            again
        };
        if again {
            tracing::error!(component = %self.0.name, %cause, "component begins anew");
            self.begin_anew(cause);
            return;
        }
        tracing::error!(component = %self.0.name, %cause, "component has failed");
        self.0.failure.send_replace(Some(cause.clone()));
        self.publish();
        if let Some(parent) = parent
            && self.0.policy.beyond == Beyond::Escalate
        {
            let cause = Failure::new(format!("{}: {cause}", self.0.name));
            parent.0.table.lock().last_error = Some(cause.to_string());
            parent.escalate(&cause);
        }
    }

    fn begin_anew(&self, cause: &Failure) {
        let rows = self.0.table.lock().rows.clone();
        for row in rows {
            match row {
                Row::Part(seat) => seat.control(Control::Rebuild { cause: cause.clone(), fresh: true }),
                Row::Component(component) => {
                    {
                        let mut table = component.0.table.lock();
                        table.failures.forget();
                        if table.phase == Phase::Failed {
                            table.phase = Phase::Started;
                            component.0.failure.send_replace(None);
                        }
                    }
                    component.begin_anew(cause);
                }
            }
        }
    }

    /// Recomputes the state from the table, announces a change, and lets the parent do the same.
    fn publish(&self) {
        let state = {
            let table = self.0.table.lock();
            match table.phase {
                Phase::Planned => State::Starting,
                Phase::Draining => State::Stopping,
                Phase::Drained => State::Stopped,
                Phase::Failed => State::Failed,
                Phase::Started => State::of_all(table.rows.iter().filter_map(Row::counted_state)),
            }
        };
        let changed = self.0.state.send_if_modified(|current| std::mem::replace(current, state) != state);
        if changed && let Some(parent) = self.0.parent.upgrade() {
            Self(parent).publish();
        }
    }
}

impl Row {
    fn name(&self) -> &str {
        match self {
            Self::Part(seat) => &seat.vitals.name,
            Self::Component(component) => component.name(),
        }
    }

    /// Identity, not equality of names: a child may come back under the name of one that went.
    fn is(&self, child: &Arc<str>) -> bool {
        matches!(self, Self::Part(seat) if Arc::ptr_eq(&seat.vitals.name, child))
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Part(a), Self::Part(b)) => Arc::ptr_eq(a, b),
            (Self::Component(a), Self::Component(b)) => Arc::ptr_eq(&a.0, &b.0),
            (Self::Part(_), Self::Component(_)) | (Self::Component(_), Self::Part(_)) => false,
        }
    }

    fn group(&self) -> Option<&'static str> {
        match self {
            Self::Part(seat) => seat.group,
            Self::Component(_) => None,
        }
    }

    fn beyond(&self) -> Option<Beyond> {
        match self {
            Self::Part(seat) => Some(seat.policy.beyond),
            Self::Component(_) => None,
        }
    }

    fn start(&self) {
        match self {
            Self::Part(seat) => seat.start(),
            Self::Component(component) => component.start(),
        }
    }

    /// The state as it counts for the whole: a quarantined child is shown but holds nobody up, a failed one counts as starting
    /// until the decision about it has fallen.
    fn counted_state(&self) -> Option<State> {
        let (state, beyond) = match self {
            Self::Part(seat) => (seat.vitals.state(), seat.policy.beyond),
            Self::Component(component) => (*component.0.state.borrow(), component.0.policy.beyond),
        };
        match (state, beyond) {
            (State::Failed, Beyond::Quarantine) => None,
            (State::Failed, Beyond::Escalate) => Some(State::Starting),
            (state, _) => Some(state),
        }
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Supervisor({})", self.0.name)
    }
}

#[cfg(test)]
mod tests;
