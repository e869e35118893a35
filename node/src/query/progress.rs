//! A line on standard error that says how far a query is: a bar where the server tells, else how long it has been.
//!
//! Shown on a terminal only, and only for queries that take longer than a moment; the line is taken away before the answer.

use std::io::Write;
use std::time::Duration;

/// Queries shorter than this show nothing.
const QUIET: Duration = Duration::from_millis(500);
const BAR: u64 = 30;

/// The line.
pub(super) struct Progress {
    out: Box<dyn Write>,
    on: bool,
    shown: bool,
}

impl Progress {
    pub(super) fn new(out: impl Write + 'static, on: bool) -> Self {
        Self { out: Box::new(out), on, shown: false }
    }

    /// The server has said how many of its jobs are done.
    pub(super) fn jobs(&mut self, done: u32, total: u32, bytes: u64, elapsed: Duration) {
        if elapsed >= QUIET {
            self.show(&bar(done, total, bytes));
        }
    }

    /// Nothing is known but the time.
    pub(super) fn waiting(&mut self, elapsed: Duration) {
        if elapsed >= QUIET {
            self.show(&spinner(elapsed));
        }
    }

    fn show(&mut self, line: &str) {
        if self.on {
            self.shown = true;
            self.out.write_all(format!("\r\u{1b}[K{line}").as_bytes()).ok();
            self.out.flush().ok();
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            self.out.write_all(b"\r\x1b[K").ok();
            self.out.flush().ok();
        }
    }
}

fn bar(done: u32, total: u32, bytes: u64) -> String {
    let (done, total) = (u64::from(done.min(total)), u64::from(total));
    let filled = (done * BAR).checked_div(total).unwrap_or(0);
    let text: String = (0..BAR).map(|at| if at < filled { '#' } else { '-' }).collect();
    format!("[{text}] {done}/{total} jobs, {} read", super::render::bytes(bytes))
}

fn spinner(elapsed: Duration) -> String {
    let turn = elapsed.as_millis() / 200 % 4;
    let sign = ["|", "/", "-", "\\"][usize::try_from(turn).unwrap_or(0)];
    format!("{sign} waiting for the answer, {} s", elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_bar_fills_with_the_jobs_and_never_beyond() {
        assert_eq!(bar(0, 0, 0), "[------------------------------] 0/0 jobs, 0 B read");
        assert_eq!(bar(5, 10, 2048), "[###############---------------] 5/10 jobs, 2.0 KiB read");
        assert_eq!(bar(12, 10, 1), "[##############################] 10/10 jobs, 1 B read");
        assert_eq!(spinner(Duration::from_millis(1200)), "- waiting for the answer, 1 s");
    }

    #[test]
    fn quick_queries_and_files_see_nothing() {
        let written = Written::default();
        let mut progress = Progress::new(written.clone(), true);
        progress.waiting(Duration::from_millis(100));
        progress.clear();
        let mut off = Progress::new(written.clone(), false);
        off.jobs(1, 2, 3, Duration::from_secs(9));
        off.clear();
        assert!(written.0.lock().unwrap().is_empty());
        progress.waiting(Duration::from_secs(1));
        progress.clear();
        assert!(written.0.lock().unwrap().ends_with(b"\r\x1b[K"));
    }
}
