//! The suite over the forms of this crate.

use std::sync::Arc;
use std::time::Duration;

use vivace_runtime::{Bounds, Compute, Rng, SimDisk, StdDisk, SystemClock};

use crate::{Budget, LocalEnv, LocalLog, LocalOptions, Log, LogId, MemoryLog, Metrics};

fn budget() -> Budget {
    Budget::new(128 << 20, Duration::from_millis(100))
}

fn memory() -> Arc<dyn Log> {
    Arc::new(MemoryLog::new(LogId::from_random([1; 16]), budget()))
}

fn local(disk: Arc<dyn vivace_runtime::Disk>, dir: &std::path::Path) -> Arc<dyn Log> {
    let compute = Compute::new("log-read", 1, Bounds::messages(16)).unwrap();
    let env =
        LocalEnv { disk, clock: Arc::new(SystemClock), compute, budget: budget(), metrics: Metrics::unregistered() };
    let options = LocalOptions { segment_bytes: 3000, tail_bytes: 2000, ..LocalOptions::in_dir(dir) };
    Arc::new(LocalLog::open(&options, env, &mut Rng::seeded(1)).unwrap())
}

fn local_simulated() -> Arc<dyn Log> {
    local(Arc::new(SimDisk::new(1)), std::path::Path::new("/log"))
}

macro_rules! forms {
    ($($name:ident)*) => {
        mod memory_form { $( #[tokio::test] async fn $name() { super::super::$name(super::memory()).await } )* }
        mod local_form { $( #[tokio::test] async fn $name() { super::super::$name(super::local_simulated()).await } )* }
        mod local_form_on_a_real_disk {
            $( #[tokio::test] async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::super::$name(super::local(std::sync::Arc::new(super::StdDisk), &dir.path().join("log"))).await
            } )*
        }
    };
}

forms! {
    records_come_back_whole_in_order_and_once
    a_reader_waits_for_news
    a_dropped_wait_loses_nothing
    a_reader_starts_anywhere_between_the_bounds_and_nowhere_else
    a_batch_is_within_the_bytes_asked_for_but_never_empty
    reclaim_keeps_everything_at_or_above
    a_full_budget_refuses_and_appending_gives_it_back
    a_record_that_is_too_large_is_refused_for_good
    closing_finishes_what_is_queued_and_readers_read_to_the_end
}
