//! What one request holds of the process's byte budget.

use std::time::Duration;

use vivace_log::{Budget, Error, Permit};

use crate::fair_share::Share;

/// Grows at least by this much, so that a body that comes in small pieces does not take a permit for each.
const STEP_BYTES: usize = 64 << 10;
/// When a tenant that holds more than its part should come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Permits that grow with a request, taken before its memory is. Everything is given back on drop.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Budget,
    permits: Vec<Permit>,
    held_bytes: usize,
    share: Share,
}

impl Reservation {
    /// Holds nothing yet.
    pub(crate) fn new(budget: Budget, share: Share) -> Self {
        Self { budget, permits: Vec::new(), held_bytes: 0, share }
    }

    /// Makes sure that at least `bytes` are held.
    ///
    /// # Errors
    /// [`Error::Overloaded`]; what was held stays held.
    pub(crate) fn cover(&mut self, bytes: usize) -> Result<(), Error> {
        let missing = bytes.saturating_sub(self.held_bytes);
        if missing == 0 {
            return Ok(());
        }
        let step = if self.held_bytes == 0 { missing } else { missing.max(STEP_BYTES) };
        let permit = self.budget.acquire(step)?;
        let used_before = self.budget.used_bytes().saturating_sub(permit.bytes());
        if !self.share.grow(step, used_before, self.budget.limit_bytes()) {
            return Err(Error::Overloaded { retry_after: RETRY_AFTER });
        }
        self.permits.push(permit);
        self.held_bytes = self.held_bytes.saturating_add(step);
        Ok(())
    }

    /// Holds `bytes` more.
    ///
    /// # Errors
    /// As [`Reservation::cover`].
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), Error> {
        self.cover(self.held_bytes.saturating_add(bytes))
    }

    /// Gives the bytes back and keeps what counts as the tenant's share: its records are still on their way.
    pub(crate) fn into_share(self) -> Share {
        self.share
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use vivace_protocol::TenantId;

    use super::*;
    use crate::fair_share::FairShares;

    pub(crate) fn reservation(budget: &Budget) -> Reservation {
        Reservation::new(budget.clone(), Arc::new(FairShares::default()).share(TenantId::single()))
    }

    #[test]
    fn it_grows_in_steps_refuses_without_losing_and_gives_everything_back() {
        let budget = Budget::new(200 << 10, Duration::from_secs(1));
        let mut reservation = reservation(&budget);
        reservation.cover(100).unwrap();
        assert_eq!(budget.used_bytes(), 100);
        reservation.cover(101).unwrap();
        assert_eq!(budget.used_bytes(), 100 + STEP_BYTES);
        reservation.cover(STEP_BYTES).unwrap();
        assert_eq!(budget.used_bytes(), 100 + STEP_BYTES);
        assert!(reservation.cover(300 << 10).is_err());
        assert_eq!(budget.used_bytes(), 100 + STEP_BYTES);
        drop(reservation);
        assert_eq!(budget.used_bytes(), 0);
    }
}
