use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::LocalBoxFuture;
use tonic::Code;

use super::*;
use crate::testing::{Fragile, Order, until};
use crate::{Bounds, Child, FakeClock, Mailbox, Placement, Supervisor};

const LONG: Duration = Duration::from_secs(60);

fn fragile(policy: Restart) -> (Supervisor, Mailbox<Order, u64>, FakeClock) {
    let clock = FakeClock::default();
    let root = Supervisor::root("root", Arc::new(clock.clone()), Placement::Here);
    let child = Child::<Fragile>::new("fragile", Bounds::messages(100)).restart(policy);
    let mailbox = child.mailbox();
    root.add(child, |_| Ok(Fragile::default()));
    root.start();
    (root, mailbox, clock)
}

#[actix::test]
async fn a_panic_costs_its_own_message_and_the_part_is_rebuilt_behind_the_same_address() {
    for order in [Order::Panic, Order::PanicLater] {
        let (root, mailbox, clock) = fragile(Restart::forever().waiting());
        assert_eq!(mailbox.ask(Order::Count, LONG).await.unwrap(), 1);
        assert_eq!(mailbox.ask(order, LONG).await.unwrap_err().code(), Code::Internal);
        let waiting = tokio::task::spawn_local({
            let mailbox = mailbox.clone();
            async move { mailbox.ask(Order::Count, LONG).await }
        });
        until(|| clock.sleepers() == 1 && mailbox.load().depth == 1).await;
        assert_eq!(clock.until_next(), Some(Duration::from_millis(100)));
        clock.advance(Duration::from_millis(100));
        assert_eq!(waiting.await.unwrap().unwrap(), 1, "a new part counts from one");
        let node = root.tree(LONG).await.children.remove(0);
        assert_eq!((node.restarts, node.failures, node.observed), (1, 1, 1.into()));
        assert!(node.last_error.unwrap().contains("told to"));
        assert!(root.drain(LONG).await);
    }
}

#[actix::test]
async fn an_answer_that_nobody_waits_for_is_given_up_if_it_may_be() {
    let (root, mailbox, _clock) = fragile(Restart::default());
    let held = Arc::new(());
    let asked = mailbox.try_ask(Order::HangAwaited(Arc::clone(&held)), LONG).unwrap();
    assert_eq!(mailbox.ask(Order::Count, LONG).await.unwrap(), 2);
    assert_eq!((Arc::strong_count(&held), mailbox.load().depth), (2, 1));
    drop(asked);
    until(|| Arc::strong_count(&held) == 1 && mailbox.load().depth == 0).await;
    assert!(root.drain(LONG).await);
}

#[actix::test]
async fn a_panic_in_a_continuation_and_a_declared_failure_count_as_well() {
    let (root, mailbox, clock) = fragile(Restart::forever());
    assert_eq!(mailbox.ask(Order::PanicInContinuation, LONG).await.unwrap_err().code(), Code::Internal);
    until(|| clock.sleepers() == 1).await;
    clock.advance(LONG);
    root.running().await.unwrap();
    assert_eq!(mailbox.ask(Order::Fail, LONG).await.unwrap_err().code(), Code::Aborted);
    until(|| clock.sleepers() == 1).await;
    assert_eq!(root.outline().children[0].last_error.as_deref(), Some("cannot go on"));
    assert!(root.drain(LONG).await);
}

#[actix::test]
async fn while_it_is_away_requests_are_refused_retryably_by_default() {
    let (root, mailbox, clock) = fragile(Restart::default());
    mailbox.ask(Order::Panic, LONG).await.unwrap_err();
    let error = mailbox.ask(Order::Count, LONG).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "fragile is restarting"));
    assert_eq!(*root.state().borrow(), State::Starting);
    clock.advance(LONG);
    root.running().await.unwrap();
    assert_eq!(mailbox.ask(Order::Count, LONG).await.unwrap(), 1);
    assert!(root.drain(LONG).await);
}

