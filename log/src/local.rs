//! The local form: segments on this machine's disk, one writer thread per partition.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use vivace_runtime::{Clock, Compute, Disk, Rng};

use crate::budget::{Budget, Permit};
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::frame;
use crate::local_reader::LocalReader;
use crate::log::{Appended, Bounds, Log, Reader};
use crate::log_id::LogId;
use crate::metrics::Metrics;
use crate::partition_log::PartitionLog;
use crate::record::{Offset, Partition, Record};
use crate::recovery::Opening;

/// How a local log is laid out and bounded.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// The log's own folder; made if it is missing.
    pub dir: PathBuf,
    /// The partitions to open. Others that lie in the folder are left alone.
    pub partitions: Vec<Partition>,
    /// A segment is closed before it grows above this, unless one batch is larger. Larger segments go later; smaller ones cost
    /// two syncs each.
    pub segment_bytes: u64,
    /// How many bytes of newest records each partition keeps in memory for its readers. A reader that lags behind more than this
    /// reads from the disk.
    pub tail_bytes: usize,
}

impl LocalOptions {
    /// One partition, number 0, with the default bounds: what the monolith uses.
    #[must_use]
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), partitions: vec![Partition(0)], segment_bytes: 16 << 20, tail_bytes: 8 << 20 }
    }
}

/// What a local log needs from its surroundings.
#[derive(Clone)]
pub struct LocalEnv {
    /// Where the segments are.
    pub disk: Arc<dyn Disk>,
    /// Measures how long syncs take.
    pub clock: Arc<dyn Clock>,
    /// Runs the blocking reads of readers that have fallen out of memory. Writes have a thread of their own per partition.
    pub compute: Compute,
    /// Bytes between append and durability.
    pub budget: Budget,
    /// Where measurements go.
    pub metrics: Metrics,
}

/// A log in segment files. See the crate's README for the format and what is promised.
///
/// One process at a time may have a folder open; that is the caller's to ensure.
pub struct LocalLog {
    id: LogId,
    disk: Arc<dyn Disk>,
    compute: Compute,
    budget: Budget,
    partitions: Vec<(Partition, Arc<PartitionLog>)>,
    writers: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl LocalLog {
    /// Opens the log or creates it; recovers every partition from whatever a crash has left. Blocks on the disk.
    ///
    /// `rng` is asked only when the log is new, for its id.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::DiskFull`] from the disk, [`Error::ForeignSegment`] and [`Error::Unreadable`] when files do not belong here.
    /// Damaged records are not an error: they are logged, counted and reported to readers.
    pub fn open(options: &LocalOptions, env: LocalEnv, rng: &mut Rng) -> Result<Self, Error> {
        let log = Self::open_without_writers(options, env, rng)?;
        let mut writers = log.writers.lock();
        for (number, partition) in &log.partitions {
            let partition = Arc::clone(partition);
            let writer = thread::Builder::new()
                .name(format!("log-{number}"))
                .spawn(move || partition.write_until_closed())
                .map_err(|error| Error::io("start writer for", &options.dir, error))?;
            writers.push(writer);
        }
        drop(writers);
        Ok(log)
    }

    /// As `open`, but nothing is written until somebody calls `write_waiting` on the partitions.
    pub(crate) fn open_without_writers(options: &LocalOptions, env: LocalEnv, rng: &mut Rng) -> Result<Self, Error> {
        let LocalEnv { disk, clock, compute, budget, metrics } = env;
        let id = open_id(&disk, options, rng)?;
        let mut partitions = Vec::with_capacity(options.partitions.len());
        for &partition in &options.partitions {
            let opening = Opening {
                disk: Arc::clone(&disk),
                clock: Arc::clone(&clock),
                dir: options.dir.join(partition.to_string()),
                id,
                partition,
                segment_bytes: options.segment_bytes,
            };
            let recovered = opening.recover()?;
            metrics.torn(recovered.torn_bytes);
            tracing::info!(
                %id,
                %partition,
                earliest = recovered.store.earliest().0,
                end = recovered.store.end.0,
                segments = recovered.store.segments.len(),
                torn_bytes = recovered.torn_bytes,
                "open log"
            );
            for damage in &recovered.damage {
                tracing::error!(
                    path = %damage.path.display(),
                    position = damage.position,
                    first = damage.first.0,
                    end = damage.end.0,
                    reason = damage.reason,
                    "find damaged records"
                );
            }
            let log = PartitionLog::new(recovered.store, options.tail_bytes, budget.clone(), metrics.clone());
            partitions.push((partition, Arc::new(log)));
        }
        Ok(Self { id, disk, compute, budget, partitions, writers: Arc::default() })
    }

    pub(crate) fn partition(&self, partition: Partition) -> Result<&Arc<PartitionLog>, Error> {
        let found = self.partitions.iter().find(|(number, _)| *number == partition);
        found.map(|(_, log)| log).ok_or(Error::UnknownPartition(partition))
    }

    /// Appends a record that takes several offsets in a row, such as a batch of records that stays as it is. It is stored under
    /// the last of them, which [`Appended`] and readers name, so a reader that starts at any of them gets the whole. Otherwise as
    /// [`Log::append_reserved`].
    ///
    /// # Errors
    /// As [`Log::append_reserved`].
    pub fn append_spanning(
        &self,
        partition: Partition,
        record: Record,
        offsets: NonZeroU32,
        permit: Permit,
    ) -> BoxFuture<'static, Result<Appended, Error>> {
        let queued = frame::encoded_bytes(&record)
            .and_then(|bytes| self.partition(partition)?.append(record, offsets, bytes, permit));
        match queued {
            Ok(reply) => reply.map(|reply| reply.unwrap_or(Err(Error::Closed))).boxed(),
            Err(error) => std::future::ready(Err(error)).boxed(),
        }
    }

