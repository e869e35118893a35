//! Which blocks of a tenant to merge. A plain function of the list, the rules and the time.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use uuid::Uuid;

use crate::meta::{BlockMeta, Timestamp};

/// Windows younger than this are merged level by level; older ones as a whole.
const ACTIVE: Duration = Duration::from_secs(24 * 3600);

/// Limits of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectRules {
    /// Blocks are merged within windows of this length, by the time of their newest span.
    pub window: Duration,
    /// Fewest blocks worth a job.
    pub min_inputs: usize,
    /// Most blocks of a job.
    pub max_inputs: usize,
    /// While a window still gets blocks, and this long after, only full jobs are worth their work: a span is then merged once
    /// per factor of `max_inputs`, not once per cycle. Zero: any job of `min_inputs` is.
    pub patience: Duration,
    /// Most traces of an output.
    pub max_objects: u64,
    /// Most bytes of an output.
    pub max_bytes: u64,
    /// Blocks of this level or above are left alone. 0 = no limit.
    pub max_level: u32,
}

impl Default for SelectRules {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(3600),
            min_inputs: 2,
            max_inputs: 4,
            patience: Duration::ZERO,
            max_objects: 6_000_000,
            max_bytes: 100 << 30,
            max_level: 0,
        }
    }
}

/// Blocks to merge into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Inputs, in the order in which equal traces are looked at.
    pub blocks: Vec<Uuid>,
}

/// What inputs of one job have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    format: String,
    dedicated: u64,
}

/// Groups come in this order: active before old; within the active by level, then newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    old: bool,
    level: u32,
    window: Reverse<u64>,
    replication: u32,
}

/// Disjoint jobs over the live blocks of one tenant, most useful first. Blocks of formats that can't be written stay out.
pub fn select(live: &[BlockMeta], rules: &SelectRules, now: Timestamp) -> Vec<Job> {
    let window_secs = rules.window.as_secs().max(1);
    let border = now.secs().saturating_sub(ACTIVE.as_secs()) / window_secs;
    let mut groups: BTreeMap<Group, Vec<(&BlockMeta, Kind)>> = BTreeMap::new();
    for meta in live {
        let window = meta.end_time.secs() / window_secs;
        let too_high = rules.max_level > 0 && meta.compaction_level >= rules.max_level;
        // The window on the border would be grouped by level now and as a whole a moment later.
        if too_high || window == border || matches!(meta.format, crate::meta::Version::Other(_)) {
            continue;
        }
        let old = window < border;
        let level = if old { 0 } else { meta.compaction_level };
        let group = Group { old, level, window: Reverse(window), replication: meta.replication_factor };
        let kind = Kind { format: meta.format.to_string(), dedicated: meta.dedicated_columns.hash64() };
        groups.entry(group).or_default().push((meta, kind));
    }
    let mut jobs = Vec::new();
    let growing = now.secs().saturating_sub(rules.patience.as_secs()) / window_secs;
    for (group, mut blocks) in groups {
        let patient = !rules.patience.is_zero() && group.window.0 >= growing;
        let fewest = if patient { rules.max_inputs } else { rules.min_inputs };
        let level = |meta: &BlockMeta| if group.old { meta.compaction_level } else { 0 };
        blocks.sort_by(|(a, a_kind), (b, b_kind)| {
            let key = |meta: &BlockMeta| (level(meta), meta.size, meta.block_id);
            a_kind.cmp(b_kind).then_with(|| key(a).cmp(&key(b)))
        });
        for same in blocks.chunk_by(|(_, a), (_, b)| a == b) {
            runs(same, rules, fewest.max(1), &mut jobs);
        }
    }
    jobs
}

