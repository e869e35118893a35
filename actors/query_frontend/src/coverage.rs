//! What an answer was read from and what is missing: sums the coverage of many jobs, and says it in a bounded header.

use http::StatusCode;
use tonic::metadata::{MetadataMap, MetadataValue};
use vivace_protocol::vivace::{Coverage, Skipped};

use crate::respond::Refusal;

/// The header never exceeds this.
const HEADER_BYTES: usize = 1000;
/// Nor do the trailers with skipped sources exceed this.
const TRAILER_BYTES: usize = 6000;
const TRAILER: &str = "x-vivace-coverage";
const SKIPPED_TRAILER: &str = "x-vivace-skipped";

/// The coverage of one answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Covered {
    total: u32,
    read: u32,
    skipped: Vec<Skipped>,
}

impl Covered {
    pub(crate) fn add(&mut self, coverage: Option<Coverage>) {
        let Some(coverage) = coverage else { return };
        self.total = self.total.saturating_add(coverage.total);
        self.read = self.read.saturating_add(coverage.read);
        self.skipped.extend(coverage.skipped);
    }

    /// What another answer was read from, too.
    pub(crate) fn join(&mut self, other: Self) {
        self.total = self.total.saturating_add(other.total);
        self.read = self.read.saturating_add(other.read);
        self.skipped.extend(other.skipped);
    }

    /// A whole job that failed.
    pub(crate) fn miss(&mut self, what: &str, parts: u32, reason: &str) {
        self.total = self.total.saturating_add(parts);
        self.skipped.push(Skipped { what: what.to_owned(), reason: reason.to_owned() });
    }

    pub(crate) fn complete(&self) -> bool {
        self.skipped.is_empty() && self.read == self.total
    }

    /// Refuses an incomplete answer where only a complete one is of use.
    pub(crate) fn check(&self, require_complete: bool) -> Result<(), Refusal> {
        if require_complete && !self.complete() {
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, self.message()).covering(self));
        }
        Ok(())
    }

    /// The whole list, for the body of an answer.
    pub(crate) fn json(&self) -> serde_json::Value {
        let skipped = self.skipped.iter().map(|s| serde_json::json!({ "what": s.what, "reason": s.reason }));
        serde_json::json!({ "total": self.total, "read": self.read, "skipped": skipped.collect::<Vec<_>>() })
    }

    /// For the end of a stream: the line of the header, and the sources that were skipped, each by itself, as far as they fit
    /// into what clients take as trailers (8 kB with some).
    pub(crate) fn trailers(&self) -> MetadataMap {
        let mut trailers = MetadataMap::new();
        let mut add = |name: &'static str, text: &str| {
            if let Ok(value) = MetadataValue::try_from(text) {
                trailers.append(name, value);
            }
        };
        add(TRAILER, &self.header());
        let mut bytes = 0;
        for (at, skipped) in self.skipped.iter().enumerate() {
            let entry = visible(&format!("{}: {}", skipped.what, skipped.reason));
            bytes += entry.len() + SKIPPED_TRAILER.len() + 32;
            if bytes > TRAILER_BYTES {
                add(SKIPPED_TRAILER, &format!("and {} more", self.skipped.len() - at));
                break;
            }
            add(SKIPPED_TRAILER, &entry);
        }
        trailers
    }

    /// One line for people: what is missing and why.
    pub(crate) fn message(&self) -> String {
        let mut text = format!("{} of {} sources were not read", self.total - self.read.min(self.total), self.total);
        for skipped in self.skipped.iter().take(3) {
            text.push_str(&format!("; {}: {}", skipped.what, skipped.reason));
        }
        if self.skipped.len() > 3 {
            text.push_str(&format!("; and {} more", self.skipped.len() - 3));
        }
        text
    }

    /// `read=3/4; skipped="live-store: connection refused"`, at most a kilobyte, visible ASCII only.
    pub(crate) fn header(&self) -> String {
        let mut text = format!("read={}/{}", self.read, self.total);
        for skipped in &self.skipped {
            let entry = format!("; skipped={:?}", format!("{}: {}", skipped.what, skipped.reason));
            let entry = visible(&entry);
            if text.len() + entry.len() > HEADER_BYTES {
                text.push_str("; more");
                break;
            }
            text.push_str(&entry);
        }
        text
    }
}

/// What may stand in a header: visible ASCII.
fn visible(text: &str) -> String {
    text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_stays_bounded_and_clean_whatever_the_reasons_are() {
        let mut covered = Covered::default();
        for i in 0..100 {
            covered.miss(&format!("block {i}"), 1, "grün\r\nX-Evil: 1");
        }
        let header = covered.header();
        assert!(header.len() <= HEADER_BYTES + 10 && header.starts_with("read=0/100"));
        assert!(header.bytes().all(|b| (b' '..=b'~').contains(&b)));
        assert!(!covered.complete() && covered.message().contains("and 97 more"));
    }

    #[test]
    fn trailers_name_each_skipped_source_and_stay_bounded() {
        let mut covered = Covered::default();
        covered.miss("block 1", 1, "grün");
        let trailers = covered.trailers();
        assert_eq!(trailers.get(TRAILER).unwrap(), "read=0/1; skipped=\"block 1: gr?n\"");
        assert_eq!(trailers.get(SKIPPED_TRAILER).unwrap(), "block 1: gr?n");
        for i in 0..1000 {
            covered.miss(&format!("block {i}"), 1, "out of reach");
        }
        let skipped: Vec<_> = covered.trailers().get_all(SKIPPED_TRAILER).iter().cloned().collect();
        let bytes: usize = skipped.iter().map(|value| value.len() + SKIPPED_TRAILER.len() + 32).sum();
        assert!(bytes < TRAILER_BYTES + 100, "{bytes}");
        assert_eq!(skipped.last().unwrap(), &format!("and {} more", 1001 - (skipped.len() - 1)).as_str());
        assert_eq!(covered.json()["skipped"].as_array().unwrap().len(), 1001);
    }

    #[test]
    fn everything_read_is_complete() {
        let mut covered = Covered::default();
        covered.add(Some(Coverage { total: 4, read: 4, ..Coverage::default() }));
        assert!(covered.complete());
        assert_eq!(covered.header(), "read=4/4");
    }
}
