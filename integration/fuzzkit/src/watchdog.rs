//! Ends the test process when one input does not come back: a hang would else say nothing but that the time is over.

use std::io::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The input at work, by its number.
type AtWork = Arc<Mutex<(u64, Vec<u8>)>>;

/// Watches one campaign; dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Watchdog {
    at_work: AtWork,
    /// Closed by the drop.
    _alive: Sender<()>,
}

impl Watchdog {
    /// An input may take at least `patience`, and not twice as long. `on_hang` saves the one that hangs and answers what to say
    /// about it.
    pub(crate) fn start(patience: Duration, on_hang: impl Fn(&[u8]) -> String + Send + 'static) -> Self {
        let at_work = AtWork::default();
        let watched = Arc::clone(&at_work);
        let (alive, ended) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            let mut seen = 0;
            while ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                let (number, input) = watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if number > 0 && number == seen {
                    let report = on_hang(&input);
                    // Past the capture of test output, which an exit would throw away.
                    std::io::stderr().write_all(report.as_bytes()).ok();
                    std::process::exit(101);
                }
                seen = number;
            }
        });
        Self { at_work, _alive: alive }
    }

    /// The next input begins.
    pub(crate) fn begin(&self, input: &[u8]) {
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        at_work.0 += 1;
        at_work.1.clear();
        at_work.1.extend_from_slice(input);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    #[ignore = "hangs on purpose; the test below runs it in a process of its own"]
    fn hangs() {
        let watchdog = Watchdog::start(Duration::from_millis(50), |input| format!("caught {input:?}"));
        watchdog.begin(b"quick");
        watchdog.begin(b"slow");
        std::thread::park_timeout(Duration::from_secs(60));
    }

    #[test]
    fn an_input_that_does_not_come_back_ends_the_process_and_is_named() {
        let this = std::env::current_exe().unwrap();
        let ended = Command::new(this).args(["--ignored", "--exact", "watchdog::tests::hangs"]).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(101), "{said}");
        assert!(said.contains(&format!("caught {:?}", b"slow")), "{said}");
    }
}
