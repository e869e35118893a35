//! Who does not answer in time is doubted.

use super::*;

#[actix::test]
async fn who_takes_calls_and_says_nothing_costs_one_question_its_patience_and_the_next_ones_a_health_check() {
    let world = world(config(), vec![owner(0, "silent", None)]).await;
    // The system takes connections for it, and nobody reads them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    world.stores.0.lock()[0].owners[0].addresses = vec![silent.local_addr().unwrap().to_string()];
    let mut batches = world.ring.search(&SearchJob::default(), Deadline::after(Duration::from_millis(200)));
    while let Some(batch) = batches.next().await {
        assert_eq!(batch.unwrap().coverage.unwrap_or_default().read, 0);
    }
    let began = Instant::now();
    let (_, coverage) = world.search().await;
    let text = reason(&coverage);
    assert!(text.starts_with("partition 0: silent (127.0.0.1:") && text.contains("does not answer"), "{text}");
    assert!(began.elapsed() < LONG / 3, "{:?}", began.elapsed());
    world.end().await;
}

/// Lets time pass for whoever waits on the clock, as long as the search runs.
async fn searched(world: &World, patience: Duration) -> (Duration, String) {
    let began = Instant::now();
    let clock = world.clock.clone();
    let pass_time = async {
        loop {
            if clock.until_next().is_some_and(|left| left <= Duration::from_secs(2)) {
                clock.advance(Duration::from_secs(2));
            }
            tokio::task::yield_now().await;
        }
    };
    let search = async {
        let mut coverage = Coverage::default();
        let mut batches = world.ring.search(&SearchJob::default(), Deadline::after(patience));
        while let Some(batch) = batches.next().await {
            add(&mut coverage, batch.unwrap().coverage.unwrap_or_default());
        }
        reason(&coverage)
    };
    tokio::select! {
        reason = search => (began.elapsed(), reason),
        () = pass_time => unreachable!("it does not end"),
    }
}

#[actix::test]
async fn who_is_silent_and_answers_no_health_checks_is_not_waited_for() {
    let quick = RingSettings { health_timeout: Duration::from_millis(100), ..settings(&config()) };
    let world = world_of(quick, vec![owner(0, "silent", None)]).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    world.stores.0.lock()[0].owners[0].addresses = vec![silent.local_addr().unwrap().to_string()];
    let (took, reason) = searched(&world, LONG).await;
    assert!(
        reason.starts_with("partition 0: silent (127.0.0.1:") && reason.contains("no health check either"),
        "{reason}"
    );
    assert!(took < LONG / 2, "{took:?}");
    world.end().await;
}

#[actix::test]
async fn who_is_slow_and_answers_health_checks_is_waited_for() {
    let world = world(config(), vec![owner(0, "hangs", Some(Manner::Hangs))]).await;
    let (_, reason) = searched(&world, Duration::from_millis(500)).await;
    assert!(reason.contains("in time"), "{reason}");
    world.end().await;
}