#[actix::test]
async fn requests_in_flight_on_a_part_that_fails_hear_that_their_outcome_is_unknown() {
    let (root, mailbox, _clock) = fragile(Restart::default());
    let hanging = mailbox.try_ask(Order::Hang, LONG).unwrap();
    mailbox.ask(Order::Panic, LONG).await.unwrap_err();
    let error = hanging.await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("unknown"));
    until(|| mailbox.load().depth == 0).await;
    assert!(root.drain(LONG).await);
}

#[actix::test]
async fn past_the_limit_the_failure_goes_up() {
    let (root, mailbox, clock) = fragile(Restart::default().at_most(2, LONG));
    for _ in 0..3 {
        root.running().await.unwrap();
        mailbox.ask(Order::Panic, LONG).await.unwrap_err();
        clock.advance(Duration::from_secs(1));
        let mut state = root.state();
        state.wait_for(|state| *state != State::Starting).await.unwrap();
    }
    let cause = root.failure().await;
    assert_eq!(cause.to_string(), "fragile: panic: told to");
    assert_eq!(*root.state().borrow(), State::Failed);
    assert_eq!(mailbox.ask(Order::Count, LONG).await.unwrap_err().message(), "fragile has failed");
    assert!(root.drain(LONG).await);
}

#[actix::test]
async fn stopping_by_itself_ends_a_part_well_and_takes_it_from_the_table() {
    let (root, mailbox, _clock) = fragile(Restart::default());
    assert_eq!(mailbox.ask(Order::Stop, LONG).await.unwrap(), 0);
    until(|| root.outline().children.is_empty()).await;
    assert_eq!(mailbox.ask(Order::Count, LONG).await.unwrap_err().code(), Code::Unavailable);
}

struct Replaying(Vec<u64>);

impl Part for Replaying {}

impl Serve<()> for Replaying {
    type Reply = Vec<u64>;

    fn serve(&mut self, (): (), _cx: &mut Cx<Self>) -> Reply<Vec<u64>> {
        Reply::ok(self.0.clone())
    }
}

#[actix::test]
async fn reads_wait_for_a_part_that_replays_its_log_and_then_see_all_of_it() {
    let root = Supervisor::root("root", Arc::new(FakeClock::default()), Placement::Here);
    let child = Child::<Replaying>::new("replaying", Bounds::messages(4)).restart(Restart::default().waiting());
    let mailbox = child.mailbox::<()>();
    let (go, gate) = tokio::sync::watch::channel(false);
    root.add_async(child, move |_cx| {
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|open| *open).await?;
            Ok(Replaying(vec![1, 2, 3]))
        }
    });
    root.start();
    let mut read = mailbox.try_ask((), LONG).unwrap();
    for _ in 0..10 {
        tokio::task::yield_now().await;
        assert!(futures::poll!(&mut read).is_pending());
    }
    assert_eq!(*root.state().borrow(), State::Starting);
    go.send(true).unwrap();
    assert_eq!(read.await.unwrap(), [1, 2, 3]);
    assert!(root.drain(LONG).await);
}

#[actix::test]
async fn a_factory_that_fails_is_tried_again_with_backoff() {
    let clock = FakeClock::default();
    let root = Supervisor::root("root", Arc::new(clock.clone()), Placement::Here);
    let mut attempts = 0;
    root.add(Child::<Fragile>::new("late", Bounds::messages(1)), move |_| {
        attempts += 1;
        if attempts < 3 { Err(std::io::Error::other("not yet").into()) } else { Ok(Fragile::default()) }
    });
    root.start();
    for pause in [100, 200] {
        until(|| clock.until_next() == Some(Duration::from_millis(pause))).await;
        clock.advance(Duration::from_millis(pause));
    }
    root.running().await.unwrap();
    assert_eq!(root.outline().children[0].last_error.as_deref(), Some("not yet"));
    assert!(root.drain(LONG).await);
}

