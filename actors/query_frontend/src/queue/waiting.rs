//! Rules: what waits, fairly between tenants. Tenants take turns; the jobs of one run in their order.

use std::collections::{HashMap, VecDeque};

/// Waiting jobs.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    most_of_a_tenant: usize,
    jobs: HashMap<String, VecDeque<T>>,
    /// Tenants that wait, in the order in which they are served. Each is in it once.
    order: VecDeque<String>,
}

impl<T> Waiting<T> {
    pub(crate) fn new(most_of_a_tenant: usize) -> Self {
        Self { most_of_a_tenant, jobs: HashMap::new(), order: VecDeque::new() }
    }

    /// Adds a job of a tenant; false if it has too many already. Before that is said, those that nobody waits for any more are
    /// removed.
    pub(crate) fn push(&mut self, tenant: &str, job: T, wanted: impl Fn(&T) -> bool) -> bool {
        match self.jobs.get_mut(tenant) {
            Some(jobs) => {
                if jobs.len() >= self.most_of_a_tenant {
                    jobs.retain(wanted);
                }
                if jobs.len() >= self.most_of_a_tenant {
                    return false;
                }
                jobs.push_back(job);
            }
            None if self.most_of_a_tenant == 0 => return false,
            None => {
                self.jobs.insert(tenant.to_owned(), VecDeque::from([job]));
                self.order.push_back(tenant.to_owned());
            }
        }
        true
    }

    /// The next job: the oldest of the tenant whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        loop {
            let tenant = self.order.pop_front()?;
            let jobs = self.jobs.get_mut(&tenant);
            let job = jobs.and_then(VecDeque::pop_front);
            if self.jobs.get(&tenant).is_none_or(VecDeque::is_empty) {
                self.jobs.remove(&tenant);
            } else {
                self.order.push_back(tenant);
            }
            if job.is_some() {
                return job;
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.jobs.values().map(VecDeque::len).sum()
    }

    pub(crate) fn tenants(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn all(_: &(String, usize)) -> bool {
        true
    }

    #[test]
    fn a_tenant_with_many_jobs_holds_up_no_other() {
        let mut waiting = Waiting::new(1000);
        for n in 0..100 {
            assert!(waiting.push("many", ("many".to_owned(), n), all));
        }
        assert!(waiting.push("one", ("one".to_owned(), 0), all));
        let first: Vec<_> = (0..3).filter_map(|_| waiting.pop()).map(|(tenant, _)| tenant).collect();
        assert_eq!(first, ["many", "one", "many"]);
    }

    #[test]
    fn the_jobs_of_askers_that_are_gone_make_room() {
        let mut waiting = Waiting::new(2);
        assert!(waiting.push("a", 1, |_| true) && waiting.push("a", 2, |_| true));
        assert!(!waiting.push("a", 3, |_| true));
        assert!(waiting.push("a", 3, |job| *job != 1));
        assert_eq!([waiting.pop(), waiting.pop(), waiting.pop()], [Some(2), Some(3), None]);
        assert!(!Waiting::new(0).push("a", 1, |_| true));
    }

    proptest! {
        #[test]
        fn tenants_take_turns_jobs_keep_their_order_and_nothing_is_lost(
            steps in prop::collection::vec(prop_oneof![(0usize..4).prop_map(Some), Just(None)], 0..200),
            most in 1usize..6,
        ) {
            let mut waiting = Waiting::new(most);
            // What should be there, by tenant, and how often each has been passed over while it waited.
            let mut model: BTreeMap<String, VecDeque<usize>> = BTreeMap::new();
            let mut passed: BTreeMap<String, usize> = BTreeMap::new();
            let drain = std::iter::repeat_n(None, 64);
            for (n, step) in steps.into_iter().chain(drain).enumerate() {
                if let Some(tenant) = step {
                    let tenant = format!("t{tenant}");
                    let room = model.get(&tenant).is_none_or(|jobs| jobs.len() < most);
                    prop_assert_eq!(waiting.push(&tenant, (tenant.clone(), n), all), room);
                    if room {
                        model.entry(tenant).or_default().push_back(n);
                    }
                    continue;
                }
                let popped = waiting.pop();
                prop_assert_eq!(popped.is_none(), model.is_empty());
                let Some((tenant, n)) = popped else { continue };
                let jobs = model.get_mut(&tenant).unwrap();
                prop_assert_eq!(jobs.pop_front(), Some(n));
                if jobs.is_empty() {
                    model.remove(&tenant);
                }
                passed.remove(&tenant);
                for other in model.keys().filter(|other| **other != tenant) {
                    let passed = passed.entry(other.clone()).or_default();
                    *passed += 1;
                    prop_assert!(*passed < 4, "{} was passed over by more turns than there are other tenants", other);
                }
                passed.retain(|tenant, _| model.contains_key(tenant));
            }
            prop_assert_eq!((waiting.len(), waiting.tenants()), (0, 0));
        }
    }
}
