//! Where a partition's next section begins: at the end of the chain of commit objects.
//!
//! The group's offset is a hint that saves requests: if a section begins there, the chain is followed from it. If none does, the hint
//! may be the chain's end or anything else (a group can expire or be reset), so the objects are listed and the last section is the
//! truth. Only without any commit object does the hint count itself, for instance when another block-builder was here before: then
//! the beginning is agreed on by an object of its own, or two builders could begin two chains.

use std::sync::Arc;

use vivace_storage::Commit;

/// Where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begin {
    /// First offset of the next section.
    pub(crate) first: u64,
    /// First offset that can be read: above `first` when the log has lost records meanwhile.
    pub(crate) read_from: u64,
    /// What was seen of producers below `first`.
    pub(crate) producers: Vec<u8>,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StartStep {
    /// Read the commit object of the section that begins here.
    Read(u64),
    /// Find the section that begins last.
    List,
    /// Put metadata that the committer of this section could not put any more. Those of earlier sections are there: nobody begins
    /// a section before.
    Restore(Arc<Commit>),
    /// Agree that the chain begins here, or learn where it does.
    Anchor(u64),
    /// Begin.
    Done(Begin),
    /// The log ends before the chain does: they do not belong together.
    Conflict {
        /// Where the chain ends.
        chain: u64,
        /// Where the log ends.
        log: u64,
    },
}

#[derive(Debug)]
enum Phase {
    Hint(u64),
    List,
    Walk(u64),
    Restore(Arc<Commit>),
    Anchor,
    Done,
}

/// Looks for the end of a chain.
#[derive(Debug)]
pub(crate) struct Start {
    phase: Phase,
    hint: Option<u64>,
    earliest: u64,
    end: u64,
    last: Option<Arc<Commit>>,
    anchored: u64,
}

impl Start {
    /// With the group's offset, if it has one, and the bounds of the partition.
    pub(crate) fn new(hint: Option<u64>, earliest: u64, end: u64) -> Self {
        Self { phase: hint.map_or(Phase::List, Phase::Hint), hint, earliest, end, last: None, anchored: 0 }
    }

    /// What is to be done next.
    pub(crate) fn step(&self) -> StartStep {
        match &self.phase {
            Phase::Hint(first) | Phase::Walk(first) => StartStep::Read(*first),
            Phase::List => StartStep::List,
            Phase::Restore(commit) => StartStep::Restore(Arc::clone(commit)),
            // A group that another program kept may be behind what the log still has, or of a log that is no more.
            Phase::Anchor => {
                StartStep::Anchor(self.hint.map_or(self.earliest, |hint| hint.clamp(self.earliest, self.end)))
            }
            Phase::Done => self.done(),
        }
    }

    fn done(&self) -> StartStep {
        let (first, producers) = match &self.last {
            Some(commit) => (commit.end, commit.producers.clone()),
            None => (self.anchored, Vec::new()),
        };
        if first > self.end {
            return StartStep::Conflict { chain: first, log: self.end };
        }
        StartStep::Done(Begin { first, read_from: first.max(self.earliest), producers })
    }

    /// The answer to [`StartStep::Read`].
    pub(crate) fn on_read(&mut self, found: Option<Commit>) {
        self.phase = match (&self.phase, found) {
            (_, Some(commit)) => {
                let end = commit.end;
                self.last = Some(Arc::new(commit));
                Phase::Walk(end)
            }
            (Phase::Hint(_), None) => Phase::List,
            // Listed and not there: never taken for the beginning of the chain.
            (_, None) => self.last.clone().map_or(Phase::List, Phase::Restore),
        };
    }

    /// The answer to [`StartStep::List`].
    pub(crate) fn on_list(&mut self, last_first: Option<u64>) {
        self.phase = last_first.map_or(Phase::Anchor, Phase::Walk);
    }

