//! Membership: the part that hosts one member of the gossip cluster and the rings of this process.
//!
//! Owns sockets, the member ([`Swim`]), the replicated state and the [`Keeper`] of the rings. Consumes [`Look`], [`Compare`]
//! and [`Command`]; emits views of the rings and of liveness on watch channels. Mailbox 64: messages are small and answered
//! at once. It belongs on an arbiter of its own: probes are answered within milliseconds or others wonder.
//! On restart: a new life. The sockets are bound anew, the state is fetched from the others.
//!
//! ```text
//! sockets ── frames ──> Swim<State> ── frames ──> sockets
//!                          │ news
//! timer, every 250 ms ──> Keeper::tick ──> watch: Rings, Liveness
//! discovery, 5 or 30 s ──> seeds
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use tokio::sync::{mpsc, watch};
use vivace_runtime::{Bounds, Child, Cx, Failure, Mailbox, Part, Placement, Reply, Rng, Serve, Supervisor, Timer};

use crate::board::{Board, Control, Peers};
use crate::config::Config;
use crate::discovery::{Discovery, Dns};
use crate::families::{Binds, host_candidates};
use crate::member::Identity;
use crate::pages::{Cluster, PeerView};
use crate::ring::{Command, CommandError, Generations, Keeper, KeeperEvent, Liveness, Now, Rings};
use crate::state::{Key, State};
use crate::swim::{About, Event, News, Node, Options as SwimOptions, Swim, View};
use crate::transport::{Bound, INCOMING_MAX, Incoming, Limits, StreamTls, Transport};

mod asking;
mod joining;
mod metrics;
mod picture;
mod settings;

#[cfg(test)]
mod tests;

pub use asking::Compare;
pub use metrics::export_membership;
pub use picture::Look;
pub use settings::{BadSetting, check, member_name};

use asking::Asking;
use joining::{Doors, Joining};
use settings::{join_patience, keys, tuning};

/// How often rings are looked at when something changed, and how often when nothing did.
const BEAT: Duration = Duration::from_millis(250);
const BEATS_QUIET: u32 = 4;
/// How long a leaving member goes on telling so.
const FAREWELL: Duration = Duration::from_millis(1500);
const IDLE: Duration = Duration::from_secs(15);
/// How long pages wait for a command, and for the views of other members.
const COMMAND_PATIENCE: Duration = Duration::from_secs(5);
const PEERS_PATIENCE: Duration = Duration::from_secs(1);

/// Builds the rings of a process, anew for each life: it is told who the process is in membership.
pub type BuildRings = Arc<dyn Fn(&Identity) -> Result<Keeper, Failure> + Send + Sync>;

/// What membership is started with.
#[derive(Clone)]
pub struct Options {
    /// `memberlist`.
    pub config: Config,
    /// The host's name: the member's name, unless one is configured.
    pub host_name: String,
    /// The version of the program.
    pub software: String,
    /// The rings.
    pub rings: BuildRings,
    /// Where the generations of ring records are kept over a restart; none: the process goes above what others know.
    pub generations: Option<Generations>,
    /// Looks up names.
    pub dns: Arc<dyn Dns>,
    /// A source of chance for each life.
    pub rng: Arc<dyn Fn() -> Rng + Send + Sync>,
}

/// The way to membership for the rest of the process. Clones are cheap and equal.
#[derive(Clone)]
pub struct Gossip {
    /// What pages read, and the way for their commands.
    pub board: Board,
    /// Shows the cluster as it is now; the board's picture is a moment old.
    pub look: Mailbox<Look, Cluster>,
    /// The rings, whenever they change.
    pub rings: watch::Receiver<Arc<Rings>>,
    /// Who is alive, whenever that changes.
    pub liveness: watch::Receiver<Arc<Liveness>>,
}

/// The part. It is added by [`add`].
pub struct Membership {
    swim: Swim<State>,
    keeper: Keeper,
    transport: Transport,
    discovery: Discovery,
    doors: Doors,
    options: Options,
    begun: Instant,
    wake: Option<(Duration, Timer)>,
    dirty: bool,
    quiet_beats: u32,
    joining: Option<Joining>,
    /// Generations are being written down.
    keeping: bool,
    asking: Asking,
    history: picture::History,
    publish: Publish,
}

