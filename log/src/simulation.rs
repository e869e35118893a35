//! The local form on a disk that loses, tears and refuses, with every step decided by a seed.
//!
//! A run plays a random script (appends in groups, commits, reads, reclaims, restarts) on one or several lives of a log. The
//! power fails in the n-th changing call of the disk, for every n of the script. After each recovery the ledger is
//! compared with what the log then says. A failure prints seed and n; `replay` below takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use vivace_runtime::{Compute, FakeClock, Fault, Operation, Rng, SimDisk};

use crate::contract::record;
use crate::log::Appended;
use crate::{Budget, Error, LocalEnv, LocalLog, LocalOptions, Log, LogId, Metrics, Offset, Partition, Reader};

const P: Partition = Partition(0);

/// What was promised and what was seen, over all lives of one log.
#[derive(Default)]
struct Ledger {
    /// Records handed to the log so far, numbered.
    attempted: u64,
    /// Acknowledged or seen by a reader: from then on a promise.
    promised: BTreeMap<Offset, u64>,
    /// Refused in this life: must not be seen in it.
    refused: BTreeSet<u64>,
    /// The highest offset below which a reclaim was asked for.
    reclaimed_below: Offset,
    id: Option<LogId>,
}

/// How many bytes beside its number a record has: from nothing to several sectors.
fn filling(number: u64) -> usize {
    [0, 30, 700, 150, 1800, 10, 420][usize::try_from(number % 7).unwrap()]
}

impl Ledger {
    fn promise(&mut self, offset: Offset, number: u64) {
        let before = self.promised.insert(offset, number);
        assert!(before.is_none_or(|before| before == number), "offset {offset} was record {before:?}, now {number}");
    }

    /// A reader saw a record.
    fn seen(&mut self, entry: &crate::Entry) {
        let number = u64::from_le_bytes(entry.record.value[..8].try_into().unwrap());
        assert!(number < self.attempted, "record {number} was never appended");
        assert_eq!(entry.record, record(number, filling(number)), "a record came back changed");
        assert!(!self.refused.contains(&number), "record {number} was refused and is read in the same life");
        self.promise(entry.offset, number);
    }

    /// Reads everything and compares.
    fn check(&mut self, log: &LocalLog) {
        let bounds = log.partition(P).unwrap().bounds();
        let mut numbers = BTreeSet::new();
        let mut found = BTreeMap::new();
        let mut reader = log.reader(P, bounds.earliest).unwrap();
        while let Some(batch) = reader.next(1500).now_or_never() {
            let batch = batch.unwrap();
            assert_eq!(batch.skipped, [], "nothing was damaged, only torn");
            for entry in batch.records {
                let last = found.last_key_value().map(|(&offset, _)| offset);
                assert!(last < Some(entry.offset), "{} comes after {last:?}", entry.offset);
                self.seen(&entry);
                let number = self.promised[&entry.offset];
                assert!(numbers.insert(number), "record {number} is there twice");
                found.insert(entry.offset, number);
            }
        }
        assert!(bounds.earliest <= self.reclaimed_below, "{bounds:?}, reclaimed {}", self.reclaimed_below);
        for (offset, number) in self.promised.range(bounds.earliest..) {
            assert_eq!(found.get(offset), Some(number), "promised record {number} at {offset} is gone; {bounds:?}");
        }
        if let Some((last, _)) = self.promised.last_key_value() {
            assert!(bounds.end > *last, "the end {} is not behind {last}", bounds.end);
        }
        assert_eq!(*self.id.get_or_insert_with(|| log.id()), log.id(), "the log has changed its id");
    }
}

/// One life: from an open to a restart or a power loss.
struct Life {
    log: LocalLog,
    reader: Box<dyn Reader>,
    waiting: Vec<(u64, BoxFuture<'static, Result<Appended, Error>>)>,
}

impl Life {
    fn open(disk: &SimDisk) -> Result<Self, Error> {
        let env = LocalEnv {
            disk: Arc::new(disk.clone()),
            clock: Arc::new(FakeClock::default()),
            compute: Compute::inline(),
            budget: Budget::new(1 << 20, Duration::ZERO),
            metrics: Metrics::unregistered(),
        };
        let options =
            LocalOptions { segment_bytes: 2500, tail_bytes: 1500, ..LocalOptions::in_dir(PathBuf::from("/data/log")) };
        let log = LocalLog::open_without_writers(&options, env, &mut Rng::seeded(42))?;
        let reader = log.reader(P, log.partition(P)?.bounds().earliest)?;
        Ok(Self { log, reader, waiting: Vec::new() })
    }

    /// One step of the script. Failures of the disk are no failures of the test; broken promises are.
    fn step(&mut self, rng: &mut Rng, ledger: &mut Ledger) {
        match rng.below(10) {
            0..4 => {
                for _ in 0..=rng.below(3) {
                    let number = ledger.attempted;
                    ledger.attempted += 1;
                    self.waiting.push((number, self.log.append(P, record(number, filling(number)))));
                }
            }
            4..7 => self.write(ledger),
            7..9 => self.read(rng, ledger),
            _ => {
                let bounds = self.log.partition(P).unwrap().bounds();
                let below = Offset(bounds.earliest.0 + rng.below(bounds.end.0 - bounds.earliest.0 + 1));
                ledger.reclaimed_below = ledger.reclaimed_below.max(below);
                let reclaim = self.log.reclaim(P, below);
                self.write(ledger);
                drop(reclaim.now_or_never());
            }
        }
    }

