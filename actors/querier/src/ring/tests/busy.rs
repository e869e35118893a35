//! Owners that have no room for a question.

use super::*;

fn busy(partition: u32, name: &'static str) -> Being {
    owner(partition, name, Some(Manner::Fails(Code::ResourceExhausted)))
}

#[actix::test]
async fn an_owner_that_is_too_busy_gives_its_turn_to_the_next() {
    let world = world(config(), vec![busy(0, "busy"), owner(0, "b", Some(Manner::Whole))]).await;
    let (services, coverage) = world.search().await;
    assert_eq!((services, coverage.total, coverage.read), (names(["b"]), 1, 1));
    let reply = world.ring.tag_names(&TagNamesJob::default(), Deadline::after(LONG)).await.unwrap();
    assert_eq!(reply.scopes[0].tags, ["b"]);
    let (parts, coverage) = found(&world).await;
    assert_eq!((parts, coverage.read), (["b"].map(Bytes::from).into(), 1));
    world.end().await;
}

#[actix::test]
async fn a_partition_whose_owners_are_too_busy_or_dead_asks_for_another_attempt() {
    for others in [vec![], vec![owner(0, "dead", None)], vec![busy(0, "busy as well")]] {
        let beings = [busy(0, "busy")].into_iter().chain(others).chain([owner(1, "b", Some(Manner::Whole))]);
        let world = world(config(), beings.collect()).await;
        let batches: Vec<_> = world.ring.search(&SearchJob::default(), Deadline::after(LONG)).collect().await;
        let refused: Vec<Status> = batches.into_iter().filter_map(Result::err).collect();
        let [refusal] = &refused[..] else { panic!("{refused:?}") };
        assert_eq!(refusal.code(), Code::ResourceExhausted);
        assert!(refusal.message().contains("busy (127.0.0.1:"), "{}", refusal.message());
        // A trace that is not found is not said to be nowhere.
        let coverage = found(&world).await.1;
        assert_eq!((coverage.total, coverage.read), (2, 1));
        assert!(reason(&coverage).contains("busy fails"), "{}", reason(&coverage));
        world.end().await;
    }
}

#[actix::test]
async fn an_answer_that_lacks_something_is_better_than_another_attempt() {
    let lacks = owner(0, "lacks", Some(Manner::Lacks("replays the log")));
    let world = world(config(), vec![busy(0, "busy"), lacks]).await;
    let (services, coverage) = world.search().await;
    assert_eq!((services, coverage.total, coverage.read), (names(["lacks"]), 1, 0));
    let why = reason(&coverage);
    assert!(why.contains("busy fails") && why.contains("replays the log"), "{why}");
    world.end().await;
}
