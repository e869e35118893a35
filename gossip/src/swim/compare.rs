//! Comparing with others and pulling what differs.
//!
//! ```text
//! A                                     B
//! │ sums in every packet differ         │
//! ├── Open: sums of 64 buckets ────────>│   also how one joins
//! │<────── Stamps: what B has in them ──┤
//! ├── Push: what B lacks, what A wants >│
//! │<─────────────── Push: what A wants ─┤
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foca::{Member, State};

use super::doubts::SPREAD_MAX;
use super::{Body, Due, Line, News, Node, Swim};
use crate::sync::{BUCKETS, Replicated};

/// Shortest time between two comparisons that this member begins because sums differ.
const INTERVAL_MIN: Duration = Duration::from_millis(900);
/// Sums that must differ in a row before that: what is just being told needs no comparison.
const PATIENCE: u32 = 2;
/// Bytes of members and records in one message; more go into further messages.
const PUSH_BYTES: usize = 32 * 1024;
/// Bytes of lines, and of stamps, in one message; buckets beyond wait for the next comparison.
const LINES_BYTES: usize = 80 * 1024;
const STAMPS_BYTES: usize = 80 * 1024;
/// Members, and bytes of keys, asked for in one message.
const WANT_MAX: usize = 4000;
const WANT_BYTES: usize = 60 * 1024;
/// Bytes of one line.
const LINE_BYTES: usize = 14;

#[derive(Debug, Default)]
pub(super) struct Compare {
    last: Option<Duration>,
    differing: u32,
    begun: u64,
    /// The state sums that members told last.
    sums: BTreeMap<u64, u64>,
}

impl Compare {
    pub(super) fn forget(&mut self, id: u64) {
        self.sums.remove(&id);
    }
}

impl<S: Replicated> Swim<S> {
    /// How many comparisons this member began.
    #[must_use]
    pub fn comparisons(&self) -> u64 {
        self.compare.begun
    }

    /// Whether this member has made one whole exchange with another: what it knows now is what the cluster knows.
    #[must_use]
    pub fn has_exchanged(&self) -> bool {
        self.rejoin.exchanged
    }

    /// Members whose state was another than ours when they last told its sum, at most `limit`.
    #[must_use]
    pub fn differing_members(&self, limit: usize) -> Vec<Node> {
        let ours = self.state.borrow().digest();
        let differing = self.compare.sums.iter().filter(|(_, sum)| **sum != ours).map(|(id, _)| *id);
        differing
            .filter_map(|id| self.roster.get(id))
            .filter(|it| it.up)
            .map(|it| it.node.clone())
            .take(limit)
            .collect()
    }

    /// Asks a member for the stamps of its whole state; the answer is [`News::Told`] with the same token.
    pub fn ask(&mut self, now: Duration, member: &Node, token: u32) {
        let now = self.awake(now);
        let body = Body::Ask { from: self.node().clone(), token };
        self.send(now, member, &body, false);
    }

    pub(super) fn on_ask(&mut self, now: Duration, peer: &Node, token: u32) {
        let (mut stamps, mut bytes) = (Vec::new(), 0);
        for bucket in 0..BUCKETS {
            let held = self.state.borrow().stamps(bucket);
            bytes += held.iter().map(|(key, _)| key.len() + 10).sum::<usize>();
            if bytes > STAMPS_BYTES {
                break;
            }
            stamps.extend(held);
        }
        let body = Body::Told { from: self.node().clone(), token, stamps };
        self.send(now, peer, &body, false);
    }

    /// A packet brought the sums of its sender.
    pub(super) fn compare_sums(&mut self, now: Duration, peer: &Node, (roster, state): (u64, u64)) {
        if !self.roster.is_up(peer) {
            return;
        }
        self.compare.sums.insert(peer.id, state);
        if !self.tuning.anti_entropy || self.node().left {
            return;
        }
        if roster == self.roster.digest() && state == self.state.borrow().digest() {
            self.compare.differing = 0;
            return;
        }
        self.compare.differing += 1;
        let rested = self.compare.last.is_none_or(|last| now >= last + INTERVAL_MIN);
        if rested && self.compare.differing >= PATIENCE {
            self.begin_compare(now, peer);
        }
    }

    pub(super) fn begin_compare(&mut self, now: Duration, peer: &Node) {
        self.compare.last = Some(now);
        self.compare.differing = 0;
        self.compare.begun += 1;
        let open = self.open();
        self.send(now, peer, &open, false);
    }

    pub(super) fn open(&self) -> Body {
        let state = Box::new(self.state.borrow().buckets());
        Body::Open { from: self.node().clone(), roster: Box::new(self.roster.buckets()), state }
    }

    pub(super) fn on_compare_due(&mut self, now: Duration) {
        let wait =
            self.tuning.pull_push_interval.mul_f64(0.8) + self.jitter(self.tuning.pull_push_interval.mul_f64(0.4));
        self.timers.set(now + wait, Due::Compare);
        if !self.tuning.anti_entropy {
            return;
        }
        let me = self.node().id;
        let others = self.roster.up().saturating_sub(1);
        let chosen = self.rng.index(others);
        let peer = self.roster.iter().filter(|entry| entry.up && entry.node.id != me).nth(chosen);
        if let Some(peer) = peer.map(|entry| entry.node.clone()) {
            self.begin_compare(now, &peer);
        }
    }

