//! Failures on demand: what a client must survive, as rules that a test or the admin port adds and takes away while the broker runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::code::Code;

/// How many rules there may be.
const MAX_FAULTS: usize = 1000;

/// One failure and when it happens. Fields that are not given match everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The kind of request by the protocol's number: 0 Produce, 1 Fetch, 2 ListOffsets, 3 Metadata, 8 OffsetCommit …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<i16>,
    /// Requests that touch this topic: Produce, Fetch, ListOffsets, DeleteRecords, OffsetCommit. Errors also match a topic that
    /// Metadata or CreateTopics names, if no partition is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// And in it this partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// How often; for ever if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// What happens.
    pub action: Action,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// It is carried out, and the answer says that the client has been held back for so long (KIP-219).
    Throttle {
        /// `throttle_time_ms` of the answer.
        ms: i32,
    },
    /// It is taken and never answered, nor is anything behind it on the same connection.
    Hang,
    /// The connection is closed instead.
    CutBefore,
    /// It is carried out, and the connection is closed in place of the answer.
    CutAfter,
    /// It is carried out after a while.
    Slow {
        /// How long it takes more.
        ms: u64,
    },
    /// It is refused with an error code: for each partition that matches, or as a whole where there are no partitions.
    Error {
        /// The protocol's number: 7 timed out, 19 not enough replicas, 56 storage error …
        code: i16,
    },
    /// Another broker leads the partitions that match. Metadata names it; Produce, Fetch and ListOffsets are refused with
    /// `NOT_LEADER_OR_FOLLOWER`, except on connections to a listener of this broker with that port.
    MoveLeader {
        /// Its number, not 1, which is this broker's.
        node: i32,
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
    },
}

impl Fault {
    /// A failure of every request of one kind, for ever.
    #[must_use]
    pub fn of(api_key: i16, action: Action) -> Self {
        Self { api_key: Some(api_key), topic: None, partition: None, times: None, action }
    }

    /// Another leader for one partition.
    #[must_use]
    pub fn leader_moved(topic: &str, partition: i32, node: i32, to: std::net::SocketAddr) -> Self {
        let action = Action::MoveLeader { node, host: to.ip().to_string(), port: to.port() };
        Self { api_key: None, topic: Some(topic.to_owned()), partition: Some(partition), times: None, action }
    }

    /// Only so often.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Only requests that touch this partition.
    #[must_use]
    pub fn on(self, topic: &str, partition: i32) -> Self {
        Self { topic: Some(topic.to_owned()), partition: Some(partition), ..self }
    }

    fn matches(&self, api_key: i16, place: Option<(&str, i32)>) -> bool {
        let here = |topic: Option<&str>, partition: Option<i32>| {
            self.topic.as_deref().is_none_or(|wanted| Some(wanted) == topic)
                && self.partition.is_none_or(|wanted| Some(wanted) == partition)
        };
        self.api_key.is_none_or(|wanted| wanted == api_key)
            && here(place.map(|(topic, _)| topic), place.map(|(_, partition)| partition))
    }
}

/// A rule in force.
#[derive(Clone, Debug, Serialize)]
pub struct ActiveFault {
    /// To take it away with.
    pub id: u64,
    /// How often it has happened.
    pub hits: u64,
    /// The rule; `times` counts down.
    pub fault: Fault,
}

/// There are too many rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {MAX_FAULTS} faults already; remove some")]
pub struct TooManyFaults;

/// The rules of one broker. Clones are the same rules.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// So that a broker without faults takes no lock.
    count: AtomicUsize,
    rules: Mutex<Rules>,
}

#[derive(Debug, Default)]
struct Rules {
    next_id: u64,
    active: Vec<ActiveFault>,
    /// Hits of rules that are gone, because they were used up or taken away.
    past_hits: HashMap<u64, u64>,
    /// Rises whenever a leader moves, there or back, because clients take older metadata for stale.
    leader_epoch: i32,
}

/// What happens around one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) slow: Duration,
    pub(crate) throttle_ms: i32,
    pub(crate) hang: bool,
    pub(crate) cut_before: bool,
    pub(crate) cut_after: bool,
}

