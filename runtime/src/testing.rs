//! Parts and waiting for this crate's own tests.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;
use tonic::Status;

use crate::{Cx, Part, Reply, Serve};

/// Yields until something is so; everything that it waits for must be able to run meanwhile. Panics after a minute, so that a
/// bug ends the test instead of hanging it.
pub(crate) async fn until(mut so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !so() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "it never became so");
        tokio::task::yield_now().await;
    }
}

/// Holds requests until it is opened, and knows how many were inside at once.
#[derive(Clone)]
pub(crate) struct Gate {
    open: Arc<watch::Sender<bool>>,
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    passed: Arc<AtomicUsize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            open: Arc::new(watch::Sender::new(false)),
            inside: Arc::default(),
            most: Arc::default(),
            passed: Arc::default(),
        }
    }
}

impl Gate {
    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    pub(crate) fn most_inside(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    pub(crate) fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }

    async fn pass(&self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        self.inside.fetch_sub(1, Ordering::SeqCst);
        self.passed.fetch_add(1, Ordering::SeqCst);
    }
}

/// Answers a number with itself, once the gate is open.
pub(crate) struct Echo {
    gate: Gate,
}

impl Echo {
    pub(crate) fn held_by(gate: &Gate) -> Self {
        Self { gate: gate.clone() }
    }
}

impl Part for Echo {}

impl Serve<u64> for Echo {
    type Reply = u64;

    fn serve(&mut self, message: u64, _cx: &mut Cx<Self>) -> Reply<u64> {
        let gate = self.gate.clone();
        Reply::later(async move {
            gate.pass().await;
            Ok(message)
        })
    }
}

/// What a test tells a [`Fragile`] part to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    Count,
    Panic,
    PanicLater,
    PanicInContinuation,
    Fail,
    Stop,
    Hang,
    /// Its answer holds this, and may be given up.
    HangAwaited(std::sync::Arc<()>),
}

/// Counts its messages and breaks on demand. Holds an `Rc` to prove that parts need not be `Send`.
#[derive(Default)]
pub(crate) struct Fragile {
    count: Rc<Cell<u64>>,
}

impl Part for Fragile {
    fn observe(&self) -> serde_json::Value {
        self.count.get().into()
    }
}

impl Serve<Order> for Fragile {
    type Reply = u64;

    fn serve(&mut self, order: Order, cx: &mut Cx<Self>) -> Reply<u64> {
        self.count.set(self.count.get() + 1);
        match order {
            Order::Count => Reply::ok(self.count.get()),
            Order::Panic => panic!("told to"),
            Order::PanicLater => Reply::later(async {
                tokio::task::yield_now().await;
                panic!("told to, later")
            }),
            Order::PanicInContinuation => {
                cx.then(async { Rc::new(1) }, |_, _: Rc<i32>, _| panic!("told to, in the end"))
            }
            Order::Fail => {
                cx.fail(crate::Failure::new("cannot go on"));
                Reply::err(Status::aborted("failing"))
            }
            Order::Stop => {
                cx.stop();
                Reply::ok(0)
            }
            Order::Hang => Reply::later(std::future::pending()),
            Order::HangAwaited(held) => Reply::awaited(async move {
                std::future::pending::<()>().await;
                drop(held);
                Ok(0)
            }),
        }
    }
}
