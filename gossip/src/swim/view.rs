//! A picture of the cluster as one member sees it, for pages.

use std::time::Duration;

use foca::State;

use super::{Node, Swim};
use crate::families::{PathView, Paths};
use crate::sync::Replicated;

/// How a member fares, as seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Alive,
    /// It does not answer, and has a few seconds to object.
    Suspect,
    /// It did not object in time.
    Down,
    /// It left on purpose.
    Left,
}

/// One member.
#[derive(Debug, Clone)]
pub struct MemberView {
    /// Who.
    pub node: Node,
    /// How it fares.
    pub health: Health,
    /// How long it is up, or down.
    pub since: Duration,
    /// How long ago something last came from it directly or through a relay; never, if nothing did.
    pub heard: Option<Duration>,
    /// The ways to it, per family that it advertises.
    pub paths: Vec<PathView>,
    /// The member that messages to it are passed on by, where no family is shared or works.
    pub via: Option<u64>,
    /// Another living member has the same name.
    pub name_taken_twice: bool,
}

/// The cluster as one member sees it.
#[derive(Debug, Clone)]
pub struct View {
    /// Oneself.
    pub me: Node,
    /// Everybody who is known, oneself included, by name.
    pub members: Vec<MemberView>,
    /// The sum over all who are up.
    pub roster_digest: u64,
    /// The sum over the state.
    pub state_digest: u64,
    /// Comparisons that this member began.
    pub comparisons: u64,
    /// Messages passed on for others.
    pub relayed: u64,
    /// News that are still being told.
    pub backlog: usize,
}

impl<S: Replicated> Swim<S> {
    /// The picture at `now`.
    #[must_use]
    pub fn view(&self, now: Duration) -> View {
        let now = self.timers.running(now);
        let mut suspects: Vec<u64> = self
            .foca
            .iter_membership_state()
            .filter(|member| member.state() == State::Suspect)
            .map(|member| member.id().id)
            .collect();
        suspects.sort_unstable();
        let mut names: Vec<&str> = self.roster.iter().filter(|entry| entry.up).map(|entry| entry.node.name()).collect();
        names.sort_unstable();
        let twice = |name: &str| {
            let first = names.partition_point(|other| *other < name);
            names.get(first + 1).is_some_and(|next| *next == name)
        };
        let me = self.node().clone();
        let mut members: Vec<_> = self
            .roster
            .iter()
            .map(|entry| {
                let node = &entry.node;
                let health = match (entry.up, node.left) {
                    (_, true) => Health::Left,
                    (false, false) => Health::Down,
                    (true, false) if suspects.binary_search(&node.id).is_ok() => Health::Suspect,
                    (true, false) => Health::Alive,
                };
                let direct = Paths::share_family(&me, node) && self.paths.routes(now, node, false).1;
                MemberView {
                    health,
                    since: now.saturating_sub(entry.since),
                    heard: self.paths.last_heard(node.id).map(|heard| now.saturating_sub(heard)),
                    paths: self.paths.view(now, node),
                    via: if direct || node.id == me.id { None } else { self.relays(now, node).first().copied() },
                    name_taken_twice: entry.up && twice(node.name()),
                    node: node.clone(),
                }
            })
            .collect();
        members.sort_by(|a, b| (a.node.name(), a.node.id).cmp(&(b.node.name(), b.node.id)));
        View {
            me,
            members,
            roster_digest: self.roster.digest(),
            state_digest: self.state.borrow().digest(),
            comparisons: self.comparisons(),
            relayed: self.relayed,
            backlog: self.backlog(),
        }
    }
}
