//! Membership: who is there, who is not, and one replicated state that all of them share. Sans-IO.
//!
//! A [`Swim`] is one member. It is told what happens ([`Event`]) and when, and says what is to be sent ([`Output`]), what
//! changed ([`News`]) and when it wants to be woken. It knows no clock, no socket and no source of chance but its own, so a
//! thousand of them run in one test, the same way for the same seed.
//!
//! foca does what SWIM describes: probes, indirect probes, suspicion, refutation, gossip. Around it stands what a cluster
//! needs besides:
//!
//! | module | what |
//! |---|---|
//! | `compare` | every packet carries sums of the roster and of the state; where they differ, the difference is pulled |
//! | `doubts` | a suspect is told so directly, by each prober; what a comparison says of a living member is asked of itself |
//! | `rejoin` | seeds and last-known peers are tried for ever, so a cluster that fell apart becomes whole without help |
//! | `send` | ways over datagrams, streams, both families and relays; a probe tries the others before it fails |
//! | `timers` | a process that stood still does not hold it against the others |

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::rc::Rc;
use std::time::Duration;

use foca::{Foca, OwnedNotification, PeriodicParams};
use vivace_runtime::Rng;

use crate::families::{Own, Paths};
use crate::frame::{DATAGRAM_BYTES_MAX, Frames, OVERHEAD_BYTES_MAX, Refusals, Refused};
use crate::sync::Replicated;

mod body;
mod codec;
mod compare;
mod doubts;
mod event;
mod node;
mod options;
mod port;
mod receive;
mod rejoin;
mod roster;
mod send;
mod timers;
mod view;

#[cfg(test)]
mod tests;

pub use body::Kind;
pub use event::{Channel, ConnId, Event, News, Output, Target};
pub use node::{About, NAME_BYTES_MAX, Node};
pub use options::{Options, Tuning};
pub use roster::{Entry, Line, Roster};
pub use view::{Health, MemberView, View};

use body::Body;
use codec::Codec;
use compare::Compare;
use doubts::Doubts;
use port::{Port, Spread};
use rejoin::Rejoin;
use send::{Awaited, Knocks, Reply};
use timers::Timers;

/// Bytes of foca's packets: what a datagram holds besides the frame, our sums and the head of a relayed message.
const PACKET_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - OVERHEAD_BYTES_MAX - body::SWIM_HEAD_BYTES - 26;
/// Members known at once, down ones included. Further ones are not taken from comparisons.
const MEMBERS_MAX: usize = 10_000;
/// A deadline that is handled so late was passed by this process, not by whoever should have answered.
const LATE: Duration = Duration::from_millis(100);
/// Rounds of gossip in which a leaving member says so.
const FAREWELLS: u8 = 5;

#[derive(Debug)]
enum Due {
    Foca(foca::Timer<Node>),
    Escalate(u64),
    KnockSilent(u32),
    DoubtsOver(u64),
    SuspectStill(Node, u16),
    Rejoin,
    Compare,
    Resize,
    Farewell(u8),
}

/// One member of a cluster.
pub struct Swim<S: Replicated> {
    foca: Foca<Node, Codec, Rng, Spread<S>>,
    codec: Codec,
    port: Port,
    state: Rc<RefCell<S>>,
    changed: Rc<RefCell<Vec<Vec<u8>>>>,
    frames: Frames,
    roster: Roster,
    paths: Paths,
    timers: Timers<Due>,
    tuning: Tuning,
    rng: Rng,
    compare: Compare,
    doubts: Doubts,
    rejoin: Rejoin,
    awaited: BTreeMap<u64, Awaited>,
    knocks: Knocks,
    reply: Option<Reply>,
    serial: u64,
    relayed: u64,
    outputs: Vec<Output>,
    news: Vec<News>,
}

