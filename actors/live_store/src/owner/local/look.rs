//! How far it is: ready or not, lagging or not, and what is said of answers.

use std::sync::Arc;

use vivace_runtime::Cx;

use crate::owner::{Home, Owner, unix_ms};
use crate::readiness::Phase;
use crate::standing::Standing;

impl Owner {
    /// Whether it has become ready, and how far it is.
    pub(super) fn look(&mut self, cx: &mut Cx<Self>) {
        let shared = Arc::clone(&self.shared);
        let (Home::Local(home), Some(local)) = (&shared.home, &mut self.local) else { return };
        if self.draining.is_some() {
            return;
        }
        if local.is_held_up(cx.now()) {
            tracing::warn!("this process was held up: what the log has is asked anew");
            local.lag.was_held_up();
            local.held_up += 1;
        }
        local.looked = cx.now();
        let (now_ms, waited) = (unix_ms(cx), cx.now().saturating_duration_since(local.began));
        let records = local.lag.records();
        let uncommitted =
            local.committed.and_then(|committed| local.lag.end().map(|end| end.saturating_sub(committed)));
        home.metrics.lag(&home.group, uncommitted, local.lag.time(now_ms));
        if home.readiness.not_ready().is_some() {
            let reached = local.offsets.is_some() && local.lag.is_within(home.times.target_lag, now_ms);
            if reached || waited >= home.times.max_wait {
                tracing::info!(?records, ?waited, reached, "ready");
                home.readiness.set(Phase::Ready);
                home.metrics.ready(Some(waited));
            }
        }
        local.looks += 1;
        if local.looks.is_multiple_of(2) || local.lag.end().is_none() {
            self.ask_end(cx);
        }
    }

    /// Asks the log how far it goes: a reader hears of that only with records.
    pub(super) fn ask_end(&mut self, cx: &mut Cx<Self>) {
        let partition = self.shared.partition;
        let (Some(local), Some(log)) = (&mut self.local, &self.log) else { return };
        if std::mem::replace(&mut local.asking, true) {
            return;
        }
        local.parked.ask();
        let (readers, held_up) = (self.readers, local.held_up);
        cx.spawn(log.end(partition), move |owner, end, cx| {
            let Some(local) = &mut owner.local else { return };
            local.asking = false;
            match end {
                // Of another log, or of its former end.
                Ok(_) if owner.readers != readers => local.parked.misheard(),
                // Of before this process was held up, known or not known yet.
                Ok(_) if local.held_up != held_up || local.is_held_up(cx.now()) => return owner.ask_end(cx),
                Ok(end) => {
                    local.lag.answered(end.0, unix_ms(cx));
                    local.parked.answered(end.0, owner.state.next());
                }
                Err(error) => {
                    local.parked.unanswered();
                    owner.problem("ask the log for its end", &error.to_string());
                }
            }
            if owner.local.as_ref().is_some_and(|local| local.parked.wants_end()) {
                owner.ask_end(cx);
            }
        });
    }

    /// Whether the records that come are old.
    pub(in crate::owner) fn is_catching_up(&self, now_ms: i64) -> bool {
        self.local.as_ref().is_some_and(|local| local.lag.is_catching_up(now_ms))
    }

    /// The time by which traces count as growing: that of the records while they are old.
    pub(in crate::owner) fn cutting_time(&self, now_ms: i64) -> i64 {
        let old = self.local.as_ref().filter(|local| local.lag.is_catching_up(now_ms));
        old.and_then(|local| local.lag.newest_ms()).unwrap_or(now_ms)
    }

    pub(in crate::owner) fn standing(&self, cx: &Cx<Self>) -> Standing {
        let lag = self.local.as_ref().map(|local| {
            let mut lag = local.lag.clone();
            if local.is_held_up(cx.now()) {
                // The next look is about to find out.
                lag.was_held_up();
            }
            lag
        });
        Standing {
            partition: self.shared.partition,
            newest_ms: self.state.newest_ms(),
            now_ms: unix_ms(cx),
            lag,
            lost: self.ledger.lost.clone(),
            stopping: self.local.is_some() && self.draining.is_some(),
        }
    }
}
