//! A few threads for work that would hold up an actor: decoding, compression, regular expressions, file IO.
//!
//! The queue is bounded in jobs and bytes by the same permits as a mailbox. A panic costs its job alone. Work that must not
//! wait behind long computations, such as an fsync that acks wait for, gets a `Compute` of its own.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use tonic::Status;

use crate::cell::panic_text;
use crate::mailbox::{Bounds, Load, NoRoom, Permit, Pool};

type Job = Box<dyn FnOnce() + Send>;

/// A bounded pool of worker threads. Clones are the same pool.
#[derive(Clone)]
pub struct Compute(Arc<Inner>);

struct Inner {
    name: &'static str,
    pool: Arc<Pool>,
    queue: Option<Arc<Queue>>,
    threads: usize,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    arrived: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
}

impl Compute {
    /// A pool of `threads` threads, at least one, whose names begin with `name` (at most 15 bytes are shown by the system).
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn new(name: &'static str, threads: usize, bounds: Bounds) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let mut workers = Vec::new();
        for _ in 0..threads.max(1) {
            let queue = Arc::clone(&queue);
            workers.push(std::thread::Builder::new().name(name.to_owned()).spawn(move || queue.work())?);
        }
        let (pool, threads) = (Pool::new(bounds), workers.len());
        Ok(Self(Arc::new(Inner { name, pool, queue: Some(queue), threads, workers: Mutex::new(workers) })))
    }

    /// No threads: every job runs at once where it is asked for. For simulations and tests that must be deterministic.
    #[must_use]
    pub fn inline() -> Self {
        let pool = Pool::new(Bounds::messages(usize::MAX));
        Self(Arc::new(Inner { name: "inline", pool, queue: None, threads: 1, workers: Mutex::default() }))
    }

    /// Waits for room, runs the job on a worker, gives its result. `bytes_hint` is the memory that the job pins. Dropping the
    /// future does not cancel a job that has been queued.
    ///
    /// # Errors
    /// INTERNAL with the text of the panic; UNAVAILABLE once the pool is stopped.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes_hint: usize,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let permit = self.0.pool.acquire(bytes_hint).await.map_err(|no_room| self.refusal(no_room))?;
        self.submit(permit, job).await
    }

    /// As [`Compute::run`], if there is room now.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when there is none; the job is dropped. What the job meets is in the returned future.
    pub fn try_run<T: Send + 'static>(
        &self,
        bytes_hint: usize,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Outcome<T>, Status> {
        let permit = self.0.pool.try_acquire(bytes_hint).map_err(|no_room| self.refusal(no_room))?;
        Ok(self.submit(permit, job))
    }

    fn submit<T: Send + 'static>(&self, permit: Permit, job: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
        let (send, done) = oneshot::channel();
        let job: Job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(job)).map_err(|panic| panic_text(&*panic));
            drop(permit);
            // Who no longer wants the result has dropped its end.
            drop(send.send(result));
        });
        match &self.0.queue {
            Some(queue) => queue.put(job),
            None => job(),
        }
        Outcome { name: self.0.name, done }
    }

    fn refusal(&self, no_room: NoRoom) -> Status {
        match no_room {
            NoRoom::Full => Status::resource_exhausted(format!("the queue of {} is full", self.0.name)),
            NoRoom::Closed => Status::unavailable(format!("{} has stopped", self.0.name)),
        }
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// How many jobs can run at the same time.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.0.threads
    }

    /// The figures of the queue.
    #[must_use]
    pub fn load(&self) -> Load {
        self.0.pool.load()
    }

    /// Refuses new jobs, finishes those that were accepted, ends the threads. Call it after everything that computes is drained.
    pub async fn stop(&self) {
        self.0.pool.close();
        self.0.pool.emptied().await;
        if let Some(queue) = &self.0.queue {
            queue.close();
        }
        for worker in std::mem::take(&mut *self.0.workers.lock()) {
            // The queue is empty, so each ends at once; a worker catches its jobs' panics and has none of its own.
            worker.join().ok();
        }
    }
}

/// The result of an accepted job, to be awaited. Dropping it does not cancel the job.
#[derive(Debug)]
#[must_use = "the result of the job is lost"]
pub struct Outcome<T> {
    name: &'static str,
    done: oneshot::Receiver<Result<T, String>>,
}

impl<T> Future for Outcome<T> {
    type Output = Result<T, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let name = self.name;
        Pin::new(&mut self.done).poll(cx).map(|done| match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => {
                tracing::error!(pool = name, %panic, "job panicked");
                Err(Status::internal(format!("a job of {name}: {panic}")))
            }
            Err(_) => Err(Status::unavailable(format!("{name} has stopped"))),
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.close();
        }
    }
}

impl Queue {
    fn put(&self, job: Job) {
        self.jobs.lock().waiting.push_back(job);
        self.arrived.notify_one();
    }

    fn close(&self) {
        self.jobs.lock().closed = true;
        self.arrived.notify_all();
    }

    fn work(&self) {
        loop {
            let job = {
                let mut jobs = self.jobs.lock();
                loop {
                    if let Some(job) = jobs.waiting.pop_front() {
                        break job;
                    }
                    if jobs.closed {
                        return;
                    }
                    self.arrived.wait(&mut jobs);
                }
            };
            job();
        }
    }
}

impl std::fmt::Debug for Compute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compute({})", self.0.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_costs_its_own_job_alone() {
        let compute = Compute::new("t", 1, Bounds::messages(4)).unwrap();
        let error = compute.run(0, || panic!("boom")).await.map(|(): ()| ()).unwrap_err();
        assert_eq!(error.code(), tonic::Code::Internal);
        assert!(error.message().contains("boom"));
        assert_eq!(compute.run(0, || 2).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_stop_finishes_what_was_accepted() {
        let compute = Compute::new("t", 1, Bounds::messages(2)).unwrap();
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let first = compute.try_run(0, move || gate.recv().is_ok()).unwrap();
        let second = compute.try_run(0, || 7).unwrap();
        let refused = compute.try_run(0, || ()).map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        go.send(()).unwrap();
        compute.stop().await;
        assert!(first.await.unwrap());
        assert_eq!(second.await.unwrap(), 7);
        assert_eq!(compute.run(0, || ()).await.unwrap_err().code(), tonic::Code::Unavailable);
    }

    #[tokio::test]
    async fn inline_runs_in_place() {
        let here = std::thread::current().id();
        assert_eq!(Compute::inline().run(0, || std::thread::current().id()).await.unwrap(), here);
    }
}
