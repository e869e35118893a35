//! Which blocks are past retention. Plain functions of lists and the time.

use std::time::Duration;

use uuid::Uuid;

use crate::meta::{BlockMeta, CompactedBlockMeta, Timestamp};

/// How long blocks are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionRules {
    /// Live blocks whose newest span is older than this are marked compacted. Zero keeps them for ever.
    pub block_retention: Duration,
    /// Compacted blocks are deleted this long after they were marked: until then readers with an older list find them.
    pub compacted_block_retention: Duration,
}

impl Default for RetentionRules {
    fn default() -> Self {
        Self {
            block_retention: Duration::from_secs(14 * 24 * 3600),
            compacted_block_retention: Duration::from_secs(3600),
        }
    }
}

fn cutoff(now: Timestamp, age: Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)))
}

/// Live blocks to mark compacted.
pub fn expired(live: &[BlockMeta], rules: RetentionRules, now: Timestamp) -> Vec<Uuid> {
    if rules.block_retention.is_zero() {
        return Vec::new();
    }
    let cutoff = cutoff(now, rules.block_retention);
    live.iter().filter(|meta| meta.end_time < cutoff).map(|meta| meta.block_id).collect()
}

/// Compacted blocks to delete.
pub fn deletable(compacted: &[CompactedBlockMeta], rules: RetentionRules, now: Timestamp) -> Vec<Uuid> {
    let cutoff = cutoff(now, rules.compacted_block_retention);
    compacted.iter().filter(|block| block.compacted_time < cutoff).map(|block| block.meta.block_id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compact::select::tests::block;

    #[test]
    fn a_block_expires_when_its_newest_span_is_too_old() {
        let rules = RetentionRules { block_retention: Duration::from_secs(100), ..RetentionRules::default() };
        let live = [block(1, 900), block(2, 899)];
        assert_eq!(expired(&live, rules, Timestamp::from_secs(1000)), [Uuid::from_u128(2)]);
        let for_ever = RetentionRules { block_retention: Duration::ZERO, ..rules };
        assert!(expired(&live, for_ever, Timestamp::from_secs(u64::MAX)).is_empty());
    }

    #[test]
    fn a_compacted_block_is_deleted_after_its_grace() {
        let compacted = |id, at| CompactedBlockMeta { meta: block(id, 0), compacted_time: Timestamp::from_secs(at) };
        let rules = RetentionRules { compacted_block_retention: Duration::from_secs(60), ..RetentionRules::default() };
        let found = deletable(&[compacted(1, 939), compacted(2, 940)], rules, Timestamp::from_secs(1000));
        assert_eq!(found, [Uuid::from_u128(1)]);
    }
}