#[derive(Debug, Clone)]
struct Publish {
    board: Board,
    rings: watch::Sender<Arc<Rings>>,
    liveness: watch::Sender<Arc<Liveness>>,
}

/// Adds membership to a component, on `placement`: an arbiter of its own.
///
/// # Errors
/// The configuration cannot be used; nothing was bound.
pub fn add(root: &Supervisor, options: Options, placement: Placement) -> Result<Gossip, BadSetting> {
    check(&options.config)?;
    StreamTls::of(&options.config)?;
    let child = Child::new("membership", Bounds::messages(64)).place(placement);
    let (commands, compare) = (child.mailbox::<Command>(), child.mailbox::<Compare>());
    let control: Control = Arc::new(move |command| {
        let commands = commands.clone();
        async move {
            let answer = commands.ask(command, COMMAND_PATIENCE).await;
            answer.unwrap_or_else(|status| Err(CommandError::Unavailable(status.message().to_owned())))
        }
        .boxed()
    });
    let peers: Peers = Arc::new(move || {
        let compare = compare.clone();
        // An overloaded or restarting part has nothing to show, which the page says by showing nothing.
        async move { compare.ask(Compare { patience: PEERS_PATIENCE }, COMMAND_PATIENCE).await.unwrap_or_default() }
            .boxed()
    });
    let board = Board::new(control, Some(peers));
    let publish = Publish { board: board.clone(), rings: watch::Sender::default(), liveness: watch::Sender::default() };
    let gossip = Gossip {
        board,
        look: child.mailbox(),
        rings: publish.rings.subscribe(),
        liveness: publish.liveness.subscribe(),
    };
    root.add(child, move |cx: &mut Cx<Membership>| Membership::new(options.clone(), publish.clone(), cx));
    Ok(gossip)
}

impl Membership {
    fn new(options: Options, publish: Publish, cx: &mut Cx<Self>) -> Result<Self, Failure> {
        let config = &options.config;
        let binds = Binds::of(config)?;
        let tls = StreamTls::of(config)?;
        let bound = Bound::new(&binds, config.bind_port, tls.is_none())?;
        let host = host_candidates()?;
        let endpoints = binds.endpoints(config, bound.port(), &host)?;
        let mut rng = (options.rng)();
        let id = rng.next();
        let name = member_name(config, &options.host_name, id);
        let datagrams = bound.datagrams();
        let about = About { name: name.clone(), v4: endpoints.v4, v6: endpoints.v6, datagrams };
        let identity = Identity { process: id, name: name.clone(), software: options.software.clone() };
        let mut keeper = (options.rings)(&identity)?;
        if let Some(generations) = &options.generations {
            keeper.set_kept(|record| generations.of(record));
        }
        let swim_options = SwimOptions {
            node: Node::new(id, about),
            label: config.cluster_label.clone(),
            any_label: config.cluster_label_verification_disabled,
            keys: keys(config)?,
            preferred: binds.preferred(config),
            tuning: tuning(config),
            rng,
        };
        let doors = Doors { port: bound.port(), binds, host, endpoints };
        let limits = Limits {
            dial: config.packet_dial_timeout.get().min(config.stream_timeout.get()),
            write: config.packet_write_timeout.get(),
            idle: IDLE,
        };
        let tls_files = tls.as_ref().map(StreamTls::listener);
        let (transport, incoming) = Transport::start(bound, limits, tls)?;
        if let Some(tls) = tls_files {
            cx.detach(tls.follow(cx.alive()));
        }
        let discovery = Discovery::new(&config.join_members.0)?;
        tracing::info!(member = %name, v4 = ?endpoints.v4, v6 = ?endpoints.v6, datagrams, "gossip begins");
        let joining = Joining { patience: join_patience(config), fatal: config.abort_if_cluster_join_fails };
        let part = Self {
            swim: Swim::new(swim_options, State::new(), Duration::ZERO),
            keeper,
            transport,
            joining: Some(joining),
            keeping: false,
            discovery,
            doors,
            begun: cx.now(),
            wake: None,
            dirty: true,
            quiet_beats: 0,
            asking: Asking::default(),
            history: picture::History::new(config.message_history_buffer_bytes),
            publish,
            options,
        };
        Self::hear(incoming, cx);
        Ok(part)
    }