    fn stop(&self) {
        for (_, partition) in &self.partitions {
            partition.close();
        }
    }
}

/// Makes the folders, durably, and reads or writes the log's id.
fn open_id(disk: &Arc<dyn Disk>, options: &LocalOptions, rng: &mut Rng) -> Result<LogId, Error> {
    let dir = &options.dir;
    disk.create_dir_all(dir).map_err(|error| Error::io("create folder", dir, error))?;
    for partition in &options.partitions {
        let dir = dir.join(partition.to_string());
        disk.create_dir_all(&dir).map_err(|error| Error::io("create folder", dir, error))?;
    }
    // The folder's own name and those above it, as far as they can be synced, and then what lies in it.
    for above in dir.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        disk.sync_dir(above).map_err(|error| Error::io("sync folder", above, error))?;
    }
    disk.sync_dir(dir).map_err(|error| Error::io("sync folder", dir, error))?;

    let path = dir.join("log-id");
    let file = Checkpoint::new(Arc::clone(disk), &path);
    if let Some(text) = file.read()? {
        let id = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
        return id.ok_or(Error::Unreadable { path, reason: "it does not hold an id" });
    }
    let mut random = [0; 16];
    rng.fill(&mut random);
    let id = LogId::from_random(random);
    file.write(id.to_string().as_bytes())?;
    Ok(id)
}

impl Log for LocalLog {
    fn id(&self) -> LogId {
        self.id
    }

    fn budget(&self) -> &Budget {
        &self.budget
    }

