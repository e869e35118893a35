//! A byte budget: refusal before memory is allocated.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::Error;

/// Bytes that may be in flight at once. Cheap to clone; clones share the budget.
///
/// Who is about to hold bytes takes a [`Permit`] first and keeps it as long as it holds them. Nothing waits here: a full
/// budget refuses with [`Error::Overloaded`], because upstream tries and only downstream may be waited for.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    retry_after: Duration,
}

impl Budget {
    /// A budget of `limit_bytes`; refusals carry `retry_after` as their hint.
    #[must_use]
    pub fn new(limit_bytes: usize, retry_after: Duration) -> Self {
        Self { shared: Arc::new(Shared { limit_bytes, used_bytes: AtomicUsize::new(0), retry_after }) }
    }

    /// Takes `bytes` at once or refuses. A request above the whole budget passes alone, when nothing else is in flight,
    /// and then takes all of it: otherwise it could never pass.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when there is no room.
    pub fn acquire(&self, bytes: usize) -> Result<Permit, Error> {
        let bytes = bytes.min(self.shared.limit_bytes);
        let room = |used: usize| used.checked_add(bytes).filter(|&total| total <= self.shared.limit_bytes);
        match self.shared.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, room) {
            Ok(_) => Ok(Permit { shared: Arc::clone(&self.shared), bytes }),
            Err(_) => Err(Error::Overloaded { retry_after: self.shared.retry_after }),
        }
    }

    /// Bytes held by permits now.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.shared.used_bytes.load(Ordering::Acquire)
    }

    /// The bound.
    #[must_use]
    pub fn limit_bytes(&self) -> usize {
        self.shared.limit_bytes
    }
}

/// Bytes taken from a [`Budget`], given back on drop.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Permit {
    /// How many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.used_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_budget_refuses_with_a_hint_and_takes_again_after_a_drop() {
        let budget = Budget::new(100, Duration::from_millis(250));
        let held = budget.acquire(60).unwrap();
        let refused = budget.acquire(41).unwrap_err();
        assert_eq!(refused.retry_after(), Some(Duration::from_millis(250)));
        assert!(refused.is_retryable());
        drop(held);
        assert_eq!(budget.acquire(41).unwrap().bytes(), 41);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_request_above_the_budget_passes_alone() {
        let budget = Budget::new(100, Duration::ZERO);
        let small = budget.acquire(1).unwrap();
        assert!(budget.acquire(1000).is_err());
        drop(small);
        let whole = budget.acquire(1000).unwrap();
        assert_eq!(whole.bytes(), 100);
        assert!(budget.acquire(1).is_err());
    }
}
