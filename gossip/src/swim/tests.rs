//! Single members and small groups without a network: what is sent is handed over at once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use vivace_runtime::Rng;

use super::*;
use crate::families::Family;
use crate::frame::{Frames, Keys};
use crate::state::State;

type Member = Swim<State>;

fn address(n: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(n).unwrap()], 7946))
}

fn member(n: u64) -> Member {
    swim(n, State::new())
}

fn swim<S: Replicated>(n: u64, state: S) -> Swim<S> {
    let about = About { name: format!("m{n}"), v4: Some(address(n)), v6: None, datagrams: true };
    let options = Options {
        node: Node::new(n, about),
        label: "test".into(),
        any_label: false,
        keys: Keys::default(),
        preferred: Family::V4,
        tuning: Tuning::default(),
        rng: Rng::seeded(n),
    };
    Swim::new(options, state, Duration::ZERO)
}

/// Members at 10.0.0.1 and on, and all frames that were sent between them.
struct Room {
    members: Vec<Member>,
    now: Duration,
    frames: Vec<Vec<u8>>,
}

impl Room {
    fn new(size: u64) -> Self {
        let mut room = Self { members: (1..=size).map(member).collect(), now: Duration::ZERO, frames: Vec::new() };
        for index in 1..room.members.len() {
            room.members[index].handle(room.now, Event::Seeds(vec![address(1)]));
        }
        room.run(Duration::from_secs(5));
        room
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now += Duration::from_millis(20);
            for member in &mut self.members {
                member.handle(self.now, Event::Wake);
            }
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        let mut waiting: VecDeque<(usize, Output)> = VecDeque::new();
        for round in 0.. {
            assert!(round < 20_000, "members answer each other without end");
            for (index, member) in self.members.iter_mut().enumerate() {
                waiting.extend(member.take_outputs().into_iter().map(|output| (index, output)));
            }
            let Some((from, output)) = waiting.pop_front() else { return };
            let remote = address(from as u64 + 1);
            let (to, channel) = match output.to {
                Target::Datagram(to) => (to, Channel::Datagram),
                Target::Stream(to) => (to, Channel::Accepted(ConnId(from as u64 + 1))),
                Target::Answer(ConnId(to)) => (address(to), Channel::Opened(remote)),
            };
            self.frames.push(output.frame.clone());
            let place = (1..=self.members.len() as u64).position(|n| address(n) == to);
            if let Some(place) = place {
                let event = Event::Frame { remote, channel, frame: output.frame };
                self.members[place].handle(self.now, event);
            }
        }
    }

    fn ups(&self) -> Vec<usize> {
        self.members.iter().map(|member| member.roster().up()).collect()
    }
}

/// A frame of this cluster around a body.
fn framed(body: &Body) -> Vec<u8> {
    Frames::new("test", Keys::default(), 0).seal(body.encode())
}

fn hand(member: &mut Member, now: Duration, body: &Body) -> Vec<Output> {
    let channel = Channel::Accepted(ConnId(99));
    member.handle(now, Event::Frame { remote: address(200), channel, frame: framed(body) });
    member.take_outputs()
}

#[test]
fn members_that_are_given_one_seed_find_each_other() {
    assert_eq!(Room::new(5).ups(), [5; 5]);
}

#[test]
fn a_knock_whose_end_this_process_sleeps_through_is_waited_for_once_more() {
    let knocks = |outputs: &[Output]| {
        let datagrams = outputs.iter().filter(|output| matches!(output.to, Target::Datagram(_)));
        datagrams.filter(|output| output.kind == Kind::Knock).count()
    };
    for (wakes_after, knocks_again) in [(1020, 1), (1400, 0)] {
        let mut room = Room::new(2);
        loop {
            room.now += Duration::from_millis(20);
            room.members.iter_mut().for_each(|member| member.handle(room.now, Event::Wake));
            if knocks(&room.members[0].outputs) > 0 {
                break;
            }
            room.deliver();
        }
        let sent = room.members[0].take_outputs();
        room.now += Duration::from_millis(wakes_after);
        room.members[0].handle(room.now, Event::Wake);
        assert_eq!(knocks(&room.members[0].outputs), knocks_again, "awake after {wakes_after} ms");
        // The answer was there all the time.
        room.members[0].outputs.splice(0..0, sent);
        room.deliver();
        let (view, other) = (room.members[0].view(room.now), room.members[1].node().id);
        let member = view.members.iter().find(|member| member.node.id == other).unwrap();
        assert_eq!(member.paths[0].datagram, Some(true));
    }
}