    fn append_reserved(
        &self,
        partition: Partition,
        record: Record,
        permit: Permit,
    ) -> BoxFuture<'static, Result<Appended, Error>> {
        self.append_spanning(partition, record, NonZeroU32::MIN, permit)
    }

    fn reader(&self, partition: Partition, from: Offset) -> Result<Box<dyn Reader>, Error> {
        let partition = Arc::clone(self.partition(partition)?);
        Ok(Box::new(LocalReader::new(partition, Arc::clone(&self.disk), self.compute.clone(), from)?))
    }

    fn bounds(&self, partition: Partition) -> BoxFuture<'static, Result<Bounds, Error>> {
        std::future::ready(self.partition(partition).map(|partition| partition.bounds())).boxed()
    }

    fn reclaim(&self, partition: Partition, below: Offset) -> BoxFuture<'static, Result<(), Error>> {
        match self.partition(partition).and_then(|partition| partition.reclaim(below)) {
            Ok(reply) => reply.map(|reply| reply.unwrap_or(Err(Error::Closed))).boxed(),
            Err(error) => std::future::ready(Err(error)).boxed(),
        }
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.stop();
        let mut ends: Vec<_> = self.partitions.iter().map(|(_, partition)| partition.subscribe()).collect();
        let writers = Arc::clone(&self.writers);
        async move {
            let running = !writers.lock().is_empty();
            for end in ends.iter_mut().filter(|_| running) {
                // An error means that the partition is gone altogether.
                drop(end.wait_for(|published| published.closed).await);
            }
            for writer in writers.lock().drain(..) {
                // Its last act was the word waited for above, so this does not block. A panic was reported by the hook.
                drop(writer.join());
            }
        }
        .boxed()
    }
}

impl Drop for LocalLog {
    /// Finishes what is queued in the background. Use `close` to wait for it.
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use vivace_runtime::{FakeClock, SimDisk};

    use super::*;

    const P: Partition = Partition(0);

    fn open(disk: &SimDisk) -> LocalLog {
        let env = LocalEnv {
            disk: Arc::new(disk.clone()),
            clock: Arc::new(FakeClock::default()),
            compute: Compute::inline(),
            budget: Budget::new(1 << 20, Duration::ZERO),
            metrics: Metrics::unregistered(),
        };
        LocalLog::open(&LocalOptions::in_dir("/log"), env, &mut Rng::seeded(1)).unwrap()
    }

    async fn append(log: &LocalLog, value: &'static str, offsets: u32) -> u64 {
        let record = Record { value: Bytes::from_static(value.as_bytes()), ..Record::default() };
        let permit = log.budget().acquire(record.charged_bytes()).unwrap();
        let offsets = NonZeroU32::new(offsets).unwrap();
        log.append_spanning(P, record, offsets, permit).await.unwrap().offset.0
    }

    async fn read(log: &LocalLog, from: u64, count: usize) -> Vec<(u64, Bytes)> {
        let mut reader = log.reader(P, Offset(from)).unwrap();
        let mut found = Vec::new();
        while found.len() < count {
            let batch = reader.next(usize::MAX).await.unwrap();
            found.extend(batch.records.into_iter().map(|entry| (entry.offset.0, entry.record.value)));
        }
        found
    }

    #[tokio::test]
    async fn a_record_that_takes_several_offsets_is_found_from_each_of_them_also_after_a_crash() {
        let disk = SimDisk::new(1);
        let log = open(&disk);
        assert_eq!(append(&log, "three", 3).await, 2);
        assert_eq!(append(&log, "one", 1).await, 3);
        assert_eq!(append(&log, "two", 2).await, 5);
        let all = [(2, Bytes::from("three")), (3, Bytes::from("one")), (5, Bytes::from("two"))];
        // From memory, and after the crash from the disk.
        let check = async |log: &LocalLog| {
            for from in 0..6 {
                let expected: Vec<_> = all.iter().filter(|(last, _)| *last >= from).cloned().collect();
                assert_eq!(read(log, from, expected.len()).await, expected, "from {from}");
            }
            let bounds = log.bounds(P).await.unwrap();
            assert_eq!((bounds.earliest, bounds.end), (Offset(0), Offset(6)));
        };
        check(&log).await;
        log.close().await;
        disk.crash();
        check(&open(&disk)).await;
    }
}
