//! Values of fields in a group, noted by who lists them first.
//!
//! Notes take at most a 64th of what the group takes, all fields together. A field with more values than fit its part is noted as
//! one that has to be listed each time. Fields that nobody asked for lately make room for others.

use std::sync::Arc;

use parking_lot::Mutex;
use vivace_traceql::Field;

use crate::tags::{TagLimits, TagValue};

/// Notes take no more than this part of what they are of.
const LEAST_SHARE: u64 = 64;
/// One field has no more than this part of the room.
const LEAST_SHARE_OF_ROOM: usize = 4;
/// With less for a field nothing is noted: so little is listed as quickly as it is looked up.
const LEAST_ROOM: usize = 512;
const MOST_FIELDS: usize = 64;

/// The notes of one group.
#[derive(Debug)]
pub(super) struct Known {
    /// Bytes that one field may take.
    room: usize,
    /// What was asked for last is the last.
    notes: Mutex<Vec<Note>>,
}

/// What is known of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Noted {
    /// All its values.
    All(Arc<[TagValue]>),
    /// That it has too many.
    TooMany,
}

#[derive(Debug)]
struct Note {
    field: Field,
    noted: Noted,
    bytes: usize,
}

impl Known {
    /// Of a group of so many bytes.
    pub(super) fn within(bytes: u64) -> Self {
        let room = usize::try_from(bytes / LEAST_SHARE).unwrap_or(usize::MAX) / LEAST_SHARE_OF_ROOM;
        Self { room, notes: Mutex::default() }
    }

    /// How much a list may hold to be noted; none where nothing is.
    pub(super) fn limits(&self) -> Option<TagLimits> {
        (self.room >= LEAST_ROOM).then(|| TagLimits { max_bytes: self.room, ..TagLimits::default() })
    }

    pub(super) fn of(&self, field: &Field) -> Option<Noted> {
        let mut notes = self.notes.lock();
        let at = notes.iter().position(|note| note.field == *field)?;
        notes[at..].rotate_left(1);
        notes.last().map(|note| note.noted.clone())
    }

    pub(super) fn note(&self, field: &Field, noted: Noted) {
        let note = Note { field: field.clone(), bytes: bytes(field, &noted), noted };
        if note.bytes > self.room {
            return;
        }
        let mut notes = self.notes.lock();
        notes.retain(|other| other.field != *field);
        notes.push(note);
        while notes.len() > MOST_FIELDS || taken(&notes) > self.room * LEAST_SHARE_OF_ROOM {
            notes.remove(0);
        }
    }
}

fn taken(notes: &[Note]) -> usize {
    notes.iter().map(|note| note.bytes).sum()
}

fn bytes(field: &Field, noted: &Noted) -> usize {
    let name = if let Field::Attribute { name, .. } = field { name.len() } else { 0 };
    let values = if let Noted::All(values) = noted { &values[..] } else { &[] };
    let each = values.iter().map(|value| size_of::<TagValue>() + value.value.len());
    size_of::<Note>() + name + each.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use vivace_traceql::Scope;

    use super::*;
    use crate::tags::TagKind;

    fn field(number: usize) -> Field {
        Field::attribute(Scope::Span, &format!("key{number}"))
    }

    fn values(count: usize) -> Noted {
        let value = |number| TagValue { kind: TagKind::String, value: format!("{number:032}") };
        Noted::All((0..count).map(value).collect())
    }

    #[test]
    fn all_notes_together_take_no_more_than_their_part() {
        let known = Known::within(1 << 20);
        for number in 0..1000 {
            known.note(&field(number), values(number % 70));
            assert!(taken(&known.notes.lock()) <= 1 << 14 && known.notes.lock().len() <= MOST_FIELDS, "{number}");
        }
        // 69 values take more than a field may.
        let told = [979, 980, 992].map(|number| known.of(&field(number)));
        assert_eq!(told, [None, Some(values(0)), Some(values(12))]);
        known.note(&field(1), values(70));
        assert_eq!(known.of(&field(1)), None);
        known.note(&Field::attribute(Scope::Span, &"x".repeat(5000)), Noted::TooMany);
        assert_eq!(known.of(&field(992)), Some(values(12)));
    }

    #[test]
    fn the_field_that_nobody_asked_for_longest_makes_room() {
        let known = Known::within(u64::MAX);
        (0..MOST_FIELDS).for_each(|number| known.note(&field(number), Noted::TooMany));
        assert_eq!(known.of(&field(0)), Some(Noted::TooMany));
        known.note(&field(MOST_FIELDS), values(1));
        assert_eq!((known.of(&field(0)), known.of(&field(1))), (Some(Noted::TooMany), None));
        known.note(&field(2), values(2));
        assert_eq!((known.of(&field(2)), known.of(&field(3))), (Some(values(2)), Some(Noted::TooMany)));
    }

    #[test]
    fn of_small_groups_nothing_is_noted() {
        assert_eq!(Known::within((LEAST_ROOM as u64 - 1) * 256).limits(), None);
        let limits = Known::within(LEAST_ROOM as u64 * 256).limits().unwrap();
        assert_eq!(limits.max_bytes, LEAST_ROOM);
    }
}
