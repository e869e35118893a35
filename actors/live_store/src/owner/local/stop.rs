//! When everything that was read is in blocks and committed.

use std::time::Duration;

use vivace_runtime::Cx;

use crate::owner::{Home, Owner};
use crate::readiness::Phase;

/// The last commit is waited for so long.
const COMMIT_PATIENCE: Duration = Duration::from_secs(1);

impl Owner {
    /// Looks whether everything that was read is in blocks, where somebody waits for that.
    pub(super) fn settled(&mut self, cx: &mut Cx<Self>) {
        let Some(local) = &mut self.local else { return };
        if !local.is_safe(&self.ledger) || !self.state.closing().is_empty() {
            // What is on its way asks again.
            return;
        }
        if self.draining.is_none() {
            if local.leaving {
                self.connect(cx);
            }
            return;
        }
        let due = local.offsets.is_some() && local.committed != Some(local.safe);
        match (local.committing, due) {
            (true, _) => {}
            (false, true) => self.commit(cx),
            (false, false) => self.drained(),
        }
    }

    /// Takes part no more: everything goes into blocks, and what they cover is committed.
    pub(in crate::owner) fn stop_local(&mut self, cx: &mut Cx<Self>) {
        if let Home::Local(home) = &self.shared.home {
            home.readiness.set(Phase::Stopping);
            home.metrics.ready(None);
            home.metrics.owns(&home.group, false);
            home.metrics.forget_lag(&home.group);
        }
        self.reader = None;
        if let Some(local) = &mut self.local {
            local.parked.clear();
        }
        self.settled(cx);
        cx.after(COMMIT_PATIENCE, Self::stop_waiting);
    }

    /// The blocks and the ledger are what counts; a log that is away need not hear of them.
    fn stop_waiting(&mut self, cx: &mut Cx<Self>) {
        let Some(local) = &self.local else { return };
        if self.state.closing().is_empty() && local.is_safe(&self.ledger) {
            self.drained();
        } else {
            cx.after(COMMIT_PATIENCE, Self::stop_waiting);
        }
    }
}