/// Cuts blocks that may be merged into runs within the limits.
fn runs(blocks: &[(&BlockMeta, Kind)], rules: &SelectRules, fewest: usize, jobs: &mut Vec<Job>) {
    let mut rest = blocks;
    while rest.len() >= fewest {
        let (mut objects, mut bytes) = (0u64, 0u64);
        let fitting = rest.iter().take(rules.max_inputs).take_while(|(meta, _)| {
            objects = objects.saturating_add(meta.total_objects);
            bytes = bytes.saturating_add(meta.size);
            objects <= rules.max_objects && bytes <= rules.max_bytes
        });
        let count = fitting.count();
        if count >= fewest {
            jobs.push(Job { blocks: rest[..count].iter().map(|(meta, _)| meta.block_id).collect() });
        }
        // A block that fits with none of its neighbours is passed over.
        rest = &rest[count.max(1)..];
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{dedicated::DedicatedColumns, meta::Version};

    pub(crate) fn block(id: u128, end_secs: u64) -> BlockMeta {
        BlockMeta {
            format: Version::V5,
            block_id: Uuid::from_u128(id),
            tenant_id: "t".into(),
            start_time: Timestamp::from_secs(end_secs.saturating_sub(10)),
            end_time: Timestamp::from_secs(end_secs),
            total_objects: 10,
            size: 1000,
            compaction_level: 0,
            index_page_size: 0,
            total_records: 1,
            bloom_shards: 1,
            footer_size: 0,
            dedicated_columns: DedicatedColumns::default(),
            replication_factor: 1,
            split_traces: Vec::new(),
        }
    }

    const NOW: u64 = 100 * 3600;

    fn ids(jobs: &[Job]) -> Vec<Vec<u128>> {
        jobs.iter().map(|job| job.blocks.iter().map(Uuid::as_u128).collect()).collect()
    }

    fn chosen(live: &[BlockMeta]) -> Vec<Vec<u128>> {
        ids(&select(live, &SelectRules::default(), Timestamp::from_secs(NOW)))
    }

    #[test]
    fn small_fresh_blocks_of_one_window_are_merged_four_at_a_time() {
        let live: Vec<_> = (0..6).map(|n| BlockMeta { size: 100 - n, ..block(n.into(), NOW - 5) }).collect();
        assert_eq!(chosen(&live), [vec![5, 4, 3, 2], vec![1, 0]]);
    }

    #[test]
    fn with_patience_a_window_that_still_grows_waits_for_full_jobs() {
        let rules = SelectRules { max_inputs: 3, patience: Duration::from_secs(60), ..SelectRules::default() };
        let live: Vec<_> = (0..5).map(|id| block(id, NOW - 5)).collect();
        let sizes = |now: u64| -> Vec<usize> {
            select(&live, &rules, Timestamp::from_secs(now)).iter().map(|job| job.blocks.len()).collect()
        };
        assert_eq!(sizes(NOW), [3], "the other two may get company");
        // The window of the blocks ends at NOW; it is over when the time of patience has passed as well.
        assert_eq!(sizes(NOW + 59), [3]);
        assert_eq!(sizes(NOW + 60), [3, 2]);
    }

    #[test]
    fn the_lowest_level_and_the_newest_window_come_first() {
        let high = |id, end| BlockMeta { compaction_level: 1, ..block(id, end) };
        let live =
            [high(1, NOW), high(2, NOW), block(3, NOW - 7200), block(4, NOW - 7200), block(5, NOW), block(6, NOW)];
        assert_eq!(chosen(&live), [vec![5, 6], vec![3, 4], vec![1, 2]]);
    }

    #[test]
    fn old_windows_mix_levels_and_the_border_window_is_left_alone() {
        let high = BlockMeta { compaction_level: 3, ..block(1, 3600 * 10) };
        assert_eq!(chosen(&[high, block(2, 3600 * 10)]), [vec![2, 1]]);
        let border = NOW - 24 * 3600;
        assert!(chosen(&[block(1, border), block(2, border)]).is_empty());
    }

    #[test]
    fn different_columns_encodings_or_replication_never_meet() {
        let columns = BlockMeta { dedicated_columns: DedicatedColumns::defaults(), ..block(2, NOW) };
        let encoding = BlockMeta { format: Version::V4, ..block(3, NOW) };
        let replicas = BlockMeta { replication_factor: 0, ..block(4, NOW) };
        let unknown = |id| BlockMeta { format: Version::Other("vParquet9".into()), ..block(id, NOW) };
        assert!(chosen(&[block(1, NOW), columns, encoding, replicas, unknown(5), unknown(6)]).is_empty());
    }

    #[test]
    fn limits_of_size_and_level_hold() {
        let big = |id| BlockMeta { total_objects: 4_000_000, ..block(id, NOW) };
        assert!(chosen(&[big(1), big(2)]).is_empty());
        assert_eq!(chosen(&[big(1), block(2, NOW), block(3, NOW)]).concat().len(), 3);
        let rules = SelectRules { max_level: 1, ..SelectRules::default() };
        let high = |id| BlockMeta { compaction_level: 1, ..block(id, NOW) };
        assert!(select(&[high(1), high(2)], &rules, Timestamp::from_secs(NOW)).is_empty());
    }

    proptest! {
        #[test]
        fn jobs_are_disjoint_and_within_their_limits(
            blocks in prop::collection::vec((0u64..200, 0u32..3, 0u64..5_000_000, 0u64..2), 0..60)
        ) {
            let live: Vec<BlockMeta> = blocks
                .iter()
                .enumerate()
                .map(|(id, (hour, level, objects, replicas))| BlockMeta {
                    compaction_level: *level,
                    total_objects: *objects,
                    replication_factor: u32::try_from(*replicas).unwrap(),
                    ..block(id as u128, hour * 3600)
                })
                .collect();
            let rules = SelectRules::default();
            let jobs = select(&live, &rules, Timestamp::from_secs(NOW));
            let mut seen = std::collections::BTreeSet::new();
            for job in jobs {
                prop_assert!((rules.min_inputs..=rules.max_inputs).contains(&job.blocks.len()));
                let metas: Vec<&BlockMeta> = job.blocks.iter().map(|id| live.iter().find(|meta| meta.block_id == *id).unwrap()).collect();
                prop_assert!(metas.iter().map(|meta| meta.total_objects).sum::<u64>() <= rules.max_objects);
                prop_assert!(metas.windows(2).all(|pair| pair[0].end_time.secs() / 3600 == pair[1].end_time.secs() / 3600));
                prop_assert!(job.blocks.iter().all(|id| seen.insert(*id)));
            }
        }
    }
}
