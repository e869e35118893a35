//! How far one group is behind in one partition, exported while the value lives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use vivace_runtime::Clock;

use super::metrics::LagMetrics;
use crate::group_offsets::GroupOffsets;
use crate::log::Log;
use crate::record::{Offset, Partition};

/// What this process consumes: readers say what they hand out, exports say for which group.
pub(crate) struct Consumption {
    metrics: LagMetrics,
    clock: Arc<dyn Clock>,
    groups: Mutex<BTreeMap<Partition, BTreeSet<String>>>,
}

impl Consumption {
    pub(crate) fn new(metrics: LagMetrics, clock: Arc<dyn Clock>) -> Self {
        Self { metrics, clock, groups: Mutex::default() }
    }

    /// A record with this time was handed to a consumer just now.
    pub(crate) fn consumed(&self, partition: Partition, timestamp_ms: i64) {
        let now_ms = i64::try_from(self.clock.unix().as_millis()).unwrap_or(i64::MAX);
        let age_ms = u64::try_from(now_ms.saturating_sub(timestamp_ms)).unwrap_or(0);
        let seconds = Duration::from_millis(age_ms).as_secs_f64();
        for group in self.groups.lock().get(&partition).into_iter().flatten() {
            self.metrics.seconds(group, partition, seconds);
        }
    }

    fn starts(&self, group: &str, partition: Partition) {
        self.groups.lock().entry(partition).or_default().insert(group.to_owned());
    }

    fn ends(&self, group: &str, partition: Partition) {
        self.groups.lock().entry(partition).or_default().remove(group);
        self.metrics.remove(group, partition);
    }
}

/// Exports `tempo_ingest_group_partition_lag` and `_seconds` of a partition until it is dropped.
pub struct LagExport {
    consumption: Arc<Consumption>,
    group: String,
    partition: Partition,
    task: JoinHandle<()>,
}

impl LagExport {
    pub(crate) fn start(
        log: Arc<dyn Log>,
        offsets: Arc<dyn GroupOffsets>,
        consumption: Arc<Consumption>,
        (group, partition): (&str, Partition),
        interval: Duration,
        runtime: &tokio::runtime::Handle,
    ) -> Self {
        consumption.starts(group, partition);
        let (told, timer, name) = (consumption.metrics.clone(), Arc::clone(&consumption.clock), group.to_owned());
        let task = runtime.spawn(async move {
            loop {
                if let Some(records) = lag(&*log, &*offsets, partition).await {
                    told.records(&name, partition, records);
                    if records == 0 {
                        told.seconds(&name, partition, 0.0);
                    }
                }
                timer.sleep(interval).await;
            }
        });
        Self { consumption, group: group.to_owned(), partition, task }
    }
}

impl Drop for LagExport {
    fn drop(&mut self) {
        self.task.abort();
        self.consumption.ends(&self.group, self.partition);
    }
}

/// Records between the group's offset and the end; `None` when the brokers cannot be asked now: the last figure stays.
async fn lag(log: &dyn Log, offsets: &dyn GroupOffsets, partition: Partition) -> Option<u64> {
    let bounds = log.bounds(partition).await.ok()?;
    let committed = offsets.committed(partition).await.ok()?.unwrap_or(Offset(0)).max(bounds.earliest);
    Some(bounds.end.0.saturating_sub(committed.0))
}

#[cfg(test)]
mod tests {
    use vivace_runtime::FakeClock;
    use vivace_runtime::metrics::Registry;

    use super::*;
    use crate::{Budget, LogId, MemoryGroupOffsets, MemoryLog, Record};

    async fn until(clock: &FakeClock, interval: Duration, registry: &Registry, line: &str) {
        while !registry.render().contains(line) {
            if clock.sleepers() > 0 {
                clock.advance(interval);
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_lag_follows_commits_and_is_removed_with_the_export() {
        let (registry, clock) = (Registry::new(), FakeClock::default());
        let log = Arc::new(MemoryLog::new(LogId::from_random([1; 16]), Budget::new(1 << 20, Duration::ZERO)));
        let offsets = Arc::new(MemoryGroupOffsets::new());
        for _ in 0..5 {
            log.append(Partition(2), Record::default()).await.unwrap();
        }
        let interval = Duration::from_secs(60);
        let consumption = Arc::new(Consumption::new(LagMetrics::register(&registry), Arc::new(clock.clone())));
        let export = LagExport::start(
            log.clone(),
            offsets.clone(),
            Arc::clone(&consumption),
            ("g", Partition(2)),
            interval,
            &tokio::runtime::Handle::current(),
        );
        let series = |name: &str, value: &str| format!("{name}{{group=\"g\",partition=\"2\"}} {value}");
        until(&clock, interval, &registry, &series("tempo_ingest_group_partition_lag", "5")).await;
        let now_ms = i64::try_from(clock.unix().as_millis()).unwrap();
        consumption.consumed(Partition(1), now_ms - 9000);
        consumption.consumed(Partition(2), now_ms - 2500);
        assert!(registry.render().contains(&series("tempo_ingest_group_partition_lag_seconds", "2.5")));
        offsets.commit(Partition(2), Offset(5)).await.unwrap();
        until(&clock, interval, &registry, &series("tempo_ingest_group_partition_lag", "0")).await;
        assert!(registry.render().contains(&series("tempo_ingest_group_partition_lag_seconds", "0")));
        drop(export);
        assert!(!registry.render().contains("partition=\"2\""));
    }
}
