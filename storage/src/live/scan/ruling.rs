//! Rules groups out that hold nothing of use for a fetch, by making the digests that tell so.
//!
//! To look for a value in all live traces in vain costs as much as making their digests, and would cost it again the next time. So
//! workers that have to go through everything make the digests first that nobody has made yet, the newest group first, as long as
//! each tells that its group is of no use: what stands in one group stands in most others as well, and then nothing is gained.

use parking_lot::Mutex;

use super::{Fetch, LiveScan};

/// A larger group holds a giant trace, and is left to the background: nobody could stop the work on it.
const MOST_BYTES: u64 = 64 << 20;

/// How far the workers of a fetch are.
#[derive(Debug, Default)]
pub(super) struct Ruling(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Groups whose digests may be made, the next is the last; none before the first worker has come.
    rest: Option<Vec<usize>>,
    /// Groups of which workers have taken it upon them.
    begun: Vec<usize>,
}

impl Fetch {
    /// Each worker comes here once, before it takes a unit. None goes on before all are through: to look into a group that is about to
    /// be ruled out would take no less.
    pub(super) fn rule_out(&self, scan: &LiveScan) {
        if !self.plan.sieve.asks_for_values() {
            return;
        }
        let group = |part: usize| &scan.view.parts[part].group;
        while let Some(part) = self.next_to_digest(scan) {
            if scan.has_ended() {
                return;
            }
            group(part).make_digest();
            if self.plan.sieve.may_be_in(group(part)) {
                self.ruling.0.lock().rest = Some(Vec::new());
            }
        }
        let begun = self.ruling.0.lock().begun.clone();
        begun.into_iter().take_while(|_| !scan.has_ended()).for_each(|part| group(part).make_digest());
        let useful: Vec<bool> = scan.view.parts.iter().map(|part| self.plan.sieve.may_be_in(&part.group)).collect();
        self.units.lock().keep(&useful);
    }

    fn next_to_digest(&self, scan: &LiveScan) -> Option<usize> {
        let mut state = self.ruling.0.lock();
        let State { rest, begun } = &mut *state;
        let next = rest.get_or_insert_with(|| self.undigested(scan)).pop()?;
        begun.push(next);
        Some(next)
    }

    /// Groups that have no digest and of which most is yet to be looked through; none if a digest has told already that its group
    /// may be of use.
    fn undigested(&self, scan: &LiveScan) -> Vec<usize> {
        let parts = &scan.view.parts;
        let left = self.units.lock().left(parts.len());
        let is_digested = |part: &usize| parts[*part].group.digest().is_some();
        let (digested, mut undigested): (Vec<_>, Vec<_>) =
            (0..parts.len()).filter(|part| left[*part] > 0).partition(is_digested);
        if digested.into_iter().any(|part| self.plan.sieve.may_be_in(&parts[part].group)) {
            return Vec::new();
        }
        undigested.retain(|part| {
            let group = &parts[*part].group;
            left[*part] >= group.len() / 2 && group.bytes() <= MOST_BYTES
        });
        undigested
    }
}