    pub(super) fn on_open(&mut self, now: Duration, peer: &Node, roster: &[u64; BUCKETS], state: &[u64; BUCKETS]) {
        if peer.id == self.node().id || self.node().left {
            return;
        }
        self.meet(now, peer);
        if !self.tuning.anti_entropy && roster.iter().all(|sum| *sum == 0) {
            return;
        }
        // Begins anywhere, so that what does not fit this time has its turn.
        let begin = self.rng.index(BUCKETS);
        let order = (0..BUCKETS).map(|step| (begin + step) % BUCKETS);
        let (counts, mut roster_mask, mut bytes) = (self.roster.counts(), 0, 0);
        let wanted = differing(roster, &self.roster.buckets());
        for bucket in order.clone().filter(|bucket| wanted >> bucket & 1 == 1) {
            bytes += counts[bucket] * LINE_BYTES;
            if bytes > LINES_BYTES && roster_mask != 0 {
                break;
            }
            roster_mask |= 1 << bucket;
        }
        let lines = self.roster.lines(roster_mask);
        let (mut state_mask, mut stamps, mut bytes) = (0, Vec::new(), 0);
        let wanted = differing(state, &self.state.borrow().buckets());
        for bucket in order.filter(|bucket| wanted >> bucket & 1 == 1) {
            let held = self.state.borrow().stamps(bucket);
            bytes += held.iter().map(|(key, _)| key.len() + 10).sum::<usize>();
            if bytes > STAMPS_BYTES && state_mask != 0 {
                break;
            }
            state_mask |= 1 << bucket;
            stamps.extend(held);
        }
        let body = Body::Stamps { from: self.node().clone(), roster_mask, lines, state_mask, stamps };
        self.send(now, peer, &body, false);
        // Whom others join first makes an exchange of its own at once: before one it registers in no ring.
        let rested = self.compare.last.is_none_or(|last| now >= last + INTERVAL_MIN);
        if self.tuning.anti_entropy && !self.rejoin.exchanged && rested {
            self.begin_compare(now, peer);
        }
    }

    /// The other side of a comparison is a member, if it is not one already.
    fn meet(&mut self, now: Duration, peer: &Node) {
        match self.roster.get(peer.id) {
            Some(entry) if entry.node == *peer && !entry.up => {
                // It does not know that it was declared down; it begins a new life when it is told.
                self.send_doubt(now, peer, 0, true);
            }
            Some(entry) if !peer.beats(&entry.node) => {}
            Some(_) | None => self.learn(now, vec![Member::alive(peer.clone())], true),
        }
    }

    pub(super) fn on_stamps(
        &mut self,
        now: Duration,
        peer: &Node,
        roster_mask: u64,
        lines: &[Line],
        state_mask: u64,
        stamps: &[(Vec<u8>, u64)],
    ) {
        if peer.id == self.node().id || self.node().left {
            return;
        }
        self.rejoin.joined();
        self.meet(now, peer);
        let (members, want, claims) = self.compare_lines(roster_mask, lines);
        if let Some(line) = lines.iter().find(|line| line.node.id == self.node().id) {
            self.hear_of_self(now, &line.node.clone(), line.up);
        }
        let (records, want_records) = self.compare_stamps(state_mask, stamps);
        self.rejoin.exchanged |= want.is_empty() && want_records.is_empty();
        self.push(now, peer, members, records, want, want_records);
        self.on_claims(now, claims);
    }

    /// What the other side lacks, what this side lacks, and whom only the other side holds down.
    fn compare_lines(&self, mask: u64, lines: &[Line]) -> (Vec<Member<Node>>, Vec<u64>, Vec<Node>) {
        let (mut push, mut want, mut claims) = (Vec::new(), Vec::new(), Vec::new());
        let theirs: BTreeMap<u64, &Line> = lines.iter().map(|line| (line.node.id, line)).collect();
        for line in lines {
            match self.roster.get(line.node.id) {
                None if line.up => want.push(line.node.id),
                None => {}
                Some(mine) if mine.node == line.node => match (mine.up, line.up) {
                    (true, false) if line.node.id != self.node().id => claims.push(mine.node.clone()),
                    (false, true) => push.push(Member::down(mine.node.clone())),
                    _ => {}
                },
                Some(mine) if line.node.beats(&mine.node) => want.push(line.node.id),
                Some(mine) if mine.up => push.push(Member::alive(mine.node.clone())),
                Some(mine) => push.push(Member::down(mine.node.clone())),
            }
        }
        let lacking = self.roster.lines(mask).into_iter().filter(|line| line.up && !theirs.contains_key(&line.node.id));
        push.extend(lacking.map(|line| Member::alive(line.node)));
        (push, want, claims)
    }