    /// The answer to [`StartStep::Anchor`]: where the chain begins.
    pub(crate) fn on_anchored(&mut self, first: u64) {
        self.anchored = first;
        self.phase = Phase::Done;
    }

    /// [`StartStep::Restore`] is done.
    pub(crate) fn on_restored(&mut self) {
        self.phase = Phase::Done;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use uuid::Uuid;
    use vivace_storage::CommitName;

    use super::*;

    fn commit(first: u64, end: u64) -> Commit {
        let name = CommitName { log_id: "l".into(), partition: 0, first };
        let mut commit = Commit::new(name, end, Uuid::nil());
        commit.producers = end.to_be_bytes().to_vec();
        commit
    }

    /// Runs to the end; also says how many objects were read, whether there was a listing, and what was restored.
    fn run(hint: Option<u64>, log: (u64, u64), chain: &[(u64, u64)]) -> (StartStep, usize, bool, Option<u64>) {
        let chain: BTreeMap<u64, Commit> = chain.iter().map(|(first, end)| (*first, commit(*first, *end))).collect();
        let mut start = Start::new(hint, log.0, log.1);
        let (mut reads, mut listed, mut restored) = (0, false, None);
        loop {
            match start.step() {
                StartStep::Read(first) => {
                    reads += 1;
                    start.on_read(chain.get(&first).cloned());
                }
                StartStep::List => {
                    listed = true;
                    start.on_list(chain.keys().next_back().copied());
                }
                StartStep::Restore(commit) => {
                    restored = Some(commit.first);
                    start.on_restored();
                }
                StartStep::Anchor(first) => start.on_anchored(first),
                end => return (end, reads, listed, restored),
            }
        }
    }

    fn at(first: u64) -> StartStep {
        read_from(first, first)
    }

    fn read_from(first: u64, read_from: u64) -> StartStep {
        StartStep::Done(Begin { first, read_from, producers: first.to_be_bytes().to_vec() })
    }

    fn fresh(first: u64) -> StartStep {
        StartStep::Done(Begin { first, read_from: first, producers: Vec::new() })
    }

    #[test]
    fn a_good_hint_saves_the_listing_and_any_other_finds_the_same_end() {
        let chain = [(0, 10), (10, 15), (15, 40)];
        assert_eq!(run(Some(10), (0, 50), &chain), (at(40), 3, false, Some(15)));
        assert_eq!(run(Some(40), (0, 50), &chain), (at(40), 3, true, Some(15)));
        for wrong in [None, Some(12), Some(45), Some(1000)] {
            assert_eq!(run(wrong, (0, 50), &chain).0, at(40), "{wrong:?}");
        }
    }

    #[test]
    fn without_a_chain_the_group_counts_within_what_the_log_has() {
        assert_eq!(run(None, (7, 50), &[]).0, fresh(7));
        assert_eq!(run(Some(20), (7, 50), &[]).0, fresh(20));
        assert_eq!(run(Some(3), (7, 50), &[]).0, fresh(7));
        assert_eq!(run(Some(99), (7, 50), &[]).0, fresh(50));
    }

    #[test]
    fn a_chain_that_others_have_begun_begins_where_they_say() {
        let mut start = Start::new(None, 7, 50);
        start.on_list(None);
        assert_eq!(start.step(), StartStep::Anchor(7));
        start.on_anchored(3);
        assert_eq!(start.step(), StartStep::Done(Begin { first: 3, read_from: 7, producers: Vec::new() }));
    }

    #[test]
    fn what_the_log_has_lost_is_a_gap_in_reading_and_not_in_the_chain() {
        assert_eq!(run(None, (30, 50), &[(0, 10)]).0, read_from(10, 30));
    }

    #[test]
    fn a_chain_that_ends_behind_the_log_is_a_conflict() {
        assert_eq!(run(None, (0, 5), &[(0, 10)]).0, StartStep::Conflict { chain: 10, log: 5 });
    }
}
