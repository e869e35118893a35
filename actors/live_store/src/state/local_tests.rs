//! Seeded simulation of a live-store of its own process: a shared log with copies and retention, a ledger and blocks on a disk,
//! crashes between any two steps. Every record's spans are visible exactly once, whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use vivace_log::{Entry, Offset, Record, Sequence};
use vivace_protocol::{TenantId, TraceId};
use vivace_runtime::Rng;

use super::tests::found;
use super::{Copies, Cut, GroupRules, Known, Ledger, Loss, Origin, Partition, Rules, Shelved, TraceLimits, begin};

/// How long blocks are kept.
const KEPT_MS: i64 = 400;

/// One piece of one trace; its bytes are the number of the record that it came in, as its producer counts.
type Piece = (String, TraceId, u64);

/// A record of the log: what a producer wrote under one number, maybe for the second time.
#[derive(Clone)]
struct Written {
    tenant: TenantId,
    ids: Vec<TraceId>,
    number: u64,
    at_ms: i64,
}

#[derive(Default)]
struct Disk {
    ledger: Ledger,
    blocks: BTreeMap<Uuid, BTreeSet<Piece>>,
}

struct World {
    rng: Rng,
    now_ms: i64,
    log: Vec<Written>,
    earliest: u64,
    committed: Option<u64>,
    disk: Disk,
    ledger: Ledger,
    partition: Partition,
    copies: Copies,
    shelf: Vec<Shelved>,
    doomed: Vec<Shelved>,
    safe: u64,
    /// Records of which nothing has to be visible any more: their time is over, or the log lost them.
    excused: BTreeSet<u64>,
    seen: [u32; 4],
}

fn rules() -> Rules {
    Rules {
        max_block_bytes: 200,
        max_live_bytes: 0,
        max_block_duration: Duration::from_millis(50),
        patience: Duration::from_millis(50),
        max_trace_idle: Duration::from_millis(20),
        max_trace_live: Duration::from_millis(100),
        // Two or three pieces close a group, so that traces move from one to another all the time.
        groups: GroupRules { open_bytes: 24, open_traces: 3, joined_bytes: 80 },
    }
}

fn number(piece: &Bytes) -> u64 {
    u64::from_be_bytes(piece.as_ref().try_into().unwrap())
}

