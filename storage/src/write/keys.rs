//! Attribute keys of one scope: where each goes, found without hashing when spans carry the same keys in the same order.

use super::dictionary::Dictionary;
use crate::dedicated::{DedicatedColumns, Scope, ValueType};

/// Distinct keys beyond which the table starts anew: keys made of data must not fill the memory.
const MAX_KEYS: usize = 1 << 16;
/// Positions whose last key is remembered.
const REMEMBERED: usize = 64;
const UNKNOWN: u32 = u32::MAX;

/// Where the values of a key go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// To the list of attributes.
    Generic,
    /// To a dedicated column if the type fits: which one, and its type.
    Dedicated(usize, ValueType),
    /// To the resource's column for the service name if it is text.
    Service,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Keys {
    known: Dictionary,
    destinations: Vec<Destination>,
    /// Number of each key in the row group's dictionary of keys.
    numbers: Vec<u32>,
    expected: [u32; REMEMBERED],
    columns: Vec<(Vec<u8>, ValueType)>,
    service: bool,
}

impl Keys {
    /// Keys of attributes that have no dedicated columns.
    pub(super) fn generic() -> Self {
        Self {
            known: Dictionary::default(),
            destinations: Vec::new(),
            numbers: Vec::new(),
            expected: [UNKNOWN; REMEMBERED],
            columns: Vec::new(),
            service: false,
        }
    }

    /// Keys of attributes of `scope`; dedicated columns are counted in the order of the list, skipped ones left out.
    pub(super) fn of(columns: &DedicatedColumns, scope: Scope) -> Self {
        let assigned = columns.assign_v5(scope);
        let named = assigned.iter().map(|assignment| {
            let column = &columns.0[assignment.position];
            (column.name.clone().into_bytes(), column.value_type)
        });
        Self { columns: named.collect(), service: scope == Scope::Resource, ..Self::generic() }
    }

    /// The key at `position` of its list: its number here and where it goes.
    #[inline]
    pub(super) fn find(&mut self, position: usize, key: &[u8]) -> (u32, Destination) {
        let slot = position % REMEMBERED;
        let expected = self.expected[slot];
        if expected != UNKNOWN && self.known.get(expected) == key {
            return (expected, self.destinations[expected as usize]);
        }
        let number = self.intern(key);
        self.expected[slot] = number;
        (number, self.destinations[number as usize])
    }

    fn intern(&mut self, key: &[u8]) -> u32 {
        if self.known.len() >= MAX_KEYS {
            self.known.clear();
            self.destinations.clear();
            self.numbers.clear();
            self.expected = [UNKNOWN; REMEMBERED];
        }
        let number = self.known.intern(key);
        if number as usize == self.destinations.len() {
            let column = self.columns.iter().position(|(name, _)| name == key);
            self.destinations.push(match column {
                _ if self.service && key == b"service.name" => Destination::Service,
                Some(column) => Destination::Dedicated(column, self.columns[column].1),
                None => Destination::Generic,
            });
            self.numbers.push(UNKNOWN);
        }
        number
    }

    /// The key's number in the row group's dictionary; `add` numbers it there when it occurs first.
    #[inline]
    pub(super) fn number(&mut self, key: u32, add: impl FnOnce(&[u8]) -> u32) -> u32 {
        let number = &mut self.numbers[key as usize];
        if *number == UNKNOWN {
            *number = add(self.known.get(key));
        }
        *number
    }

    /// Starts the next row group, whose dictionary is empty.
    pub(super) fn reset(&mut self) {
        self.numbers.fill(UNKNOWN);
    }
}
