use std::time::Duration;

use tonic::Code;

use super::*;
use crate::testing::{Echo, Fragile, Gate, Order, until};
use crate::{Bounds, FakeClock, Mailbox, SystemClock};

const LONG: Duration = Duration::from_secs(60);

fn fake_root() -> (Supervisor, FakeClock) {
    let clock = FakeClock::default();
    (Supervisor::root("root", Arc::new(clock.clone()), Placement::Here), clock)
}

fn fragile(
    supervisor: &Supervisor,
    name: &str,
    with: impl FnOnce(Child<Fragile>) -> Child<Fragile>,
) -> Mailbox<Order, u64> {
    let child = with(Child::new(name, Bounds::messages(10)));
    let mailbox = child.mailbox();
    supervisor.add(child, |_| Ok(Fragile::default()));
    mailbox
}

#[actix::test]
async fn a_group_fails_together_and_others_are_unaffected() {
    let (root, clock) = fake_root();
    let a = fragile(&root, "a", |child| child.group("pair"));
    let b = fragile(&root, "b", |child| child.group("pair"));
    let c = fragile(&root, "c", |child| child);
    root.start();
    for mailbox in [&a, &b, &c] {
        assert_eq!(mailbox.ask(Order::Count, LONG).await.unwrap(), 1);
    }
    a.ask(Order::Panic, LONG).await.unwrap_err();
    until(|| clock.sleepers() == 2).await;
    assert_eq!(c.ask(Order::Count, LONG).await.unwrap(), 2);
    clock.advance(LONG);
    root.running().await.unwrap();
    assert_eq!(a.ask(Order::Count, LONG).await.unwrap(), 1);
    assert_eq!(b.ask(Order::Count, LONG).await.unwrap(), 1);
    assert_eq!(c.ask(Order::Count, LONG).await.unwrap(), 3);
    let restarts: Vec<_> = root.outline().children.iter().map(|node| (node.restarts, node.failures)).collect();
    assert_eq!(restarts, [(1, 1), (1, 0), (0, 0)]);
    assert!(root.drain(LONG).await);
}