#[test]
fn a_message_is_passed_on_once_by_whom_its_sender_chose() {
    let mut room = Room::new(3);
    let (now, inner) = (room.now, Body::Knock { from: 1, token: 1 }.encode());
    let relay = |by, to, passed| Body::Relay { origin: 1, by, to, passed, packet: false, body: inner.clone() };
    let second = &mut room.members[1];
    let relayed = |outputs: Vec<Output>| outputs.iter().filter(|output| output.kind == Kind::Relay).count();
    assert_eq!(relayed(hand(second, now, &relay(2, 3, false))), 1);
    assert_eq!(relayed(hand(second, now, &relay(2, 3, true))), 0, "it was passed on before");
    assert_eq!(relayed(hand(second, now, &relay(7, 3, false))), 0, "another was chosen");
    assert_eq!(relayed(hand(second, now, &relay(2, 99, false))), 0, "nobody of that id is there");
    // A relayed message within a relayed message is none.
    let body = relay(2, 3, false).encode();
    hand(second, now, &Body::Relay { origin: 1, by: 7, to: 2, passed: true, packet: false, body });
    assert_eq!(second.refusals().count("malformed"), 1);
}

#[test]
fn a_suspect_objects_to_whoever_asks_and_a_member_held_for_dead_begins_a_new_life() {
    let mut room = Room::new(2);
    let (now, asker) = (room.now, room.members[0].node().clone());
    let second = &mut room.members[1];
    let about = second.node().clone();
    let ask = |down| Body::Doubt { from: asker.clone(), about: about.clone(), incarnation: 0, down };
    let proof = |outputs: Vec<Output>| {
        let open =
            |output: Output| Frames::new("test", Keys::default(), 0).open(now, address(1), &output.frame).unwrap();
        outputs.into_iter().find_map(|output| match Body::decode(&open(output)).unwrap() {
            Body::Here { node, incarnation } => Some((node.generation, incarnation)),
            _ => None,
        })
    };
    assert_eq!(proof(hand(second, now, &ask(false))), Some((1, 1)));
    assert_eq!(proof(hand(second, now, &ask(true))), Some((2, 0)));
    assert!(second.take_news().iter().any(|news| matches!(news, News::Rejoined(_))));
}

#[test]
fn who_asks_a_suspect_by_datagram_is_answered_by_a_stream_as_well() {
    let mut room = Room::new(2);
    let (asker, about) = (room.members[0].node().clone(), room.members[1].node().clone());
    let doubt = framed(&Body::Doubt { from: asker, about, incarnation: 0, down: false });
    let event = Event::Frame { remote: address(1), channel: Channel::Datagram, frame: doubt };
    room.members[1].handle(room.now, event);
    let outputs = room.members[1].take_outputs();
    let proofs: Vec<_> = outputs.iter().filter(|output| output.kind == Kind::Doubt).map(|output| output.to).collect();
    assert_eq!(proofs, [Target::Datagram(address(1)), Target::Stream(address(1))]);
}

#[test]
fn what_is_said_of_an_address_that_belonged_to_another_process_concerns_nobody() {
    let mut room = Room::new(2);
    let (now, asker) = (room.now, room.members[0].node().clone());
    let doubt = Body::Doubt { from: asker, about: Node::bare(77, 1, false), incarnation: 0, down: true };
    assert!(hand(&mut room.members[1], now, &doubt).is_empty());
    assert_eq!(room.members[1].node().generation, 1);
}

#[test]
fn a_member_goes_above_what_is_known_of_it_and_is_heard_again() {
    let mut room = Room::new(3);
    let mut later = room.members[0].node().clone();
    later.generation = 1000;
    let now = room.now;
    for index in [1, 2] {
        let down = foca::Member::down(later.clone());
        let push = Body::Push {
            from: later.clone(),
            members: vec![down],
            records: vec![],
            want: vec![],
            want_records: vec![],
        };
        hand(&mut room.members[index], now, &push);
    }
    room.run(Duration::from_secs(5));
    assert_eq!(room.ups(), [3; 3]);
    assert!(room.members[0].node().generation > 1000);
}

