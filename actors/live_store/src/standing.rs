//! How a live-store stands against its log at the moment of an answer, and what is to be said of the answer.

use vivace_log::Partition;
use vivace_protocol::vivace::{Coverage, Skipped};

use crate::state::{Lag, Loss, Verdict};

/// Taken together with the data.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) partition: Partition,
    /// Time of the newest record that was applied, unix milliseconds; 0 if there was none.
    pub(crate) newest_ms: i64,
    pub(crate) now_ms: i64,
    /// None where everything that was acknowledged is applied.
    pub(crate) lag: Option<Lag>,
    pub(crate) lost: Vec<Loss>,
    pub(crate) stopping: bool,
}

impl Standing {
    /// Why an answer about everything up to `end_ns` (0: up to now) may miss something that was acknowledged; none if it is
    /// complete. Of what was lost for good it says nothing.
    pub(crate) fn missing(&self, end_ns: u64) -> Option<String> {
        if self.stopping {
            return Some("live-store is stopping: newer spans may be missing".to_owned());
        }
        self.lag.as_ref()?.missing(end_ns, self.now_ms).map(|verdict| verdict.to_string())
    }

    /// Whether such an answer is known to miss something that will be there after a while.
    pub(crate) fn lags(&self, end_ns: u64) -> bool {
        let missing = self.lag.as_ref().and_then(|lag| lag.missing(end_ns, self.now_ms));
        matches!(missing, Some(Verdict::Behind { .. }))
    }

    /// What an answer about everything up to `end_ns` covers.
    pub(crate) fn coverage(&self, end_ns: u64) -> Coverage {
        let skipped = |reason: String| Skipped { what: format!("partition {}", self.partition), reason };
        let losses = self.lost.iter().map(|loss| {
            format!("its log removed offsets {} to {} before they were read here", loss.from, loss.to.saturating_sub(1))
        });
        let skipped: Vec<Skipped> = self.missing(end_ns).into_iter().chain(losses).map(skipped).collect();
        let newest = u64::try_from(self.newest_ms).unwrap_or(0).saturating_mul(1_000_000);
        Coverage { total: 1, read: u32::from(skipped.is_empty()), skipped, newest_applied_unix_nano: newest }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn standing(lag: Option<Lag>) -> Standing {
        Standing { partition: Partition(3), newest_ms: 7, now_ms: 100_000, lag, lost: Vec::new(), stopping: false }
    }

    #[test]
    fn an_answer_says_what_it_misses_and_whose_it_is() {
        let complete = standing(None).coverage(0);
        assert_eq!((complete.total, complete.read, complete.skipped.len()), (1, 1, 0));
        assert_eq!(complete.newest_applied_unix_nano, 7_000_000);
        let mut lag = Lag::new(Duration::from_secs(10), 0);
        let unheard = standing(Some(lag.clone()));
        assert_eq!((unheard.coverage(0).total, unheard.coverage(0).read, unheard.lags(0)), (1, 0, false));
        assert_eq!(unheard.coverage(0).skipped[0].what, "partition 3");
        lag.heard(5, 100_000);
        assert!(standing(Some(lag)).lags(0));
        let lost = Standing { lost: vec![Loss { from: 5, to: 9, at_ms: 0 }], ..standing(None) };
        assert_eq!(lost.coverage(0).read, 0);
        assert!(lost.coverage(0).skipped[0].reason.contains("5 to 8"), "{:?}", lost.coverage(0));
        assert!(!lost.lags(0) && lost.missing(0).is_none(), "waiting does not bring it back");
        let stopping = Standing { stopping: true, ..standing(None) };
        assert!(stopping.missing(0).is_some() && stopping.coverage(0).read == 0);
    }
}