#[actix::test]
async fn a_quarantined_part_stays_failed_and_holds_nobody_up() {
    let (root, clock) = fake_root();
    let a = fragile(&root, "a", |child| child.restart(Restart::default().at_most(0, LONG).quarantine()));
    let b = fragile(&root, "b", |child| child);
    root.start();
    a.ask(Order::Panic, LONG).await.unwrap_err();
    root.running().await.unwrap();
    clock.advance(LONG);
    assert_eq!(a.ask(Order::Count, LONG).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(b.ask(Order::Count, LONG).await.unwrap(), 1);
    assert_eq!(root.services()[0].state, State::Failed);
    assert!(root.drain(LONG).await);
}

#[actix::test]
async fn a_component_begins_anew_before_it_fails_the_process() {
    let (root, clock) = fake_root();
    let component = root.component("component", Restart::default().at_most(1, LONG), Placement::Here);
    let a = fragile(&component, "a", |child| child.restart(Restart::default().at_most(0, LONG)));
    let b = fragile(&component, "b", |child| child);
    root.start();
    assert_eq!(b.ask(Order::Count, LONG).await.unwrap(), 1);
    a.ask(Order::Panic, LONG).await.unwrap_err();
    until(|| clock.sleepers() == 2).await;
    clock.advance(LONG / 60);
    root.running().await.unwrap();
    assert_eq!(a.ask(Order::Count, LONG).await.unwrap(), 1, "the part that gave up is back");
    assert_eq!(b.ask(Order::Count, LONG).await.unwrap(), 1, "its siblings began anew");
    a.ask(Order::Panic, LONG).await.unwrap_err();
    assert_eq!(root.failure().await.to_string(), "component: a: panic: told to");
    assert_eq!(*root.state().borrow(), State::Failed);
    root.drain(LONG).await;
}

#[actix::test]
async fn draining_finishes_what_was_accepted_in_the_order_of_the_flow() {
    let root = Supervisor::root("root", Arc::new(SystemClock), Placement::Here);
    let (gates, mut mailboxes) = ([Gate::default(), Gate::default()], Vec::new());
    for (name, gate) in ["first", "second"].iter().zip(&gates) {
        let child = Child::<Echo>::new(*name, Bounds::messages(4));
        mailboxes.push(child.mailbox::<u64>());
        let gate = gate.clone();
        root.add(child, move |_| Ok(Echo::held_by(&gate)));
    }
    root.start();
    let first = mailboxes[0].try_ask(1, LONG).unwrap();
    let drained = tokio::task::spawn_local({
        let root = root.clone();
        async move { root.drain(LONG).await }
    });
    until(|| *root.state().borrow() == State::Stopping).await;
    // The second still takes messages, because the first may need it to finish.
    let second = mailboxes[1].try_ask(2, LONG).unwrap();
    assert!(!drained.is_finished());
    gates[0].open();
    assert_eq!(first.await.unwrap(), 1);
    until(|| mailboxes[0].try_tell(3).is_err()).await;
    assert!(!drained.is_finished());
    gates[1].open();
    assert_eq!(second.await.unwrap(), 2);
    assert!(drained.await.unwrap());
    assert_eq!(*root.state().borrow(), State::Stopped);
}

#[actix::test]
async fn a_drain_that_is_not_finished_in_time_says_so_and_ends_the_part() {
    let (root, _clock) = fake_root();
    let a = fragile(&root, "a", |child| child);
    root.start();
    let hanging = a.try_ask(Order::Hang, LONG).unwrap();
    assert!(!root.drain(Duration::ZERO).await);
    assert_eq!(hanging.await.unwrap_err().code(), Code::Unavailable);
}

#[actix::test]
async fn children_come_and_go_while_it_runs() {
    let (root, _clock) = fake_root();
    root.start();
    assert_eq!(*root.state().borrow(), State::Running);
    for _ in 0..2 {
        let mailbox = fragile(&root, "partition-7", |child| child);
        root.running().await.unwrap();
        assert_eq!(mailbox.ask(Order::Count, LONG).await.unwrap(), 1);
        assert!(root.remove("partition-7", LONG).await);
        assert_eq!(mailbox.ask(Order::Count, LONG).await.unwrap_err().code(), Code::Unavailable);
    }
    assert!(!root.remove("partition-7", LONG).await);
    assert!(root.outline().children.is_empty());
}

#[actix::test]
async fn parts_run_on_the_arbiter_that_they_are_placed_on() {
    let (root, _clock) = fake_root();
    let arbiter = actix::Arbiter::new();
    let there = fragile(&root, "there", |child| child.place(Placement::On(arbiter.handle())));
    root.start();
    root.running().await.unwrap();
    assert_eq!(there.ask(Order::Count, LONG).await.unwrap(), 1);
    assert_eq!(root.outline().children[0].placement, "arbiter");
    assert!(root.drain(LONG).await);
    arbiter.stop();
    arbiter.join().unwrap();
}

#[actix::test]
async fn the_flow_is_read_from_the_wiring() {
    let (root, _clock) = fake_root();
    let component = root.component("live-store", Restart::default(), Placement::Here);
    fragile(&component, "consumer", |child| child.waits_for("flusher").waits_for("querier/links"));
    fragile(&component, "flusher", |child| child);
    let mut flow = root.flow();
    assert_eq!(flow.to_string(), "live-store/consumer -> live-store/flusher\nlive-store/consumer -> querier/links\n");
    assert_eq!(flow.cycle(), None);
    flow.waits("live-store/flusher", "live-store/consumer");
    assert!(flow.cycle().is_some());
}

#[actix::test]
async fn the_actor_metrics_name_the_path_of_each_part() {
    let (root, _clock) = fake_root();
    let component = root.component("c", Restart::default(), Placement::Here);
    let mailbox = fragile(&component, "a", |child| child);
    root.start();
    mailbox.ask(Order::Count, LONG).await.unwrap();
    let registry = crate::metrics::Registry::new();
    crate::telemetry::export_actors(&registry, &root);
    let text = registry.render();
    assert!(text.contains("vivace_actor_messages_total{actor=\"root/c/a\"} 1\n"), "{text}");
    assert!(text.contains("vivace_actor_mailbox_capacity{actor=\"root/c/a\"} 10\n"), "{text}");
    assert!(root.drain(LONG).await);
}
