//! The newest traces that a search of one block has found so far.

use std::{cmp::Reverse, collections::BTreeMap};

use vivace_traceql::{Budget, Draft, Held, OverBudget};

/// Where a trace is in its block: row group and row. In a block these ascend like trace ids.
pub(super) type Place = (usize, u32);

/// At most `limit` traces, the newest, of one instant those with the smaller ids.
pub(super) struct Newest {
    limit: usize,
    traces: BTreeMap<(Reverse<u64>, Place), Draft>,
    held: Held,
}

impl Newest {
    pub(super) fn new(limit: usize, budget: &Budget) -> Self {
        Self { limit, traces: BTreeMap::new(), held: budget.hold() }
    }

    /// Whether a trace would be among them.
    pub(super) fn takes(&self, start_ns: u64, place: Place) -> bool {
        self.traces.len() < self.limit
            || self.traces.last_key_value().is_some_and(|(last, _)| (Reverse(start_ns), place) < *last)
    }

    /// Takes a trace in, for which the oldest may go.
    pub(super) fn add(&mut self, start_ns: u64, place: Place, draft: Draft) {
        self.held.add(draft.memory());
        if let Some(same) = self.traces.insert((Reverse(start_ns), place), draft) {
            self.held.sub(same.memory());
        }
        while self.traces.len() > self.limit {
            let Some((_, gone)) = self.traces.pop_last() else { break };
            self.held.sub(gone.memory());
        }
    }

    /// What starts before this can change nothing any more.
    pub(super) fn floor(&self) -> Option<u64> {
        let full = self.traces.len() >= self.limit;
        self.traces.last_key_value().filter(|_| full).map(|((Reverse(start), _), _)| *start)
    }

    /// # Errors
    /// More is held than may be, by all who work on the query.
    pub(super) fn check(&self) -> Result<(), OverBudget> {
        self.held.check()
    }

    /// Whether a trace of the row group is among them.
    pub(super) fn has_of(&self, group: usize) -> bool {
        self.traces.keys().any(|(_, (of, _))| *of == group)
    }

    /// Ends: the traces in the order of the block, by row group.
    pub(super) fn into_groups(self) -> BTreeMap<usize, Vec<(u32, Draft)>> {
        let mut groups: BTreeMap<usize, Vec<(u32, Draft)>> = BTreeMap::new();
        for ((_, (group, row)), draft) in self.traces {
            groups.entry(group).or_default().push((row, draft));
        }
        groups.values_mut().for_each(|rows| rows.sort_unstable_by_key(|(row, _)| *row));
        groups
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few instants and rows, so that many are equal.
        #[test]
        fn the_newest_of_all_are_kept_whatever_the_order(
            traces in prop::collection::btree_map((0usize..3, 0u32..20), 0u64..6, 0..40),
            limit in 0usize..12,
            turns in any::<u64>(),
        ) {
            let mut due: Vec<(Reverse<u64>, Place)> = traces.iter().map(|(place, start)| (Reverse(*start), *place)).collect();
            due.sort_unstable();
            due.truncate(limit);
            let mut order: Vec<(Place, u64)> = traces.into_iter().collect();
            order.sort_unstable_by_key(|((group, row), start)| (*group as u64 * 31 + u64::from(*row) * 17 + *start) ^ turns);
            let budget = Budget::new(1);
            let mut newest = Newest::new(limit, &budget);
            for (place, start) in order {
                let takes = newest.takes(start, place);
                newest.add(start, place, Draft::default());
                prop_assert_eq!(takes, newest.traces.contains_key(&(Reverse(start), place)));
                prop_assert!(newest.floor().is_none_or(|floor| newest.traces.keys().all(|(Reverse(start), _)| *start >= floor)));
            }
            prop_assert!(newest.traces.keys().eq(due.iter()));
            let held: usize = newest.traces.values().map(Draft::memory).sum();
            prop_assert_eq!(budget.used(), held);
            let groups = newest.into_groups();
            prop_assert_eq!(groups.values().map(Vec::len).sum::<usize>(), due.len());
            prop_assert!(groups.values().all(|rows| rows.windows(2).all(|pair| pair[0].0 < pair[1].0)));
            prop_assert_eq!(budget.used(), 0);
        }
    }
}
