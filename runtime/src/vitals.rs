//! The signs of life of one part, readable from any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::lifecycle::State;
use crate::part::Failure;

#[derive(Debug)]
pub(crate) struct Vitals {
    pub(crate) name: Arc<str>,
    state: AtomicU8,
    restarts: AtomicU64,
    failures: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Vitals {
    pub(crate) fn new(name: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            name,
            state: AtomicU8::new(State::Starting.code()),
            restarts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last_error: Mutex::new(None),
        })
    }

    pub(crate) fn state(&self) -> State {
        State::from_code(self.state.load(Ordering::Acquire))
    }

    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state.code(), Ordering::Release);
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub(crate) fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn failed(&self, cause: &Failure) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock() = Some(cause.to_string());
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }
}
