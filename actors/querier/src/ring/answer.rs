//! What the messages of answers have in common: they may say what was read.

use tonic::Status;
use vivace_protocol::vivace::{Coverage, MetricsBatch, SearchBatch, Skipped, TagNamesReply, TagValuesReply};

use super::ask::Outcome;

/// A message of an answer.
pub(super) trait Told: Default {
    fn coverage(&self) -> Option<&Coverage>;

    /// The message with another coverage.
    #[must_use]
    fn telling(self, coverage: Option<Coverage>) -> Self;
}

macro_rules! told {
    ($($message:ident),*) => {$(
        impl Told for $message {
            fn coverage(&self) -> Option<&Coverage> {
                self.coverage.as_ref()
            }

            fn telling(self, coverage: Option<Coverage>) -> Self {
                Self { coverage, ..self }
            }
        }
    )*};
}

told!(SearchBatch, MetricsBatch, TagNamesReply, TagValuesReply);

/// What an answer says that it lacks; none if it is whole.
pub(super) fn lacks<'a>(coverages: impl IntoIterator<Item = Option<&'a Coverage>>) -> Option<String> {
    let (mut reasons, mut short) = (Vec::new(), false);
    for coverage in coverages.into_iter().flatten() {
        short |= coverage.read < coverage.total;
        reasons.extend(coverage.skipped.iter().map(|skipped| skipped.reason.as_str()));
    }
    match (reasons.is_empty(), short) {
        (true, false) => None,
        (true, true) => Some("it has not read everything".to_owned()),
        (false, _) => Some(reasons.join(", ")),
    }
}

/// What is there, and the coverage of the one source that a partition is.
///
/// # Errors
/// The question itself is wrong, or nobody has room for it now.
pub(super) fn settle<T>(what: &str, outcome: Outcome<T>) -> Result<(Option<T>, Coverage), Status> {
    match outcome {
        Outcome::Whole(_, answer) => Ok((Some(answer), Coverage { total: 1, read: 1, ..Coverage::default() })),
        Outcome::Part(answer, reason) => Ok((Some(answer), missed(what, &reason))),
        Outcome::Nothing(reason) => Ok((None, missed(what, &reason))),
        Outcome::Refused(status) => Err(status),
    }
}

pub(crate) fn missed(what: &str, reason: &str) -> Coverage {
    let skipped = vec![Skipped { what: what.to_owned(), reason: reason.to_owned() }];
    Coverage { total: 1, skipped, ..Coverage::default() }
}

pub(super) fn add(sum: &mut Coverage, part: Coverage) {
    sum.total += part.total;
    sum.read += part.read;
    sum.skipped.extend(part.skipped);
}