fn pieces(cut: &Cut, tenant: &TenantId) -> BTreeSet<Piece> {
    let traces = cut.traces(tenant).iter();
    traces.flat_map(|(id, parts)| parts.iter().map(|part| (tenant.to_string(), *id, number(part)))).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let ledger = Ledger::default();
        let mut world = Self {
            rng: Rng::seeded(seed),
            now_ms: 1_000,
            log: Vec::new(),
            earliest: 0,
            committed: None,
            disk: Disk::default(),
            partition: Partition::recover(rules(), &ledger).unwrap(),
            copies: Copies::recover(&ledger),
            ledger,
            shelf: Vec::new(),
            doomed: Vec::new(),
            safe: 0,
            excused: BTreeSet::new(),
            seen: [0; 4],
        };
        world.start();
        world
    }

    fn append(&mut self) {
        if self.rng.chance(1, 6)
            && let Some(last) = self.log.last().cloned()
        {
            // The producer did not hear of the first.
            return self.log.push(Written { at_ms: self.now_ms, ..last });
        }
        let tenant = TenantId::parse(["a", "b"][self.rng.index(2)]).unwrap();
        let mut ids: Vec<TraceId> =
            (0..=self.rng.below(3)).map(|_| TraceId(u128::from(self.rng.below(12)).to_be_bytes())).collect();
        ids.sort();
        ids.dedup();
        let number = self.log.last().map_or(1, |last| last.number + 1);
        self.log.push(Written { tenant, ids, number, at_ms: self.now_ms });
    }

    fn end(&self) -> u64 {
        self.log.len() as u64
    }

    fn at(&self, offset: u64) -> Option<Written> {
        self.log.get(usize::try_from(offset).unwrap()).cloned()
    }

    /// Everything of these offsets that is not at hand is lost for good.
    fn excuse(&mut self, from: u64, to: u64) {
        for offset in from..to.min(self.end()) {
            self.excused.extend(self.at(offset).map(|written| written.number));
        }
    }

    fn apply(&mut self) {
        let next = self.partition.next();
        if next < self.earliest {
            self.excuse(next, self.earliest);
            self.ledger.lose(Loss { from: next, to: self.earliest, at_ms: self.now_ms });
            self.partition.skip(self.earliest - 1);
            self.seen[0] += 1;
        }
        let offset = self.partition.next();
        let Some(Written { tenant, ids, number, at_ms }) = self.at(offset) else { return };
        let record = Record { headers: vec![Sequence { session: 7, number }.to_header()], ..Record::default() };
        if self.copies.is_copy(&Entry { offset: Offset(offset), record }) {
            self.seen[1] += 1;
            return self.partition.skip(offset);
        }
        if at_ms < self.now_ms - KEPT_MS {
            self.excused.insert(number);
            return self.partition.skip(offset);
        }
        let traces = ids.iter().map(|id| (*id, Bytes::copy_from_slice(&number.to_be_bytes())));
        self.partition.apply(offset, at_ms, &tenant, traces, TraceLimits::default());
    }

    fn cut(&mut self, everything: bool) {
        if !everything && self.partition.cut_due(self.now_ms).is_none() {
            return;
        }
        if let Some(cut) = self.partition.cut(self.now_ms, everything) {
            self.ledger.begin(&cut, &self.copies);
        }
    }

    /// Writes the blocks of one cut, puts them on the shelf, and maybe saves the ledger; it may crash before each step.
    fn flush(&mut self) -> bool {
        let closing: Vec<Arc<Cut>> = self.partition.closing().to_vec();
        let Some(cut) = closing.get(self.rng.index(closing.len())) else { return true };
        let mut entries = Vec::new();
        for tenant in &cut.tenants {
            if self.rng.chance(1, 8) {
                return false;
            }
            let source = format!("live-store/{}", self.ledger.generation);
            let id = cut.id.block_id(&source, 0, &tenant.tenant, 0);
            let content = pieces(cut, &tenant.tenant);
            if let Some(before) = self.disk.blocks.insert(id, content.clone()) {
                assert_eq!(before, content, "a block with this name has other content");
            }
            entries.push(Shelved { tenant: tenant.tenant.to_string(), id, until_ms: tenant.received_ms.1 });
        }
        if self.rng.chance(1, 8) {
            return false;
        }
        self.shelf.extend(entries.clone());
        self.partition.published(cut.id);
        let replay_from = self.ledger.complete(cut.id.number, entries);
        self.copies.forget_below(replay_from);
        self.rng.chance(1, 2) || self.save()
    }

    fn save(&mut self) -> bool {
        if self.rng.chance(1, 8) {
            return false;
        }
        self.disk.ledger =
            serde_json::from_slice(&serde_json::to_vec(&self.ledger.without_pending()).unwrap()).unwrap();
        self.safe = self.ledger.replay_from;
        for block in std::mem::take(&mut self.doomed) {
            if self.rng.chance(1, 8) {
                return false;
            }
            self.disk.blocks.remove(&block.id);
        }
        true
    }

    fn expire(&mut self) {
        for block in self.ledger.expire(self.now_ms - KEPT_MS) {
            self.excused.extend(self.disk.blocks[&block.id].iter().map(|(_, _, number)| *number));
            self.shelf.retain(|shelved| *shelved != block);
            self.doomed.push(block);
            self.seen[2] += 1;
        }
    }

    /// The disk is what it was; or it is a new one.
    fn restart(&mut self) {
        if self.rng.chance(1, 20) {
            self.disk = Disk::default();
            self.seen[3] += 1;
        }
        self.start();
    }

    fn start(&mut self) {
        self.ledger = self.disk.ledger.clone();
        for block in &self.ledger.blocks {
            assert!(self.disk.blocks.contains_key(&block.id), "the ledger names a block that is not there");
        }
        let named: BTreeSet<Uuid> = self.ledger.blocks.iter().map(|block| block.id).collect();
        self.disk.blocks.retain(|id, _| named.contains(id));
        self.ledger.generation += 1;
        self.disk.ledger.generation = self.ledger.generation;
        let oldest = self.now_ms - 2 * KEPT_MS;
        let lookback = self.log.iter().position(|written| written.at_ms >= oldest).unwrap_or(self.log.len());
        let lookback = (lookback as u64).max(self.earliest);
        let (was, known) = (
            self.ledger.replay_from,
            Known {
                log: "topic",
                committed: self.committed,
                earliest: self.earliest,
                end: self.end(),
                lookback,
                inactive: false,
            },
        );
        let start = begin(&mut self.ledger, known);
        match start.origin {
            Origin::Ledger => assert_eq!(start.from, was),
            // What is skipped is too old or gone.
            _ => self.excuse(0, start.from),
        }
        self.partition = Partition::recover(rules(), &self.ledger).unwrap();
        self.copies = Copies::recover(&self.ledger);
        self.shelf = self.ledger.blocks.clone();
        self.doomed.clear();
        self.safe = 0;
    }

    /// How often a piece is visible.
    fn visible(&self, piece: &Piece) -> usize {
        let tenant = TenantId::parse(&piece.0).unwrap();
        let live = found(&self.partition, &tenant, &piece.1).iter().filter(|part| number(part) == piece.2).count();
        let stored = self.shelf.iter().filter(|block| self.disk.blocks[&block.id].contains(piece)).count();
        live + stored
    }

    fn check(&self) {
        let mut first = BTreeMap::new();
        for (offset, written) in (0u64..).zip(&self.log) {
            first.entry(written.number).or_insert((offset, written));
        }
        for (number, (offset, written)) in first {
            for id in &written.ids {
                let times = self.visible(&(written.tenant.to_string(), *id, number));
                let applied = offset < self.partition.next() && !self.excused.contains(&number);
                let trace = format!("record {number} at {offset}, trace {id}: visible {times} times");
                assert!(times <= 1 && (times == 1 || !applied), "{trace}; next {}", self.partition.next());
            }
        }
        // Whoever takes over with nothing but the commit misses nothing that is not in a block of this disk.
        let in_blocks: BTreeSet<u64> = self
            .disk
            .ledger
            .blocks
            .iter()
            .flat_map(|block| &self.disk.blocks[&block.id])
            .map(|(_, _, number)| *number)
            .collect();
        for offset in 0..self.committed.unwrap_or(0) {
            let number = self.at(offset).unwrap().number;
            let there = in_blocks.contains(&number) || self.excused.contains(&number);
            assert!(there || self.seen[3] > 0, "record {number} at {offset} is committed and not in a block");
        }
    }
}

