//! Rules: who is asked next about one partition.

use std::collections::{BTreeSet, VecDeque};

use super::order::{Candidate, Standing};

/// The candidates of one partition, the best first, and how far it has come.
#[derive(Debug)]
pub(crate) struct Turns {
    candidates: Vec<Candidate>,
    next: usize,
    one_at_a_time: bool,
    /// Who failed and why, in the order in which they did.
    failures: Vec<(usize, String)>,
    /// Whose connection broke: asked once more when there is nobody else.
    again: VecDeque<usize>,
    /// Who has been asked once more.
    asked_again: BTreeSet<usize>,
}

/// Why somebody's turn is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It answered that it cannot, or lacks something.
    Answered(String),
    /// The connection could not be had or broke: it may never have heard of the question.
    Broken(String),
}

impl Turns {
    pub(crate) fn new(candidates: Vec<Candidate>, one_at_a_time: bool) -> Self {
        let (failures, again, asked_again) = (Vec::new(), VecDeque::new(), BTreeSet::new());
        Self { candidates, next: 0, one_at_a_time, failures, again, asked_again }
    }

    pub(crate) fn candidate(&self, at: usize) -> &Candidate {
        &self.candidates[at]
    }

    /// Whom to ask now: the first, or everybody who is up. Called again, the next of those who have not been asked.
    pub(crate) fn begin(&mut self) -> Vec<usize> {
        let mut asked: Vec<usize> = self.take().into_iter().collect();
        if !self.one_at_a_time {
            while self.candidates.get(self.next).is_some_and(|next| next.standing < Standing::Down) {
                asked.extend(self.take());
            }
        }
        asked
    }

    /// One has failed, or its answer is not whole: who is asked in its place.
    pub(crate) fn failed(&mut self, at: usize, failure: Failure) -> Option<usize> {
        self.note(at, failure);
        self.take()
    }

    /// As [`Self::failed`], without asking anybody yet.
    pub(crate) fn note(&mut self, at: usize, failure: Failure) {
        let why = match failure {
            Failure::Answered(why) => why,
            Failure::Broken(why) => {
                if self.candidates[at].standing < Standing::Down && !self.asked_again.contains(&at) {
                    self.again.push_back(at);
                }
                why
            }
        };
        self.failures.retain(|(failed, _)| *failed != at);
        self.failures.push((at, why));
    }

    /// It takes long: who is asked as well. Those who are down are not worth it.
    pub(crate) fn hedge(&mut self) -> Option<usize> {
        self.can_hedge().then(|| self.take()).flatten()
    }

    /// Whether there is somebody left for [`Self::hedge`].
    pub(crate) fn can_hedge(&self) -> bool {
        self.candidates.get(self.next).is_some_and(|next| next.standing < Standing::Down)
    }

    /// Those in turn that have neither failed nor answered by now.
    pub(crate) fn overdue(&mut self, running: impl IntoIterator<Item = usize>) {
        self.failures.extend(running.into_iter().map(|at| (at, "no answer in time".to_owned())));
    }

    /// Everybody who failed, with address and reason.
    pub(crate) fn reasons(&self) -> String {
        if self.candidates.is_empty() {
            return "no live-store owns it".to_owned();
        }
        let text = |(at, why): &(usize, String)| {
            let candidate = &self.candidates[*at];
            match &candidate.address {
                Some(address) => format!("{} ({address}): {why}", candidate.owner),
                None => format!("{}: {why}", candidate.owner),
            }
        };
        self.failures.iter().map(text).collect::<Vec<_>>().join("; ")
    }