impl<S: Replicated> Swim<S> {
    /// A member that begins at `now`. It knows nobody until it is given seeds.
    #[must_use]
    pub fn new(options: Options, state: S, now: Duration) -> Self {
        let Options { node, label, any_label, keys, preferred, tuning, mut rng } = options;
        let state = Rc::new(RefCell::new(state));
        let changed = Rc::default();
        let codec = Codec::default();
        let spread = Spread { state: Rc::clone(&state), changed: Rc::clone(&changed) };
        let own = Own {
            v4: node.endpoint(crate::families::Family::V4).is_some(),
            v6: node.endpoint(crate::families::Family::V6).is_some(),
            datagrams: node.datagrams(),
        };
        let mut roster = Roster::default();
        roster.set(now, node.clone(), true);
        let config = foca_config(&tuning, 1);
        let mut swim = Self {
            foca: Foca::with_custom_broadcast(node, config, rng.fork(), codec.clone(), spread),
            codec,
            port: Port::default(),
            state,
            changed,
            frames: Frames::new(&label, keys, rng.next()).any_label(any_label),
            roster,
            paths: Paths::new(own, preferred),
            timers: Timers::new(now),
            compare: Compare::default(),
            doubts: Doubts::default(),
            rejoin: Rejoin::new(tuning.rejoin_min),
            tuning,
            rng,
            awaited: BTreeMap::new(),
            knocks: Knocks::default(),
            reply: None,
            serial: 0,
            relayed: 0,
            outputs: Vec::new(),
            news: Vec::new(),
        };
        swim.timers.set(now, Due::Rejoin);
        swim.timers.set(now + Duration::from_secs(5), Due::Resize);
        if !swim.tuning.pull_push_interval.is_zero() {
            let first = swim.jitter(swim.tuning.pull_push_interval);
            swim.timers.set(now + first, Due::Compare);
        }
        swim
    }

    /// Takes an event that happens at `now`: time since any fixed moment, never going back.
    pub fn handle(&mut self, now: Duration, event: Event) {
        let now = self.awake(now);
        match event {
            Event::Frame { remote, channel, frame } => self.on_frame(now, remote, channel, &frame),
            Event::StreamFailed(address) => self.on_stream_failed(now, address),
            Event::Seeds(seeds) => self.on_seeds(now, seeds),
            Event::Wake => {}
            Event::Leave => self.on_leave(now),
        }
        while let Some((due, late)) = self.timers.pop(now) {
            self.on_due(now, due, late >= LATE);
        }
    }

    /// The time that counts, at `outside`. A process that stood still says so.
    fn awake(&mut self, outside: Duration) -> Duration {
        let stood = self.timers.awake(outside);
        if !stood.is_zero() {
            self.news.push(News::Stood(u64::try_from(stood.as_millis()).unwrap_or(u64::MAX)));
        }
        self.timers.running(outside)
    }

    /// When to send [`Event::Wake`], on the time of [`Swim::handle`].
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// What is to be sent, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// What changed, in order.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Changes the state locally and tells others.
    pub fn update<R>(&mut self, change: impl FnOnce(&mut S) -> R) -> R {
        let result = change(&mut self.state.borrow_mut());
        let records = self.state.borrow_mut().take_broadcasts();
        for record in &records {
            self.spread_record(record);
        }
        if !records.is_empty() {
            let state = self.state.borrow();
            self.news.push(News::Spread(records.iter().filter_map(|record| state.key_of(record)).collect()));
        }
        result
    }

