//! The tokens of a member: they follow from its id, so nobody has to keep or send them.

use crate::state::stable_hash;

/// `count` tokens of a member, sorted and distinct.
///
/// Token `i` is the upper half of the stable hash of the id and `i`; one that came up already is replaced by the next
/// that did not. A restart has the same tokens, another id has others.
#[must_use]
pub fn instance_tokens(id: &str, count: u16) -> Vec<u32> {
    let mut tokens = std::collections::BTreeSet::new();
    let mut index: u32 = 0;
    while tokens.len() < usize::from(count) {
        let hash = stable_hash(&[b"token", id.as_bytes(), &index.to_be_bytes()]);
        tokens.insert(u32::try_from(hash >> 32).unwrap_or(u32::MAX));
        index += 1;
    }
    tokens.into_iter().collect()
}

/// Which tokens of a ring belong to whom: sorted, and of two members with one token the one with the lower index.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenTable(Vec<(u32, usize)>);

impl TokenTable {
    pub(crate) fn new(tokens: impl IntoIterator<Item = (u32, usize)>) -> Self {
        let mut table: Vec<(u32, usize)> = tokens.into_iter().collect();
        table.sort_unstable();
        table.dedup_by_key(|(token, _)| *token);
        Self(table)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The owners from the first token above `key` on, once around.
    pub(crate) fn walk(&self, key: u32) -> impl Iterator<Item = usize> {
        let start = self.0.partition_point(|(token, _)| *token <= key);
        self.0[start..].iter().chain(&self.0[..start]).map(|(_, owner)| *owner)
    }

    /// The share of the keys that `owner` has, from 0 to 1.
    pub(crate) fn shares(&self, owners: usize) -> Vec<f64> {
        let mut sums = vec![0.0; owners];
        let full = f64::from(u32::MAX) + 1.0;
        let Some((last, _)) = self.0.last() else { return sums };
        let mut before = *last;
        for (token, owner) in &self.0 {
            // A token owns what lies between the one before it and itself; alone it owns everything.
            let range = if self.0.len() == 1 { full } else { f64::from(token.wrapping_sub(before)) };
            if let Some(sum) = sums.get_mut(*owner) {
                *sum += range / full;
            }
            before = *token;
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_follow_from_the_id_alone() {
        let tokens = instance_tokens("backend-worker-0", 512);
        assert_eq!(tokens, instance_tokens("backend-worker-0", 512));
        assert_eq!(tokens.len(), 512);
        assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(instance_tokens("backend-worker-0", 0).is_empty());
        let other = instance_tokens("backend-worker-1", 512);
        assert!(tokens.iter().filter(|token| other.contains(token)).count() < 3);
        // Members of different versions must agree on these.
        assert_eq!(instance_tokens("a", 2), instance_tokens("a", 2));
        assert!(instance_tokens("a", 3).iter().filter(|t| instance_tokens("a", 2).contains(t)).count() == 2);
    }

    #[test]
    fn tokens_spread_evenly_enough() {
        let owners = 8;
        let table = TokenTable::new((0..owners).flat_map(|owner| {
            instance_tokens(&format!("backend-worker-{owner}"), 512).into_iter().map(move |token| (token, owner))
        }));
        let shares = table.shares(owners);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(shares.iter().all(|share| (0.10..0.15).contains(share)), "{shares:?}");
    }

    #[test]
    fn a_walk_begins_above_the_key_and_goes_around() {
        let table = TokenTable::new([(10, 0), (20, 1), (30, 2), (20, 9)]);
        assert_eq!(table.walk(9).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(table.walk(10).collect::<Vec<_>>(), [1, 2, 0], "strictly above");
        assert_eq!(table.walk(30).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(table.len(), 3);
        assert_eq!(TokenTable::new([(7, 0)]).shares(1), [1.0]);
    }
}
