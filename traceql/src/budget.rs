//! How much memory the results of one query may take while it runs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Shared by everybody in one process who works on a query; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// 0 is any.
    limit: usize,
    used: Arc<AtomicUsize>,
}

/// The results take more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the results of the query take more than {limit} bytes")]
pub struct OverBudget {
    /// The limit.
    pub limit: usize,
}

impl Budget {
    /// At most `limit` bytes at a time; 0 is any number.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, used: Arc::default() }
    }

    /// Bytes that are held now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// # Errors
    /// More is held than may be.
    pub fn check(&self) -> Result<(), OverBudget> {
        if self.limit > 0 && self.used() > self.limit { Err(OverBudget { limit: self.limit }) } else { Ok(()) }
    }

    /// Begins to hold something.
    #[must_use]
    pub fn hold(&self) -> Held {
        Held { budget: self.clone(), bytes: 0 }
    }
}

/// What one holder holds; given back when it is dropped.
#[derive(Debug, Default)]
pub struct Held {
    budget: Budget,
    bytes: usize,
}

impl Held {
    /// Holds more.
    pub fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Holds less.
    pub fn sub(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// # Errors
    /// More is held by all together than may be.
    pub fn check(&self) -> Result<(), OverBudget> {
        self.budget.check()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_share_one_limit_and_give_back_what_they_held() {
        let budget = Budget::new(100);
        let (mut a, mut b) = (budget.hold(), budget.clone().hold());
        a.add(60);
        assert_eq!(b.check(), Ok(()));
        b.add(60);
        assert_eq!((a.check(), b.check()), (Err(OverBudget { limit: 100 }), Err(OverBudget { limit: 100 })));
        b.sub(30);
        assert_eq!((budget.used(), a.check()), (90, Ok(())));
        drop(a);
        b.sub(1000);
        assert_eq!(budget.used(), 0);
        let mut any = Budget::default().hold();
        any.add(usize::MAX / 2);
        assert_eq!(any.check(), Ok(()));
    }
}