    fn take(&mut self) -> Option<usize> {
        let at = self.next;
        if at < self.candidates.len() {
            self.next += 1;
            return Some(at);
        }
        let again = self.again.pop_front()?;
        self.asked_again.insert(again);
        Some(again)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(standings: &[Standing], one_at_a_time: bool) -> Turns {
        let candidate = |(at, standing): (usize, &Standing)| Candidate {
            owner: format!("live-store-{at}"),
            address: Some(format!("10.0.0.{at}:9095")),
            standing: *standing,
        };
        Turns::new(standings.iter().enumerate().map(candidate).collect(), one_at_a_time)
    }

    use Standing::{Down, Ready, Up};

    fn says(why: &str) -> Failure {
        Failure::Answered(why.to_owned())
    }

    #[test]
    fn one_is_asked_and_the_next_when_it_fails_the_dead_included() {
        let mut turns = turns(&[Ready, Up, Down], true);
        assert_eq!(turns.begin(), [0]);
        assert_eq!(turns.failed(0, says("refused")), Some(1));
        assert_eq!(turns.failed(1, says("is starting")), Some(2));
        assert_eq!(turns.failed(2, says("gone")), None);
        assert_eq!(
            turns.reasons(),
            "live-store-0 (10.0.0.0:9095): refused; live-store-1 (10.0.0.1:9095): is starting; live-store-2 \
             (10.0.0.2:9095): gone"
        );
    }

    #[test]
    fn the_only_owner_is_asked_even_when_it_is_down() {
        assert_eq!(turns(&[Down], true).begin(), [0]);
        assert_eq!(turns(&[Down], false).begin(), [0]);
    }

    #[test]
    fn company_comes_from_those_who_are_up_only() {
        let mut turns = turns(&[Ready, Up, Down], true);
        turns.begin();
        assert_eq!(turns.hedge(), Some(1));
        assert!(!turns.can_hedge());
        assert_eq!(turns.hedge(), None);
        assert_eq!(turns.failed(0, says("slow")), Some(2));
    }

    #[test]
    fn all_who_are_up_are_asked_at_once_if_wished() {
        let mut turns = turns(&[Ready, Ready, Up, Down, Down], false);
        assert_eq!(turns.begin(), [0, 1, 2]);
        assert_eq!(turns.failed(1, says("refused")), Some(3));
    }

    #[test]
    fn whose_connection_broke_is_asked_once_more_when_nobody_else_is_left() {
        let broken = || Failure::Broken("reset".to_owned());
        let mut turns = turns(&[Ready, Ready, Down], true);
        turns.begin();
        assert_eq!(turns.failed(0, broken()), Some(1));
        assert_eq!(turns.failed(1, says("is starting")), Some(2));
        assert_eq!(turns.failed(2, broken()), Some(0), "not those who are down, nor those who have answered");
        assert_eq!(turns.failed(0, broken()), None);
        assert_eq!(turns.reasons().matches("live-store-0").count(), 1);
    }

    #[test]
    fn nobody_to_ask_is_said() {
        let mut turns = turns(&[], true);
        assert!(turns.begin().is_empty());
        assert_eq!(turns.reasons(), "no live-store owns it");
    }

    proptest! {
        #[test]
        fn everybody_is_asked_once_at_most_and_all_are_before_it_is_given_up(
            standings in prop::collection::vec(prop_oneof![Just(Ready), Just(Up), Just(Down)], 0..8),
            one_at_a_time in any::<bool>(),
            steps in prop::collection::vec(any::<bool>(), 0..40),
        ) {
            let mut standings = standings;
            standings.sort();
            let mut turns = turns(&standings, one_at_a_time);
            let mut running = turns.begin();
            let mut asked = running.clone();
            for hedge in steps.into_iter().chain(std::iter::repeat_n(false, 20)) {
                let next = if hedge {
                    turns.hedge()
                } else if running.is_empty() {
                    None
                } else {
                    let at = running.remove(0);
                    turns.failed(at, says("no"))
                };
                asked.extend(next);
                running.extend(next);
            }
            prop_assert!(running.is_empty());
            let mut once = asked.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), asked.len());
            prop_assert_eq!(asked.len(), standings.len());
        }
    }
}
