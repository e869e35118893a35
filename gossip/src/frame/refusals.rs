//! What was not heard, and from whom: counters by reason, and the latest offenders for the pages.

use std::net::IpAddr;
use std::time::Duration;

use thiserror::Error;

use super::wire::Malformed;

/// Why a frame was refused. All are expected on an open port; none changes the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// It begins like an HTTP request.
    #[error("an HTTP request")]
    Http,
    /// A connection that does not speak TLS, where it is required, or does not believe our certificate.
    #[error("no TLS handshake")]
    Handshake,
    /// Neither a frame of this version nor an HTTP request.
    #[error("not a frame of this version")]
    Version,
    /// Shorter than a frame can be, or longer than one may be.
    #[error("a frame of {0} bytes")]
    Size(usize),
    /// Another cluster.
    #[error("another cluster label (hash {0:016x})")]
    Label(u64),
    /// Keys are in use here and the frame is not encrypted.
    #[error("not encrypted")]
    Plain,
    /// The frame is encrypted, with a key that is not known here, or it was changed on its way.
    #[error("encrypted with a key that is not known here")]
    Key,
    /// The frame was heard before.
    #[error("heard before")]
    Replayed,
    /// The frame is right, what it carries is not.
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
}

impl Refused {
    /// The reason in one word: the label of the counter.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Handshake => "handshake",
            Self::Version => "version",
            Self::Size(_) => "size",
            Self::Label(_) => "label",
            Self::Plain => "plain",
            Self::Key => "key",
            Self::Replayed => "replayed",
            Self::Malformed(_) => "malformed",
        }
    }
}

/// One address that sent what was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offender {
    /// Where it came from. Ports of streams say nothing, so they are not kept.
    pub address: IpAddr,
    /// The latest reason.
    pub reason: Refused,
    /// How often, for this reason.
    pub count: u64,
    /// When the last one came.
    pub last: Duration,
}

/// Offenders kept.
const OFFENDERS_MAX: usize = 128;

/// All that was refused.
#[derive(Debug, Clone, Default)]
pub struct Refusals {
    counts: Vec<(&'static str, u64)>,
    offenders: Vec<Offender>,
}

impl Refusals {
    /// Notes one.
    pub fn note(&mut self, now: Duration, address: IpAddr, refused: Refused) {
        let reason = refused.reason();
        match self.counts.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((reason, 1)),
        }
        let same = |known: &&mut Offender| known.address == address && known.reason.reason() == reason;
        if let Some(known) = self.offenders.iter_mut().find(same) {
            (known.reason, known.last) = (refused, now);
            known.count += 1;
            return;
        }
        if self.offenders.len() >= OFFENDERS_MAX {
            let oldest = (0..self.offenders.len()).min_by_key(|index| self.offenders[*index].last);
            self.offenders.swap_remove(oldest.unwrap_or(0));
        }
        self.offenders.push(Offender { address, reason: refused, count: 1, last: now });
    }

    /// Counts by reason.
    #[must_use]
    pub fn counts(&self) -> &[(&'static str, u64)] {
        &self.counts
    }

    /// How many were refused for this reason.
    #[must_use]
    pub fn count(&self, reason: &str) -> u64 {
        self.counts.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count)
    }

    /// The latest offenders, at most 128.
    #[must_use]
    pub fn offenders(&self) -> &[Offender] {
        &self.offenders
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offenders_are_bounded_and_counts_are_not_lost() {
        let mut refusals = Refusals::default();
        for n in 0..1000_u32 {
            refusals.note(Duration::from_secs(n.into()), IpAddr::V4(n.into()), Refused::Version);
        }
        assert_eq!(refusals.offenders().len(), OFFENDERS_MAX);
        assert_eq!(refusals.count("version"), 1000);
        assert!(refusals.offenders().iter().any(|offender| offender.address == IpAddr::V4(999.into())));
    }
}
