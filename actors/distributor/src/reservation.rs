//! What one request holds of the process's byte budget.

use vivace_log::{Budget, Error, Permit};

/// Grows at least by this much, so that a body that comes in small pieces does not take a permit for each.
const STEP_BYTES: usize = 64 << 10;

/// Permits that grow with a request, taken before its memory is. Everything is given back on drop.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Budget,
    permits: Vec<Permit>,
    held_bytes: usize,
}

impl Reservation {
    /// Holds nothing yet.
    pub(crate) fn new(budget: Budget) -> Self {
        Self { budget, permits: Vec::new(), held_bytes: 0 }
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
        self.permits.push(self.budget.acquire(step)?);
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
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_grows_in_steps_refuses_without_losing_and_gives_everything_back() {
        let budget = Budget::new(200 << 10, Duration::from_secs(1));
        let mut reservation = Reservation::new(budget.clone());
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
