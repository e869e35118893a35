//! Notes which rows the rare entries of a dictionary are in; the form is described where it is read (`read/rare.rs`).

use crate::read::rare::{COUNT_BITS, MOST_ROWS, STRIDE, rest_bits};

const NONE: u32 = u32::MAX;

/// An entry of the dictionary: its latest row in the list of all, and how many it has, one more than the most for "many".
#[derive(Debug, Clone, Copy)]
struct Entry {
    latest: u32,
    rows: u32,
}

/// See the module. Eight bytes for each rare value of a row group, and as many for each entry.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    entries: Vec<Entry>,
    /// Rows, each with the place of the one before of the same entry.
    rows: Vec<(u32, u32)>,
}

impl Sightings {
    /// The entry is in this row, which is none before those that were noted.
    #[inline]
    pub(super) fn add(&mut self, id: u32, row: u32) {
        let at = id as usize;
        if at >= self.entries.len() {
            self.entries.resize(at + 1, Entry { latest: NONE, rows: 0 });
        }
        let entry = &mut self.entries[at];
        if entry.rows > MOST_ROWS || (entry.rows > 0 && self.rows[entry.latest as usize].0 == row) {
            return;
        }
        entry.rows += 1;
        if entry.rows <= MOST_ROWS {
            let before = std::mem::replace(&mut entry.latest, place(self.rows.len()));
            self.rows.push((row, before));
        }
    }

    /// Ends the row group: its list, empty when no entry is rare.
    pub(super) fn take(&mut self, rows: u64) -> Vec<u8> {
        let Self { entries, rows: seen } = std::mem::take(self);
        if entries.iter().all(|entry| !(1..=MOST_ROWS).contains(&entry.rows)) {
            return Vec::new();
        }
        let rows = u32::try_from(rows).expect("a row group has fewer rows than bytes");
        let mut out = Vec::new();
        out.extend_from_slice(&place(entries.len()).to_le_bytes());
        out.extend_from_slice(&rows.to_le_bytes());
        let places = out.len();
        out.resize(places + entries.len().div_ceil(STRIDE) * 4, 0);
        let start = out.len();
        let mut bits = Bits { out, word: 0, filled: 0 };
        for (number, entry) in entries.iter().enumerate() {
            if number % STRIDE == 0 {
                let at = place((bits.out.len() - start) * 8) + bits.filled;
                bits.out[places + number / STRIDE * 4..][..4].copy_from_slice(&at.to_le_bytes());
            }
            put_entry(*entry, &seen, rows, &mut bits);
        }
        let mut out = bits.finish();
        let mut crc = flate2::Crc::new();
        crc.update(&out);
        out.extend_from_slice(&crc.sum().to_le_bytes());
        out
    }
}

fn place(at: usize) -> u32 {
    u32::try_from(at).expect("a row group has fewer values than fit 32 bits")
}

fn put_entry(entry: Entry, seen: &[(u32, u32)], rows: u32, bits: &mut Bits) {
    if entry.rows > MOST_ROWS {
        bits.put(0, COUNT_BITS);
        return;
    }
    let mut own = [0; MOST_ROWS as usize];
    let own = &mut own[..entry.rows as usize];
    let mut latest = entry.latest;
    for row in own.iter_mut().rev() {
        (*row, latest) = seen[latest as usize];
    }
    bits.put(entry.rows, COUNT_BITS);
    let rest = rest_bits(rows, entry.rows);
    let mut from = 0;
    for row in own {
        let between = *row - from;
        bits.put_ones(between >> rest);
        bits.put(0, 1);
        bits.put(between & ((1 << rest) - 1), rest);
        from = *row + 1;
    }
}

/// Writes bits, the lowest first.
struct Bits {
    out: Vec<u8>,
    word: u64,
    /// Bits in the word, fewer than eight between two calls.
    filled: u32,
}

impl Bits {
    /// `number` in so many bits, at most 32.
    fn put(&mut self, number: u32, bits: u32) {
        self.word |= u64::from(number) << self.filled;
        self.filled += bits;
        while self.filled >= 8 {
            let [low, ..] = self.word.to_le_bytes();
            self.out.push(low);
            self.word >>= 8;
            self.filled -= 8;
        }
    }

