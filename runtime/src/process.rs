//! The skeleton of a process: runtimes, arbiters, signals, an ordered end, an honest exit code.
//!
//! ```text
//! tokio multi-thread runtime ── servers, clients
//! actix System on it ────────── main thread: parts that are `Here`
//! arbiters, one thread each ─── parts that are `On` one
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix::{Arbiter, ArbiterHandle, System};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::part::Failure;
use crate::placement::Placement;
use crate::supervisor::Supervisor;

/// How a process is laid out.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// The name of the root supervisor.
    pub name: String,
    /// Threads of the runtime for servers and clients, at least one.
    pub worker_threads: usize,
    /// Threads for actors, beside the main thread.
    pub arbiters: usize,
    /// How long the ordered end may take.
    pub drain: Duration,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self {
            name: "vivace".to_owned(),
            worker_threads: std::thread::available_parallelism().map_or(2, usize::from),
            arbiters: 2,
            drain: Duration::from_secs(10),
        }
    }
}

/// What the wiring of a process gets.
#[derive(Debug)]
pub struct Process {
    /// The top of the tree. It is started after the wiring, drained and watched here.
    pub root: Supervisor,
    /// The arbiters.
    pub arbiters: Vec<ArbiterHandle>,
    /// Cancelled when the end begins, before anything is drained: servers stop taking requests.
    pub stopping: CancellationToken,
}

impl Process {
    /// The n-th arbiter, counted round: a place for a part. `Here` when there is none.
    #[must_use]
    pub fn arbiter(&self, n: usize) -> Placement {
        match self.arbiters.len() {
            0 => Placement::Here,
            count => Placement::On(self.arbiters[n % count].clone()),
        }
    }

    /// Begins the end, as a signal would.
    pub fn stop(&self) {
        self.stopping.cancel();
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Asked to, and everything that was accepted is finished.
    Clean,
    /// Asked to, but something was not finished in time.
    Overdue,
    /// It could not begin or go on.
    Failed(Failure),
}

impl Exit {
    /// The code for the operating system: 0, 1 for a failure, 2 for an end that was not finished.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Failed(_) => 1,
            Self::Overdue => 2,
        }
    }
}

/// Runs a process: wires it, starts it, waits for SIGTERM, SIGINT, [`Process::stop`] or a failure of the root, drains it.
///
/// `wire` adds the components to `root`; it returns a function that ends what is not a part, such as servers, which is called
/// first when the end begins and awaited before the parts are drained: no request then meets a part that is gone.
///
/// A second signal ends the process at once. SIGHUP does not end it: listeners with TLS read their files again.
///
/// # Errors
/// The runtimes cannot be made.
pub fn run<W, S, D>(options: &ProcessOptions, clock: Arc<dyn Clock>, wire: W) -> io::Result<Exit>
where
    W: AsyncFnOnce(&Process) -> Result<S, Failure>,
    S: FnOnce(Deadline) -> D,
    D: Future<Output = ()>,
{
    // Fails only when one is installed already, by a test or an embedder: then that one is meant.
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.worker_threads.max(1))
        .thread_name("vivace-io")
        .enable_all()
        .build()?;
    let runtime = Arc::new(runtime);
    let system = System::with_tokio_rt({
        let runtime = Arc::clone(&runtime);
        move || runtime
    });
    // In a box, or the main thread keeps the stack for ever that it takes to move it.
    let exit = system.block_on(Box::pin(async {
        let arbiters: Vec<Arbiter> = (0..options.arbiters).map(|_| Arbiter::try_new()).collect::<io::Result<_>>()?;
        let process = Process {
            root: Supervisor::root(options.name.as_str(), clock, Placement::Here),
            arbiters: arbiters.iter().map(Arbiter::handle).collect(),
            stopping: CancellationToken::new(),
        };
        let exit = live(&process, options.drain, wire).await;
        for arbiter in &arbiters {
            arbiter.stop();
        }
        for arbiter in arbiters {
            // An arbiter thread that panicked has been reported by its parts.
            arbiter.join().ok();
        }
        io::Result::Ok(exit)
    }));
    #[expect(
        clippy::disallowed_methods,
        reason = "everything is drained by now, nothing is left that this could cut off"
    )]
    System::current().stop();
    exit
}

