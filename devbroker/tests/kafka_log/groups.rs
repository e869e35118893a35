//! Committed offsets, with a coordinator that moves, hangs or refuses.

use vivace_devbroker::{Action, Fault};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_committed_and_found_again() {
    let broker = broker().await;
    let log = log(&broker).await;
    let offsets = log.offsets("g");
    assert_eq!(offsets.committed(P).await.unwrap(), None);
    offsets.commit(P, Offset(4)).await.unwrap();
    offsets.commit(Partition(1), Offset(9)).await.unwrap();
    let again = super::log(&broker).await.offsets("g");
    assert_eq!(again.committed(P).await.unwrap(), Some(Offset(4)));
    assert_eq!(again.committed(Partition(1)).await.unwrap(), Some(Offset(9)));
    assert_eq!(log.offsets("other").committed(P).await.unwrap(), None);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_moves_breaks_or_hangs_is_found_again() {
    let broker = broker().await;
    let log = log(&broker).await;
    let offsets = log.offsets("g");
    for (number, action) in (1..).zip([
        Action::Error { code: 16 },
        Action::Error { code: 14 },
        Action::CutBefore,
        Action::CutAfter,
        Action::Hang,
    ]) {
        let fault = broker.faults().add(Fault::of(OFFSET_COMMIT, action.clone()).times(1)).unwrap();
        offsets.commit(P, Offset(number)).await.unwrap_or_else(|error| panic!("{action:?}: {error}"));
        assert_eq!(broker.faults().hits(fault), 1, "{action:?}");
        assert_eq!(offsets.committed(P).await.unwrap(), Some(Offset(number)), "{action:?}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_committed_is_told_in_time() {
    let broker = broker().await;
    let log = log(&broker).await;
    let offsets = log.offsets("g");
    // GROUP_AUTHORIZATION_FAILED, and UNKNOWN_MEMBER_ID as for a group with members.
    for (code, text) in [(30, "GroupAuthorizationFailed"), (25, "a group of its own")] {
        broker.faults().add(Fault::of(OFFSET_COMMIT, Action::Error { code }).times(1)).unwrap();
        let error = offsets.commit(P, Offset(1)).await.unwrap_err();
        assert!(!error.is_retryable() && error.to_string().contains(text), "{error}");
    }
    broker.faults().add(Fault::of(OFFSET_FETCH, Action::Hang)).unwrap();
    let error = offsets.committed(P).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("ask for a committed offset"), "{error}");
    broker.faults().clear();
    offsets.commit(P, Offset(2)).await.unwrap();
    broker.stop().await;
}