/// A state that is larger than any frame.
struct Wide;

impl Replicated for Wide {
    fn digest(&self) -> u64 {
        1
    }

    fn buckets(&self) -> [u64; crate::sync::BUCKETS] {
        [1; crate::sync::BUCKETS]
    }

    fn stamps(&self, bucket: usize) -> Vec<(Vec<u8>, u64)> {
        (0..300_u64)
            .map(|n| ([n.to_be_bytes().as_slice(), &[u8::try_from(bucket).unwrap(); 300]].concat(), n))
            .collect()
    }

    fn stamp(&self, _: &[u8]) -> Option<u64> {
        None
    }

    fn record(&self, _: &[u8]) -> Option<Vec<u8>> {
        Some(vec![0; crate::state::RECORD_BYTES_MAX])
    }

    fn key_of(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn apply(&mut self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take_broadcasts(&mut self) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

#[test]
fn no_frame_is_larger_than_frames_may_be() {
    let mut wide = swim(1, Wide);
    let (from, zeroes) = (swim(2, Wide).node().clone(), || Box::new([0; crate::sync::BUCKETS]));
    let members: Vec<_> = (0..9000).map(|n| foca::Member::alive(Node::bare(100 + n, 1, false))).collect();
    let channel = Channel::Accepted(ConnId(99));
    let mut hand = |body: Body| {
        let event = Event::Frame { remote: address(200), channel, frame: framed(&body) };
        wide.handle(Duration::from_secs(1), event);
        let outputs = wide.take_outputs();
        for output in &outputs {
            assert!(output.frame.len() <= crate::frame::FRAME_BYTES_MAX, "{} bytes", output.frame.len());
        }
        outputs.len()
    };
    for members in members.chunks(3000) {
        let (from, members) = (from.clone(), members.to_vec());
        hand(Body::Push { from, members, records: vec![], want: vec![], want_records: vec![] });
    }
    assert!(hand(Body::Open { from: from.clone(), roster: zeroes(), state: zeroes() }) > 0);
    let stamps = Wide.stamps(3);
    let all = Body::Stamps { from: from.clone(), roster_mask: u64::MAX, lines: vec![], state_mask: u64::MAX, stamps };
    assert!(hand(all) > 10, "a large answer is cut into several");
    assert!(hand(Body::Ask { from: from.clone(), token: 1 }) > 0);
    let want_records = Wide.stamps(5).into_iter().map(|(key, _)| key).collect();
    let want = Body::Push { from, members: vec![], records: vec![], want: (100..9100).collect(), want_records };
    assert!(hand(want) > 1);
}

#[test]
fn members_are_bounded() {
    let mut alone = member(1);
    for batch in 0..24_u64 {
        let members = (0..500_u64).map(|n| foca::Member::alive(Node::bare(1000 + batch * 500 + n, 1, false))).collect();
        let push =
            Body::Push { from: Node::bare(2, 1, false), members, records: vec![], want: vec![], want_records: vec![] };
        hand(&mut alone, Duration::from_secs(1), &push);
    }
    assert!(alone.roster().up() <= MEMBERS_MAX + 1, "{}", alone.roster().up());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Real frames, damaged, given to a member in the middle of its life: it never panics, and it is still a member after.
    #[test]
    fn damaged_frames_never_panic(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..60),
    ) {
        let mut room = Room::new(3);
        let frames = std::mem::take(&mut room.frames);
        for (which, place, byte) in damage {
            let mut frame = which.get(&frames).clone();
            // Behind the label, or all of it would be refused at once.
            let place = 10 + place.index(frame.len() - 10);
            if byte == 0 { frame.truncate(place) } else { frame[place] ^= byte }
            let event = Event::Frame { remote: address(3), channel: Channel::Datagram, frame };
            room.members[0].handle(room.now, event);
            room.now += Duration::from_millis(3);
        }
        room.deliver();
        room.run(Duration::from_secs(2));
        prop_assert!(room.members[0].next_wake().is_some());
    }
}
