//! Seeded simulation of cuts over crashes: every piece of every record is in exactly one place, always.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vivace_protocol::{TenantId, TraceId};
use vivace_runtime::Rng;

use super::partition::Discard;
use super::{Copies, Cut, CutId, GroupRules, Ledger, Partition, Rules, TraceLimits};

/// (tenant, trace, offset): one piece. Its bytes are its offset.
type Pieces = BTreeSet<(String, TraceId, u64)>;

struct World {
    rng: Rng,
    rules: Rules,
    /// What the log holds, by offset, with the time of receipt.
    log: Vec<(TenantId, Vec<TraceId>, i64)>,
    now_ms: i64,
    ledger_on_disk: Ledger,
    blocks: BTreeMap<u64, Pieces>,
    ledger: Ledger,
    partition: Partition,
    copies: Copies,
    reclaimed: u64,
}

fn rules() -> Rules {
    Rules {
        max_block_bytes: 200,
        max_live_bytes: 0,
        max_block_duration: Duration::from_millis(50),
        patience: Duration::from_millis(1_000),
        max_trace_idle: Duration::from_millis(20),
        max_trace_live: Duration::from_millis(100),
        // Two or three pieces close a group, so that traces move from one to another all the time.
        groups: GroupRules { open_bytes: 24, open_traces: 3, joined_bytes: 80 },
    }
}

fn pieces(cut: &Cut) -> Pieces {
    let of_tenant = |t: &super::TenantCut| {
        let tenant = t.tenant.to_string();
        let pieces = t.traces.iter().flat_map(|(id, parts)| parts.iter().map(|part| (*id, offset(part))));
        pieces.map(|(id, offset)| (tenant.clone(), id, offset)).collect::<Vec<_>>()
    };
    cut.tenants.iter().flat_map(of_tenant).collect()
}

/// All pieces of a trace, in the order of the log.
pub(super) fn found(partition: &Partition, tenant: &TenantId, id: &TraceId) -> Vec<Bytes> {
    partition.find(tenant, id).into_iter().flat_map(|place| place.bytes).collect()
}

fn offset(piece: &Bytes) -> u64 {
    u64::from_be_bytes(piece.as_ref().try_into().unwrap())
}

impl World {
    fn new(seed: u64) -> Self {
        let ledger = Ledger::default();
        // Cuts of every half-empty head carry many traces over many cuts.
        let patience = Duration::from_millis(if seed.is_multiple_of(2) { 1_000 } else { 30 });
        let rules = Rules { patience, ..rules() };
        Self {
            rng: Rng::seeded(seed),
            log: Vec::new(),
            now_ms: 1_000,
            ledger_on_disk: ledger.clone(),
            blocks: BTreeMap::new(),
            partition: Partition::recover(rules.clone(), &ledger).unwrap(),
            rules,
            copies: Copies::recover(&ledger),
            ledger,
            reclaimed: 0,
        }
    }

    fn append(&mut self) {
        let tenant = TenantId::parse(["a", "b"][self.rng.index(2)]).unwrap();
        let mut ids: Vec<TraceId> =
            (0..=self.rng.below(3)).map(|_| TraceId(u128::from(self.rng.below(12)).to_be_bytes())).collect();
        ids.sort();
        ids.dedup();
        self.log.push((tenant, ids, self.now_ms));
    }

    fn apply(&mut self) {
        let at = self.partition.next();
        let Some((tenant, ids, time)) = usize::try_from(at).ok().and_then(|at| self.log.get(at)) else { return };
        assert!(at >= self.reclaimed, "a record is wanted that was reclaimed");
        let traces = ids.iter().map(|id| (*id, Bytes::copy_from_slice(&at.to_be_bytes())));
        self.partition.apply(at, *time, tenant, traces, TraceLimits::default());
    }

    /// Saves the decision (or crashes before), then maybe writes the block (or crashes before).
    fn cut(&mut self) -> bool {
        if self.partition.cut_due(self.now_ms).is_none() {
            return true;
        }
        let Some(cut) = self.partition.cut(self.now_ms, false) else { return true };
        self.ledger.begin(&cut, &self.copies);
        if self.rng.chance(1, 8) {
            return false;
        }
        self.ledger_on_disk = self.ledger.clone();
        true
    }

    fn flush(&mut self) -> bool {
        let closing: Vec<Arc<Cut>> = self.partition.closing().to_vec();
        let Some(cut) = closing.get(self.rng.index(closing.len())) else { return true };
        if self.rng.chance(1, 8) {
            return false;
        }
        let CutId { number, .. } = cut.id;
        let content = pieces(cut);
        if let Some(before) = self.blocks.insert(number, content.clone()) {
            assert_eq!(before, content, "a repeated cut has other content");
        }
        if self.rng.chance(1, 8) {
            return false;
        }
        let reclaim = self.ledger.complete(number, Vec::new());
        self.partition.published(cut.id);
        if self.rng.chance(1, 8) {
            return false;
        }
        self.ledger_on_disk = self.ledger.clone();
        self.reclaimed = self.reclaimed.max(reclaim);
        true
    }