    fn compare_stamps(&self, mask: u64, stamps: &[(Vec<u8>, u64)]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let state = self.state.borrow();
        let theirs: BTreeSet<&[u8]> = stamps.iter().map(|(key, _)| key.as_slice()).collect();
        let (mut push, mut want) = (Vec::new(), Vec::new());
        for (key, stamp) in stamps {
            let mine = state.stamp(key);
            if mine == Some(*stamp) {
                continue;
            }
            // Which of the two is newer is for the merge to say, on both sides.
            want.push(key.clone());
            push.extend(state.record(key));
        }
        for bucket in (0..BUCKETS).filter(|bucket| mask >> bucket & 1 == 1) {
            for (key, _) in state.stamps(bucket) {
                if !theirs.contains(key.as_slice()) {
                    push.extend(state.record(&key));
                }
            }
        }
        (push, want)
    }

    fn push(
        &mut self,
        now: Duration,
        peer: &Node,
        members: Vec<Member<Node>>,
        records: Vec<Vec<u8>>,
        mut want: Vec<u64>,
        mut want_records: Vec<Vec<u8>>,
    ) {
        want.truncate(WANT_MAX);
        let mut bytes = 0;
        want_records.retain(|key| {
            bytes += key.len() + 2;
            bytes <= WANT_BYTES
        });
        let from = self.node().clone();
        let mut members = members.into_iter().peekable();
        let mut records = records.into_iter().peekable();
        while members.peek().is_some() || records.peek().is_some() || !want.is_empty() || !want_records.is_empty() {
            let mut bytes = 0;
            let some_members = std::iter::from_fn(|| {
                let member = members.next_if(|_| bytes < PUSH_BYTES)?;
                bytes += 40 + member.id().name().len();
                Some(member)
            });
            let some_members: Vec<_> = some_members.collect();
            let some_records = std::iter::from_fn(|| {
                let record = records.next_if(|_| bytes < PUSH_BYTES)?;
                bytes += 2 + record.len();
                Some(record)
            });
            let body = Body::Push {
                from: from.clone(),
                members: some_members,
                records: some_records.collect(),
                want: std::mem::take(&mut want),
                want_records: std::mem::take(&mut want_records),
            };
            self.send(now, peer, &body, false);
        }
    }

    pub(super) fn on_push(
        &mut self,
        now: Duration,
        peer: &Node,
        members: Vec<Member<Node>>,
        records: &[Vec<u8>],
        want: &[u64],
        want_records: &[Vec<u8>],
    ) {
        if self.node().left {
            return;
        }
        self.take_members(now, members);
        self.take_records(records);
        self.rejoin.exchanged = true;
        if want.is_empty() && want_records.is_empty() {
            return;
        }
        let wanted = want.iter().take(WANT_MAX).filter_map(|id| self.roster.get(*id));
        let found: Vec<_> = wanted
            .map(|entry| if entry.up { Member::alive(entry.node.clone()) } else { Member::down(entry.node.clone()) })
            .collect();
        let state = self.state.borrow();
        let wanted: Vec<_> = want_records.iter().take(WANT_MAX).filter_map(|key| state.record(key)).collect();
        drop(state);
        self.push(now, peer, found, wanted, Vec::new(), Vec::new());
    }

    fn hear_of_self(&mut self, now: Duration, node: &Node, up: bool) {
        if node == self.node() && !up {
            self.object(now, 0, State::Down);
        } else {
            self.go_above(now, node);
        }
    }

    fn take_members(&mut self, now: Duration, members: Vec<Member<Node>>) {
        let (mut news, mut claims) = (Vec::new(), Vec::new());
        for member in members {
            let node = member.id();
            let up = super::roster::is_up(member.state());
            if node.id == self.node().id {
                self.hear_of_self(now, &node.clone(), up);
                continue;
            }
            match self.roster.get(node.id) {
                Some(mine) if mine.node == *node && mine.up && !up => claims.push(node.clone()),
                Some(mine) if !node.beats(&mine.node) => {}
                None if !up => {}
                None if self.roster.len() + news.len() >= super::MEMBERS_MAX => {}
                Some(_) | None => news.push(member),
            }
        }
        let spread = news.len() <= SPREAD_MAX;
        if !news.is_empty() {
            self.learn(now, news, spread);
        }
        self.on_claims(now, claims);
    }

    fn take_records(&mut self, records: &[Vec<u8>]) {
        let mut changed = Vec::new();
        let mut news = Vec::new();
        for record in records {
            let key = self.state.borrow_mut().apply(record);
            if let Some(key) = key {
                changed.push(key);
                news.push(record);
            }
        }
        if news.len() <= SPREAD_MAX {
            for record in news {
                self.spread_record(record);
            }
        }
        if !changed.is_empty() {
            self.news.push(News::Records(changed));
        }
    }
}

/// The buckets whose sums differ, one bit each.
fn differing(theirs: &[u64; BUCKETS], ours: &[u64; BUCKETS]) -> u64 {
    theirs.iter().zip(ours).enumerate().fold(
        0,
        |mask, (bucket, (theirs, ours))| {
            if theirs == ours { mask } else { mask | 1 << bucket }
        },
    )
}
