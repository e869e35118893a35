//! The suite of every form. What differs: how long records stay is the topic's to say, so `reclaim` removes nothing.

use vivace_log::contract as suite;

use super::*;

macro_rules! contract {
    ($($name:ident)*) => {
        $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let broker = broker().await;
            suite::$name(log(&broker).await).await;
            broker.stop().await;
        } )*
    };
}

contract! {
    records_come_back_whole_in_order_and_once
    a_reader_waits_for_news
    a_dropped_wait_loses_nothing
    a_reader_starts_anywhere_between_the_bounds_and_nowhere_else
    a_batch_is_within_the_bytes_asked_for_but_never_empty
    a_full_budget_refuses_and_appending_gives_it_back
    a_record_that_is_too_large_is_refused_for_good
    closing_finishes_what_is_queued_and_readers_read_to_the_end
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reclaim_leaves_everything_to_the_topics_retention() {
    let broker = broker().await;
    let log = log(&broker).await;
    for number in 0..5 {
        log.append(P, record(number)).await.unwrap();
    }
    log.reclaim(P, Offset(5)).await.unwrap();
    assert_eq!(log.bounds(P).await.unwrap().earliest, Offset(0));
    broker.stop().await;
}
