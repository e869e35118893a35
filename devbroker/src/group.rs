//! A consumer group's membership, as rules without clock and IO.
//!
//! ```text
//! Empty ──join──> Joining ──all have joined, or time is up──> Syncing ──the leader has shared out──> Stable
//!   ^                ^  └──────────── a round: one generation ────────────┘                             │
//!   │                └── somebody joins anew, leaves, falls silent ─────────────────────────────────────┤
//!   └── the last one leaves ────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::code::{self, Code};

/// Members of one group.
const MAX_MEMBERS: usize = 1000;

/// One group.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    generation: i32,
    leader: String,
    members: BTreeMap<String, Member>,
    /// Ids that were given out and not used yet, with the time at which they lapse.
    promised: BTreeMap<String, Instant>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Empty,
    Joining {
        until: Instant,
    },
    Syncing,
    Stable,
}

/// A consumer of a group.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    protocols: Vec<(String, Bytes)>,
    session: Duration,
    rebalance: Duration,
    seen: Instant,
    /// Has joined in the present round.
    joined: bool,
    /// Has asked to join and was not answered yet: such a member is in the next round, too, if one begins before.
    waiting: bool,
    pub(crate) assignment: Bytes,
}

/// What a consumer says when it joins.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) member_id: String,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session: Duration,
    pub(crate) rebalance: Duration,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<(String, Bytes)>,
}

/// What a round of joining has come to for one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    /// For the leader alone: everybody, with what they said under the chosen protocol.
    pub(crate) members: Vec<(String, Bytes)>,
}

impl Group {
    /// Gives out an id to join with.
    pub(crate) fn promise(&mut self, member_id: String, now: Instant, session: Duration) -> Result<(), Code> {
        if self.promised.len() + self.members.len() >= MAX_MEMBERS {
            return Err(code::GROUP_MAX_SIZE_REACHED);
        }
        self.promised.insert(member_id, now + session);
        Ok(())
    }

    /// Takes a member into the present round or starts one. The answer comes from [`Group::joined`] once the round is over.
    pub(crate) fn join(&mut self, join: Join, now: Instant) -> Result<(), Code> {
        let known = self.members.contains_key(&join.member_id);
        if !known && self.promised.remove(&join.member_id).is_none() {
            return Err(code::UNKNOWN_MEMBER_ID);
        }
        let others = self.members.iter().filter(|(id, _)| **id != join.member_id).map(|(_, member)| member);
        let others: Vec<_> = others.collect();
        let alone = others.is_empty();
        let common = |name: &String| others.iter().all(|other| other.protocols.iter().any(|(known, _)| known == name));
        if !alone && (join.protocol_type != self.protocol_type || !join.protocols.iter().any(|(name, _)| common(name)))
        {
            return Err(code::INCONSISTENT_GROUP_PROTOCOL);
        }
        if join.protocols.is_empty() || join.protocol_type.is_empty() {
            return Err(code::INCONSISTENT_GROUP_PROTOCOL);
        }
        self.protocol_type = join.protocol_type;
        let unchanged = self.members.get(&join.member_id).is_some_and(|member| member.protocols == join.protocols);
        let is_leader = self.leader == join.member_id;
        let old = self.members.remove(&join.member_id);
        let member = Member {
            client_id: join.client_id,
            client_host: join.client_host,
            protocols: join.protocols,
            session: join.session,
            rebalance: join.rebalance,
            seen: now,
            joined: true,
            waiting: true,
            assignment: old.map(|old| old.assignment).unwrap_or_default(),
        };
        self.members.insert(join.member_id.clone(), member);
        match self.phase {
            // A member that asks again because it has not heard the answer; the round stands.
            Phase::Stable if unchanged && !is_leader => {}
            Phase::Syncing if unchanged => {}
            Phase::Joining { .. } => self.finish_round(now),
            Phase::Empty | Phase::Stable | Phase::Syncing => {
                self.start_round(now);
                self.finish_round(now);
            }
        }
        Ok(())
    }

    fn start_round(&mut self, now: Instant) {
        let patience = self.members.values().map(|member| member.rebalance).max().unwrap_or_default();
        self.members.values_mut().for_each(|member| member.joined = member.waiting);
        self.phase = Phase::Joining { until: now + patience };
    }

    /// Ends the round if everybody has joined or time is up.
    fn finish_round(&mut self, now: Instant) {
        let Phase::Joining { until } = self.phase else { return };
        if now < until && self.members.values().any(|member| !member.joined) {
            return;
        }
        self.members.retain(|_, member| member.joined);
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        let Some(first) = self.members.keys().next() else {
            self.phase = Phase::Empty;
            self.leader = String::new();
            return;
        };
        if !self.members.contains_key(&self.leader) {
            self.leader = first.clone();
        }
        self.protocol = self.elect();
        for member in self.members.values_mut() {
            member.seen = now;
            member.assignment = Bytes::new();
        }
        self.phase = Phase::Syncing;
    }

