//! The bytes of foca's messages: compact, because every probe carries them, and bounds-checked.
//!
//! Only the sender and members in updates travel in full; whoever else is named is known by its identity alone, and the
//! receiver finds the rest in its roster.

use std::cell::Cell;
use std::rc::Rc;

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};
use thiserror::Error;

use super::Node;
use crate::frame::Malformed;
use crate::frame::wire::{Reader, Writer};

const PING: u8 = 1;
const INDIRECT_PING: u8 = 4;

/// Reads and writes foca's headers and members.
#[derive(Debug, Clone, Default)]
pub(crate) struct Codec {
    /// The own incarnation as last written: foca keeps it to itself, and proofs of life need it.
    incarnation: Rc<Cell<u16>>,
}

#[derive(Debug, Error)]
pub(crate) enum CodecError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("does not fit the packet")]
    Full,
}

impl Codec {
    pub(crate) fn incarnation(&self) -> u16 {
        self.incarnation.get()
    }

    /// The own life began anew.
    pub(crate) fn reset_incarnation(&self) {
        self.incarnation.set(0);
    }
}

impl foca::Codec<Node> for Codec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Node>, buf: impl BufMut) -> Result<(), CodecError> {
        self.incarnation.set(header.src_incarnation);
        let mut out = Writer::default();
        header.src.write(&mut out);
        out.u16(header.src_incarnation);
        header.dst.write_bare(&mut out);
        write_message(&header.message, &mut out);
        put(&out, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Node>, CodecError> {
        take(buf, read_header)
    }

    fn encode_member(&mut self, member: &Member<Node>, buf: impl BufMut) -> Result<(), CodecError> {
        let mut out = Writer::default();
        write_member(member, &mut out);
        put(&out, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Node>, CodecError> {
        take(buf, read_member)
    }
}

fn put(out: &Writer, mut buf: impl BufMut) -> Result<(), CodecError> {
    if buf.remaining_mut() < out.0.len() {
        return Err(CodecError::Full);
    }
    buf.put_slice(&out.0);
    Ok(())
}

fn take<T>(mut buf: impl Buf, read: impl Fn(&mut Reader<'_>) -> Result<T, Malformed>) -> Result<T, CodecError> {
    // foca reads from one slice, so the first chunk is all there is.
    let mut from = Reader(buf.chunk());
    let before = from.0.len();
    let value = read(&mut from)?;
    let used = before - from.0.len();
    buf.advance(used);
    Ok(value)
}

/// A header alone, for those who must know whom a packet is for before foca sees it.
pub(crate) fn read_header(from: &mut Reader<'_>) -> Result<Header<Node>, Malformed> {
    let src = Node::read(from)?;
    let src_incarnation = from.u16()?;
    let dst = Node::read_bare(from)?;
    let message = read_message(from)?;
    Ok(Header { src, src_incarnation, dst, message })
}

/// Whether a packet that foca wrote is a probe, its own or for somebody else. Said of every packet that is sent, so nothing
/// of it is built.
pub(crate) fn is_probe(packet: &[u8]) -> bool {
    let mut from = Reader(packet);
    let kind = Node::skip(&mut from).and_then(|()| from.u16()).and_then(|_| Node::read_bare(&mut from));
    matches!(kind.and_then(|_| from.u8()), Ok(PING | INDIRECT_PING))
}

fn write_message(message: &Message<Node>, out: &mut Writer) {
    let third = |out: &mut Writer, kind: u8, node: &Node, number: u8| {
        out.u8(kind);
        node.write_bare(out);
        out.u8(number);
    };
    match message {
        Message::Ping(number) => out.raw(&[PING, *number]),
        Message::Ack(number) => out.raw(&[2, *number]),
        Message::PingReq { target, probe_number } => third(out, 3, target, *probe_number),
        Message::IndirectPing { origin, probe_number } => third(out, INDIRECT_PING, origin, *probe_number),
        Message::IndirectAck { target, probe_number } => third(out, 5, target, *probe_number),
        Message::ForwardedAck { origin, probe_number } => third(out, 6, origin, *probe_number),
        Message::Announce => out.u8(7),
        Message::Feed => out.u8(8),
        Message::Gossip => out.u8(9),
        Message::Broadcast => out.u8(10),
        Message::TurnUndead => out.u8(11),
    }
}

fn read_message(from: &mut Reader<'_>) -> Result<Message<Node>, Malformed> {
    Ok(match from.u8()? {
        PING => Message::Ping(from.u8()?),
        2 => Message::Ack(from.u8()?),
        3 => Message::PingReq { target: Node::read_bare(from)?, probe_number: from.u8()? },
        INDIRECT_PING => Message::IndirectPing { origin: Node::read_bare(from)?, probe_number: from.u8()? },
        5 => Message::IndirectAck { target: Node::read_bare(from)?, probe_number: from.u8()? },
        6 => Message::ForwardedAck { origin: Node::read_bare(from)?, probe_number: from.u8()? },
        7 => Message::Announce,
        8 => Message::Feed,
        9 => Message::Gossip,
        10 => Message::Broadcast,
        11 => Message::TurnUndead,
        _ => return Err(Malformed::Value("kind of packet")),
    })
}

pub(crate) fn write_member(member: &Member<Node>, out: &mut Writer) {
    member.id().write(out);
    out.u16(member.incarnation());
    out.u8(match member.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    });
}

pub(crate) fn read_member(from: &mut Reader<'_>) -> Result<Member<Node>, Malformed> {
    let (node, incarnation) = (Node::read(from)?, from.u16()?);
    let state = match from.u8()? {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        _ => return Err(Malformed::Value("state of a member")),
    };
    Ok(Member::new(node, incarnation, state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use foca::Codec as _;
    use proptest::prelude::*;

    fn node(id: u64) -> Node {
        Node::new(id, crate::swim::About { name: format!("n{id}"), ..Default::default() })
    }

    #[test]
    fn headers_are_read_as_they_were_written() {
        let third = || node(3);
        let messages = [
            Message::Ping(7),
            Message::Ack(255),
            Message::PingReq { target: third(), probe_number: 1 },
            Message::IndirectPing { origin: third(), probe_number: 2 },
            Message::IndirectAck { target: third(), probe_number: 3 },
            Message::ForwardedAck { origin: third(), probe_number: 4 },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::Broadcast,
            Message::TurnUndead,
        ];
        for message in messages {
            let header = Header { src: node(1), src_incarnation: 9, dst: node(2), message };
            let mut bytes = Vec::new();
            let mut codec = Codec::default();
            codec.encode_header(&header, &mut bytes).unwrap();
            assert_eq!(codec.incarnation(), 9);
            assert_eq!(codec.decode_header(&bytes[..]).unwrap(), header);
            let probe = matches!(header.message, Message::Ping(_) | Message::IndirectPing { .. });
            assert_eq!(is_probe(&bytes), probe, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut codec = Codec::default();
            codec.decode_header(&bytes[..]).ok();
            codec.decode_member(&bytes[..]).ok();
            is_probe(&bytes);
        }
    }
}