    /// The time since the part began, by the process's clock.
    fn now(&self, cx: &Cx<Self>) -> Duration {
        cx.now().saturating_duration_since(self.begun)
    }

    fn ring_now(&self, cx: &Cx<Self>) -> Now {
        Now { monotonic: self.now(cx), unix: cx.clock().unix() }
    }

    /// Waits for the next frames and handles them together.
    fn hear(mut incoming: mpsc::Receiver<Incoming>, cx: &mut Cx<Self>) {
        let waiting = async move {
            let mut batch = Vec::new();
            incoming.recv_many(&mut batch, INCOMING_MAX / 8).await;
            (incoming, batch)
        };
        cx.spawn(waiting, |part, (incoming, batch), cx| {
            let now = part.now(cx);
            for item in batch {
                match item {
                    Incoming::Frame { remote, channel, frame } => {
                        part.swim.handle(now, Event::Frame { remote, channel, frame });
                    }
                    Incoming::StreamFailed(address) => part.swim.handle(now, Event::StreamFailed(address)),
                    Incoming::Refused(remote, refused) => part.swim.refuse(now, remote, refused),
                }
            }
            part.settle(cx);
            Self::hear(incoming, cx);
        });
    }

    fn happen(&mut self, event: Event, cx: &mut Cx<Self>) {
        let now = self.now(cx);
        self.swim.handle(now, event);
        self.settle(cx);
    }

    /// Carries out what the member wants, and sets the clock for when it wants to be woken.
    fn settle(&mut self, cx: &mut Cx<Self>) {
        for output in self.swim.take_outputs() {
            self.transport.send(output.to, output.frame);
        }
        let at = self.ring_now(cx);
        for news in self.swim.take_news() {
            self.dirty = true;
            if news == News::Exhausted {
                cx.fail(Failure::new("the others know a life of this member that it cannot go above"));
            }
            self.note(news, at);
        }
        let Some(next) = self.swim.next_wake() else { return };
        if self.wake.as_ref().is_some_and(|(set, _)| *set == next) {
            return;
        }
        if let Some((_, timer)) = self.wake.take() {
            timer.cancel();
        }
        let delay = next.saturating_sub(self.now(cx));
        let timer = cx.after(delay, |part, cx| {
            part.wake = None;
            part.happen(Event::Wake, cx);
        });
        self.wake = Some((next, timer));
    }

    fn note(&mut self, news: News, at: Now) {
        match news {
            News::Up(node) => tracing::info!(member = ?node, "member is up"),
            News::Down(node) if node.left => tracing::info!(member = ?node, "member left"),
            News::Down(node) => tracing::warn!(member = ?node, "member is down"),
            News::Renewed(node) => tracing::info!(member = ?node, "member began a new life"),
            News::Rejoined(node) => tracing::warn!(member = ?node, "this member was taken for dead and came back"),
            News::Exhausted => {}
            News::Stood(millis) => tracing::warn!(millis, "this process stood still"),
            News::Records(keys) => self.remember(&keys, false, at),
            News::Spread(keys) => self.remember(&keys, true, at),
            News::Told { from, token, stamps } => self.asking.told(token, from.name(), &stamps),
        }
    }

    fn remember(&mut self, keys: &[Vec<u8>], sent: bool, at: Now) {
        for key in keys.iter().filter_map(|key| Key::decode(key).ok()) {
            self.swim.with_state(|state| self.history.note(&key, sent, state, at));
        }
    }

