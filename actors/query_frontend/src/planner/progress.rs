//! A query on its way: pieces are merged as they come, and whoever drives it takes what has changed since he last did, or in
//! the end everything. A unary answer is the last message of the stream that a streaming client gets; there is one path.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::Stream;
use futures::stream;
use vivace_runtime::Clock;

use crate::coverage::Covered;
use crate::respond::Refusal;

/// A query on its way. Dropping it ends it: no further job is started.
pub(crate) trait Progress: Send + 'static {
    /// What is told of it, in parts or as a whole.
    type Answer: Send;

    /// Waits for the next piece and merges it; false when there is none any more.
    fn advance(&mut self) -> impl Future<Output = Result<bool, Refusal>> + Send;

    /// What is new or different since this was last called. Entries replace those of the same key that were told before.
    fn changes(&mut self) -> Self::Answer;

    /// Everything. Called once, at the end.
    fn finish(&mut self) -> Self::Answer;

    /// What was read so far and what was not.
    fn covered(&self) -> &Covered;
}

/// Drives a query to its end.
pub(crate) async fn complete<P: Progress>(query: &mut P) -> Result<P::Answer, Refusal> {
    while query.advance().await? {}
    Ok(query.finish())
}

/// One message of a streaming answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Told<A> {
    /// What changed.
    Changes(A),
    /// The whole answer, and what it was read from. Nothing follows.
    Whole(A, Covered),
}

/// Drives a query and tells what changed whenever a piece arrives and `every` has passed since the last message (the start of
/// the query counts as one), and in the end everything. A query that is done within `every` is one message.
pub(crate) fn tell<P: Progress>(
    query: P,
    clock: Arc<dyn Clock>,
    every: Duration,
) -> impl Stream<Item = Result<Told<P::Answer>, Refusal>> + Send {
    struct State<P> {
        query: P,
        clock: Arc<dyn Clock>,
        last: Instant,
    }
    let last = clock.now();
    stream::unfold(Some(State { query, clock, last }), move |state| async move {
        let mut state = state?;
        loop {
            match state.query.advance().await {
                Err(refusal) => return Some((Err(refusal), None)),
                Ok(false) => {
                    let answer = state.query.finish();
                    let covered = state.query.covered().clone();
                    return Some((Ok(Told::Whole(answer, covered)), None));
                }
                Ok(true) => {
                    let now = state.clock.now();
                    if now.saturating_duration_since(state.last) >= every {
                        state.last = now;
                        return Some((Ok(Told::Changes(state.query.changes())), Some(state)));
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use vivace_runtime::FakeClock;

    use super::*;

    /// Counts to three, a second each.
    struct Count(u32, FakeClock, Covered);

    impl Progress for Count {
        type Answer = u32;

        async fn advance(&mut self) -> Result<bool, Refusal> {
            if self.0 == 3 {
                return Ok(false);
            }
            self.0 += 1;
            self.1.advance(Duration::from_secs(1));
            Ok(true)
        }

        fn changes(&mut self) -> u32 {
            self.0
        }

        fn finish(&mut self) -> u32 {
            self.0 * 100
        }

        fn covered(&self) -> &Covered {
            &self.2
        }
    }

    async fn told(every: u64) -> Vec<Told<u32>> {
        let clock = FakeClock::default();
        let query = Count(0, clock.clone(), Covered::default());
        tell(query, Arc::new(clock), Duration::from_secs(every)).map(Result::unwrap).collect().await
    }

    #[tokio::test]
    async fn changes_are_told_no_more_often_than_asked_and_the_end_is_always_whole() {
        let whole = || Told::Whole(300, Covered::default());
        assert_eq!(told(1).await, [Told::Changes(1), Told::Changes(2), Told::Changes(3), whole()]);
        assert_eq!(told(2).await, [Told::Changes(2), whole()]);
        assert_eq!(told(9).await, [whole()]);
    }
}
