//! The pieces of a trace in one partition, passed on while they come: a trace may be larger than anybody should hold.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use vivace_protocol::find_trace::{BATCH_BYTES, LONGEST};
use vivace_protocol::vivace::{Coverage, FindTraceBatch, FindTraceRequest};
use vivace_runtime::{Deadline, Replies};

use super::ask::{Asker, Outcome, failure};
use super::turns::Failure;
use super::{Plan, lacks, missed};

/// The beginning of an answer, the whole of a small one.
struct Found {
    batches: Vec<FindTraceBatch>,
    /// What is still to come of a large one.
    rest: Option<Replies<FindTraceBatch>>,
}

/// The pieces, and at the end the coverage. Pieces of an owner that failed on the way are among them; the next owner's come
/// again, which whoever combines them does not mind.
pub(super) fn find(
    asker: Asker,
    plan: Plan,
    request: FindTraceRequest,
    patience: Duration,
) -> BoxStream<'static, FindTraceBatch> {
    let deadline = Deadline::after(patience);
    generated(move |out| async move {
        let Plan { what, mut turns } = plan;
        let coverage = loop {
            let ask = |store: crate::LiveStore| {
                let request = request.clone();
                async move { begin(store.find.call_patiently(request, patience, LONGEST).await?).await }
            };
            let missing = |found: &Found| match found.rest {
                None => lacks(found.batches.iter().map(|batch| batch.coverage.as_ref())),
                Some(_) => None,
            };
            match asker.ask(&mut turns, deadline, ask, missing).await {
                Outcome::Whole(at, found) => match pass(found, &out).await {
                    Passed::Whole => break Coverage { total: 1, read: 1, ..Coverage::default() },
                    Passed::Gone => return,
                    Passed::Missing(why) => turns.note(at, why),
                },
                Outcome::Part(found, reason) => {
                    if let Passed::Gone = pass(found, &out).await {
                        return;
                    }
                    break missed(&what, &reason);
                }
                Outcome::Nothing(reason) => break missed(&what, &reason),
                Outcome::Refused(status) => break missed(&what, status.message()),
            }
        };
        // Nobody may be there any more to hear it.
        out.send(FindTraceBatch { coverage: Some(coverage), ..FindTraceBatch::default() }).await.ok();
    })
}

async fn begin(mut replies: Replies<FindTraceBatch>) -> Result<Found, Status> {
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = replies.next().await {
        let batch = batch?;
        bytes += batch.parts.iter().map(bytes::Bytes::len).sum::<usize>();
        batches.push(batch);
        if bytes >= BATCH_BYTES {
            return Ok(Found { batches, rest: Some(replies) });
        }
    }
    Ok(Found { batches, rest: None })
}

enum Passed {
    Whole,
    Missing(Failure),
    /// Nobody wants it any more.
    Gone,
}

async fn pass(found: Found, out: &mpsc::Sender<FindTraceBatch>) -> Passed {
    let mut why = None;
    let mut all =
        stream::iter(found.batches.into_iter().map(Ok)).chain(found.rest.unwrap_or_else(|| stream::empty().boxed()));
    while let Some(batch) = all.next().await {
        match batch {
            Ok(mut batch) => {
                let coverage = batch.coverage.take();
                why = why.or_else(|| lacks([coverage.as_ref()]).map(Failure::Answered));
                if out.send(batch).await.is_err() {
                    return Passed::Gone;
                }
            }
            Err(status) => {
                why = Some(failure(&status));
                break;
            }
        }
    }
    why.map_or(Passed::Whole, Passed::Missing)
}

/// The stream of what a future sends. Both go on together, and only while somebody reads.
fn generated<T: Send + 'static, F>(make: impl FnOnce(mpsc::Sender<T>) -> F) -> BoxStream<'static, T>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (send, receive) = mpsc::channel(1);
    let running = stream::once(make(send)).filter_map(|()| std::future::ready(None));
    stream::select(ReceiverStream::new(receive), running).boxed()
}
