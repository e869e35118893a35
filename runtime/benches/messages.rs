//! What one message costs: told and asked, on one thread and across arbiters, one caller and 64, against a bare tokio channel.
//!
//! `cargo bench -p vivace-runtime`, or one row of it: `cargo bench -p vivace-runtime -- ask/arbiter/1`. criterion prints the time
//! of one message and compares it with the run before.
//!
//! | row | what is timed |
//! |---|---|
//! | `tell/here`, `tell/arbiter` | `tell` to a part on this thread, or on another: waiting for room, no answer |
//! | `ask/here/1`, `ask/arbiter/1` | one caller that waits for each answer: a round trip |
//! | `ask/here/64`, `ask/arbiter/64` | 64 callers at once: what a hop costs under load |
//! | `tokio-mpsc/here` | a channel of the same capacity with a task behind it: the floor |
//!
//! Caveat: on a machine with few cores the figures across threads are mostly the price of waking a thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use futures::stream::{FuturesUnordered, StreamExt};
use vivace_runtime::{Bounds, Child, Cx, Mailbox, Part, Placement, Reply, Serve, Supervisor, SystemClock};

struct Adder(u64);

impl Part for Adder {}

impl Serve<u64> for Adder {
    type Reply = u64;

    fn serve(&mut self, n: u64, _cx: &mut Cx<Self>) -> Reply<u64> {
        self.0 = self.0.wrapping_add(n);
        Reply::ok(self.0)
    }
}

const LONG: Duration = Duration::from_secs(60);

fn adder(placement: Placement) -> (Supervisor, Mailbox<u64, u64>) {
    let root = Supervisor::root("bench", Arc::new(SystemClock), placement);
    let child = Child::<Adder>::new("adder", Bounds::messages(1024));
    let mailbox = child.mailbox();
    root.add(child, |_| Ok(Adder(0)));
    root.start();
    (root, mailbox)
}

/// `count` asks, at most `callers` at once.
async fn asks(mailbox: &Mailbox<u64, u64>, count: u64, callers: u64) {
    let mut open = FuturesUnordered::new();
    for n in 0..count {
        if n >= callers {
            open.next().await;
        }
        open.push(mailbox.ask(n, LONG));
    }
    while open.next().await.is_some() {}
}

async fn tells(mailbox: &Mailbox<u64, u64>, count: u64) {
    for n in 0..count {
        mailbox.tell(n, LONG).await.expect("the part lives as long as the bench");
    }
    // The last answer comes after everything told before.
    mailbox.ask(0, LONG).await.expect("the part lives as long as the bench");
}

async fn channel(count: u64) {
    let (send, mut receive) = tokio::sync::mpsc::channel(1024);
    let sum = tokio::task::spawn_local(async move {
        let mut sum = 0u64;
        while let Some(n) = receive.recv().await {
            sum = sum.wrapping_add(n);
        }
        sum
    });
    for n in 0..count {
        send.send(n).await.expect("the receiver lives");
    }
    drop(send);
    sum.await.expect("the task does not panic");
}

fn timed<F: Future<Output = ()>>(system: &actix::SystemRunner, run: impl FnOnce() -> F) -> Duration {
    system.block_on(async {
        let begun = Instant::now();
        run().await;
        begun.elapsed()
    })
}

fn messages(criterion: &mut Criterion) {
    let system = actix::System::new();
    let (here, arbiter) = system.block_on(async { (adder(Placement::Here), actix::Arbiter::new()) });
    let there = adder(Placement::On(arbiter.handle()));
    for (place, (_root, mailbox)) in [("here", &here), ("arbiter", &there)] {
        criterion.bench_function(&format!("tell/{place}"), |b| {
            b.iter_custom(|count| timed(&system, || tells(mailbox, count)));
        });
        for callers in [1, 64] {
            criterion.bench_function(&format!("ask/{place}/{callers}"), |b| {
                b.iter_custom(|count| timed(&system, || asks(mailbox, count, callers)));
            });
        }
    }
    criterion.bench_function("tokio-mpsc/here", |b| b.iter_custom(|count| timed(&system, || channel(count))));
    arbiter.stop();
}

criterion_group!(benches, messages);
criterion_main!(benches);
