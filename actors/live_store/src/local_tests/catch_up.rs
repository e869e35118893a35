//! Who asks after a trace that was acknowledged and is not applied yet.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{join, join_all};
use futures::stream::FuturesUnordered;
use vivace_protocol::vivace::FindTraceRequest;
use vivace_runtime::{Clock, FakeClock, SystemClock};

use super::world::{Kafka, Life, lazy};
use crate::query::PATIENCE;
use crate::state::MOST_PARKED;
use crate::tests::{LONG, run, trace_id};

/// A live-store that follows its log, by a clock that stands still: what waits for time waits for ever.
async fn following(dir: &Path, kafka: &Kafka) -> (Life, FakeClock) {
    let clock = FakeClock::at(SystemClock.unix());
    let life = Life::start_at(dir, kafka, lazy(), Arc::new(clock.clone()), |_| ());
    while life.observed().await["reads_the_log"] != true {
        tokio::task::yield_now().await;
    }
    (life, clock)
}

async fn waiting(life: &Life, finds: usize) {
    while life.observed().await["finds_waiting"] != finds {
        tokio::task::yield_now().await;
    }
}

fn questions(kafka: &Kafka) -> usize {
    kafka.gate.asked.load(Ordering::SeqCst)
}

#[test]
fn a_trace_that_is_in_the_log_and_not_applied_yet_is_waited_for() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        kafka.gate.hold(true);
        let (life, _clock) = following(dir.path(), &kafka).await;
        kafka.write(1..=3).await;
        assert_eq!(life.find(3).await.0, 0);
        let (found, ()) = join(life.find_caught_up(3), async {
            waiting(&life, 1).await;
            kafka.gate.hold(false);
        })
        .await;
        assert_eq!((found.0, found.1.read), (1, 1));
        life.shows("vivace_live_store_awaited_finds_total{outcome=\"in_time\"} 1");
        waiting(&life, 0).await;
        life.stop().await;
    });
}

#[test]
fn who_has_waited_for_its_time_gets_what_is_there() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        kafka.gate.hold(true);
        let (life, clock) = following(dir.path(), &kafka).await;
        kafka.write([1]).await;
        let (found, ()) = join(life.find_caught_up(1), async {
            waiting(&life, 1).await;
            clock.advance(PATIENCE - Duration::from_millis(1));
            assert_eq!(life.observed().await["finds_waiting"], 1);
            clock.advance(Duration::from_millis(1));
        })
        .await;
        assert_eq!((found.0, found.1.read), (0, 0), "the log is known to have more");
        life.shows("vivace_live_store_awaited_finds_total{outcome=\"late\"} 1");
        waiting(&life, 0).await;
        life.stop().await;
    });
}

#[test]
fn a_trace_that_never_was_costs_one_question_and_no_time_and_others_cost_none() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        let (mut life, _clock) = following(dir.path(), &kafka).await;
        kafka.write([1]).await;
        life.sees(1).await;
        let before = questions(&kafka);
        assert_eq!(life.found([1, 2]).await, [1, 0]);
        assert_eq!(questions(&kafka), before);
        let (parts, coverage) = life.find_caught_up(2).await;
        assert_eq!((parts, coverage.read, questions(&kafka)), (0, 1, before + 1));
        life.stop().await;
    });
}

#[test]
fn all_who_come_while_the_log_is_asked_share_the_next_question() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        let (mut life, _clock) = following(dir.path(), &kafka).await;
        kafka.write([1]).await;
        life.sees(1).await;
        kafka.gate.answers.send_replace(false);
        let before = questions(&kafka);
        let finding = join_all((0..10).map(|_| life.find_caught_up(1)));
        let (found, ()) = join(finding, async {
            waiting(&life, 10).await;
            assert_eq!(questions(&kafka), before + 1);
            kafka.gate.answers.send_replace(true);
        })
        .await;
        assert!(found.iter().all(|(parts, _)| *parts == 1));
        assert_eq!(questions(&kafka), before + 2, "one of the first who came, and one of all others");
        life.stop().await;
    });
}

#[test]
fn so_many_wait_at_once_and_who_leaves_makes_room() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        kafka.gate.hold(true);
        let (life, clock) = following(dir.path(), &kafka).await;
        kafka.write([1]).await;
        let mut finding: FuturesUnordered<_> = (0..=MOST_PARKED).map(|_| life.find_caught_up(1)).collect();
        assert_eq!(finding.next().await.unwrap().0, 0, "the one for whom there is no room does not wait");
        assert_eq!(life.observed().await["finds_waiting"], MOST_PARKED);
        assert_eq!(life.find(2).await.0, 0, "others are answered meanwhile");
        drop(finding);
        waiting(&life, 0).await;
        let (found, ()) = join(life.find_caught_up(1), async {
            waiting(&life, 1).await;
            clock.advance(PATIENCE);
        })
        .await;
        assert_eq!(found.0, 0);
        life.stop().await;
    });
}

#[test]
fn nobody_waits_for_a_log_that_does_not_answer_or_a_store_that_stops() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    run(async {
        kafka.gate.hold(true);
        let (life, clock) = following(dir.path(), &kafka).await;
        kafka.write([1]).await;
        kafka.gate.answers.send_replace(false);
        let (found, ()) = join(life.find_caught_up(1), async {
            waiting(&life, 1).await;
            clock.advance(PATIENCE);
        })
        .await;
        assert_eq!(found.0, 0);
        kafka.gate.answers.send_replace(true);
        let request = FindTraceRequest {
            tenant: "single-tenant".into(),
            trace_id: trace_id(1).as_bytes().to_vec(),
            caught_up: true,
            ..FindTraceRequest::default()
        };
        let find = life.live.find.clone();
        let finding = tokio::task::spawn_local(async move {
            let pieces = find.call(request, LONG).await;
            match pieces {
                Ok(pieces) => pieces.count().await,
                Err(_) => 0,
            }
        });
        waiting(&life, 1).await;
        life.stop().await;
        // What it says depends on who of both ends first; that it says something does not.
        tokio::time::timeout(LONG, finding).await.unwrap().unwrap();
    });
}
