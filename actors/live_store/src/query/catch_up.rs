//! A trace that was acknowledged and is found nowhere: it may be on its way from the log to here.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use tonic::Status;
use vivace_protocol::vivace::{FindTraceBatch, FindTraceRequest};
use vivace_runtime::{Clock, Deadline};

use super::{OWNER_DEADLINE, Query};
use crate::owner::CatchUp;

/// So long it is waited for what the log has: some hundred times what a record takes from its acknowledgement to here, and short
/// enough for who asks for a trace that never was.
pub(crate) const PATIENCE: Duration = Duration::from_millis(250);

impl Query {
    /// The pieces of a trace, once everything is applied that the log has when this is first polled; after [`PATIENCE`] those
    /// that are there. Whoever drops the stream ends the waiting.
    pub(super) fn find_caught_up(
        self,
        request: FindTraceRequest,
        clock: Arc<dyn Clock>,
    ) -> BoxStream<'static, Result<FindTraceBatch, Status>> {
        let found = async move {
            self.catch_up(&*clock).await;
            self.find(request).await
        };
        let pieces = stream::once(found).flat_map(|found| match found {
            Ok(pieces) => pieces,
            Err(status) => stream::iter([Err(status)]).boxed(),
        });
        pieces.boxed()
    }

    async fn catch_up(&self, clock: &dyn Clock) {
        let late = clock.sleep(PATIENCE);
        let caught_up = async {
            // An owner that is just rebuilt, or lets go of who waits, has no more to say: its answer tells what it lacks.
            if let Ok(caught_up) = self.catch_up.ask(CatchUp, Deadline::after(OWNER_DEADLINE)).await {
                caught_up.await.ok();
            }
        };
        let is_late = matches!(select(caught_up.boxed(), late).await, Either::Right(_));
        if let Some(local) = &self.local {
            local.metrics.awaited(is_late);
        }
    }
}
