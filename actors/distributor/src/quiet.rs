//! Log lines that a flood of bad requests cannot turn into a flood of log lines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Lets so many lines a second pass.
#[derive(Debug)]
pub(crate) struct Quiet {
    lines_per_second: u64,
    /// The second, and in the low 16 bits the lines of that second.
    state: AtomicU64,
}

impl Quiet {
    pub(crate) const fn new(lines_per_second: u64) -> Self {
        Self { lines_per_second, state: AtomicU64::new(0) }
    }

    /// Whether a line may be written at this time.
    pub(crate) fn allows(&self, unix: Duration) -> bool {
        let second = unix.as_secs() << 16;
        let count = |state: u64| {
            let lines = if state & !0xffff == second { state & 0xffff } else { 0 };
            (lines < self.lines_per_second).then_some(second | (lines + 1))
        };
        self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_pass_each_second() {
        let quiet = Quiet::new(2);
        let passed = |seconds| (0..5).filter(|_| quiet.allows(Duration::from_secs(seconds))).count();
        assert_eq!([passed(1_700_000_000), passed(1_700_000_001)], [2, 2]);
    }
}
