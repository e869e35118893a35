//! Seeded simulation of cuts over crashes: every piece of every record is in exactly one place, always.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vivace_protocol::{TenantId, TraceId};
use vivace_runtime::Rng;

use super::{Cut, CutId, Ledger, Partition, Rules};

/// (tenant, trace, offset): one piece. Its bytes are its offset.
type Pieces = BTreeSet<(String, TraceId, u64)>;

struct World {
    rng: Rng,
    /// What the log holds, by offset, with the time of receipt.
    log: Vec<(TenantId, Vec<TraceId>, i64)>,
    now_ms: i64,
    ledger_on_disk: Ledger,
    blocks: BTreeMap<u64, Pieces>,
    ledger: Ledger,
    partition: Partition,
    durable: BTreeSet<u64>,
    reclaimed: u64,
}

fn rules() -> Rules {
    Rules {
        max_block_bytes: 200,
        max_block_duration: Duration::from_millis(50),
        max_trace_idle: Duration::from_millis(20),
        max_trace_live: Duration::from_millis(100),
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

fn offset(piece: &Bytes) -> u64 {
    u64::from_be_bytes(piece.as_ref().try_into().unwrap())
}

impl World {
    fn new(seed: u64) -> Self {
        let ledger = Ledger::default();
        Self {
            rng: Rng::seeded(seed),
            log: Vec::new(),
            now_ms: 1_000,
            ledger_on_disk: ledger.clone(),
            blocks: BTreeMap::new(),
            partition: Partition::recover(rules(), &ledger).unwrap(),
            ledger,
            durable: BTreeSet::new(),
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
        self.partition.apply(at, *time, tenant, traces, 0);
    }

    /// Saves the decision (or crashes before), then maybe writes the block (or crashes before).
    fn cut(&mut self) -> bool {
        if !self.partition.cut_due(self.now_ms) {
            return true;
        }
        let Some(cut) = self.partition.cut(self.now_ms, false) else { return true };
        self.ledger.begin(&cut);
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
        self.durable.insert(number);
        let reclaim = self.ledger.complete(&self.durable);
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
        self.durable.clear();
        self.partition = Partition::recover(rules(), &self.ledger).unwrap();
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
                let everywhere = self.partition.find(tenant, id).iter().filter(|piece| offset(piece) == at).count();
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
            // Looking at everything costs more than everything else together.
            if !lives || step % 16 == 0 {
                world.check();
            }
        }
        assert!(!world.blocks.is_empty(), "seed {seed} made no block");
    }
}