/// A hundred and fifty by default, ten thousand for each hour of `VIVACE_LONG`.
fn seeds() -> u64 {
    std::env::var("VIVACE_LONG").map_or(150, |hours| hours.parse::<u64>().unwrap() * 10_000)
}

#[test]
fn every_span_is_visible_once_over_cuts_crashes_copies_retention_and_new_disks() {
    let mut seen = [0; 4];
    for seed in 0..seeds() {
        let mut world = World::new(seed);
        for step in 0..400 {
            world.now_ms += i64::try_from(world.rng.below(12)).unwrap();
            let lives = match world.rng.below(14) {
                0..=3 => {
                    world.append();
                    true
                }
                4..=7 => {
                    world.apply();
                    true
                }
                8 => {
                    let everything = world.rng.chance(1, 10);
                    world.cut(everything);
                    true
                }
                9 => world.flush(),
                10 => world.save(),
                11 => {
                    world.expire();
                    true
                }
                12 => {
                    world.committed = Some(world.safe).filter(|safe| *safe > 0).or(world.committed);
                    if world.rng.chance(1, 10) {
                        // Retention takes what it wants, read or not.
                        world.earliest += world.rng.below(world.end() - world.earliest + 1);
                    }
                    true
                }
                _ => world.rng.chance(7, 8),
            };
            if !lives {
                world.restart();
            }
            if !lives || step % 8 == 0 {
                world.check();
            }
        }
        for (sum, count) in seen.iter_mut().zip(world.seen) {
            *sum += count;
        }
    }
    assert!(seen.iter().all(|count| *count > 20), "jumps, copies, expired blocks, new disks: {seen:?}");
}

/// A copy that is read again below `covered` is still one, and the original still counts.
#[test]
fn a_replay_tells_copies_from_originals_of_carried_traces() {
    let tenant = TenantId::single();
    let entry = |offset: u64, number: u64| {
        let record = Record { headers: vec![Sequence { session: 1, number }.to_header()], ..Record::default() };
        Entry { offset: Offset(offset), record }
    };
    let mut ledger = Ledger::default();
    let (mut partition, mut copies) = (Partition::recover(rules(), &ledger).unwrap(), Copies::recover(&ledger));
    for (offset, number, at_ms) in [(0, 1, 1_000), (1, 2, 1_015), (2, 2, 1_016)] {
        let copy = copies.is_copy(&entry(offset, number));
        assert_eq!(copy, offset == 2);
        if copy {
            partition.skip(offset);
        } else {
            let piece = (TraceId(u128::from(number).to_be_bytes()), Bytes::copy_from_slice(&number.to_be_bytes()));
            partition.apply(offset, at_ms, &tenant, [piece].into_iter(), TraceLimits::default());
        }
    }
    // The first trace has stopped growing, the second is carried.
    let cut = partition.cut(1_022, false).unwrap();
    assert_eq!((cut.carried.len(), cut.id.end, cut.replay_from), (1, 3, 1));
    ledger.begin(&cut, &copies);
    assert_eq!(ledger.complete(cut.id.number, Vec::new()), 1);
    let mut again = Copies::recover(&ledger);
    assert!(!again.is_copy(&entry(1, 2)), "the original");
    assert!(again.is_copy(&entry(2, 2)) && again.is_copy(&entry(3, 2)) && !again.is_copy(&entry(4, 3)));
}