    /// Looks at the state.
    pub fn with_state<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        look(&self.state.borrow())
    }

    /// The member itself, in its present life.
    #[must_use]
    pub fn node(&self) -> &Node {
        self.foca.identity()
    }

    /// Everybody that is known.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// What was refused, and from whom.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        self.frames.refusals()
    }

    /// Notes something that was refused before it was a frame.
    pub fn refuse(&mut self, now: Duration, from: SocketAddr, refused: Refused) {
        self.frames.refuse(now, from, refused);
    }

    /// News that are still being told.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.foca.updates_backlog() + self.foca.custom_broadcast_backlog()
    }

    /// `late`: it should have been handled before, and answers that came since may be unread.
    fn on_due(&mut self, now: Duration, due: Due, late: bool) {
        match due {
            Due::Foca(timer) => {
                if let foca::Timer::RemoveDown(node) = &timer
                    && self.roster.forget(node)
                {
                    self.paths.forget(node.id);
                    self.compare.forget(node.id);
                }
                // Its errors say that a probe round was cut short, which the next round makes good.
                if let Err(error) = self.foca.handle_timer(timer, &mut self.port) {
                    tracing::debug!(%error, "handle gossip timer");
                }
                self.settle(now);
            }
            Due::Escalate(serial) => self.escalate(now, serial, late),
            Due::KnockSilent(token) => self.on_knock_silent(now, token, late),
            Due::DoubtsOver(batch) => self.on_doubts_over(now, batch),
            Due::SuspectStill(node, incarnation) => self.on_suspect_still(now, &node, incarnation),
            Due::Rejoin => self.on_rejoin_due(now),
            Due::Compare => self.on_compare_due(now),
            Due::Resize => {
                let size = self.roster.up();
                self.foca.set_config(foca_config(&self.tuning, size)).expect("only the repetitions differ");
                let roster = &self.roster;
                self.paths.retain(|id| roster.get(id).is_some());
                self.timers.set(now + Duration::from_secs(5), Due::Resize);
            }
            Due::Farewell(left) => self.farewell(now, left),
        }
    }

    fn on_leave(&mut self, now: Duration) {
        if self.node().left {
            return;
        }
        let last = self.node().next(true);
        self.codec.reset_incarnation();
        let renewed = self.foca.change_identity(last, &mut self.port);
        let left = renewed.and_then(|()| self.foca.leave_cluster(&mut self.port));
        if let Err(error) = left {
            tracing::warn!(%error, "leave the gossip cluster");
        }
        self.settle(now);
        self.roster.set(now, self.foca.identity().clone(), false);
        self.timers.set(now + self.tuning.gossip_interval, Due::Farewell(FAREWELLS));
    }

    fn farewell(&mut self, now: Duration, left: u8) {
        if let Err(error) = self.foca.gossip(&mut self.port) {
            tracing::debug!(%error, "tell that this member leaves");
        }
        self.settle(now);
        if left > 1 {
            self.timers.set(now + self.tuning.gossip_interval, Due::Farewell(left - 1));
        }
    }

    /// Carries out what foca asked for.
    fn settle(&mut self, now: Duration) {
        let Port { sends, timers, notes } = std::mem::take(&mut self.port);
        for note in notes {
            self.on_note(now, note);
        }
        for (timer, after) in timers {
            if let foca::Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer {
                self.on_suspected(now, member_id, *incarnation);
            }
            self.timers.set(now + after, Due::Foca(timer));
        }
        for (to, packet) in sends {
            self.send_packet(now, &to, packet);
        }
        let changed = std::mem::take(&mut *self.changed.borrow_mut());
        if !changed.is_empty() {
            self.news.push(News::Records(changed));
        }
    }

    fn on_note(&mut self, now: Duration, note: OwnedNotification<Node>) {
        match note {
            OwnedNotification::MemberUp(node) => {
                self.rejoin.met(now, &node);
                self.doubts.resolve(node.id);
                if self.roster.set(now, node.clone(), true) {
                    self.news.push(News::Up(node));
                }
            }
            OwnedNotification::MemberDown(node) => {
                if node.left {
                    self.rejoin.left(&node);
                }
                self.doubts.resolve(node.id);
                self.compare.forget(node.id);
                if self.roster.set(now, node.clone(), false) {
                    self.news.push(News::Down(node));
                }
            }
            OwnedNotification::Rename(_, node) => {
                let up = self.roster.get(node.id).is_some_and(|entry| entry.up);
                self.doubts.resolve(node.id);
                if self.roster.set(now, node.clone(), up) && up {
                    self.news.push(News::Renewed(node));
                }
            }
            OwnedNotification::Rejoin(node) => {
                self.codec.reset_incarnation();
                self.roster.set(now, node.clone(), true);
                self.news.push(News::Rejoined(node));
            }
            OwnedNotification::Defunct if !self.node().left => self.news.push(News::Exhausted),
            OwnedNotification::Active | OwnedNotification::Idle | OwnedNotification::Defunct => {}
        }
    }

    fn spread_record(&mut self, record: &[u8]) {
        if let Err(error) = self.foca.add_broadcast(record) {
            tracing::warn!(%error, bytes = record.len(), "spread a record");
        }
    }

    /// Between 0 and `span`, so that members do not act in step.
    fn jitter(&mut self, span: Duration) -> Duration {
        span.mul_f64(self.rng.unit())
    }
}

/// How often news are repeated in a cluster of `size`: a factor times the digits of its size, twice, because a round of
/// gossip reaches fewer than memberlist's.
fn foca_config(tuning: &Tuning, size: usize) -> foca::Config {
    let digits = u32::try_from((size + 1).to_string().len()).unwrap_or(1);
    let repeats = (2 * tuning.retransmit_factor.clamp(1, 16) * digits).clamp(4, 60);
    let positive = |count: usize| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
    foca::Config {
        probe_period: tuning.probe_period,
        probe_rtt: tuning.probe_rtt,
        num_indirect_probes: positive(3),
        max_transmissions: NonZeroU8::new(u8::try_from(repeats).unwrap_or(u8::MAX)).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: tuning.suspicion,
        remove_down_after: Some(tuning.forget_down_after),
        max_packet_size: positive(PACKET_BYTES_MAX),
        notify_down_members: true,
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams {
            frequency: tuning.gossip_interval,
            num_members: positive(tuning.gossip_nodes),
        }),
    }
}