#[actix::test]
async fn a_factory_that_panics_is_caught_and_tried_again() {
    let clock = FakeClock::default();
    let root = Supervisor::root("root", Arc::new(clock.clone()), Placement::Here);
    let mut attempts = 0;
    root.add(Child::<Fragile>::new("late", Bounds::messages(1)), move |_| {
        attempts += 1;
        assert!(attempts > 1, "not yet");
        Ok(Fragile::default())
    });
    root.start();
    until(|| clock.sleepers() == 1).await;
    clock.advance(LONG);
    root.running().await.unwrap();
    let error = root.outline().children[0].last_error.clone().unwrap();
    assert!(error.contains("panic") && error.contains("not yet"), "{error}");
    assert!(root.drain(LONG).await);
}

#[actix::test]
async fn what_waits_behind_a_panic_stays_within_the_bound_and_is_handled_by_the_next_life() {
    let clock = FakeClock::default();
    let root = Supervisor::root("root", Arc::new(clock.clone()), Placement::Here);
    let child = Child::<Fragile>::new("fragile", Bounds::messages(4)).restart(Restart::forever().waiting());
    let mailbox = child.mailbox();
    root.add(child, |_| Ok(Fragile::default()));
    root.start();
    let panicking = mailbox.try_ask(Order::Panic, LONG).unwrap();
    let mut behind: Vec<_> = (0..3).map(|_| mailbox.try_ask(Order::Count, LONG).unwrap()).collect();
    assert!(mailbox.try_ask(Order::Count, LONG).is_err(), "four are inside");
    assert_eq!(panicking.await.unwrap_err().code(), Code::Internal);
    until(|| clock.sleepers() == 1 && mailbox.load().depth == 3).await;
    behind.push(mailbox.try_ask(Order::Count, LONG).unwrap());
    let refused = mailbox.try_ask(Order::Count, LONG).err().unwrap();
    assert_eq!((refused.status.code(), refused.message), (Code::ResourceExhausted, Order::Count));
    clock.advance(LONG);
    for (n, answer) in (1..).zip(behind) {
        assert_eq!(answer.await.unwrap(), n, "in their order, by a part that counts from one");
    }
    assert!(root.drain(LONG).await);
}

/// Collects what its timers and futures report.
#[derive(Default)]
struct Timed {
    seen: Rc<RefCell<Vec<&'static str>>>,
    flushed: Arc<AtomicU64>,
}

impl Part for Timed {
    fn started(&mut self, cx: &mut Cx<Self>) {
        cx.every(Duration::from_secs(2), |part, _| part.seen.borrow_mut().push("tick"));
        cx.after(Duration::from_secs(3), |part, _| part.seen.borrow_mut().push("once"));
        cx.after(Duration::from_secs(3), |part, _| part.seen.borrow_mut().push("never")).cancel();
    }

    fn drain(&mut self, cx: &mut Cx<Self>) -> LocalBoxFuture<'static, ()> {
        let (finish, finished) = tokio::sync::oneshot::channel();
        cx.spawn(tokio::task::yield_now(), move |part, (), _| {
            part.flushed.fetch_add(1, Ordering::SeqCst);
            finish.send(()).unwrap();
        });
        Box::pin(async { finished.await.unwrap() })
    }

    fn observe(&self) -> serde_json::Value {
        self.seen.borrow().clone().into()
    }
}

#[actix::test]
async fn timers_run_on_the_part_and_a_drain_may_still_use_it() {
    let clock = FakeClock::default();
    let root = Supervisor::root("root", Arc::new(clock.clone()), Placement::Here);
    let flushed = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&flushed);
    root.add(Child::<Timed>::new("timed", Bounds::messages(1)), move |_| {
        Ok(Timed { flushed: Arc::clone(&seen), ..Timed::default() })
    });
    root.start();
    until(|| clock.sleepers() == 2).await;
    for expected in [vec![], vec!["tick"], vec!["tick", "once"], vec!["tick", "once", "tick"]] {
        while root.tree(LONG).await.children[0].observed != serde_json::Value::from(expected.clone()) {}
        // The next tick is set only after the call: wait until the clock knows it.
        until(|| clock.until_next().is_some_and(|next| next <= Duration::from_secs(2))).await;
        clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
        if expected.is_empty() {
            clock.advance(Duration::from_secs(1));
        }
    }
    assert!(root.drain(LONG).await);
    assert_eq!(flushed.load(Ordering::SeqCst), 1);
}
