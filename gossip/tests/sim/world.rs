//! Members, network and time, all decided by one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use vivace_gossip::families::Family;
use vivace_gossip::frame::Keys;
use vivace_gossip::swim::{About, Channel, ConnId, Event, Kind, News, Node, Options, Swim, Target, Tuning};
use vivace_runtime::Rng;

use crate::network::{Fate, Network};
use crate::registers::Registers;

/// Families of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    V4,
    V6,
    Dual,
}

/// A process at a place.
pub(crate) struct Process {
    pub(crate) swim: Swim<Registers>,
    pub(crate) life: u64,
    /// The time of its own monotonic clock when the world began.
    offset: Duration,
    wake: Option<Duration>,
    paused: Option<Vec<Event>>,
    pub(crate) key: u32,
    pub(crate) label: String,
}

#[derive(Debug)]
enum Happens {
    Wake { place: usize, life: u64 },
    Comes { place: usize, life: u64, event: Event, from: usize },
}

/// Bytes and frames sent, by kind.
#[derive(Debug, Default, Clone)]
pub(crate) struct Traffic {
    pub(crate) bytes: BTreeMap<Kind, u64>,
    pub(crate) frames: BTreeMap<Kind, u64>,
}

impl Traffic {
    pub(crate) fn total(&self) -> u64 {
        self.bytes.values().sum()
    }
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) network: Network,
    pub(crate) processes: Vec<Option<Process>>,
    pub(crate) stacks: Vec<Stack>,
    pub(crate) traffic: Traffic,
    pub(crate) seeds: Vec<SocketAddr>,
    pub(crate) tuning: Tuning,
    pub(crate) keys: Vec<[u8; 32]>,
    /// Living members that somebody declared down: who, whom, when.
    pub(crate) false_deaths: Vec<(usize, u64, Duration)>,
    pub(crate) rng: Rng,
    /// When, the how many-th that was put in, and its place in `happenings`.
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    happenings: Vec<Option<Happens>>,
    free: Vec<usize>,
    openers: BTreeMap<u64, usize>,
    /// Where each process was started.
    homes: BTreeMap<u64, usize>,
    line: String,
    serial: u64,
    lives: u64,
    log: u64,
    swept: Duration,
    verbose: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            network: Network::default(),
            processes: Vec::new(),
            stacks: Vec::new(),
            traffic: Traffic::default(),
            seeds: Vec::new(),
            tuning: Tuning::default(),
            keys: Vec::new(),
            false_deaths: Vec::new(),
            rng: Rng::seeded(seed),
            queue: BinaryHeap::new(),
            happenings: Vec::new(),
            free: Vec::new(),
            openers: BTreeMap::new(),
            homes: BTreeMap::new(),
            line: String::new(),
            serial: 0,
            lives: 0,
            log: 0xcbf2_9ce4_8422_2325,
            swept: Duration::ZERO,
            verbose: std::env::var_os("VIVACE_SIM_LOG").is_some(),
        }
    }

    /// The hash of everything that was sent and that changed.
    pub(crate) fn log(&self) -> u64 {
        self.log
    }

    /// A place without a process, with addresses of its own.
    pub(crate) fn add_place(&mut self, stack: Stack) -> usize {
        let place = self.processes.len();
        self.processes.push(None);
        self.stacks.push(stack);
        self.network.lives.push(None);
        for family in [Family::V4, Family::V6] {
            if let Some(address) = self.address(place, family) {
                self.network.places.insert(address, place);
            }
        }
        place
    }

    pub(crate) fn address(&self, place: usize, family: Family) -> Option<SocketAddr> {
        let high = u8::try_from(place / 250).expect("few places");
        let low = u8::try_from(place % 250 + 1).expect("at most 250");
        match (family, self.stacks[place]) {
            (Family::V4, Stack::V4 | Stack::Dual) => Some((Ipv4Addr::new(10, 0, high, low), 7946).into()),
            (Family::V6, Stack::V6 | Stack::Dual) => {
                let ip = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, high.into(), low.into());
                Some((ip, 7946).into())
            }
            _ => None,
        }
    }

    pub(crate) fn addresses(&self, place: usize) -> Vec<SocketAddr> {
        [Family::V4, Family::V6].into_iter().filter_map(|family| self.address(place, family)).collect()
    }

    /// Starts a process with nothing but its seeds.
    pub(crate) fn start(&mut self, place: usize, name: &str, label: &str) {
        self.lives += 1;
        let (life, id) = (self.lives, self.rng.next());
        self.homes.insert(id, place);
        let about = About {
            name: name.to_owned(),
            v4: self.address(place, Family::V4),
            v6: self.address(place, Family::V6),
            datagrams: true,
        };
        let options = Options {
            node: Node::new(id, about),
            label: label.to_owned(),
            any_label: false,
            keys: Keys::new(&self.keys).expect("32 bytes"),
            preferred: Family::V6,
            tuning: self.tuning.clone(),
            rng: self.rng.fork(),
        };
        let offset = Duration::from_millis(self.rng.below(100_000_000));
        let swim = Swim::new(options, Registers::default(), offset + self.now);
        let key = u32::try_from(place).expect("few places");
        let process = Process { swim, life, offset, wake: None, paused: None, key, label: label.to_owned() };
        self.processes[place] = Some(process);
        self.network.lives[place] = Some(life);
        let seeds = self.seeds.clone();
        self.give(place, Event::Seeds(seeds));
        self.write(place);
    }

    /// The process writes its own record anew.
    pub(crate) fn write(&mut self, place: usize) {
        let version = u64::try_from(self.now.as_micros()).expect("short runs") + 1;
        if let Some(process) = &mut self.processes[place] {
            let key = process.key;
            process.swim.update(|state| state.put(key, version));
        }
        self.give(place, Event::Wake);
    }

    /// The process ends without a word.
    pub(crate) fn kill(&mut self, place: usize) {
        self.processes[place] = None;
        self.network.lives[place] = None;
    }

    pub(crate) fn leave(&mut self, place: usize) {
        self.give(place, Event::Leave);
    }

    /// SIGSTOP: what arrives waits in the kernel.
    pub(crate) fn pause(&mut self, place: usize) {
        if let Some(process) = &mut self.processes[place] {
            process.paused.get_or_insert_default();
        }
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self, place: usize) {
        let Some(process) = &mut self.processes[place] else { return };
        for event in process.paused.take().unwrap_or_default() {
            self.give(place, event);
        }
        self.give(place, Event::Wake);
    }

    pub(crate) fn is_running(&self, place: usize) -> bool {
        self.processes[place].as_ref().is_some_and(|process| process.paused.is_none() && !process.swim.node().left)
    }

    /// Places with a process that takes part.
    pub(crate) fn living(&self) -> Vec<usize> {
        (0..self.processes.len()).filter(|place| self.is_running(*place)).collect()
    }

    pub(crate) fn swim(&self, place: usize) -> &Swim<Registers> {
        &self.processes[place].as_ref().expect("a process is there").swim
    }

    /// What the process at a place thinks that time is.
    pub(crate) fn clock(&self, place: usize) -> Duration {
        self.now + self.processes[place].as_ref().map_or(Duration::ZERO, |process| process.offset)
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(Reverse((at, _, slot))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            self.happen(slot);
        }
        self.now = end;
    }

    /// Lets time pass until `done`, looked at every 100 ms. None: not within `limit`.
    pub(crate) fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let begin = self.now;
        while self.now - begin <= limit {
            if done(self) {
                return Some(self.now - begin);
            }
            self.run(Duration::from_millis(100));
        }
        None
    }

    fn happen(&mut self, slot: usize) {
        self.free.push(slot);
        match self.happenings[slot].take() {
            Some(Happens::Wake { place, life }) => {
                let now = self.now;
                let Some(process) = self.processes[place].as_mut().filter(|process| process.life == life) else {
                    return;
                };
                if process.wake == Some(now) {
                    process.wake = None;
                    if process.paused.is_none() {
                        self.give(place, Event::Wake);
                    }
                }
            }
            Some(Happens::Comes { place, life, event, from }) => {
                let there = self.processes[place].as_ref().is_some_and(|process| process.life == life);
                // A packet on its way when the network parts is lost.
                let cut = self.network.blocks.groups.get(&from) != self.network.blocks.groups.get(&place);
                if there && (!cut || matches!(event, Event::StreamFailed(_))) {
                    self.give(place, event);
                }
            }
            None => {}
        }
        if self.now > self.swept + Duration::from_secs(20) {
            self.swept = self.now;
            self.network.sweep(self.now);
        }
    }

    fn give(&mut self, place: usize, event: Event) {
        let now = self.now;
        let Some(process) = &mut self.processes[place] else { return };
        if let Some(waiting) = &mut process.paused {
            // A kernel's buffers are bounded, too.
            if waiting.len() < 500 {
                waiting.push(event);
            }
            return;
        }
        process.swim.handle(now + process.offset, event);
        let (outputs, news) = (process.swim.take_outputs(), process.swim.take_news());
        self.note_news(place, news);
        for output in outputs {
            *self.traffic.bytes.entry(output.kind).or_default() += output.frame.len() as u64;
            *self.traffic.frames.entry(output.kind).or_default() += 1;
            self.note(&[nanos(now), place as u64, output.frame.len() as u64, hash(&output.frame)]);
            if self.verbose && output.kind != Kind::Swim {
                println!("{:9.3} {place:3} sends {:?} to {:?}", now.as_secs_f64(), output.kind, output.to);
            }
            self.transmit(place, output.to, output.frame);
        }
        self.schedule(place);
    }

    fn schedule(&mut self, place: usize) {
        let Some(process) = &mut self.processes[place] else { return };
        let Some(next) = process.swim.next_wake() else { return };
        let at = next.saturating_sub(process.offset).max(self.now);
        if process.wake.is_none_or(|wake| at < wake) {
            process.wake = Some(at);
            let life = process.life;
            self.enqueue(at, Happens::Wake { place, life });
        }
    }

    fn enqueue(&mut self, at: Duration, what: Happens) {
        self.serial += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.happenings.push(None);
            self.happenings.len() - 1
        });
        self.happenings[slot] = Some(what);
        self.queue.push(Reverse((at, self.serial, slot)));
    }

    fn transmit(&mut self, from: usize, to: Target, frame: Vec<u8>) {
        let (now, life) = (self.now, self.network.lives[from]);
        let source = |world: &Self, peer: SocketAddr| {
            world.address(from, Family::of(peer)).unwrap_or_else(|| world.addresses(from)[0])
        };
        match to {
            Target::Datagram(address) => {
                let remote = source(self, address);
                let fates = self.network.datagram(now, from, address, &mut self.rng);
                let mut fates = fates.into_iter().flatten().peekable();
                while let Some(fate) = fates.next() {
                    if fates.peek().is_none() {
                        self.arrive(from, fate, remote, Channel::Datagram, frame);
                        break;
                    }
                    self.arrive(from, fate, remote, Channel::Datagram, frame.clone());
                }
            }
            Target::Stream(address) => match self.network.stream(now, from, address, &mut self.rng) {
                fate @ Fate::Arrives { conn, .. } => {
                    self.openers.insert(conn, from);
                    let remote = source(self, address);
                    self.arrive(from, fate, remote, Channel::Accepted(ConnId(conn)), frame);
                }
                Fate::Fails { at } => {
                    let life = life.expect("the sender lives");
                    let event = Event::StreamFailed(address);
                    self.enqueue(at, Happens::Comes { place: from, life, event, from });
                }
                Fate::Lost => {}
            },
            Target::Answer(ConnId(conn)) => {
                let Some(opener) = self.openers.get(&conn).copied() else { return };
                let (fate, address) = self.network.answer(now, from, conn, opener, &mut self.rng);
                if let Some(address) = address {
                    self.arrive(from, fate, address, Channel::Opened(address), frame);
                }
            }
        }
    }

    fn arrive(&mut self, from: usize, fate: Fate, remote: SocketAddr, channel: Channel, frame: Vec<u8>) {
        let Fate::Arrives { place, at, .. } = fate else { return };
        let Some(life) = self.network.lives[place] else { return };
        let event = Event::Frame { remote, channel, frame };
        self.enqueue(at, Happens::Comes { place, life, event, from });
    }

    fn note_news(&mut self, place: usize, news: Vec<News>) {
        for item in news {
            self.line.clear();
            write!(self.line, "{item:?}").expect("a string takes everything");
            self.note(&[nanos(self.now), place as u64, hash(self.line.as_bytes())]);
            if self.verbose {
                println!("{:9.3} {place:3} {}", self.now.as_secs_f64(), self.line);
            }
            if let News::Down(node) = item
                && !node.left
                && self.homes.get(&node.id).is_some_and(|home| self.is_process(*home, node.id))
            {
                self.false_deaths.push((place, node.id, self.now));
            }
        }
    }

    fn is_process(&self, place: usize, id: u64) -> bool {
        self.is_running(place) && self.swim(place).node().id == id
    }

    fn note(&mut self, parts: &[u64]) {
        for part in parts {
            self.log = (self.log ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5);
        }
    }

    /// Everybody in `places` holds exactly these, in their present lives, for up, and the same records.
    pub(crate) fn agree(&self, places: &[usize]) -> bool {
        self.disagreement(places).is_none()
    }

    /// How many of `places` hold exactly these for up.
    pub(crate) fn agreeing(&self, places: &[usize]) -> usize {
        let nodes: BTreeSet<(u64, u32)> = places.iter().map(|place| identity(self.swim(*place).node())).collect();
        let nodes: Vec<(u64, u32)> = nodes.into_iter().collect();
        let agrees = |place: &&usize| {
            let roster = self.swim(**place).roster();
            // In the order of their ids, too.
            let ups = roster.iter().filter(|entry| entry.up).map(|entry| identity(&entry.node));
            roster.up() == nodes.len() && ups.eq(nodes.iter().copied())
        };
        places.iter().filter(agrees).count()
    }

    pub(crate) fn ups(&self, place: usize) -> BTreeSet<(u64, u32)> {
        self.swim(place).roster().iter().filter(|entry| entry.up).map(|entry| identity(&entry.node)).collect()
    }

    /// The first thing in which `places` do not agree.
    pub(crate) fn disagreement(&self, places: &[usize]) -> Option<String> {
        let nodes: BTreeSet<(u64, u32)> = places.iter().map(|place| identity(self.swim(*place).node())).collect();
        for place in places {
            let swim = self.swim(*place);
            let ups = self.ups(*place);
            if ups != nodes {
                let lacks: Vec<_> = nodes.difference(&ups).collect();
                let extra: Vec<_> = ups.difference(&nodes).collect();
                return Some(format!("place {place} lacks {lacks:x?} and has besides {extra:x?}"));
            }
            for other in places {
                let key = u32::try_from(*other).expect("few places");
                let (here, there) = (swim.with_state(|s| s.get(key)), self.swim(*other).with_state(|s| s.get(key)));
                if here != there {
                    return Some(format!("place {place} has {here:?} for the record of {other}, which has {there:?}"));
                }
            }
        }
        None
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn identity(node: &Node) -> (u64, u32) {
    (node.id, node.generation)
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
