//! What an answer was read from and what is missing: sums the coverage of many jobs, and says it in a bounded header.

use vivace_protocol::vivace::{Coverage, Skipped};

/// The header never exceeds this.
const HEADER_BYTES: usize = 1000;

/// The coverage of one answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Covered {
    total: u32,
    read: u32,
    skipped: Vec<Skipped>,
}

impl Covered {
    pub(crate) fn add(&mut self, coverage: Option<Coverage>) {
        let Some(coverage) = coverage else { return };
        self.total += coverage.total;
        self.read += coverage.read;
        self.skipped.extend(coverage.skipped);
    }

    /// A whole job that failed.
    pub(crate) fn miss(&mut self, what: &str, parts: u32, reason: &str) {
        self.total += parts;
        self.skipped.push(Skipped { what: what.to_owned(), reason: reason.to_owned() });
    }

    pub(crate) fn complete(&self) -> bool {
        self.skipped.is_empty() && self.read == self.total
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
            let entry: String = entry.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
            if text.len() + entry.len() > HEADER_BYTES {
                text.push_str("; more");
                break;
            }
            text.push_str(&entry);
        }
        text
    }
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
    fn everything_read_is_complete() {
        let mut covered = Covered::default();
        covered.add(Some(Coverage { total: 4, read: 4, ..Coverage::default() }));
        assert!(covered.complete());
        assert_eq!(covered.header(), "read=4/4");
    }
}