/// Who leads a partition in place of this broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtherLeader {
    pub(crate) node: i32,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Faults {
    /// Adds a rule; it holds for every request that is read from now on.
    ///
    /// # Errors
    /// [`TooManyFaults`].
    pub fn add(&self, fault: Fault) -> Result<u64, TooManyFaults> {
        let mut rules = self.0.rules.lock();
        if rules.active.len() >= MAX_FAULTS {
            return Err(TooManyFaults);
        }
        rules.next_id += 1;
        let id = rules.next_id;
        rules.leader_epoch += i32::from(matches!(fault.action, Action::MoveLeader { .. }));
        rules.active.push(ActiveFault { id, hits: 0, fault });
        self.0.count.store(rules.active.len(), Ordering::Release);
        Ok(id)
    }

    /// Takes a rule away; whether it was there. Requests that hang stay so until their client gives up.
    pub fn remove(&self, id: u64) -> bool {
        self.retain(|fault| fault.id != id)
    }

    /// Takes all rules away.
    pub fn clear(&self) {
        self.retain(|_| false);
    }

    /// The rules in force.
    #[must_use]
    pub fn list(&self) -> Vec<ActiveFault> {
        self.0.rules.lock().active.clone()
    }

    /// How often a rule has happened, also after it was used up or taken away.
    #[must_use]
    pub fn hits(&self, id: u64) -> u64 {
        let rules = self.0.rules.lock();
        let active = rules.active.iter().find(|fault| fault.id == id).map(|fault| fault.hits);
        active.or_else(|| rules.past_hits.get(&id).copied()).unwrap_or(0)
    }

    fn retain(&self, keep: impl Fn(&ActiveFault) -> bool) -> bool {
        let mut rules = self.0.rules.lock();
        let rules = &mut *rules;
        let gone: Vec<_> = rules.active.extract_if(.., |fault| !keep(fault)).collect();
        for fault in &gone {
            rules.leader_epoch += i32::from(matches!(fault.fault.action, Action::MoveLeader { .. }));
            if rules.past_hits.len() < MAX_FAULTS {
                rules.past_hits.insert(fault.id, fault.hits);
            }
        }
        self.0.count.store(rules.active.len(), Ordering::Release);
        !gone.is_empty()
    }

    /// Whether there is any rule.
    pub(crate) fn any(&self) -> bool {
        self.0.count.load(Ordering::Acquire) > 0
    }

    /// What happens around a request that touches these places.
    pub(crate) fn plan(&self, api_key: i16, places: &[(String, i32)]) -> Plan {
        let mut plan = Plan::default();
        self.each(api_key, places, |action| {
            match action {
                Action::Throttle { ms } => plan.throttle_ms = plan.throttle_ms.max(*ms),
                Action::Hang => plan.hang = true,
                Action::CutBefore => plan.cut_before = true,
                Action::CutAfter => plan.cut_after = true,
                Action::Slow { ms } => plan.slow = plan.slow.max(Duration::from_millis(*ms)),
                Action::Error { .. } | Action::MoveLeader { .. } => return false,
            }
            true
        });
        plan
    }

    /// The error code for a request, or for one partition of it.
    pub(crate) fn error(&self, api_key: i16, place: Option<(&str, i32)>) -> Option<Code> {
        if !self.any() {
            return None;
        }
        let places: Vec<_> = place.iter().map(|(topic, partition)| ((*topic).to_owned(), *partition)).collect();
        let mut found = None;
        self.each(api_key, &places, |action| match action {
            Action::Error { code } if found.is_none() => {
                found = Some(*code);
                true
            }
            _ => false,
        });
        found
    }

    /// Calls for each rule that matches; those for which it answers true have happened.
    fn each(&self, api_key: i16, places: &[(String, i32)], mut happens: impl FnMut(&Action) -> bool) {
        let mut used_up = Vec::new();
        for rule in &mut self.0.rules.lock().active {
            let matches = rule.fault.matches(api_key, None)
                || places.iter().any(|(topic, partition)| rule.fault.matches(api_key, Some((topic, *partition))));
            if matches && happens(&rule.fault.action) {
                rule.hits += 1;
                if let Some(times) = &mut rule.fault.times {
                    *times = times.saturating_sub(1);
                    if *times == 0 {
                        used_up.push(rule.id);
                    }
                }
            }
        }
        if !used_up.is_empty() {
            self.retain(|fault| !used_up.contains(&fault.id));
        }
    }

    /// Who leads a partition, if it is not this broker.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<OtherLeader> {
        if !self.any() {
            return None;
        }
        let rules = self.0.rules.lock();
        rules.active.iter().rev().find_map(|rule| match &rule.fault {
            Fault { topic: wanted, partition: number, action: Action::MoveLeader { node, host, port }, .. }
                if wanted.as_deref().is_none_or(|wanted| wanted == topic)
                    && number.is_none_or(|number| number == partition) =>
            {
                Some(OtherLeader { node: *node, host: host.clone(), port: *port })
            }
            _ => None,
        })
    }

    /// Every broker that leads something in place of this one.
    pub(crate) fn leaders(&self) -> Vec<OtherLeader> {
        let rules = self.0.rules.lock();
        let mut leaders: Vec<OtherLeader> = Vec::new();
        for rule in rules.active.iter().rev() {
            if let Action::MoveLeader { node, host, port } = &rule.fault.action
                && leaders.iter().all(|leader| leader.node != *node)
            {
                leaders.push(OtherLeader { node: *node, host: host.clone(), port: *port });
            }
        }
        leaders
    }

    /// The epoch of all leaders: rises with every move.
    pub(crate) fn leader_epoch(&self) -> i32 {
        self.0.rules.lock().leader_epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(topic: &str, partition: i32) -> Vec<(String, i32)> {
        vec![(topic.to_owned(), partition)]
    }

    #[test]
    fn a_fault_happens_where_it_matches_and_as_often_as_it_says() {
        let faults = Faults::default();
        let id = faults.add(Fault::of(0, Action::CutAfter).on("a", 1).times(2)).unwrap();
        assert_eq!(faults.plan(0, &places("a", 0)), Plan::default());
        assert_eq!(faults.plan(1, &places("a", 1)), Plan::default());
        assert_eq!(faults.plan(3, &[]), Plan::default());
        for _ in 0..2 {
            assert!(faults.plan(0, &places("a", 1)).cut_after);
        }
        assert_eq!(faults.plan(0, &places("a", 1)), Plan::default());
        assert_eq!(faults.hits(id), 2);
        assert!(!faults.any());
    }

    #[test]
    fn an_error_is_for_its_partition_alone() {
        let faults = Faults::default();
        faults.add(Fault::of(1, Action::Error { code: 56 }).on("a", 1)).unwrap();
        assert_eq!(faults.error(1, Some(("a", 0))), None);
        assert_eq!(faults.error(1, Some(("a", 1))), Some(56));
        assert_eq!(faults.plan(1, &places("a", 1)), Plan::default(), "an error is no matter of the connection");
    }

    #[test]
    fn every_move_of_a_leader_raises_the_epoch() {
        let faults = Faults::default();
        let id = faults.add(Fault::leader_moved("a", 0, 2, ([127, 0, 0, 1], 9).into())).unwrap();
        assert_eq!(faults.leader("a", 0).unwrap().node, 2);
        assert_eq!(faults.leader("a", 1), None);
        assert_eq!(faults.leader_epoch(), 1);
        assert!(faults.remove(id));
        assert_eq!((faults.leader("a", 0), faults.leader_epoch()), (None, 2));
    }

    #[test]
    fn a_fault_is_read_from_json_and_nonsense_is_not() {
        let fault: Fault = serde_json::from_str(r#"{"api_key":0,"times":1,"action":{"throttle":{"ms":50}}}"#).unwrap();
        assert_eq!(fault, Fault::of(0, Action::Throttle { ms: 50 }).times(1));
        assert_eq!(serde_json::from_str::<Fault>(r#"{"action":"hang"}"#).unwrap().action, Action::Hang);
        assert!(serde_json::from_str::<Fault>(r#"{"action":"hang","tpoic":"a"}"#).is_err());
    }
}
