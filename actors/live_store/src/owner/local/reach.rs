//! Reaches the log, begins at the right place, and what is done when the log is not as it was left.

use std::sync::Arc;
use std::time::Duration;

use vivace_log::{Bounds, Error as LogError, Offset};
use vivace_runtime::{Cx, Failure};

use super::{LocalHome, before};
use crate::keep::Source;
use crate::owner::{Home, IMMEDIATE, Owner, Shared, unix_ms};
use crate::state::{Copies, Known, Lag, Loss, Origin, Partition, begin};

/// The log is reached for again this long after a failed attempt.
const CONNECT_RETRY: Duration = Duration::from_secs(1);
/// A read that the log refuses for a reason that somebody must remove is tried again after this.
const REFUSED_RETRY: Duration = Duration::from_secs(2);

/// What the log says when it is reached.
struct Met {
    source: Source,
    bounds: Bounds,
    committed: Option<Offset>,
    lookback: Offset,
}

async fn meet(shared: &Shared, home: &LocalHome, now_ms: i64) -> Result<Met, LogError> {
    let source = match home.reached() {
        Some(source) => source,
        None => (home.connect)().await?,
    };
    let bounds = source.log.bounds(shared.partition).await?;
    let committed = source.offsets.committed(shared.partition).await?;
    let oldest = before(now_ms, home.times.kept.saturating_mul(2));
    let lookback = source.log.offset_at(shared.partition, oldest).await?;
    *home.reached.lock() = Some(source.clone());
    Ok(Met { source, bounds, committed, lookback })
}

impl Owner {
    /// Whether nothing is read (any more) that has to be filed.
    pub(in crate::owner) fn has_left_log(&self) -> bool {
        self.local.as_ref().is_some_and(|local| local.leaving || self.draining.is_some())
    }

    pub(super) fn connect(&mut self, cx: &mut Cx<Self>) {
        let Some(local) = &mut self.local else { return };
        if std::mem::replace(&mut local.connecting, true) {
            return;
        }
        let (shared, now_ms) = (Arc::clone(&self.shared), unix_ms(cx));
        let met = async move {
            match &shared.home {
                Home::Local(home) => meet(&shared, home, now_ms).await,
                Home::Bucket { .. } => Err(LogError::Closed),
            }
        };
        cx.spawn(met, |owner, met, cx| {
            let Some(local) = &mut owner.local else { return };
            local.connecting = false;
            if owner.draining.is_some() {
                return;
            }
            match met {
                Ok(met) => owner.begin(met, cx),
                Err(error) => {
                    owner.problem("reach the log", &error.to_string());
                    cx.after(CONNECT_RETRY, Self::connect);
                }
            }
        });
    }

    /// The log answers: decides where to begin, and begins.
    fn begin(&mut self, met: Met, cx: &mut Cx<Self>) {
        let shared = Arc::clone(&self.shared);
        let (Home::Local(home), Some(local)) = (&shared.home, &mut self.local) else { return };
        let Met { source, bounds: Bounds { earliest, end }, committed, lookback } = met;
        let now_ms = unix_ms(cx);
        let log = source.log.id().to_string();
        let known = Known {
            log: &log,
            committed: committed.map(|offset| offset.0),
            earliest: earliest.0,
            end: end.0,
            lookback: lookback.0,
            inactive: (home.inactive)(),
        };
        let start = begin(&mut self.ledger, known);
        let (from, origin) = (start.from, start.origin);
        match origin {
            Origin::Ledger | Origin::Commit | Origin::Lookback | Origin::TooOld => {
                tracing::info!(from, end = end.0, ?origin, "the log is followed");
            }
            Origin::OtherLog | Origin::Removed | Origin::WentBack => {
                tracing::error!(from, end = end.0, ?origin, lost = ?start.lost, "the log is not as it was left");
            }
        }
        if let Some((from, to)) = start.lost {
            self.ledger.lose(Loss { from, to, at_ms: now_ms });
            home.metrics.lost(to - from);
        }
        match Partition::recover(shared.rules.clone(), &self.ledger) {
            Ok(state) => self.state = state,
            Err(error) => return cx.fail(Failure::new(error)),
        }
        self.copies = Copies::recover(&self.ledger);
        local.lag = Lag::new(home.times.lag_limit(), from);
        local.lag.answered(end.0, now_ms);
        local.committed = known.committed;
        match source.log.reader(shared.partition, Offset(from)) {
            Ok(reader) => (self.reader, self.readers) = (Some(reader), self.readers + 1),
            Err(error) => {
                // The log moved on between the two questions.
                self.problem("read the log", &error.to_string());
                cx.after(CONNECT_RETRY, Self::connect);
                return;
            }
        }
        (local.offsets, local.leaving) = (Some(source.offsets), false);
        self.log = Some(source.log);
        self.last_error = None;
        self.keep_ledger(cx);
        self.look(cx);
        self.read(cx);
    }

