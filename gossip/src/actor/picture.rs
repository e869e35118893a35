//! What pages show of membership.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use vivace_runtime::telemetry::rfc3339;

use crate::discovery::Discovery;
use crate::families::{Family, PathView, Paths};
use crate::frame::{Refusals, Refused};
use crate::pages::{Cluster, ClusterMember, Message, Path, Seed, Stranger, StrangerReason};
use crate::ring::{Liveness, Now, Sight, Standing};
use crate::state::{Key, State};
use crate::swim::{Health, View};

/// Asks for the cluster as this process sees it.
#[derive(Debug, Clone, Copy)]
pub struct Look;

/// What the picture is made of, besides the member's own view.
pub(super) struct Surroundings<'a> {
    pub(super) label: &'a str,
    pub(super) discovery: &'a Discovery,
    pub(super) refusals: &'a Refusals,
    pub(super) history: &'a History,
    pub(super) now: Duration,
}

/// Membership as pages show it.
pub(super) fn cluster(view: &View, around: &Surroundings<'_>) -> Cluster {
    let now = around.now;
    let names: BTreeMap<u64, &str> = view.members.iter().map(|member| (member.node.id, member.node.name())).collect();
    let members = view.members.iter().map(|member| ClusterMember {
        process: member.node.id,
        name: member.node.name().to_owned(),
        standing: standing(member.health),
        since: member.since,
        heard: member.heard,
        paths: member.paths.iter().map(path).collect(),
        shares_family: Paths::share_family(&view.me, &member.node),
        via: member.via.and_then(|via| names.get(&via)).map(|name| (*name).to_owned()),
        name_taken_twice: member.name_taken_twice,
    });
    let strangers = around.refusals.offenders().iter().filter_map(|offender| {
        let reason = match offender.reason {
            Refused::Label(_) => StrangerReason::Label,
            Refused::Key => StrangerReason::Key,
            Refused::Plain => StrangerReason::Plain,
            Refused::Http
            | Refused::Handshake
            | Refused::Version
            | Refused::Size(_)
            | Refused::Replayed
            | Refused::Malformed(_) => {
                return None;
            }
        };
        let last = now.saturating_sub(offender.last);
        Some(Stranger { address: offender.address, reason, count: offender.count, last })
    });
    let seeds = around.discovery.views().map(|seed| Seed {
        entry: seed.entry.clone(),
        addresses: seed.addresses.clone(),
        error: seed.error.clone(),
        since: now.saturating_sub(seed.since),
    });
    Cluster {
        me: view.me.id,
        label: around.label.to_owned(),
        members: members.collect(),
        strangers: strangers.collect(),
        seeds: seeds.collect(),
        refused: around.refusals.counts().to_vec(),
        relayed: view.relayed,
        messages: around.history.latest(),
        history_bytes: around.history.limit,
    }
}

fn path(path: &PathView) -> Path {
    let family = match path.family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    Path { family, endpoint: path.endpoint, stream: path.stream, datagram: path.datagram }
}

fn standing(health: Health) -> Standing {
    match health {
        Health::Alive => Standing::Alive,
        Health::Suspect => Standing::Suspect,
        Health::Down => Standing::Down,
        Health::Left => Standing::Left,
    }
}

/// Messages that are kept, bounded in bytes.
#[derive(Debug)]
pub(super) struct History {
    limit: u64,
    bytes: u64,
    serial: u64,
    kept: VecDeque<Message>,
}

impl History {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, bytes: 0, serial: 0, kept: VecDeque::new() }
    }

    /// A record was changed by what another member said, or here (`sent`).
    pub(super) fn note(&mut self, key: &Key, sent: bool, state: &State, at: Now) {
        if self.limit == 0 {
            return;
        }
        self.serial += 1;
        let size = state.record(key).map_or(0, |record| record.encode().len());
        let version = state.figures().get(key.ring()).map_or(0, |ring| ring.changes);
        let (id, key) = (self.serial, key.to_string());
        let time = rfc3339(at.unix);
        self.kept.push_front(Message { id, time, sent, changes: vec![key.clone()], key, size, version });
        self.bytes += self.kept.front().map_or(0, weight);
        while self.bytes > self.limit
            && let Some(oldest) = self.kept.pop_back()
        {
            self.bytes -= weight(&oldest);
        }
    }

    fn latest(&self) -> Vec<Message> {
        self.kept.iter().cloned().collect()
    }
}

fn weight(message: &Message) -> u64 {
    (2 * message.key.len() + message.size + 64) as u64
}

/// What rings need to know of membership.
pub(super) fn liveness(view: &View) -> Liveness {
    Liveness::new(view.members.iter().map(|member| {
        let silent_for = match member.health {
            Health::Alive => Duration::ZERO,
            Health::Suspect | Health::Down | Health::Left => member.heard.unwrap_or(member.since),
        };
        (member.node.id, Sight { standing: standing(member.health), silent_for })
    }))
}
