//! What comes in: opened, understood, and given to whom it concerns.

use std::net::SocketAddr;
use std::time::Duration;

use foca::{Member, State};

use super::codec::read_header;
use super::{Body, Channel, Kind, News, Node, Reply, Swim, Target};
use crate::families::{Family, Route};
use crate::frame::wire::Reader;
use crate::frame::{Malformed, Refused};
use crate::sync::Replicated;

/// How a message came, behind the frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct From {
    remote: SocketAddr,
    /// None for what a relay passed on.
    channel: Option<Channel>,
    via: Option<u64>,
}

impl<S: Replicated> Swim<S> {
    pub(super) fn on_frame(&mut self, now: Duration, remote: SocketAddr, channel: Channel, frame: &[u8]) {
        // Refusals are counted by `frames`.
        let body = match self.frames.open(now, remote, frame) {
            Ok(body) => body,
            Err(refused) => return self.tell_stranger(channel, refused),
        };
        let from = From { remote, channel: Some(channel), via: None };
        let understood = Body::decode(&body).and_then(|body| self.on_body(now, from, body));
        self.reply = None;
        if let Err(malformed) = understood {
            self.frames.refuse(now, remote, Refused::Malformed(malformed));
        }
    }

    /// A member of another cluster, or with another key, hears a frame of ours on the connection that it opened: it refuses that
    /// in its turn, and so both sides can name the other. Nobody else who sends what we do not understand is answered, and
    /// what comes on a connection that we opened never is, so the two do not answer each other for ever.
    fn tell_stranger(&mut self, channel: Channel, refused: Refused) {
        if let (Channel::Accepted(conn), Refused::Label(_) | Refused::Key | Refused::Plain) = (channel, refused) {
            let body = Body::Knock { from: self.node().id, token: 0 };
            self.emit(Target::Answer(conn), body.encode(), Kind::Knock);
        }
    }

    fn on_body(&mut self, now: Duration, from: From, body: Body) -> Result<(), Malformed> {
        match body {
            Body::Swim { hears_datagrams, roster, state, packet } => {
                return self.on_packet(now, from, hears_datagrams, (roster, state), &packet);
            }
            Body::Doubt { from: sender, about, incarnation, down } => {
                self.heard(now, from, &sender);
                self.on_doubted(now, &sender, &about, incarnation, down);
            }
            Body::Here { node, incarnation } => {
                self.heard(now, from, &node);
                self.on_proof(now, node, incarnation);
            }
            Body::Known { about } => self.go_above(now, &about),
            Body::Knock { from: _, token } => {
                let target = match from.channel {
                    Some(Channel::Datagram) => Target::Datagram(from.remote),
                    Some(Channel::Accepted(conn)) => Target::Answer(conn),
                    // A stranger was told that it is one; see `tell_stranger`.
                    Some(Channel::Opened(_)) | None => return Ok(()),
                };
                let body = Body::Knocked { from: self.node().id, token };
                self.emit(target, body.encode(), Kind::Knock);
            }
            Body::Knocked { from: id, token } => self.on_knocked(now, id, token),
            Body::Relay { origin, by, to, passed, packet, body } => {
                return self.on_relay(now, from, (origin, by, to), passed, packet, body);
            }
            Body::Open { from: sender, roster, state } => {
                self.heard(now, from, &sender);
                self.on_open(now, &sender, &roster, &state);
            }
            Body::Stamps { from: sender, roster_mask, lines, state_mask, stamps } => {
                self.heard(now, from, &sender);
                self.on_stamps(now, &sender, roster_mask, &lines, state_mask, &stamps);
            }
            Body::Push { from: sender, members, records, want, want_records } => {
                self.heard(now, from, &sender);
                self.on_push(now, &sender, members, &records, &want, &want_records);
            }
            Body::Ask { from: sender, token } => {
                self.heard(now, from, &sender);
                self.on_ask(now, &sender, token);
            }
            Body::Told { from: sender, token, stamps } => {
                self.heard(now, from, &sender);
                self.news.push(News::Told { from: sender, token, stamps });
            }
        }
        Ok(())
    }

