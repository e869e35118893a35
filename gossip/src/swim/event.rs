//! What goes into a member and what comes out.

use std::net::SocketAddr;

use super::{Kind, Node};

/// A connection that the other side opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// How a frame came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// By datagram.
    Datagram,
    /// Over a connection that the other side opened.
    Accepted(ConnId),
    /// Over the connection that we opened to this address.
    Opened(SocketAddr),
}

/// What happens to a member.
#[derive(Debug, Clone)]
pub enum Event {
    /// A frame came.
    Frame {
        /// From where.
        remote: SocketAddr,
        /// How.
        channel: Channel,
        /// What.
        frame: Vec<u8>,
    },
    /// A stream to this address could not be opened in time, or broke while frames for it were waiting.
    StreamFailed(SocketAddr),
    /// Discovery's latest answer: addresses of members to join, in place of those given before.
    Seeds(Vec<SocketAddr>),
    /// A deadline may have passed.
    Wake,
    /// Leave the cluster: tell others and take no further part.
    Leave,
}

/// What a member wants sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How and where to.
    pub to: Target,
    /// The frame.
    pub frame: Vec<u8>,
    /// What it carries, for figures.
    pub kind: Kind,
}

/// How and where a frame is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One datagram.
    Datagram(SocketAddr),
    /// The stream to this address, opened if there is none.
    Stream(SocketAddr),
    /// The connection that the other side opened; if it is gone, the frame is dropped.
    Answer(ConnId),
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A member is there.
    Up(Node),
    /// A member left or is down.
    Down(Node),
    /// A member has a new life, without having been away.
    Renewed(Node),
    /// The cluster had declared this member down, and it came back with a new life.
    Rejoined(Node),
    /// No life is left that the others would believe: the process has to begin anew, with another id.
    Exhausted,
    /// Records changed by what others said; their keys.
    Records(Vec<Vec<u8>>),
    /// Records changed here, and others are told; their keys.
    Spread(Vec<Vec<u8>>),
    /// The answer to [`Swim::ask`](super::Swim::ask).
    Told {
        /// Who answers.
        from: Node,
        /// Of the question.
        token: u32,
        /// Keys and stamps of all that it holds.
        stamps: Vec<(Vec<u8>, u64)>,
    },
    /// The process stood still for this many milliseconds; its deadlines were moved.
    Stood(u64),
}
