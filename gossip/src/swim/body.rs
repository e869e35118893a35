//! What members say to each other, below the frame. Everything is bounded by the size of a frame.

use foca::Member;

use super::codec::{read_member, write_member};
use super::{Line, Node};
use crate::frame::wire::{Reader, Writer};
use crate::frame::{FRAME_BYTES_MAX, Malformed};
use crate::sync::BUCKETS;

/// One message.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// A packet of foca's, with the sums of the sender.
    Swim { hears_datagrams: bool, roster: u64, state: u64, packet: Vec<u8> },
    /// "Are you there? `about` is what I hold you for." The answer is a proof of life.
    Doubt { from: Node, about: Node, incarnation: u16, down: bool },
    /// "I am here": a proof of life.
    Here { node: Node, incarnation: u16 },
    /// "I know a later life of yours than the one that you speak from."
    Known { about: Node },
    /// Tries whether datagrams arrive, by datagram.
    Knock { from: u64, token: u32 },
    /// The answer, by datagram.
    Knocked { from: u64, token: u32 },
    /// A message for somebody with whom the sender shares no working family. Passed on once, by `by`.
    Relay { origin: u64, by: u64, to: u64, passed: bool, packet: bool, body: Vec<u8> },
    /// Begins a comparison; also how one joins.
    Open { from: Node, roster: Box<[u64; BUCKETS]>, state: Box<[u64; BUCKETS]> },
    /// What stands in the buckets that differ.
    Stamps { from: Node, roster_mask: u64, lines: Vec<Line>, state_mask: u64, stamps: Vec<(Vec<u8>, u64)> },
    /// What the other side lacks, and what this side lacks.
    Push { from: Node, members: Vec<Member<Node>>, records: Vec<Vec<u8>>, want: Vec<u64>, want_records: Vec<Vec<u8>> },
    /// Asks for the stamps of the whole state, for a page.
    Ask { from: Node, token: u32 },
    /// The answer.
    Told { from: Node, token: u32, stamps: Vec<(Vec<u8>, u64)> },
}

/// Kinds of messages, for figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Probes, their answers and gossip.
    Swim,
    /// Doubts and proofs of life.
    Doubt,
    /// Trials of datagrams.
    Knock,
    /// Messages passed on for others.
    Relay,
    /// Comparing and exchanging differences.
    Sync,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Swim, Self::Doubt, Self::Knock, Self::Relay, Self::Sync];
}

/// Before a packet of foca's: kind, flag and two sums.
pub(super) const SWIM_HEAD_BYTES: usize = 18;

impl Body {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Swim { .. } => Kind::Swim,
            Self::Doubt { .. } | Self::Here { .. } | Self::Known { .. } => Kind::Doubt,
            Self::Knock { .. } | Self::Knocked { .. } => Kind::Knock,
            Self::Relay { .. } => Kind::Relay,
            Self::Open { .. } | Self::Stamps { .. } | Self::Push { .. } | Self::Ask { .. } | Self::Told { .. } => {
                Kind::Sync
            }
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Self::Swim { hears_datagrams, roster, state, packet } => {
                out.0.reserve(SWIM_HEAD_BYTES + packet.len());
                out.raw(&[1, (*hears_datagrams).into()]);
                out.u64(*roster);
                out.u64(*state);
                out.raw(packet);
            }
            Self::Doubt { from, about, incarnation, down } => {
                out.u8(2);
                from.write(&mut out);
                about.write_bare(&mut out);
                out.u16(*incarnation);
                out.u8((*down).into());
            }
            Self::Here { node, incarnation } => {
                out.u8(3);
                node.write(&mut out);
                out.u16(*incarnation);
            }
            Self::Knock { from, token } => write_knock(4, *from, *token, &mut out),
            Self::Knocked { from, token } => write_knock(5, *from, *token, &mut out),
            Self::Relay { origin, by, to, passed, packet, body } => {
                out.u8(6);
                out.u64(*origin);
                out.u64(*by);
                out.u64(*to);
                out.u8(u8::from(*packet) | u8::from(*passed) << 1);
                out.raw(body);
            }
            Self::Open { from, roster, state } => {
                out.u8(7);
                from.write(&mut out);
                roster.iter().chain(state.iter()).for_each(|sum| out.u64(*sum));
            }
            Self::Stamps { from, roster_mask, lines, state_mask, stamps } => {
                out.u8(8);
                from.write(&mut out);
                out.u64(*roster_mask);
                out.count(lines.len());
                for line in lines {
                    line.node.write_bare(&mut out);
                    out.u8(line.up.into());
                }
                out.u64(*state_mask);
                write_stamps(stamps, &mut out);
            }
            Self::Push { from, members, records, want, want_records } => {
                out.u8(9);
                from.write(&mut out);
                out.count(members.len());
                members.iter().for_each(|member| write_member(member, &mut out));
                out.count(records.len());
                records.iter().for_each(|record| out.bytes(record));
                out.count(want.len());
                want.iter().for_each(|id| out.u64(*id));
                out.count(want_records.len());
                want_records.iter().for_each(|key| out.bytes(key));
            }
            Self::Known { about } => {
                out.u8(12);
                about.write_bare(&mut out);
            }
            Self::Ask { from, token } => {
                out.u8(10);
                from.write(&mut out);
                out.u32(*token);
            }
            Self::Told { from, token, stamps } => {
                out.u8(11);
                from.write(&mut out);
                out.u32(*token);
                write_stamps(stamps, &mut out);
            }
        }
        debug_assert!(out.0.len() <= FRAME_BYTES_MAX, "senders cut what is long into several messages");
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader(bytes);
        let body = Self::read(&mut from)?;
        from.end()?;
        Ok(body)
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8()? {
            1 => Self::Swim {
                hears_datagrams: flag(from)?,
                roster: from.u64()?,
                state: from.u64()?,
                packet: from.rest().to_vec(),
            },
            2 => Self::Doubt {
                from: Node::read(from)?,
                about: Node::read_bare(from)?,
                incarnation: from.u16()?,
                down: flag(from)?,
            },
            3 => Self::Here { node: Node::read(from)?, incarnation: from.u16()? },
            4 => Self::Knock { from: from.u64()?, token: from.u32()? },
            5 => Self::Knocked { from: from.u64()?, token: from.u32()? },
            6 => {
                let (origin, by, to, flags) = (from.u64()?, from.u64()?, from.u64()?, from.u8()?);
                if flags & !3 != 0 {
                    return Err(Malformed::Value("flags of a relayed message"));
                }
                let (packet, passed) = (flags & 1 != 0, flags & 2 != 0);
                Self::Relay { origin, by, to, passed, packet, body: from.rest().to_vec() }
            }
            7 => Self::Open { from: Node::read(from)?, roster: sums(from)?, state: sums(from)? },
            8 => {
                let node = Node::read(from)?;
                let roster_mask = from.u64()?;
                let lines = (0..from.count(14)?).map(|_| line(from)).collect::<Result<_, _>>()?;
                let state_mask = from.u64()?;
                let stamps = read_stamps(from)?;
                Self::Stamps { from: node, roster_mask, lines, state_mask, stamps }
            }
            9 => Self::Push {
                from: Node::read(from)?,
                members: (0..from.count(17)?).map(|_| read_member(from)).collect::<Result<_, _>>()?,
                records: texts(from)?,
                want: (0..from.count(8)?).map(|_| from.u64()).collect::<Result<_, _>>()?,
                want_records: texts(from)?,
            },
            10 => Self::Ask { from: Node::read(from)?, token: from.u32()? },
            11 => Self::Told { from: Node::read(from)?, token: from.u32()?, stamps: read_stamps(from)? },
            12 => Self::Known { about: Node::read_bare(from)? },
            _ => return Err(Malformed::Value("kind of message")),
        })
    }
}

