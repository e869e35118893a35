//! Sending to members: the way is chosen here, and left here when it is not answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::codec::is_probe;
use super::{Body, Channel, Due, Kind, Node, Output, Swim, Target};
use crate::families::{Family, Paths, Route};
use crate::frame::{DATAGRAM_BYTES_MAX, OVERHEAD_BYTES_MAX};
use crate::sync::Replicated;

/// How long a knock may take.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// Knocks that wait for an answer at once.
const KNOCKS_MAX: usize = 256;
/// Members whose ways are tried because somebody looks at them.
const EXAMINED_MAX: usize = 64;
/// Relays of which it is asked whether there is a way to them.
const RELAYS_WEIGHED: usize = 8;
/// Ways that a probe takes besides the first.
const ALTERNATIVES_MAX: usize = 6;
/// Relays among them: some may just have died, and are not known to.
const ALTERNATIVE_RELAYS: usize = 3;

/// A probe that waits for any sign of life.
#[derive(Debug)]
pub(super) struct Awaited {
    to: Node,
    route: Route,
    sent: Duration,
    packet: Vec<u8>,
}

/// Knocks that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Knocks {
    serial: u32,
    /// Where the next look begins.
    examined: usize,
    waiting: BTreeMap<u32, Knock>,
}

/// A trial of a way, for its own sake.
#[derive(Debug, Clone, Copy)]
struct Knock {
    to: u64,
    route: Route,
    /// When the first one was sent.
    begun: Duration,
    /// The first one was not answered.
    again: bool,
}

/// Whom and how to answer, while a message is handled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply {
    pub(super) to: u64,
    pub(super) channel: Option<Channel>,
    /// By which the message came.
    pub(super) family: Family,
    pub(super) via: Option<u64>,
}

impl<S: Replicated> Swim<S> {
    /// Sends a packet of foca's. Probes are watched.
    pub(super) fn send_packet(&mut self, now: Duration, to: &Node, packet: Vec<u8>) {
        let to = self.known(to);
        let probe = is_probe(&packet).then(|| packet.clone());
        let body = self.swim_body(packet);
        let Some(route) = self.send(now, &to, &body, true) else { return };
        if let Some(packet) = probe {
            self.serial += 1;
            self.awaited.insert(self.serial, Awaited { to: to.clone(), route, sent: now, packet });
            self.timers.set(now + self.tuning.escalate_after, Due::Escalate(self.serial));
            self.knock(now, &to);
        }
    }

    fn swim_body(&self, packet: Vec<u8>) -> Body {
        Body::Swim {
            hears_datagrams: self.paths.hears_datagrams(),
            roster: self.roster.digest(),
            state: self.state.borrow().digest(),
            packet,
        }
    }

    /// What the roster knows of a node that may have been named by its identity alone.
    fn known(&self, node: &Node) -> Node {
        match self.roster.get(node.id) {
            Some(entry) if node.endpoints().next().is_none() => entry.node.clone(),
            _ => node.clone(),
        }
    }

    /// Sends to a member by the best way. Nothing is sent, and none returned, if there is no way at all.
    pub(super) fn send(&mut self, now: Duration, to: &Node, body: &Body, packet: bool) -> Option<Route> {
        let bytes = body.encode();
        if let Some(reply) = self.reply.filter(|reply| reply.to == to.id) {
            match (reply.channel, reply.via) {
                (Some(Channel::Accepted(conn)), _) => {
                    self.emit(Target::Answer(conn), bytes, body.kind());
                    return to.endpoints().next().map(Route::Stream);
                }
                (Some(Channel::Opened(address)), _) => {
                    self.emit(Target::Stream(address), bytes, body.kind());
                    return Some(Route::Stream(address));
                }
                (_, Some(via)) => {
                    self.dispatch(now, to, Route::Via(via), bytes, body.kind(), packet);
                    return Some(Route::Via(via));
                }
                (Some(Channel::Datagram), None) => {
                    // The way that it came by works at least in that direction; another one may just have died.
                    let address =
                        self.paths.datagram_back(to, reply.family).filter(|_| packet && fits_datagram(&bytes));
                    if let Some(address) = address {
                        self.emit(Target::Datagram(address), bytes, body.kind());
                        return Some(Route::Datagram(address));
                    }
                }
                (None, None) => {}
            }
        }
        let (routes, expected) = self.paths.routes(now, to, packet && fits_datagram(&bytes));
        let direct = routes.first().copied();
        let route =
            if expected { direct } else { self.relays(now, to).first().map(|via| Route::Via(*via)).or(direct) }?;
        self.dispatch(now, to, route, bytes, body.kind(), packet);
        Some(route)
    }

    /// Sends by every way that is left, besides `except`.
    pub(super) fn send_all_ways(&mut self, now: Duration, to: &Node, body: &Body, except: Option<Route>) {
        let bytes = body.encode();
        let (streams, expected) = self.paths.routes(now, to, false);
        let mut routes = if fits_datagram(&bytes) { self.paths.datagrams(now, to) } else { Vec::new() };
        routes.extend(streams);
        if !expected {
            routes.extend(self.relays(now, to).into_iter().take(ALTERNATIVE_RELAYS).map(Route::Via));
        }
        for route in routes.into_iter().filter(|route| Some(*route) != except).take(ALTERNATIVES_MAX) {
            self.dispatch(now, to, route, bytes.clone(), body.kind(), true);
        }
    }

