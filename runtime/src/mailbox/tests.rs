use std::time::Duration;

use super::pool::{NoRoom, Pool};
use super::*;
use crate::testing::{Echo, Gate, until};
use crate::{Child, Placement, Supervisor};

fn pool(bounds: Bounds) -> Arc<Pool> {
    Pool::new(bounds)
}

#[tokio::test]
async fn messages_and_bytes_are_bounded_together() {
    let pool = pool(Bounds::messages(2).bytes(10));
    let first = pool.try_acquire(6).unwrap();
    assert_eq!(pool.try_acquire(5).unwrap_err(), NoRoom::Full);
    let second = pool.try_acquire(4).unwrap();
    assert_eq!(pool.load().bytes, 10);
    drop(first);
    assert_eq!(pool.load().depth, 1);
    drop(second);
    assert_eq!((pool.load().depth, pool.load().bytes, pool.load().refused), (0, 0, 1));
}

#[tokio::test]
async fn a_message_above_the_byte_bound_is_alone() {
    let pool = pool(Bounds::messages(9).bytes(10));
    let small = pool.try_acquire(1).unwrap();
    let mut large = Box::pin(pool.acquire(1000));
    assert!(futures::poll!(&mut large).is_pending());
    // Behind it in the queue, although there would be room: else large messages starve.
    assert_eq!(pool.try_acquire(1).unwrap_err(), NoRoom::Full);
    drop(small);
    let permit = large.await.unwrap();
    assert_eq!(pool.try_acquire(0).unwrap_err(), NoRoom::Full);
    drop(permit);
    pool.try_acquire(0).unwrap();
}

#[tokio::test]
async fn who_gives_up_waiting_lets_the_next_one_in() {
    let pool = pool(Bounds::messages(9).bytes(10));
    let held = pool.try_acquire(6).unwrap();
    let mut large = Box::pin(pool.acquire(10));
    assert!(futures::poll!(&mut large).is_pending());
    let mut small = Box::pin(pool.acquire(3));
    assert!(futures::poll!(&mut small).is_pending());
    assert_eq!(pool.load().waiting, 2);
    drop(large);
    small.await.unwrap();
    drop(held);
    assert_eq!((pool.load().depth, pool.load().waiting, pool.load().waits), (0, 0, 2));
}

#[tokio::test]
async fn a_granted_place_that_nobody_takes_is_given_back() {
    let pool = pool(Bounds::messages(1));
    let held = pool.try_acquire(0).unwrap();
    let mut waiting = Box::pin(pool.acquire(0));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(held);
    assert_eq!(pool.load().depth, 1);
    drop(waiting);
    assert_eq!(pool.load().depth, 0);
    pool.emptied().await;
}

#[tokio::test]
async fn closing_refuses_those_who_wait_and_keeps_what_is_inside() {
    let pool = pool(Bounds::messages(1));
    let held = pool.try_acquire(0).unwrap();
    let mut waiting = Box::pin(pool.acquire(0));
    assert!(futures::poll!(&mut waiting).is_pending());
    pool.close();
    assert_eq!(waiting.await.unwrap_err(), NoRoom::Closed);
    assert_eq!(pool.try_acquire(0).unwrap_err(), NoRoom::Closed);
    let mut emptied = Box::pin(pool.emptied());
    assert!(futures::poll!(&mut emptied).is_pending());
    drop(held);
    emptied.await;
}

#[actix::test]
async fn of_a_hundred_callers_exactly_the_bound_is_accepted() {
    let gate = Gate::default();
    let (root, child) = (root(), Child::<Echo>::new("echo", Bounds::messages(8)));
    let mailbox = child.mailbox::<u64>();
    let held = gate.clone();
    root.add(child, move |_| Ok(Echo::held_by(&held)));
    root.start();
    let attempts: Vec<_> = (0..100).map(|n| mailbox.clone().try_ask(n, Duration::from_secs(60))).collect();
    let refused: Vec<_> = attempts.iter().filter_map(|attempt| attempt.as_ref().err()).collect();
    assert_eq!(refused.len(), 92);
    assert!(
        refused.iter().all(|refused| refused.status.code() == tonic::Code::ResourceExhausted && refused.message >= 8)
    );
    gate.open();
    for (n, answer) in (0..).zip(attempts.into_iter().filter_map(Result::ok)) {
        assert_eq!(answer.await.unwrap(), n);
    }
    until(|| mailbox.load().depth == 0).await;
    root.drain(Duration::from_secs(5)).await;
}

#[actix::test]
async fn asking_waits_for_room_and_never_exceeds_the_bound() {
    let gate = Gate::default();
    let (root, child) = (root(), Child::<Echo>::new("echo", Bounds::messages(3)));
    let mailbox = child.mailbox::<u64>();
    let held = gate.clone();
    root.add(child, move |_| Ok(Echo::held_by(&held)));
    root.start();
    let asks: Vec<_> = (0..100)
        .map(|n| {
            let mailbox = mailbox.clone();
            tokio::task::spawn_local(async move { mailbox.ask(n, Duration::from_secs(60)).await })
        })
        .collect();
    until(|| mailbox.load().waiting == 97).await;
    assert_eq!(mailbox.load().depth, 3);
    gate.open();
    for (n, ask) in (0..).zip(asks) {
        assert_eq!(ask.await.unwrap().unwrap(), n);
    }
    assert!(gate.most_inside() <= 3, "{}", gate.most_inside());
    root.drain(Duration::from_secs(5)).await;
}

#[actix::test]
async fn an_ask_that_times_out_is_still_handled() {
    let gate = Gate::default();
    let (root, child) = (root(), Child::<Echo>::new("echo", Bounds::messages(3)));
    let mailbox = child.mailbox::<u64>();
    let held = gate.clone();
    root.add(child, move |_| Ok(Echo::held_by(&held)));
    root.start();
    let error = mailbox.ask(1, Duration::ZERO).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    assert!(error.message().contains("unknown"), "{error}");
    gate.open();
    until(|| gate.passed() == 1).await;
    root.drain(Duration::from_secs(5)).await;
}

fn root() -> Supervisor {
    Supervisor::root("root", Arc::new(crate::SystemClock), Placement::Here)
}