    fn put_ones(&mut self, mut count: u32) {
        while count > 0 {
            let now = count.min(16);
            self.put((1 << now) - 1, now);
            count -= now;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.put(0, (8 - self.filled) % 8);
        self.out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::read::rare::RareRows;

    /// Ids in the rows they are in; small ids are in many.
    fn sightings() -> impl Strategy<Value = Vec<(u32, u32)>> {
        let id = prop_oneof![3 => 0u32..3, 5 => 0u32..400];
        proptest::collection::vec((id, prop_oneof![4 => 0u32..3, 2 => 0u32..90, 1 => 0u32..9000]), 1..600).prop_map(
            |steps| {
                let mut row = 0;
                let mut placed = |step| {
                    let at = row;
                    row += step;
                    at
                };
                steps.into_iter().map(|(id, step)| (id, placed(step))).collect()
            },
        )
    }

    fn list(sightings: &[(u32, u32)], rows: u32) -> Bytes {
        let mut all = Sightings::default();
        sightings.iter().for_each(|(id, row)| all.add(*id, *row));
        let bytes = all.take(u64::from(rows));
        assert!(all.take(u64::from(rows)).is_empty());
        bytes.into()
    }

    proptest! {
        #[test]
        fn rare_entries_are_listed_with_exactly_their_rows(sightings in sightings(), more in 1u32..5000, step in 1usize..50) {
            let mut due: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
            sightings.iter().for_each(|(id, row)| { due.entry(*id as usize).or_default().insert(*row); });
            let (entries, rows) = (*due.last_key_value().unwrap().0 + 1, sightings.last().unwrap().1 + more);
            let is_rare = |rows: &BTreeSet<u32>| rows.len() <= MOST_ROWS as usize;
            let bytes = list(&sightings, rows);
            prop_assert_eq!(bytes.is_empty(), !due.values().any(is_rare));
            if bytes.is_empty() {
                return Ok(());
            }
            let list = RareRows::new(&bytes, entries, rows).unwrap();
            for entry in 0..entries {
                let listed = due.get(&entry).filter(|rows| is_rare(rows));
                let found = list.rows_of(std::iter::once(entry)).unwrap();
                let found: Option<BTreeSet<u32>> = found.map(|rows| rows.iter().collect());
                prop_assert_eq!(found.as_ref(), listed);
            }
            let wanted: Vec<usize> = due.iter().filter(|(_, rows)| is_rare(rows)).map(|(id, _)| *id).step_by(step).collect();
            let rows: BTreeSet<u32> = wanted.iter().flat_map(|id| &due[id]).copied().collect();
            let found = list.rows_of(wanted.into_iter()).unwrap().unwrap();
            prop_assert_eq!(found.iter().collect::<BTreeSet<_>>(), rows);
            prop_assert!(list.rows_of(std::iter::once(entries)).is_err());
        }

        #[test]
        fn a_list_that_is_damaged_or_of_another_chunk_is_an_error(sightings in sightings(), at in any::<prop::sample::Index>(), bit in 0u32..8) {
            let (entries, rows) = (401, sightings.last().unwrap().1 + 1);
            let mut sightings = sightings;
            sightings.push((400, rows - 1));
            let bytes = list(&sightings, rows);
            prop_assert!(RareRows::new(&bytes, entries, rows).is_ok());
            prop_assert!(RareRows::new(&bytes, entries + 1, rows).is_err());
            prop_assert!(RareRows::new(&bytes, entries, rows + 1).is_err());
            let mut damaged = bytes.to_vec();
            damaged[at.index(bytes.len())] ^= 1 << bit;
            prop_assert!(RareRows::new(&damaged.into(), entries, rows).is_err());
            prop_assert!(RareRows::new(&bytes.slice(..at.index(bytes.len())), entries, rows).is_err());
        }

        /// With a checksum that fits, as no writer makes it: an error or some rows, nothing worse.
        #[test]
        fn any_bits_are_read_to_an_end(packed in proptest::collection::vec(any::<u8>(), 0..300), rows in 1u32..100_000, entries in 1u32..70) {
            let mut bytes = [entries.to_le_bytes(), rows.to_le_bytes()].concat();
            bytes.extend((0..entries.div_ceil(32)).flat_map(|at| (at * 200).to_le_bytes()));
            bytes.extend(packed);
            let mut crc = flate2::Crc::new();
            crc.update(&bytes);
            bytes.extend(crc.sum().to_le_bytes());
            let list = RareRows::new(&bytes.into(), entries as usize, rows).unwrap();
            if let Ok(Some(found)) = list.rows_of(0..entries as usize) {
                prop_assert!(found.iter().all(|row| row < rows));
            }
        }
    }
}