    fn dispatch(&mut self, now: Duration, to: &Node, route: Route, bytes: Vec<u8>, kind: Kind, packet: bool) {
        match route {
            Route::Datagram(address) => self.emit(Target::Datagram(address), bytes, kind),
            Route::Stream(address) => self.emit(Target::Stream(address), bytes, kind),
            Route::Via(by) => {
                let Some(relay) = self.roster.get(by).map(|entry| entry.node.clone()) else { return };
                let origin = self.node().id;
                let wrapped = Body::Relay { origin, by, to: to.id, passed: false, packet, body: bytes }.encode();
                let (routes, _) = self.paths.routes(now, &relay, packet && fits_datagram(&wrapped));
                match routes.first() {
                    Some(Route::Datagram(address)) => self.emit(Target::Datagram(*address), wrapped, Kind::Relay),
                    Some(Route::Stream(address)) => self.emit(Target::Stream(*address), wrapped, Kind::Relay),
                    Some(Route::Via(_)) | None => {}
                }
            }
        }
    }

    /// Passes a message on for two members that do not reach each other; never to a third relay.
    pub(super) fn pass_on(&mut self, now: Duration, origin: u64, to: u64, packet: bool, body: Vec<u8>) {
        let Some(target) = self.roster.get(to).filter(|entry| entry.up).map(|entry| entry.node.clone()) else { return };
        let by = self.node().id;
        let bytes = Body::Relay { origin, by, to, passed: true, packet, body }.encode();
        let (routes, _) = self.paths.routes(now, &target, packet && fits_datagram(&bytes));
        let Some(route) = routes.first().copied() else { return };
        self.relayed += 1;
        self.dispatch(now, &target, route, bytes, Kind::Relay, packet);
    }

