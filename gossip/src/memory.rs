//! Rings in one process: the host of the rings where nothing is shared, as in `-target=all`.
//!
//! Owns the state and the keeper; looks every second and after every command, and publishes to the board. Mailbox 16: a
//! command is a click. On restart: begins with an empty state and registers again; nothing else knows these rings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use vivace_runtime::{Bounds, Child, Clock, Cx, Mailbox, Part, Placement, Reply, Serve, Supervisor};

use crate::board::Board;
use crate::ring::{Command, CommandError, Keeper, KeeperEvent, Liveness, Now};
use crate::state::State;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long a command waits for the host.
const COMMAND: Duration = Duration::from_secs(5);

/// The part that hosts rings in memory.
#[derive(Debug)]
pub struct MemoryRings {
    state: State,
    keeper: Keeper,
    liveness: Liveness,
    board: Board,
    clock: DebugClock,
    began: Instant,
    farewell: Option<Farewell>,
}

/// What is to be done when the host has left its rings for good.
#[derive(Clone)]
pub struct Farewell(pub Arc<dyn Fn() -> LocalBoxFuture<'static, ()> + Send + Sync>);

impl std::fmt::Debug for Farewell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Farewell")
    }
}

/// A clock that can be printed.
struct DebugClock(Arc<dyn Clock>);

impl std::fmt::Debug for DebugClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl MemoryRings {
    /// Adds the host below `parent`. `keepers` makes the keeper anew at each start; `process` is the id that its members
    /// were given.
    #[must_use]
    pub fn add(
        parent: &Supervisor,
        process: u64,
        mut keepers: impl FnMut() -> Keeper + Send + 'static,
        placement: Placement,
        farewell: impl FnOnce(&Board) -> Option<Farewell>,
    ) -> Board {
        let child = Child::<Self>::new("rings", Bounds::messages(16)).place(placement);
        let commands: Mailbox<Command, Result<(), CommandError>> = child.mailbox();
        let control = move |command: Command| {
            let commands = commands.clone();
            async move {
                commands
                    .ask(command, COMMAND)
                    .await
                    .unwrap_or_else(|status| Err(CommandError::Unavailable(status.message().to_owned())))
            }
            .boxed()
        };
        let board = Board::new(Arc::new(control), None);
        let (published, farewell) = (board.clone(), farewell(&board));
        parent.add(child, move |cx| {
            Ok(Self {
                state: State::new(),
                keeper: keepers(),
                liveness: Liveness::alone(process),
                board: published.clone(),
                clock: DebugClock(Arc::clone(cx.clock())),
                began: cx.now(),
                farewell: farewell.clone(),
            })
        });
        board
    }

    fn now(&self) -> Now {
        let monotonic = self.clock.0.now().saturating_duration_since(self.began);
        Now { monotonic, unix: self.clock.0.unix() }
    }

    fn look(&mut self) {
        let now = self.now();
        self.state.advance(now.monotonic);
        for event in self.keeper.tick(&mut self.state, &self.liveness, now) {
            match event {
                KeeperEvent::Member(key, event) => tracing::info!(%key, ?event, "ring record written again"),
                KeeperEvent::Forgotten(key) => tracing::info!(%key, "forgotten"),
                KeeperEvent::Partition(partition, state) => {
                    tracing::info!(partition, state = state.title(), "partition changed");
                }
            }
        }
        // Nobody else is told.
        drop(self.state.take_broadcasts());
        self.publish();
    }

    fn publish(&mut self) {
        self.board.publish(self.keeper.rings(&self.state, &self.liveness));
    }
}

impl Part for MemoryRings {
    fn started(&mut self, cx: &mut Cx<Self>) {
        let now = self.now();
        self.keeper.start(&mut self.state, now);
        self.look();
        cx.every(LOOK, |rings, _| rings.look());
    }

    fn drain(&mut self, _: &mut Cx<Self>) -> LocalBoxFuture<'static, ()> {
        self.keeper.leave(&mut self.state);
        self.keeper.stop(&mut self.state);
        self.publish();
        match &self.farewell {
            Some(Farewell(farewell)) => farewell(),
            None => std::future::ready(()).boxed_local(),
        }
    }

    fn observe(&self) -> serde_json::Value {
        serde_json::json!({ "records": self.state.len(), "state_hash": self.state.digest().to_string() })
    }
}

impl Serve<Command> for MemoryRings {
    type Reply = Result<(), CommandError>;

    fn serve(&mut self, command: Command, _: &mut Cx<Self>) -> Reply<Result<(), CommandError>> {
        let now = self.now();
        let outcome = self.keeper.command(&mut self.state, &self.liveness, command, now);
        self.publish();
        Reply::ok(outcome)
    }
}
