//! Group commit on a real disk: four producers append records of 235 kB (what a request of 500 spans takes), each
//! waiting for its acknowledgement before the next, for a fixed number of records; then the 15k-spans-a-second load, 30 such
//! records a second, is judged by its CPU time per record.
//!
//! The log goes to `VIVACE_BENCH_DIR`, or a temporary folder: choose a disk, not a tmpfs. It prints what it measured;
//! there is no statistic over repetitions because the disk decides. Reference, 2 virtual cores, virtio disk, ext4, 2026-11:
//! see the README of the crate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use vivace_log::{Budget, LocalEnv, LocalLog, LocalOptions, Log, Metrics, Offset, Partition, Record};
use vivace_runtime::{Compute, Rng, StdDisk, SystemClock};

const PRODUCERS: usize = 4;
const RECORD_BYTES: usize = 235_000;
const RECORDS: usize = 4_000;

fn main() -> Outcome {
    // `cargo test --benches` only asks whether it runs.
    let records = if std::env::args().any(|argument| argument == "--test") { 8 } else { RECORDS };
    let temporary = tempfile::tempdir()?;
    let dir =
        std::env::var_os("VIVACE_BENCH_DIR").map_or_else(|| temporary.path().to_owned(), PathBuf::from).join("log");
    raw_sync(&dir.with_extension("raw"), records)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(grouped(&dir, records))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// What the disk gives one writer without us.
fn raw_sync(path: &std::path::Path, records: usize) -> Outcome {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path)?;
    let bytes = vec![7; RECORD_BYTES];
    let mut times = Vec::new();
    for _ in 0..records / 4 {
        file.write_all(&bytes)?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed());
    }
    std::fs::remove_file(path)?;
    print("raw fdatasync", &mut times);
    Ok(())
}

async fn grouped(dir: &std::path::Path, records: usize) -> Outcome {
    let env = LocalEnv {
        disk: Arc::new(StdDisk),
        clock: Arc::new(SystemClock),
        compute: Compute::inline(),
        budget: Budget::new(256 << 20, Duration::from_millis(100)),
        metrics: Metrics::unregistered(),
    };
    let log = Arc::new(LocalLog::open(&LocalOptions::in_dir(dir), env, &mut Rng::from_system())?);
    let record = Record {
        tenant: Bytes::from_static(b"single-tenant"),
        value: Bytes::from((0..RECORD_BYTES).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect::<Vec<_>>()),
        headers: Vec::new(),
        timestamp_ms: 0,
    };
    let times = Arc::new(Mutex::new(Vec::with_capacity(records)));
    let (cpu, started) = (cpu_time()?, Instant::now());
    let producers = (0..PRODUCERS).map(|_| {
        let (log, record, times) = (Arc::clone(&log), record.clone(), Arc::clone(&times));
        tokio::spawn(async move {
            for _ in 0..records / PRODUCERS {
                let started = Instant::now();
                let appended = log.append(Partition(0), record.clone()).await?;
                times.lock().push(started.elapsed());
                if appended.offset.0 % 200 == 199 {
                    log.reclaim(Partition(0), Offset(appended.offset.0.saturating_sub(100))).await?;
                }
            }
            Ok::<_, vivace_log::Error>(())
        })
    });
    for producer in producers.collect::<Vec<_>>() {
        producer.await??;
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_time()?.saturating_sub(cpu));
    log.close().await;
    print("append to acknowledgement", &mut times.lock());
    let (count, megabytes) = (records as f64, (records * RECORD_BYTES) as f64 / 1e6);
    println!(
        "throughput: {:.0} MB/s, {:.0} records/s",
        megabytes / elapsed.as_secs_f64(),
        count / elapsed.as_secs_f64()
    );
    println!(
        "CPU: {:.0} us per record, so {:.2} % of a core at 30 records (15k spans) a second",
        cpu.as_secs_f64() / count * 1e6,
        cpu.as_secs_f64() / count * 30.0 * 100.0
    );
    Ok(())
}

/// User and system time of this process, from the kernel's ticks of 10 ms.
fn cpu_time() -> Outcome<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len().saturating_sub(1) * share / 100).copied().unwrap_or_default();
    println!("{what}: p50 {:?}, p99 {:?}, max {:?}, {} times", at(50), at(99), at(100), times.len());
}

/// Any error ends the benchmark.
type Outcome<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
