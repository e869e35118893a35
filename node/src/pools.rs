//! The threads that compute, made when a role asks for them first: a process has no pool that nobody uses.

use parking_lot::Mutex;
use vivace_runtime::{Bounds, Compute, Failure};

/// The pools of one process.
#[derive(Default)]
pub(crate) struct Pools {
    queries: Mutex<Option<Compute>>,
    background: Mutex<Option<Compute>>,
}

impl Pools {
    /// Queries and what requests wait for: a thread for each core.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn queries(&self) -> Result<Compute, Failure> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        get(&self.queries, "viv-query", cores, 4096)
    }

    /// Encoding of blocks and files of bookkeeping: one thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn background(&self) -> Result<Compute, Failure> {
        get(&self.background, "viv-background", 1, 1024)
    }
}

fn get(place: &Mutex<Option<Compute>>, name: &'static str, threads: usize, jobs: usize) -> Result<Compute, Failure> {
    let mut place = place.lock();
    match &*place {
        Some(pool) => Ok(pool.clone()),
        None => Ok(place.insert(Compute::new(name, threads, Bounds::messages(jobs))?).clone()),
    }
}