    /// Looks at the rings: soon when something changed, now and then otherwise.
    fn beat(&mut self, cx: &mut Cx<Self>) {
        self.join(cx);
        self.quiet_beats += 1;
        if !self.dirty && self.quiet_beats < BEATS_QUIET {
            return;
        }
        (self.dirty, self.quiet_beats) = (false, 0);
        let at = self.ring_now(cx);
        let view = self.swim.view(at.monotonic);
        let liveness = picture::liveness(&view);
        let keeper = &mut self.keeper;
        let events = self.swim.update(|state| {
            state.advance(at.monotonic);
            keeper.tick(state, &liveness, at)
        });
        if self.joining.is_none() {
            self.keep_generations(cx);
        }
        for event in events {
            match event {
                KeeperEvent::Member(key, event) => tracing::info!(%key, ?event, "own record in a ring"),
                KeeperEvent::Forgotten(key) => tracing::info!(%key, "forgot a member of a ring"),
                KeeperEvent::Partition(id, to) => tracing::info!(partition = id, ?to, "partition changed"),
            }
        }
        self.settle(cx);
        self.publish(&view, &liveness, at.monotonic);
    }

    fn publish(&mut self, view: &View, liveness: &Liveness, now: Duration) {
        let cluster = self.cluster(view, now);
        self.publish.board.publish_cluster(cluster);
        let rings = self.swim.with_state(|state| self.keeper.rings(state, liveness));
        self.publish.board.publish(rings);
        self.publish.rings.send_replace(self.publish.board.rings());
        self.publish.liveness.send_if_modified(|known| {
            let news = **known != *liveness;
            if news {
                *known = Arc::new(liveness.clone());
            }
            news
        });
    }

    fn cluster(&self, view: &View, now: Duration) -> Cluster {
        let around = picture::Surroundings {
            label: &self.options.config.cluster_label,
            discovery: &self.discovery,
            refusals: self.swim.refusals(),
            history: &self.history,
            now,
        };
        picture::cluster(view, &around)
    }
}

impl Part for Membership {
    fn started(&mut self, cx: &mut Cx<Self>) {
        cx.every(BEAT, |part, cx| part.beat(cx));
        self.look_up(cx);
        self.happen(Event::Wake, cx);
    }

    /// Leaves the rings, then the cluster, and stays until that was told.
    fn drain(&mut self, cx: &mut Cx<Self>) -> LocalBoxFuture<'static, ()> {
        let keeper = &mut self.keeper;
        self.swim.update(|state| {
            keeper.leave(state);
            keeper.stop(state);
        });
        self.happen(Event::Leave, cx);
        let alone = self.swim.roster().up() == 0;
        let limit = FAREWELL.min(self.options.config.leave_timeout.get());
        cx.sleep(if alone { Duration::ZERO } else { limit }).boxed_local()
    }

    fn observe(&self) -> serde_json::Value {
        serde_json::json!({
            "up": self.swim.roster().up(),
            "backlog": self.swim.backlog(),
            "dropped": self.transport.dropped(),
            "joined": self.joining.is_none(),
        })
    }
}

impl Serve<Command> for Membership {
    type Reply = Result<(), CommandError>;

    fn serve(&mut self, command: Command, cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        let at = self.ring_now(cx);
        let liveness = picture::liveness(&self.swim.view(at.monotonic));
        let keeper = &mut self.keeper;
        let result = self.swim.update(|state| keeper.command(state, &liveness, command, at));
        self.dirty = true;
        self.beat(cx);
        Reply::ok(result)
    }
}

impl Serve<Look> for Membership {
    type Reply = Cluster;

    fn serve(&mut self, Look: Look, cx: &mut Cx<Self>) -> Reply<Cluster> {
        let now = self.now(cx);
        Reply::ok(self.cluster(&self.swim.view(now), now))
    }
}

impl Serve<Compare> for Membership {
    type Reply = Vec<PeerView>;

    fn serve(&mut self, compare: Compare, cx: &mut Cx<Self>) -> Reply<Vec<PeerView>> {
        let now = self.now(cx);
        // Somebody reads a page: what it says of ways should be of now, at least when it is read again.
        self.swim.examine(now);
        let (token, reply) = self.asking.begin(&mut self.swim, now);
        cx.after(compare.patience, move |part, _| part.asking.end(token));
        self.settle(cx);
        reply
    }
}