    fn restart(&mut self) {
        self.ledger = self.ledger_on_disk.clone();
        self.partition = Partition::recover(self.rules.clone(), &self.ledger).unwrap();
        while self.partition.next() < self.log.len() as u64 {
            self.repeat();
            self.apply();
        }
        self.repeat();
    }

    fn repeat(&mut self) {
        while let Some(cut) = self.partition.repeat_cut().unwrap() {
            if let Some(before) = self.blocks.get(&cut.id.number) {
                assert_eq!(*before, pieces(&cut), "a repeated cut has other content");
            }
        }
    }

    /// Queries see each trace once, with the pieces that a look-up finds, in their order.
    fn check_view(&mut self) {
        for tenant in ["a", "b"] {
            let tenant = TenantId::parse(tenant).unwrap();
            let view = self.partition.snapshot(&tenant).into_view(&tenant);
            let mut seen = BTreeMap::new();
            for trace in view.traces() {
                assert!(seen.insert(trace.id(), trace.parts().to_vec()).is_none(), "{} is seen twice", trace.id());
            }
            for id in (0..12u128).map(|id| TraceId(id.to_be_bytes())) {
                assert_eq!(seen.remove(&id).unwrap_or_default(), found(&self.partition, &tenant, &id), "{id}");
            }
            assert!(seen.is_empty());
        }
    }

    /// Every piece below the applied offset is in a block, or else in the partition, once.
    fn check(&self) {
        let written: Vec<&Pieces> = self.blocks.values().collect();
        for (at, (tenant, ids, _)) in self.log.iter().enumerate().take(usize::try_from(self.partition.next()).unwrap())
        {
            let at = at as u64;
            for id in ids {
                let key = (tenant.to_string(), *id, at);
                let in_blocks = written.iter().filter(|block| block.contains(&key)).count();
                let waiting = self.partition.closing().iter().filter(|cut| !self.blocks.contains_key(&cut.id.number));
                let in_cuts = waiting.filter(|cut| pieces(cut).contains(&key)).count();
                let everywhere = found(&self.partition, tenant, id).iter().filter(|piece| offset(piece) == at).count();
                let in_closing = self.partition.closing().iter().filter(|cut| pieces(cut).contains(&key)).count();
                let in_head = everywhere - in_closing;
                assert_eq!(
                    in_blocks + in_cuts + in_head,
                    1,
                    "{key:?}: {in_blocks} blocks, {in_cuts} cuts, {in_head} head"
                );
            }
        }
    }
}

/// Sixty by default, ten thousand for each hour of `VIVACE_LONG`.
fn seeds() -> u64 {
    std::env::var("VIVACE_LONG").map_or(60, |hours| hours.parse::<u64>().unwrap() * 10_000)
}

#[test]
fn every_piece_is_in_exactly_one_place_over_cuts_and_crashes() {
    for seed in 0..seeds() {
        let mut world = World::new(seed);
        for step in 0..300 {
            world.now_ms += i64::try_from(world.rng.below(12)).unwrap();
            let lives = match world.rng.below(10) {
                0..=3 => {
                    world.append();
                    true
                }
                4..=6 => {
                    world.apply();
                    true
                }
                7 => world.cut(),
                8 => world.flush(),
                _ => world.rng.chance(9, 10),
            };
            if !lives {
                world.restart();
            }
            // At other moments than before, so that groups grow old and young in between.
            if world.rng.chance(1, 6) {
                world.check_view();
            }
            // Looking at everything costs more than everything else together.
            if !lives || step % 16 == 0 {
                world.check();
            }
        }
        assert!(!world.blocks.is_empty(), "seed {seed} made no block");
    }
}

/// One record of one tenant with a piece for each of these traces.
fn deliver(partition: &mut Partition, now_ms: i64, ids: &[u128], max_live: usize) -> Vec<(u128, Discard)> {
    let at = partition.next();
    let traces = ids.iter().map(|id| (TraceId(id.to_be_bytes()), Bytes::copy_from_slice(&at.to_be_bytes())));
    let limits = TraceLimits { max_bytes: 30, max_live };
    let applied = partition.apply(at, now_ms, &TenantId::single(), traces, limits);
    applied.discarded.iter().map(|(id, why, _)| (u128::from_be_bytes(id.0), *why)).collect()
}