    /// Members through which `to` may be reached, the best first: the one that it was last heard through, then in an order
    /// that differs between pairs, so that several relays share the work; of the first few, those with a way that works.
    pub(super) fn relays(&self, now: Duration, to: &Node) -> Vec<u64> {
        let me = self.node();
        let rank = |id: u64| {
            let mixed = (id ^ me.id.rotate_left(17) ^ to.id.rotate_left(31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^ (mixed >> 29)
        };
        let last = self.paths.via(to.id);
        let mut relays: Vec<_> = self
            .roster
            .iter()
            .filter(|entry| entry.up && entry.node.id != me.id && entry.node.id != to.id)
            .filter(|entry| Paths::share_family(me, &entry.node) && Paths::share_family(&entry.node, to))
            .map(|entry| entry.node.id)
            .collect();
        relays.sort_by_key(|id| (Some(*id) != last, rank(*id)));
        let few = relays.len().min(RELAYS_WEIGHED);
        let works = |id: &u64| self.roster.get(*id).is_some_and(|entry| self.paths.routes(now, &entry.node, true).1);
        relays[..few].sort_by_cached_key(|id| !works(id));
        relays
    }

    /// A probe was not answered at once: the other ways are tried before it counts as failed. `late`: this process did not look
    /// in time, so nothing is held against the way.
    pub(super) fn escalate(&mut self, now: Duration, serial: u64, late: bool) {
        let Some(awaited) = self.awaited.remove(&serial) else { return };
        let Awaited { to, route, sent, packet } = awaited;
        if self.paths.last_heard(to.id).is_some_and(|heard| heard >= sent) {
            return;
        }
        if !late {
            self.paths.unanswered(now, to.id, route, sent);
        }
        let body = self.swim_body(packet);
        self.send_all_ways(now, &to, &body, Some(route));
    }

    /// Asks a member for a proof of life by the best packet way and by a stream.
    pub(super) fn send_doubt(&mut self, now: Duration, about: &Node, incarnation: u16, down: bool) {
        let body = Body::Doubt { from: self.node().clone(), about: about.clone(), incarnation, down };
        let about = self.known(about);
        let route = self.send(now, &about, &body, true);
        if matches!(route, Some(Route::Datagram(_)) | None) {
            self.send_all_ways(now, &about, &body, route);
        }
    }

    pub(super) fn send_doubt_all_ways(&mut self, now: Duration, about: &Node, incarnation: u16) {
        let body = Body::Doubt { from: self.node().clone(), about: about.clone(), incarnation, down: false };
        let about = self.known(about);
        self.send_all_ways(now, &about, &body, None);
    }

    /// Tries the ways to members that are up, at most 64 of them in turn, so that a page soon shows how they are now and not
    /// how they were when the pair last had a reason to use them.
    pub fn examine(&mut self, now: Duration) {
        let now = self.awake(now);
        let me = self.node().id;
        let up = self.roster.iter().filter(|entry| entry.up && entry.node.id != me);
        let members: Vec<Node> = up.map(|entry| entry.node.clone()).collect();
        if members.is_empty() || self.node().left {
            return;
        }
        let from = self.knocks.examined % members.len();
        self.knocks.examined = from + EXAMINED_MAX.min(members.len());
        for node in members.iter().cycle().skip(from).take(EXAMINED_MAX.min(members.len())) {
            self.knock(now, node);
        }
    }

    /// Tries the ways to a member whose state is not known, or not lately.
    fn knock(&mut self, now: Duration, to: &Node) {
        self.knock_by_datagram(now, to);
        self.check_stream(now, to);
    }

    fn knock_by_datagram(&mut self, now: Duration, to: &Node) {
        for address in self.paths.knocks(now, to) {
            self.knock_at(now, Knock { to: to.id, route: Route::Datagram(address), begun: now, again: false });
        }
    }

    /// Streams to a member fail: are its datagrams what is left?
    fn check_datagrams(&mut self, now: Duration, to: u64) {
        if let Some(to) = self.roster.get(to).filter(|entry| entry.up).map(|entry| entry.node.clone()) {
            self.knock_by_datagram(now, &to);
        }
    }

    fn check_stream(&mut self, now: Duration, to: &Node) {
        if let Some(address) = self.paths.stream_to_check(now, to) {
            self.knock_at(now, Knock { to: to.id, route: Route::Stream(address), begun: now, again: true });
        }
    }

    fn knock_at(&mut self, now: Duration, knock: Knock) {
        let same = |waiting: &Knock| (waiting.to, waiting.route) == (knock.to, knock.route);
        if self.knocks.waiting.len() >= KNOCKS_MAX || self.knocks.waiting.values().any(same) {
            return;
        }
        let target = match knock.route {
            Route::Datagram(address) => Target::Datagram(address),
            Route::Stream(address) => Target::Stream(address),
            Route::Via(_) => return,
        };
        self.knocks.serial = self.knocks.serial.wrapping_add(1);
        let token = self.knocks.serial;
        self.knocks.waiting.insert(token, knock);
        let body = Body::Knock { from: self.node().id, token };
        self.emit(target, body.encode(), Kind::Knock);
        self.timers.set(now + KNOCK_TIMEOUT, Due::KnockSilent(token));
    }

    pub(super) fn on_knocked(&mut self, now: Duration, from: u64, token: u32) {
        if self.knocks.waiting.get(&token).is_some_and(|knock| knock.to == from)
            && let Some(Knock { to, route, .. }) = self.knocks.waiting.remove(&token)
        {
            match route {
                Route::Datagram(address) => self.paths.knock_answered(now, to, address),
                Route::Stream(address) => self.paths.stream_proved(now, to, address),
                Route::Via(_) => {}
            }
        }
    }

    /// A knock was not answered in time. `late`: this process did not look in time, so the answer may be there, unread.
    pub(super) fn on_knock_silent(&mut self, now: Duration, token: u32, late: bool) {
        if late && self.knocks.waiting.contains_key(&token) {
            self.timers.set(now + KNOCK_TIMEOUT, Due::KnockSilent(token));
            return;
        }
        let Some(knock) = self.knocks.waiting.remove(&token) else { return };
        match knock.route {
            // One lost packet says nothing.
            Route::Datagram(_) if !knock.again => self.knock_at(now, Knock { again: true, ..knock }),
            Route::Datagram(address) => {
                self.paths.knocks_silent(now, knock.to, address, knock.begun);
                // Datagrams alone, or the whole family?
                if let Some(entry) = self.roster.get(knock.to) {
                    let to = entry.node.clone();
                    self.check_stream(now, &to);
                }
            }
            Route::Stream(address) => {
                self.paths.stream_silent(now, knock.to, address, knock.begun);
                self.check_datagrams(now, knock.to);
            }
            Route::Via(_) => {}
        }
    }

    /// A stream failed: a probe that waits for it is sent by the other ways at once.
    pub(super) fn on_stream_failed(&mut self, now: Duration, address: SocketAddr) {
        let members: Vec<u64> = self.roster.at(address).map(|entry| entry.node.id).collect();
        for id in members {
            self.paths.stream_failed(now, id, address);
            self.check_datagrams(now, id);
        }
        self.knocks.waiting.retain(|_, knock| knock.route != Route::Stream(address));
        let waiting = |awaited: &Awaited| awaited.route == Route::Stream(address);
        let serials: Vec<u64> = self.awaited.iter().filter(|(_, it)| waiting(it)).map(|(serial, _)| *serial).collect();
        for serial in serials {
            self.escalate(now, serial, false);
        }
    }

    pub(super) fn emit(&mut self, to: Target, body: Vec<u8>, kind: Kind) {
        // A former process at our own address may still be known as a member.
        if let Target::Datagram(address) | Target::Stream(address) = to
            && self.node().endpoints().any(|own| own == address)
        {
            return;
        }
        let frame = self.frames.seal(body);
        self.outputs.push(Output { to, frame, kind });
    }
}

fn fits_datagram(body: &[u8]) -> bool {
    body.len() + OVERHEAD_BYTES_MAX <= DATAGRAM_BYTES_MAX
}