    fn on_packet(
        &mut self,
        now: Duration,
        from: From,
        hears_datagrams: bool,
        sums: (u64, u64),
        packet: &[u8],
    ) -> Result<(), Malformed> {
        let header = read_header(&mut Reader(packet))?;
        self.heard(now, from, &header.src);
        self.paths.takes_datagrams(header.src.id, hears_datagrams);
        let (me, dst) = (self.node().clone(), header.dst);
        if dst.id == me.id && me.beats(&dst) {
            // The sender has not heard of our new life yet.
            self.send_proof(now, &header.src);
        }
        let later = self.roster.get(header.src.id).filter(|entry| entry.node.beats(&header.src));
        if let Some(known) = later.map(|entry| entry.node.clone()) {
            // A packet that was long on its way; or a sender that does not know how it is known, and must hear it from us.
            self.send(now, &header.src, &Body::Known { about: known }, true);
            return Ok(());
        }
        match self.foca.handle_data(packet, &mut self.port) {
            Ok(()) => {}
            Err(foca::Error::DataFromOurselves) => return Ok(()),
            Err(error) => {
                tracing::debug!(%error, sender = ?header.src, "handle gossip packet");
                self.settle(now);
                return Err(Malformed::Value("packet"));
            }
        }
        self.settle(now);
        self.compare_sums(now, &header.src, sums);
        Ok(())
    }

    fn on_relay(
        &mut self,
        now: Duration,
        from: From,
        (origin, by, to): (u64, u64, u64),
        passed: bool,
        packet: bool,
        body: Vec<u8>,
    ) -> Result<(), Malformed> {
        let me = self.node().id;
        if to == me && by != me && passed {
            let inner = Body::decode(&body)?;
            if matches!(inner, Body::Relay { .. } | Body::Knock { .. } | Body::Knocked { .. }) {
                return Err(Malformed::Value("relayed message"));
            }
            let from = From { remote: from.remote, channel: None, via: Some(by) };
            return self.on_body(now, from, inner);
        }
        // A message is passed on once: by whom its sender chose, to its end. An address may belong to another process by
        // now, so one that was passed on and is not for us is for nobody.
        if by == me && to != me && origin != me && !passed {
            self.pass_on(now, origin, to, packet, body);
        }
        Ok(())
    }

    /// Something came from a member: its way works, and answers go back by it.
    fn heard(&mut self, now: Duration, from: From, sender: &Node) {
        if sender.id == self.node().id {
            return;
        }
        let opened = match from.channel {
            Some(Channel::Opened(address)) => Some(address),
            Some(Channel::Datagram | Channel::Accepted(_)) | None => None,
        };
        let by = from.channel.map(|_| Family::of(from.remote));
        self.paths.heard(now, sender.id, by, from.via, opened);
        let family = Family::of(from.remote);
        self.reply = Some(Reply { to: sender.id, channel: from.channel, family, via: from.via });
    }

    /// Tells foca about members, as updates that came by other ways than its own packets.
    pub(super) fn learn(&mut self, now: Duration, members: Vec<Member<Node>>, spread: bool) {
        let me = self.node().id;
        let others = members.into_iter().filter(|member| member.id().id != me);
        if let Err(error) = self.foca.apply_many(others, spread, &mut self.port) {
            tracing::debug!(%error, "learn of members");
        }
        self.settle(now);
    }

    /// Tells foca what others hold this very life of ours for; it objects.
    pub(super) fn object(&mut self, now: Duration, incarnation: u16, state: State) {
        let me = Member::new(self.node().clone(), incarnation, state);
        if let Err(error) = self.foca.apply_many(std::iter::once(me), false, &mut self.port) {
            tracing::debug!(%error, "object to what is said of this member");
        }
        self.settle(now);
    }

    /// Somebody knows a later life of this process than the present one: by a damaged message, or from before a restart that
    /// drew the same id. Nothing we say would be heard, so we begin a life above it.
    pub(super) fn go_above(&mut self, now: Duration, known: &Node) {
        let me = self.node().clone();
        if known.id != me.id || !known.beats(&me) || me.left {
            return;
        }
        let Some(above) = me.above(known) else {
            self.news.push(News::Exhausted);
            return;
        };
        self.codec.reset_incarnation();
        if let Err(error) = self.foca.change_identity(above.clone(), &mut self.port) {
            tracing::warn!(%error, "begin a life above the known one");
            return;
        }
        self.roster.set(now, above.clone(), true);
        self.news.push(News::Rejoined(above));
        self.settle(now);
    }

    pub(super) fn send_proof(&mut self, now: Duration, to: &Node) {
        let body = Body::Here { node: self.node().clone(), incarnation: self.codec.incarnation() };
        // Unreachable: whoever asked finds out in another way, or it is right.
        self.send(now, to, &body, true);
    }

    /// To one that asks whether we live. It may be that it does not hear what it was answered before, so a datagram is not
    /// enough.
    pub(super) fn send_proof_all_ways(&mut self, now: Duration, to: &Node) {
        let body = Body::Here { node: self.node().clone(), incarnation: self.codec.incarnation() };
        let route = self.send(now, to, &body, true);
        if let Some(Route::Datagram(_)) = route {
            self.send_all_ways(now, to, &body, route);
        }
    }
}
