use bytes::Bytes;
use vivace_protocol::TenantId;

use super::super::Ledger;
use super::super::partition::{Partition, Rules, TraceLimits};
use super::*;

fn partition() -> (Partition, TenantId) {
    let second = std::time::Duration::from_secs(1);
    let rules = Rules {
        max_block_bytes: 1 << 20,
        max_live_bytes: 0,
        max_block_duration: second,
        patience: second,
        max_trace_idle: second,
        max_trace_live: second,
        groups: GroupRules { open_bytes: 40, open_traces: 100, joined_bytes: 80 },
    };
    (Partition::recover(rules, &Ledger::default()).unwrap(), TenantId::single())
}

fn id(number: u128) -> TraceId {
    TraceId(number.to_be_bytes())
}

/// A piece of ten bytes for each.
fn deliver(partition: &mut Partition, tenant: &TenantId, traces: &[u128]) {
    let pieces = traces.iter().map(|trace| (id(*trace), Bytes::from_static(&[7; 10])));
    partition.apply(partition.next(), 0, tenant, pieces, TraceLimits::default());
}

fn parts(partition: &mut Partition, tenant: &TenantId) -> Vec<LivePart> {
    partition.snapshot(tenant).into_view(tenant).parts
}

fn ids(part: &LivePart) -> Vec<u128> {
    let seen = part.group.traces().iter().enumerate();
    let seen = seen.filter(|(at, _)| !part.without.contains(&u32::try_from(*at).unwrap()));
    seen.map(|(_, trace)| u128::from_be_bytes(trace.id().0)).collect()
}

#[test]
fn what_has_not_changed_is_the_same_for_every_query() {
    let (mut partition, tenant) = partition();
    deliver(&mut partition, &tenant, &[1, 2, 3, 4, 5, 6]);
    let first = parts(&mut partition, &tenant);
    assert_eq!(first.iter().map(ids).collect::<Vec<_>>(), [vec![1, 2, 3, 4], vec![5, 6]]);
    let again = parts(&mut partition, &tenant);
    assert!(first.iter().zip(&again).all(|(a, b)| Arc::ptr_eq(&a.group, &b.group)));
    deliver(&mut partition, &tenant, &[6]);
    let grown = parts(&mut partition, &tenant);
    assert!(Arc::ptr_eq(&first[0].group, &grown[0].group));
    assert!(!Arc::ptr_eq(&first[1].group, &grown[1].group));
    // In the group that was put together anew, the trace without a new piece is the one of before.
    assert!(Arc::ptr_eq(&first[1].group.traces()[0], &grown[1].group.traces()[0]));
    assert_eq!(grown[1].group.traces()[1].parts().len(), 2);
}

#[test]
fn a_late_piece_moves_its_trace_and_leaves_the_group_as_it_is() {
    let (mut partition, tenant) = partition();
    deliver(&mut partition, &tenant, &[1, 2, 3, 4, 5]);
    let before = parts(&mut partition, &tenant);
    deliver(&mut partition, &tenant, &[2, 2]);
    let after = parts(&mut partition, &tenant);
    assert!(Arc::ptr_eq(&before[0].group, &after[0].group));
    assert_eq!(after.iter().map(ids).collect::<Vec<_>>(), [vec![1, 3, 4], vec![2, 5]]);
    // Who asked before sees what was there then.
    assert_eq!(ids(&before[0]), [1, 2, 3, 4]);
    deliver(&mut partition, &tenant, &[1, 3, 4]);
    let moved = parts(&mut partition, &tenant);
    assert!(moved.iter().all(|part| !Arc::ptr_eq(&part.group, &before[0].group)), "a group that all have left goes");
    assert_eq!(moved.iter().flat_map(ids).count(), 5);
}

#[test]
fn groups_that_nobody_has_asked_for_become_one() {
    let (mut partition, tenant) = partition();
    (0..22).for_each(|trace| deliver(&mut partition, &tenant, &[trace]));
    let sizes: Vec<usize> = parts(&mut partition, &tenant).iter().map(|part| part.group.len()).collect();
    assert_eq!(sizes, [8, 8, 4, 2]);
}

#[test]
fn a_trace_in_a_closing_cut_and_in_the_head_is_seen_as_a_whole() {
    let (mut partition, tenant) = partition();
    deliver(&mut partition, &tenant, &[1, 2, 3]);
    let cut = partition.cut(5_000, true).unwrap();
    deliver(&mut partition, &tenant, &[2, 9]);
    let view = partition.snapshot(&tenant).into_view(&tenant);
    let mut seen: Vec<(u128, usize)> =
        view.traces().map(|trace| (u128::from_be_bytes(trace.id().0), trace.parts().len())).collect();
    seen.sort_unstable();
    assert_eq!(seen, [(1, 1), (2, 2), (3, 1), (9, 1)]);
    // Queries share what a cut is to them, too.
    let again = partition.snapshot(&tenant).into_view(&tenant);
    assert!(Arc::ptr_eq(&view.parts[0].group, &again.parts[0].group));
    partition.published(cut.id);
    let rest = partition.snapshot(&tenant).into_view(&tenant);
    assert_eq!(rest.traces().map(|trace| trace.parts().len()).collect::<Vec<_>>(), [1, 1]);
}
