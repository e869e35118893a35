//! Failures on demand, for tests of whole processes. Only a build with the feature `fault-injection` knows them, and no
//! release is built with it; a build without says so when somebody asks for one.

use std::sync::Arc;

use vivace_live_store::ApplyHook;

use crate::config::Environment;

/// A record that holds this text panics whoever applies it in the live-store.
const PANIC_ON: &str = "VIVACE_FAULT_PANIC_ON";

/// What is to happen before each record of the log is applied, if anything.
pub(crate) fn apply_hook(environment: &Environment) -> Option<ApplyHook> {
    let marker = environment.get(PANIC_ON).filter(|marker| !marker.is_empty())?;
    if !cfg!(feature = "fault-injection") {
        tracing::warn!("{PANIC_ON} has no effect: this build has no faults to inject");
        return None;
    }
    tracing::warn!(marker, "every record that holds the marker will panic its consumer");
    Some(panic_on(marker))
}

fn panic_on(marker: String) -> ApplyHook {
    Arc::new(move |offset, record| {
        let planted = record.windows(marker.len()).any(|window| window == marker.as_bytes());
        assert!(!planted, "record {offset} holds {marker:?}, as {PANIC_ON} asks");
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn only_a_record_with_the_marker_panics() {
        let hook = panic_on("boom".to_owned());
        for (record, panics) in [(&b"a boom in it"[..], true), (b"boo", false), (b"", false), (b"boom", true)] {
            assert_eq!(catch_unwind(AssertUnwindSafe(|| hook(7, record))).is_err(), panics, "{record:?}");
        }
    }

    #[test]
    fn a_usual_build_has_no_faults_and_nothing_is_done_unasked() {
        assert!(apply_hook(&Environment::default()).is_none());
        let asked: Environment = [(PANIC_ON.to_owned(), "boom".to_owned())].into_iter().collect();
        assert_eq!(apply_hook(&asked).is_some(), cfg!(feature = "fault-injection"));
    }
}
