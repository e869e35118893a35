//! Who asks after something that was acknowledged and is perhaps not applied yet: it is told once it must be.

use tokio::sync::oneshot;
use vivace_runtime::{Cx, Reply, Serve};

use crate::owner::Owner;

/// Asks to be told when everything is applied that the log has now.
pub(crate) struct CatchUp;

/// Completes then, with an error as well as without; also when that cannot be said or will not be. It has no time limit: who waits no
/// more drops it.
pub(crate) type CaughtUp = oneshot::Receiver<()>;

impl Serve<CatchUp> for Owner {
    type Reply = CaughtUp;

    /// Answers at once, so that nobody takes room in the mailbox while it waits.
    fn serve(&mut self, _: CatchUp, cx: &mut Cx<Self>) -> Reply<CaughtUp> {
        let (waiter, caught_up) = oneshot::channel();
        let reads = self.log.is_some() && !self.has_left_log();
        // Beside its log everything is applied that was acknowledged.
        if let Some(local) = self.local.as_mut().filter(|_| reads)
            && local.parked.park(waiter)
        {
            self.ask_end(cx);
        }
        Reply::ok(caught_up)
    }
}