    /// Of the protocols that all members know, the one that most of them like best.
    fn elect(&self) -> String {
        let common: BTreeSet<&str> = self
            .members
            .values()
            .map(|member| member.protocols.iter().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>())
            .reduce(|a, b| a.intersection(&b).copied().collect())
            .unwrap_or_default();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let first = member.protocols.iter().map(|(name, _)| name.as_str()).find(|name| common.contains(name));
            *votes.entry(first.unwrap_or_default()).or_default() += 1;
        }
        votes.into_iter().max_by_key(|&(_, votes)| votes).map(|(name, _)| name.to_owned()).unwrap_or_default()
    }

    /// What a member that has joined is told; `None` while the round goes on.
    pub(crate) fn joined(&mut self, member_id: &str) -> Result<Option<Joined>, Code> {
        let over = !matches!(self.phase, Phase::Joining { .. } | Phase::Empty);
        let member = self.members.get_mut(member_id).ok_or(code::UNKNOWN_MEMBER_ID)?;
        if !over {
            return Ok(None);
        }
        member.waiting = false;
        let said = |member: &Member| {
            let found = member.protocols.iter().find(|(name, _)| *name == self.protocol);
            found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
        };
        let members = match self.leader == member_id && self.phase == Phase::Syncing {
            true => self.members.iter().map(|(id, member)| (id.clone(), said(member))).collect(),
            false => Vec::new(),
        };
        let (protocol, leader) = (self.protocol.clone(), self.leader.clone());
        Ok(Some(Joined { generation: self.generation, protocol, leader, members }))
    }

    /// Takes what the leader has shared out; from others `assignments` is empty.
    pub(crate) fn sync(
        &mut self,
        member_id: &str,
        generation: i32,
        assignments: Vec<(String, Bytes)>,
        now: Instant,
    ) -> Result<(), Code> {
        self.check(member_id, generation)?;
        self.touch(member_id, now);
        if self.phase == Phase::Syncing && self.leader == member_id {
            for (id, assignment) in assignments {
                if let Some(member) = self.members.get_mut(&id) {
                    member.assignment = assignment;
                }
            }
            self.phase = Phase::Stable;
        }
        Ok(())
    }

    /// What a member has been given; `None` until the leader has said so.
    pub(crate) fn synced(&self, member_id: &str, generation: i32) -> Result<Option<Bytes>, Code> {
        self.check(member_id, generation)?;
        match self.phase {
            Phase::Stable => Ok(self.members.get(member_id).map(|member| member.assignment.clone())),
            Phase::Syncing => Ok(None),
            Phase::Joining { .. } | Phase::Empty => Err(code::REBALANCE_IN_PROGRESS),
        }
    }

    /// A sign of life.
    pub(crate) fn heartbeat(&mut self, member_id: &str, generation: i32, now: Instant) -> Result<(), Code> {
        self.check(member_id, generation)?;
        self.touch(member_id, now);
        match self.phase {
            Phase::Joining { .. } => Err(code::REBALANCE_IN_PROGRESS),
            Phase::Empty | Phase::Syncing | Phase::Stable => Ok(()),
        }
    }

    pub(crate) fn leave(&mut self, member_id: &str, now: Instant) -> Result<(), Code> {
        if self.promised.remove(member_id).is_some() {
            return Ok(());
        }
        self.members.remove(member_id).ok_or(code::UNKNOWN_MEMBER_ID)?;
        self.after_loss(now);
        Ok(())
    }

    fn after_loss(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Joining { .. }) {
            self.start_round(now);
        }
        self.finish_round(now);
    }

    /// Whether offsets may be committed in this name. Without a member id that is so while nobody is a member.
    pub(crate) fn may_commit(&mut self, member_id: &str, generation: i32, now: Instant) -> Result<(), Code> {
        if generation < 0 && member_id.is_empty() {
            return if self.members.is_empty() { Ok(()) } else { Err(code::UNKNOWN_MEMBER_ID) };
        }
        self.check(member_id, generation)?;
        self.touch(member_id, now);
        if self.phase == Phase::Syncing { Err(code::REBALANCE_IN_PROGRESS) } else { Ok(()) }
    }

    /// Time has passed: those who fell silent are out, and rounds that took too long are over. Whether anything changed.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        self.promised.retain(|_, until| now < *until);
        // Who waits for a round to end need not, and cannot, send heartbeats.
        let joining = matches!(self.phase, Phase::Joining { .. });
        let (before, phase) = (self.members.len(), self.phase);
        self.members.retain(|_, member| (joining && member.joined) || now < member.seen + member.session);
        if self.members.len() != before {
            self.after_loss(now);
        } else {
            self.finish_round(now);
        }
        self.members.len() != before || self.phase != phase
    }

    fn check(&self, member_id: &str, generation: i32) -> Result<(), Code> {
        if !self.members.contains_key(member_id) {
            return Err(code::UNKNOWN_MEMBER_ID);
        }
        if generation != self.generation {
            return Err(code::ILLEGAL_GENERATION);
        }
        Ok(())
    }

    fn touch(&mut self, member_id: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.seen = now;
        }
    }

    /// The protocol's word for where the group is.
    pub(crate) fn state(&self) -> &'static str {
        match self.phase {
            Phase::Empty => "Empty",
            Phase::Joining { .. } => "PreparingRebalance",
            Phase::Syncing => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }

    /// Whether nobody is in it or about to be.
    pub(crate) fn is_deserted(&self) -> bool {
        self.members.is_empty() && self.promised.is_empty()
    }

    pub(crate) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// The members, each with what it said under the chosen protocol.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&String, &Member, Bytes)> {
        self.members.iter().map(|(id, member)| {
            let said = member.protocols.iter().find(|(name, _)| *name == self.protocol);
            (id, member, said.map(|(_, metadata)| metadata.clone()).unwrap_or_default())
        })
    }
}

#[cfg(test)]
mod tests;
