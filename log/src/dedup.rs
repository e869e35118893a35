//! What a consumer has seen of each producer, so that a record that was produced twice counts once.
//!
//! The map belongs to a position: it says what stands *below* it. A consumer keeps it with its progress and takes it up again only
//! at that very position; started anywhere else it is empty, and then the one thing it cannot know is a copy whose original lies
//! before the start. What slips through is told apart downstream by the identity of spans.

use std::collections::BTreeMap;

use crate::record::{Entry, Offset};
use crate::sequence::Sequence;

/// Producers that are remembered. A new one appears when a distributor starts; copies follow their original within seconds.
const SESSIONS_MAX: usize = 1024;
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 8 + 4;
const SESSION_BYTES: usize = 24;

/// One partition's producers and the highest number seen of each. Bounded; a plain value that depends on the records alone. In serde it
/// is the bytes of [`Dedup::to_bytes`].
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
pub struct Dedup {
    end: Offset,
    sessions: BTreeMap<u64, Seen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    number: u64,
    at: Offset,
}

impl Dedup {
    /// Nothing seen yet, about to read at `position`.
    #[must_use]
    pub fn starting_at(position: Offset) -> Self {
        Self { end: position, sessions: BTreeMap::new() }
    }

    /// What was kept by [`Dedup::to_bytes`], if it was kept at this very `position` and can be read; otherwise nothing seen.
    #[must_use]
    pub fn resume(bytes: &[u8], position: Offset) -> Self {
        match Self::from_bytes(bytes) {
            Some(kept) if kept.end == position => kept,
            Some(_) | None => Self::starting_at(position),
        }
    }

    /// Whether the record is seen for the first time, as far as can be told; remembers it. To be called for every record once, in
    /// the order of offsets. A record without a sequence always counts.
    pub fn is_first(&mut self, entry: &Entry) -> bool {
        self.end = entry.offset.next();
        let Some(sequence) = Sequence::of(&entry.record) else { return true };
        let seen = Seen { number: sequence.number, at: entry.offset };
        if let Some(before) = self.sessions.get_mut(&sequence.session) {
            let first = sequence.number > before.number;
            *before = Seen { number: before.number.max(sequence.number), ..seen };
            return first;
        }
        if self.sessions.len() >= SESSIONS_MAX {
            let oldest = self.sessions.iter().min_by_key(|(_, seen)| seen.at).map(|(session, _)| *session);
            oldest.and_then(|session| self.sessions.remove(&session));
        }
        self.sessions.insert(sequence.session, seen);
        true
    }

    /// The offset below which everything is accounted for.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.end
    }

    /// To be kept with the consumer's progress; at most 24 KiB, 24 bytes for each producer. Format 1, frozen: the version (1 byte),
    /// then little-endian the end (8), the count (4), and for each session its id, its highest number and the offset where it was
    /// last seen (8 each).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + SESSION_BYTES * self.sessions.len());
        bytes.push(VERSION);
        bytes.extend(self.end.0.to_le_bytes());
        bytes.extend(u32::try_from(self.sessions.len()).expect("bounded by SESSIONS_MAX").to_le_bytes());
        for (session, seen) in &self.sessions {
            for field in [*session, seen.number, seen.at.0] {
                bytes.extend(field.to_le_bytes());
            }
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (end, rest) = rest.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        if *version != VERSION || count > SESSIONS_MAX || rest.len() != count * SESSION_BYTES {
            return None;
        }
        let mut sessions = BTreeMap::new();
        for session in rest.chunks_exact(SESSION_BYTES) {
            let field = |at: usize| session.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
            sessions.insert(field(0)?, Seen { number: field(8)?, at: Offset(field(16)?) });
        }
        Some(Self { end: Offset(u64::from_le_bytes(*end)), sessions })
    }
}

impl From<Dedup> for Vec<u8> {
    fn from(dedup: Dedup) -> Self {
        dedup.to_bytes()
    }
}

impl TryFrom<Vec<u8>> for Dedup {
    type Error = &'static str;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        Self::from_bytes(&bytes)
            .ok_or("not what was seen of producers, or of a version that this program does not know")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Record;

    fn entry(offset: u64, session: u64, number: u64) -> Entry {
        let record = Record { headers: vec![Sequence { session, number }.to_header()], ..Record::default() };
        Entry { offset: Offset(offset), record }
    }

    #[test]
    fn a_copy_counts_once_also_when_it_comes_late() {
        let mut dedup = Dedup::default();
        let script =
            [(1, 1, true), (1, 1, false), (1, 2, true), (2, 1, true), (1, 1, false), (1, 3, true), (2, 1, false)];
        for (offset, (session, number, first)) in (0..).zip(script) {
            assert_eq!(dedup.is_first(&entry(offset, session, number)), first, "{session} {number} at {offset}");
        }
    }

    #[test]
    fn records_without_a_sequence_always_count() {
        let mut dedup = Dedup::default();
        let bare = Entry { offset: Offset(4), record: Record::default() };
        assert!(dedup.is_first(&bare) && dedup.is_first(&bare));
        assert_eq!(dedup.end(), Offset(5));
    }

    #[test]
    fn it_is_taken_up_at_its_own_position_only() {
        let mut dedup = Dedup::starting_at(Offset(10));
        dedup.is_first(&entry(10, 1, 1));
        let bytes = dedup.to_bytes();
        assert_eq!(Dedup::resume(&bytes, Offset(11)), dedup);
        assert_eq!(Dedup::resume(&bytes, Offset(10)), Dedup::starting_at(Offset(10)));
        assert_eq!(Dedup::resume(&bytes[1..], Offset(11)), Dedup::starting_at(Offset(11)));
    }

    #[test]
    fn it_is_bounded_and_forgets_who_was_silent_longest() {
        let mut dedup = Dedup::default();
        let more = SESSIONS_MAX as u64 + 10;
        for session in 0..more {
            assert!(dedup.is_first(&entry(2 * session, session, 1)));
            dedup.is_first(&entry(2 * session + 1, 0, 1));
        }
        assert!(dedup.to_bytes().len() <= HEAD_BYTES + SESSIONS_MAX * SESSION_BYTES);
        assert!(!dedup.is_first(&entry(2 * more, 0, 1)), "a producer that goes on is remembered");
        assert!(dedup.is_first(&entry(2 * more + 1, 1, 1)), "the one silent longest is forgotten");
    }

    proptest! {
        #[test]
        fn keeping_and_taking_up_again_changes_nothing(
            numbers in prop::collection::vec((0_u64..4, 1_u64..8), 0..60), cut in 0_usize..60,
        ) {
            let entries: Vec<_> = (0..).zip(&numbers).map(|(at, (session, number))| entry(at, *session, *number)).collect();
            let mut whole = Dedup::default();
            let expected: Vec<_> = entries.iter().map(|entry| whole.is_first(entry)).collect();
            let (before, after) = entries.split_at(cut.min(entries.len()));
            let mut first = Dedup::default();
            let mut got: Vec<_> = before.iter().map(|entry| first.is_first(entry)).collect();
            let mut second = Dedup::resume(&first.to_bytes(), first.end());
            got.extend(after.iter().map(|entry| second.is_first(entry)));
            prop_assert_eq!(got, expected);
            prop_assert_eq!(second, whole);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _dedup = Dedup::resume(&bytes, Offset(0));
        }
    }
}