    fn write(&mut self, ledger: &mut Ledger) {
        self.log.partition(P).unwrap().write_waiting();
        let mut still = Vec::new();
        for (number, mut waiting) in self.waiting.drain(..) {
            match (&mut waiting).now_or_never() {
                None => still.push((number, waiting)),
                Some(Ok(Appended { offset })) => {
                    assert!(!ledger.promised.contains_key(&offset), "offset {offset} was given twice");
                    ledger.promise(offset, number);
                }
                Some(Err(error)) => {
                    assert!(error.is_retryable(), "{error}");
                    ledger.refused.insert(number);
                }
            }
        }
        self.waiting = still;
        // Promises must hold for those who read right now, too.
        let end = self.log.partition(P).unwrap().bounds().end;
        assert!(ledger.promised.last_key_value().is_none_or(|(last, _)| *last < end));
    }

    fn read(&mut self, rng: &mut Rng, ledger: &mut Ledger) {
        let before = self.reader.position();
        match self.reader.next(usize::try_from(rng.below(3000)).unwrap()).now_or_never() {
            Some(Ok(batch)) => {
                assert_eq!(batch.skipped, []);
                for entry in &batch.records {
                    assert!(entry.offset >= before);
                    ledger.seen(entry);
                }
                let passed = ledger.promised.range(before..batch.end).count();
                assert_eq!(
                    batch.records.len(),
                    passed,
                    "the reader passed over records between {before} and {}",
                    batch.end
                );
            }
            Some(Err(Error::OutOfRange { earliest, .. })) => self.reader = self.log.reader(P, earliest).unwrap(),
            Some(Err(error)) => assert!(error.is_retryable(), "{error}"),
            None => {}
        }
    }
}

#[derive(Clone, Copy)]
enum Faults {
    None,
    /// Errors of the disk at random places, a full disk among them.
    Random,
}

const LIVES: u64 = 3;
const STEPS: u64 = 14;

/// Plays the script of `seed`; the power fails in the changing call `crash_at` (or never). Returns how many there were.
fn run(seed: u64, crash_at: Option<u64>, faults: Faults) -> u64 {
    let disk = SimDisk::new(seed ^ crash_at.unwrap_or(0) << 32);
    let mut rng = Rng::seeded(seed);
    let mut ledger = Ledger::default();
    if let Some(n) = crash_at {
        disk.crash_at(n);
    }
    for _ in 0..LIVES {
        ledger.refused.clear();
        if let Ok(mut life) = Life::open(&disk) {
            ledger.check(&life.log);
            for _ in 0..STEPS {
                if disk.is_down() {
                    break;
                }
                if matches!(faults, Faults::Random) {
                    fail_something(&disk, &mut rng);
                }
                life.step(&mut rng, &mut ledger);
            }
            disk.set_capacity(None);
        }
        if disk.is_down() {
            disk.crash();
            // The second power loss comes while the first is being recovered from, or soon after.
            disk.crash_at(rng.below(40));
        } else if rng.chance(1, 2) {
            // A power loss while nothing is going on; otherwise a mere restart of the process.
            disk.crash();
        }
    }
    disk.crash();
    ledger.refused.clear();
    let mut life = Life::open(&disk).unwrap();
    ledger.check(&life.log);
    // Whatever has happened, the log goes on.
    let number = ledger.attempted;
    ledger.attempted += 1;
    let append = life.log.append(P, record(number, filling(number)));
    life.waiting.push((number, append));
    life.write(&mut ledger);
    assert!(life.waiting.is_empty() && !ledger.refused.contains(&number), "a healthy disk refused an append");
    ledger.check(&life.log);
    disk.operations()
}

fn fail_something(disk: &SimDisk, rng: &mut Rng) {
    if rng.chance(1, 8) {
        // Enough for what is there already, or for very little more.
        disk.set_capacity(rng.chance(1, 2).then(|| rng.below(20_000)));
    }
    if !rng.chance(1, 4) {
        return;
    }
    let kinds = [
        Operation::SyncData,
        Operation::SyncDir,
        Operation::Write,
        Operation::Truncate,
        Operation::Create,
        Operation::Remove,
        Operation::Read,
    ];
    let error = if rng.chance(1, 3) { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    disk.inject(Fault { on: kinds[rng.index(kinds.len())], after: rng.below(2), error });
}

/// `VIVACE_LONG=<hours>` runs correspondingly more seeds.
fn seeds(short: u64) -> std::ops::Range<u64> {
    let hours: u64 = std::env::var("VIVACE_LONG").ok().and_then(|hours| hours.parse().ok()).unwrap_or(0);
    0..short.saturating_add(hours.saturating_mul(20_000))
}

/// Says which run failed while its panic passes by.
struct Say(u64, Option<u64>);

impl Drop for Say {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: seed {}, power loss in call {:?}", self.0, self.1);
        }
    }
}

fn run_at_every_call(seeds: std::ops::Range<u64>, faults: Faults) {
    for seed in seeds {
        let calls = {
            let _say = Say(seed, None);
            run(seed, None, faults)
        };
        for n in 0..calls {
            let _say = Say(seed, Some(n));
            run(seed, Some(n), faults);
        }
    }
}

#[test]
fn power_loss_at_every_call_breaks_no_promise() {
    run_at_every_call(seeds(200), Faults::None);
}

#[test]
fn power_loss_among_disk_errors_breaks_no_promise() {
    run_at_every_call(seeds(200), Faults::Random);
}

#[test]
fn one_seed_run_twice_does_the_same() {
    for seed in 0..20 {
        assert_eq!(run(seed, None, Faults::Random), run(seed, None, Faults::Random));
    }
}
