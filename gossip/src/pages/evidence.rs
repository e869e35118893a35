//! What is known about a cluster at one moment: the input of verdicts and pages. Plain values; the shell fills them in.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use crate::ring::Standing;

/// Membership as this process sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cluster {
    /// This process, by its id.
    pub me: u64,
    /// The label that keeps clusters apart, or empty.
    pub label: String,
    /// Everybody who is known, this process included, by name.
    pub members: Vec<ClusterMember>,
    /// Senders of what was refused, lately.
    pub strangers: Vec<Stranger>,
    /// The members to join, as configured and as they resolve.
    pub seeds: Vec<Seed>,
    /// Frames refused so far, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Messages passed on for members that share no family.
    pub relayed: u64,
    /// The latest messages, the newest first. Empty unless a history is kept.
    pub messages: Vec<Message>,
    /// Bytes of messages that are kept.
    pub history_bytes: u64,
}

/// A process in membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMember {
    /// Its random id.
    pub process: u64,
    /// Its name.
    pub name: String,
    /// What membership thinks of it.
    pub standing: Standing,
    /// For how long.
    pub since: Duration,
    /// How long ago it was last heard; never, if nothing ever came.
    pub heard: Option<Duration>,
    /// The ways to it, one for each family that it tells.
    pub paths: Vec<Path>,
    /// Whether it tells a family that this process has as well.
    pub shares_family: bool,
    /// The member that passes messages on, where there is no direct way.
    pub via: Option<String>,
    /// Another living process has the same name.
    pub name_taken_twice: bool,
}

/// The way to a member over one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Path {
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
    /// Where.
    pub endpoint: SocketAddr,
    /// Whether streams (TCP) work; unknown while none was tried lately.
    pub stream: Option<bool>,
    /// Whether datagrams (UDP) work; unknown while none was tried lately.
    pub datagram: Option<bool>,
}

/// A sender of what was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// From where.
    pub address: IpAddr,
    /// Why it was refused.
    pub reason: StrangerReason,
    /// How often.
    pub count: u64,
    /// How long ago the last time.
    pub last: Duration,
}

/// Why a sender is a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrangerReason {
    /// Another cluster label.
    Label,
    /// Encrypted with a key that is not known here, or changed on the way.
    Key,
    /// Not encrypted, where keys are in use.
    Plain,
}

/// An entry of `memberlist.join_members`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// As configured.
    pub entry: String,
    /// What it resolved to last.
    pub addresses: Vec<SocketAddr>,
    /// Why it does not resolve, if it does not.
    pub error: Option<String>,
    /// Since when that is so.
    pub since: Duration,
}

/// A message that was sent or received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Message {
    /// Counts messages.
    #[serde(rename = "ID")]
    pub id: u64,
    /// When, RFC 3339.
    pub time: String,
    /// Whether it was sent; else it was received.
    #[serde(skip)]
    pub sent: bool,
    /// The record's key.
    pub key: String,
    /// Its bytes.
    pub size: usize,
    /// The version of the ring here after it; 0 if it changed nothing.
    pub version: u64,
    /// What it changed.
    pub changes: Vec<String>,
}

/// What came of calling an address just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Contact {
    /// Something answers as it should.
    Answers,
    /// It answers, and says of itself that it does not serve now.
    NotServing,
    /// It answers for another, which it does not reach: a proxy.
    NothingBehind,
    /// The connection is accepted and nothing is said.
    Silent,
    /// The host refuses: nobody listens there.
    Refused,
    /// No answer, or no way there.
    Unreachable,
}

impl Contact {
    /// In words, after "port 9095 ".
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::NotServing => "answers that it is not serving",
            Self::NothingBehind => "answers, and does not reach what it stands for",
            Self::Silent => "accepts connections and says nothing",
            Self::Refused => "refuses connections",
            Self::Unreachable => "cannot be reached from here",
        }
    }
}

/// One address that was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// `host:port`.
    pub address: String,
    /// What came of it.
    pub contact: Contact,
}