fn write_knock(kind: u8, from: u64, token: u32, out: &mut Writer) {
    out.u8(kind);
    out.u64(from);
    out.u32(token);
}

fn write_stamps(stamps: &[(Vec<u8>, u64)], out: &mut Writer) {
    out.count(stamps.len());
    for (key, stamp) in stamps {
        out.bytes(key);
        out.u64(*stamp);
    }
}

fn read_stamps(from: &mut Reader<'_>) -> Result<Vec<(Vec<u8>, u64)>, Malformed> {
    (0..from.count(10)?).map(|_| Ok((from.bytes()?.to_vec(), from.u64()?))).collect()
}

fn flag(from: &mut Reader<'_>) -> Result<bool, Malformed> {
    match from.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::Value("flag")),
    }
}

fn sums(from: &mut Reader<'_>) -> Result<Box<[u64; BUCKETS]>, Malformed> {
    let mut sums = Box::new([0; BUCKETS]);
    for sum in sums.iter_mut() {
        *sum = from.u64()?;
    }
    Ok(sums)
}

fn line(from: &mut Reader<'_>) -> Result<Line, Malformed> {
    Ok(Line { node: Node::read_bare(from)?, up: flag(from)? })
}

fn texts(from: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, Malformed> {
    (0..from.count(2)?).map(|_| from.bytes().map(<[u8]>::to_vec)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples() -> Vec<Body> {
        let node = || Node::new(5, crate::swim::About { name: "m".into(), ..Default::default() });
        vec![
            Body::Swim { hears_datagrams: true, roster: 1, state: 2, packet: vec![1, 2, 3] },
            Body::Doubt { from: node(), about: node(), incarnation: 3, down: true },
            Body::Here { node: node(), incarnation: 9 },
            Body::Knock { from: 1, token: 2 },
            Body::Knocked { from: 1, token: 2 },
            Body::Relay { origin: 1, by: 3, to: 2, passed: true, packet: false, body: vec![4] },
            Body::Open { from: node(), roster: Box::new([1; BUCKETS]), state: Box::new([2; BUCKETS]) },
            Body::Stamps {
                from: node(),
                roster_mask: 1,
                lines: vec![Line { node: Node::bare(1, 2, true), up: false }],
                state_mask: 2,
                stamps: vec![(vec![1, 2], 3)],
            },
            Body::Push {
                from: node(),
                members: vec![Member::alive(node())],
                records: vec![vec![7; 30]],
                want: vec![1, 2],
                want_records: vec![vec![8]],
            },
            Body::Known { about: node() },
            Body::Ask { from: node(), token: 4 },
            Body::Told { from: node(), token: 4, stamps: vec![(vec![1, 2], 3)] },
        ]
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        for body in samples() {
            let bytes = body.encode();
            assert_eq!(Body::decode(&bytes).unwrap().encode(), bytes, "{body:?}");
        }
    }

    #[test]
    fn no_beginning_of_a_message_panics() {
        for body in samples() {
            let bytes = body.encode();
            for end in 0..bytes.len() {
                Body::decode(&bytes[..end]).ok();
            }
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(kind in 0_u8..15, mut bytes in proptest::collection::vec(any::<u8>(), 1..400)) {
            bytes[0] = kind;
            Body::decode(&bytes).ok();
        }
    }
}