    /// A batch was filed.
    pub(in crate::owner) fn on_applied(&mut self, next: u64, end: u64, newest_ms: Option<i64>, cx: &mut Cx<Self>) {
        let Some(local) = &mut self.local else { return };
        local.lag.applied(next, newest_ms);
        local.parked.applied(next);
        local.lag.heard(end.max(next), unix_ms(cx));
    }

    pub(in crate::owner) fn on_local_error(&mut self, error: LogError, cx: &mut Cx<Self>) {
        match error {
            LogError::OutOfRange { earliest, end, .. } => self.jump(earliest.0, end.0, cx),
            LogError::TopicReplaced { .. } => {
                tracing::error!(%error, "the log was replaced: what was read of it goes into blocks, then the new one is followed");
                self.last_error = Some(error.to_string());
                self.leave_log(cx);
            }
            LogError::Closed => {
                if let Home::Local(home) = &self.shared.home {
                    *home.reached.lock() = None;
                }
                self.problem("read the log", "it was closed");
                cx.after(CONNECT_RETRY, Self::reconnect);
            }
            error => {
                self.problem("read the log", &error.to_string());
                cx.after(REFUSED_RETRY, Self::read);
            }
        }
    }

    /// The log does not have what should come next: its retention has passed it, or it has lost its end.
    fn jump(&mut self, earliest: u64, end: u64, cx: &mut Cx<Self>) {
        let shared = Arc::clone(&self.shared);
        let (Home::Local(home), Some(local), Some(log)) = (&shared.home, &mut self.local, &self.log) else { return };
        let (next, now_ms) = (self.state.next(), unix_ms(cx));
        let to = if next < earliest {
            tracing::error!(next, earliest, "the log removed records before they were read");
            self.ledger.lose(Loss { from: next, to: earliest, at_ms: now_ms });
            home.metrics.lost(earliest - next);
            self.state.skip(earliest - 1);
            local.lag.applied(earliest, None);
            local.parked.applied(earliest);
            earliest
        } else {
            let end = end.min(next);
            tracing::error!(next, end, "the log has lost its end: its offsets are given again");
            self.state.went_back(end);
            self.copies.went_back(end);
            self.ledger.went_back(end);
            local.lag.went_back(end);
            local.parked.clear();
            end
        };
        match log.reader(shared.partition, Offset(to)) {
            Ok(reader) => {
                (self.reader, self.readers) = (Some(reader), self.readers + 1);
                self.keep_ledger(cx);
                self.read(cx);
            }
            Err(error) => {
                self.problem("read the log", &error.to_string());
                cx.after(CONNECT_RETRY, Self::reconnect);
            }
        }
    }

    /// Puts everything that was read into blocks, and then reaches for the log anew.
    fn leave_log(&mut self, cx: &mut Cx<Self>) {
        let Some(local) = &mut self.local else { return };
        local.leaving = true;
        local.parked.clear();
        (self.reader, self.log, local.offsets) = (None, None, None);
        self.readers += 1;
        if let Home::Local(home) = &self.shared.home {
            *home.reached.lock() = None;
        }
        self.state.end_replay();
        self.cut(unix_ms(cx), IMMEDIATE, cx);
        self.settled(cx);
    }

    /// Reaches for the log anew where it stopped: nothing that was read is read again.
    fn reconnect(&mut self, cx: &mut Cx<Self>) {
        if !self.has_left_log() {
            self.leave_log(cx);
        }
    }
}