async fn live<W, S, D>(process: &Process, drain: Duration, wire: W) -> Exit
where
    W: AsyncFnOnce(&Process) -> Result<S, Failure>,
    S: FnOnce(Deadline) -> D,
    D: Future<Output = ()>,
{
    let [mut terminate, mut interrupt, mut hangup] = match signals() {
        Ok(signals) => signals,
        Err(error) => return Exit::Failed(error.into()),
    };
    // What is wired may wait for others, such as brokers: an end that is asked for meanwhile is not kept waiting.
    let wired = tokio::select! {
        wired = wire(process) => wired,
        _ = terminate.recv() => return given_up(process, drain).await,
        _ = interrupt.recv() => return given_up(process, drain).await,
    };
    let before = match wired {
        Ok(before) => before,
        Err(cause) => {
            tracing::error!(%cause, "process could not be wired");
            process.stopping.cancel();
            process.root.drain(drain).await;
            return Exit::Failed(cause);
        }
    };
    process.root.start();
    let failure = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            () = process.stopping.cancelled() => break None,
            cause = process.root.failure() => break Some(cause),
            _ = hangup.recv() => tracing::info!("SIGHUP: the files of TLS are read again, and nothing else"),
        }
    };
    tracing::info!(failed = failure.is_some(), "process is stopping");
    process.stopping.cancel();
    let deadline = Deadline::after(drain);
    let end = async {
        // Half the time at most for what is not a part, so that the parts get theirs.
        let served = tokio::time::timeout(drain / 2, before(deadline)).await.is_ok();
        process.root.drain(deadline).await && served
    };
    let finished = tokio::select! {
        finished = end => finished,
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    };
    match failure {
        Some(cause) => Exit::Failed(cause),
        None if finished => Exit::Clean,
        None => Exit::Overdue,
    }
}

/// Asked to end before it began.
async fn given_up(process: &Process, drain: Duration) -> Exit {
    tracing::info!("process is stopping before it was wired");
    process.stopping.cancel();
    process.root.drain(drain).await;
    Exit::Clean
}

fn signals() -> io::Result<[tokio::signal::unix::Signal; 3]> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fragile, Order};
    use crate::{Bounds, Child, Restart, SystemClock};

    fn options() -> ProcessOptions {
        ProcessOptions { worker_threads: 1, arbiters: 1, ..ProcessOptions::default() }
    }

    #[test]
    fn a_process_that_is_asked_to_stop_ends_clean_and_servers_end_before_parts() {
        let exit = run(&options(), Arc::new(SystemClock), async |process| {
            let child = Child::<Fragile>::new("part", Bounds::messages(1)).place(process.arbiter(0));
            let mailbox = child.mailbox::<Order>();
            process.root.add(child, |_| Ok(Fragile::default()));
            process.stop();
            Ok(move |deadline: Deadline| async move {
                mailbox.ask(Order::Count, deadline).await.unwrap();
            })
        });
        assert_eq!(exit.unwrap(), Exit::Clean);
    }

    #[test]
    fn a_failure_that_reaches_the_root_ends_the_process_with_code_one() {
        let exit = run(&options(), Arc::new(SystemClock), async |process| {
            let child = Child::<Fragile>::new("part", Bounds::messages(1));
            process.root.add(child.restart(Restart::default().at_most(0, Duration::from_secs(1))), |_| {
                Err(Failure::new("no disk"))
            });
            Ok(|_| std::future::ready(()))
        });
        let exit = exit.unwrap();
        assert_eq!(exit, Exit::Failed(Failure::new("part: no disk")));
        assert_eq!(exit.code(), 1);
    }

    #[test]
    fn a_wiring_that_fails_is_the_exit() {
        let wire = async |_: &Process| Err::<fn(Deadline) -> std::future::Ready<()>, _>(Failure::new("port in use"));
        let exit = run(&options(), Arc::new(SystemClock), wire);
        assert_eq!(exit.unwrap(), Exit::Failed(Failure::new("port in use")));
    }
}