#[test]
fn no_more_traces_grow_at_once_than_allowed_and_known_ones_go_on() {
    let mut partition = Partition::recover(rules(), &Ledger::default()).unwrap();
    let over = |id| (id, Discard::LiveTracesExceeded);
    assert_eq!(deliver(&mut partition, 0, &[1, 2, 3], 2), [over(3)]);
    assert_eq!(deliver(&mut partition, 10, &[1, 3], 2), [over(3)]);
    assert_eq!(deliver(&mut partition, 10, &[3], 0), [], "no limit");
    assert_eq!(found(&partition, &TenantId::single(), &TraceId(3u128.to_be_bytes())).len(), 1);
    // Looked at a second later, none of them grows any more, although all are held; one that comes again counts again.
    assert_eq!(deliver(&mut partition, 1_000, &[4, 1, 2], 2), [over(2)]);
    assert_eq!(partition.live_traces().next().map(|(_, held)| held), Some(4));
    // A cut takes what has stopped growing along; what is carried counts on.
    partition.cut(1_010, false).unwrap();
    assert_eq!(partition.live_traces().next().map(|(_, held)| held), Some(1));
    assert_eq!(deliver(&mut partition, 1_011, &[5, 6], 2), [over(6)]);
    assert_eq!(deliver(&mut partition, 1_012, &[6], 3), []);
    // Thirty bytes are three pieces: the fourth is too large, whatever grows.
    assert_eq!(deliver(&mut partition, 1_013, &[5], 3), []);
    assert_eq!(deliver(&mut partition, 1_014, &[5], 3), []);
    assert_eq!(deliver(&mut partition, 1_015, &[5], 3), [(5, Discard::TraceTooLarge)]);
}

#[test]
fn what_was_carried_over_a_cut_is_taken_again_after_a_restart_whatever_the_limit() {
    let mut partition = Partition::recover(rules(), &Ledger::default()).unwrap();
    deliver(&mut partition, 0, &[1, 2], 0);
    deliver(&mut partition, 30, &[3, 4], 0);
    let cut = partition.cut(35, false).unwrap();
    assert_eq!((cut.tenants[0].traces.len(), cut.carried.len()), (2, 2));
    let mut ledger = Ledger::default();
    let copies = Copies::recover(&ledger);
    ledger.begin(&cut, &copies);
    ledger.complete(cut.id.number, Vec::new());
    let mut again = Partition::recover(rules(), &ledger).unwrap();
    assert_eq!((again.next(), ledger.covered), (1, 2));
    assert_eq!(deliver(&mut again, 30, &[3, 4], 1), []);
    assert_eq!(deliver(&mut again, 40, &[5, 3], 1), [(5, Discard::LiveTracesExceeded)]);
}

#[test]
fn one_tenant_fills_the_head_alone_when_its_bytes_are_limited() {
    let mut partition = Partition::recover(Rules { max_live_bytes: 24, ..rules() }, &Ledger::default()).unwrap();
    deliver(&mut partition, 0, &[1, 2], 0);
    assert!(!partition.is_full() && partition.cut_due(0).is_none());
    let at = partition.next();
    let other = [(TraceId([9; 16]), Bytes::from_static(&[0; 20]))].into_iter();
    partition.apply(at, 0, &TenantId::parse("b").unwrap(), other, TraceLimits::default());
    assert!(!partition.is_full(), "another tenant's bytes do not count");
    deliver(&mut partition, 1, &[3], 0);
    assert!(partition.is_full() && partition.cut_due(1) == Some("max_block_bytes"));
    partition.cut(1, true).unwrap();
    assert!(!partition.is_full());
}

/// Short traces under a load that fills the head faster than traces become idle: what leaves must be worth a block each time.
#[test]
fn blocks_of_a_steady_load_have_a_useful_size() {
    let tenant = TenantId::parse("a").unwrap();
    let rules = Rules {
        max_block_bytes: 8_000,
        max_live_bytes: 0,
        max_block_duration: Duration::from_secs(30),
        patience: Duration::from_secs(600),
        max_trace_idle: Duration::from_secs(5),
        max_trace_live: Duration::from_secs(30),
        groups: GroupRules::default(),
    };
    let mut partition = Partition::recover(rules, &Ledger::default()).unwrap();
    let (mut sizes, mut kept) = (Vec::new(), 0);
    // A trace of 8 bytes each 6 ms: the head is full after 6 s, of which the last 5 s still grow.
    for record in 0..10_000u64 {
        let now_ms = 1_000 + i64::try_from(record * 6).unwrap();
        let trace = (TraceId(u128::from(record).to_be_bytes()), Bytes::copy_from_slice(&record.to_be_bytes()));
        partition.apply(record, now_ms, &tenant, std::iter::once(trace), TraceLimits::default());
        if partition.cut_due(now_ms).is_some() {
            let cut = partition.cut(now_ms, false).unwrap();
            sizes.push(cut.bytes);
            kept = partition.head_bytes();
            assert!(kept > 0 && kept <= 2_000, "{kept} bytes are carried");
            partition.published(cut.id);
        }
    }
    assert!(sizes.len() > 5 && sizes.iter().all(|size| *size >= 6_000), "{sizes:?}, {kept} carried");
}
