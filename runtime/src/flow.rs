//! Who waits for whom. A cycle of waiting is a deadlock that happens under load only, so it is looked for in the wiring.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The wait-for graph of a process, by names `component/part`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flow(BTreeMap<String, BTreeSet<String>>);

impl Flow {
    /// Declares that `who` may wait for room in, or an answer of, `on`.
    pub fn waits(&mut self, who: impl Into<String>, on: impl Into<String>) {
        self.0.entry(who.into()).or_default().insert(on.into());
    }

    /// Adds another graph's edges.
    pub fn merge(&mut self, other: Self) {
        for (who, on) in other.0 {
            self.0.entry(who).or_default().extend(on);
        }
    }

    /// Some cycle, as the names along it (the first is not repeated), or none.
    #[must_use]
    pub fn cycle(&self) -> Option<Vec<&str>> {
        let mut done = BTreeSet::new();
        self.0.keys().find_map(|start| self.search(start, &mut Vec::new(), &mut done))
    }

    fn search<'a>(
        &'a self,
        at: &'a str,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<&'a str>> {
        if let Some(begin) = path.iter().position(|name| *name == at) {
            return Some(path[begin..].to_vec());
        }
        if done.contains(at) {
            return None;
        }
        path.push(at);
        let found = self.0.get(at).and_then(|next| next.iter().find_map(|next| self.search(next, path, done)));
        path.pop();
        done.insert(at);
        found
    }
}

/// One edge per line: `a -> b`.
impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (who, on) in &self.0 {
            for on in on {
                writeln!(f, "{who} -> {on}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_found_and_named() {
        let mut flow = Flow::default();
        flow.waits("a", "b");
        flow.waits("b", "c");
        flow.waits("a", "c");
        assert_eq!(flow.cycle(), None);
        flow.waits("c", "b");
        assert_eq!(flow.cycle(), Some(vec!["b", "c"]));
        assert_eq!(flow.to_string(), "a -> b\na -> c\nb -> c\nc -> b\n");
    }

    #[test]
    fn waiting_for_oneself_is_a_cycle() {
        let mut flow = Flow::default();
        flow.waits("a", "a");
        assert_eq!(flow.cycle(), Some(vec!["a"]));
    }
}
