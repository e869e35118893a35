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
    assert!(reason(&coverage).contains("does not answer"), "{}", reason(&coverage));
    assert!(began.elapsed() < LONG / 3, "{:?}", began.elapsed());
    world.end().await;
}
