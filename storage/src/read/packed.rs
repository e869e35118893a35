//! Integers of a page: as they were decoded, in as few bytes each as their range needs where they are kept, or as the page has them.

use std::ops::Range;

use vivace_traceql::Bitmap;

use super::bits::Bits;

/// See the module. Each value is `base` plus what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    base: i64,
    stored: Stored,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stored {
    Bytes(Vec<u8>),
    Shorts(Vec<u16>),
    Words(Vec<u32>),
    /// The lower 32 bits and the 16 above: starts of traces within some hours.
    Split(Vec<u32>, Vec<u16>),
    Wide(Vec<i64>),
    Bits(Bits),
}

impl From<Vec<i64>> for Packed {
    fn from(values: Vec<i64>) -> Self {
        Self { base: 0, stored: Stored::Wide(values) }
    }
}

impl From<Bits> for Packed {
    fn from(values: Bits) -> Self {
        Self { base: 0, stored: Stored::Bits(values) }
    }
}

impl From<Vec<u32>> for Packed {
    fn from(values: Vec<u32>) -> Self {
        Self { base: 0, stored: Stored::Words(values) }
    }
}

impl Packed {
    /// Integers in as few bytes each as their range needs.
    pub(crate) fn narrow(values: &[i64]) -> Self {
        narrow(values, |value| value).unwrap_or_else(|| values.to_vec().into())
    }

    pub(crate) fn len(&self) -> usize {
        match &self.stored {
            Stored::Bytes(values) => values.len(),
            Stored::Shorts(values) => values.len(),
            Stored::Words(values) | Stored::Split(values, _) => values.len(),
            Stored::Wide(values) => values.len(),
            Stored::Bits(values) => values.len(),
        }
    }

    /// Memory held.
    pub(crate) fn memory(&self) -> usize {
        match &self.stored {
            Stored::Bytes(values) => values.len(),
            Stored::Shorts(values) => values.len() * 2,
            Stored::Words(values) => values.len() * 4,
            Stored::Split(values, _) => values.len() * 6,
            Stored::Wide(values) => values.len() * 8,
            Stored::Bits(values) => values.memory(),
        }
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<i64> {
        let stored = match &self.stored {
            Stored::Bytes(values) => i64::from(*values.get(index)?),
            Stored::Shorts(values) => i64::from(*values.get(index)?),
            Stored::Words(values) => i64::from(*values.get(index)?),
            Stored::Split(low, high) => joined(*low.get(index)?, *high.get(index)?),
            Stored::Wide(values) => *values.get(index)?,
            Stored::Bits(values) => i64::from(values.get(index)?),
        };
        Some(self.base.wrapping_add(stored))
    }

    /// A number of a dictionary entry.
    #[inline]
    pub(crate) fn id(&self, index: usize) -> Option<u32> {
        self.get(index).and_then(|id| u32::try_from(id).ok())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = i64> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Appends the values of `range`, which is cut at the end.
    pub(crate) fn extend(&self, range: Range<usize>, out: &mut Vec<i64>) {
        let range = self.within(range);
        let base = self.base;
        match &self.stored {
            Stored::Bytes(values) => out.extend(values[range].iter().map(|value| base + i64::from(*value))),
            Stored::Shorts(values) => out.extend(values[range].iter().map(|value| base + i64::from(*value))),
            Stored::Words(values) => out.extend(values[range].iter().map(|value| base + i64::from(*value))),
            Stored::Split(low, high) => {
                let halves = low[range.clone()].iter().zip(&high[range]);
                out.extend(halves.map(|(low, high)| base.wrapping_add(joined(*low, *high))));
            }
            Stored::Wide(values) => out.extend(values[range].iter().map(|value| base.wrapping_add(*value))),
            Stored::Bits(values) => values.extend(range, out, |value| base + i64::from(value)),
        }
    }

    /// Appends the values of `range`, which is cut at the end, as numbers of dictionary entries.
    pub(crate) fn extend_ids(&self, range: Range<usize>, out: &mut Vec<u32>) {
        let range = self.within(range);
        let base = self.base;
        // Values that are no ids end up as one that no dictionary has.
        let id = |stored: i64| u32::try_from(base.wrapping_add(stored)).unwrap_or(u32::MAX);
        match &self.stored {
            Stored::Bytes(values) => out.extend(values[range].iter().map(|value| id(i64::from(*value)))),
            Stored::Shorts(values) => out.extend(values[range].iter().map(|value| id(i64::from(*value)))),
            Stored::Words(values) => out.extend(values[range].iter().map(|value| id(i64::from(*value)))),
            Stored::Split(low, high) => {
                let halves = low[range.clone()].iter().zip(&high[range]);
                out.extend(halves.map(|(low, high)| id(joined(*low, *high))));
            }
            Stored::Wide(values) => out.extend(values[range].iter().map(|value| id(*value))),
            Stored::Bits(values) => values.extend(range, out, |value| id(i64::from(value))),
        }
    }

    /// Which values of `range`, which is cut at the end, pass a test.
    pub(crate) fn test(&self, range: Range<usize>, mut passes: impl FnMut(i64) -> bool) -> Bitmap {
        let range = self.within(range);
        let base = self.base;
        match &self.stored {
            Stored::Bytes(values) => Bitmap::from_slice(&values[range], |value| passes(base + i64::from(*value))),
            Stored::Shorts(values) => Bitmap::from_slice(&values[range], |value| passes(base + i64::from(*value))),
            Stored::Words(values) => Bitmap::from_slice(&values[range], |value| passes(base + i64::from(*value))),
            Stored::Split(low, high) => {
                let (low, high) = (&low[range.clone()], &high[range]);
                Bitmap::from_fn(low.len(), |at| passes(base.wrapping_add(joined(low[at], high[at]))))
            }
            Stored::Wide(values) => Bitmap::from_slice(&values[range], |value| passes(base.wrapping_add(*value))),
            Stored::Bits(values) => values.test(range, |value| passes(base + i64::from(value))),
        }
    }

    /// Which values of `range`, which is cut at the end, are this one.
    pub(crate) fn equal(&self, range: Range<usize>, wanted: i64) -> Bitmap {
        match (&self.stored, u32::try_from(wanted.wrapping_sub(self.base))) {
            (Stored::Bits(values), Ok(wanted)) => values.equal(self.within(range), wanted),
            _ => self.test(range, |value| value == wanted),
        }
    }

    fn within(&self, range: Range<usize>) -> Range<usize> {
        let end = range.end.min(self.len());
        range.start.min(end)..end
    }

    /// The same values in fewer bytes each, where they take four or more.
    pub(crate) fn pack(self) -> Self {
        let base = self.base;
        let packed = match &self.stored {
            Stored::Bytes(_) | Stored::Shorts(_) | Stored::Split(..) | Stored::Bits(_) => None,
            Stored::Words(values) => narrow(values, |value| base.wrapping_add(i64::from(value))),
            Stored::Wide(values) => narrow(values, |value| base.wrapping_add(value)),
        };
        packed.unwrap_or(self)
    }
}

#[inline]
fn joined(low: u32, high: u16) -> i64 {
    i64::from(high) << 32 | i64::from(low)
}

/// Values in as few bytes each as their range needs, none when that is eight.
fn narrow<T: Copy>(values: &[T], of: impl Fn(T) -> i64) -> Option<Packed> {
    let (low, high) = values.iter().fold((i64::MAX, i64::MIN), |(low, high), value| {
        let value = of(*value);
        (low.min(value), high.max(value))
    });
    let spread = high.checked_sub(low)?;
    // No offset is above the spread, so what is cut off is zero.
    let offsets = values.iter().map(|value| of(*value).wrapping_sub(low).to_le_bytes());
    let stored = if spread <= i64::from(u8::MAX) {
        Stored::Bytes(offsets.map(|[byte, ..]| byte).collect())
    } else if spread <= i64::from(u16::MAX) {
        Stored::Shorts(offsets.map(|[a, b, ..]| u16::from_le_bytes([a, b])).collect())
    } else if spread <= i64::from(u32::MAX) {
        Stored::Words(offsets.map(|[a, b, c, d, ..]| u32::from_le_bytes([a, b, c, d])).collect())
    } else if spread < 1 << 48 {
        let high = offsets.clone().map(|[_, _, _, _, a, b, ..]| u16::from_le_bytes([a, b])).collect();
        Stored::Split(offsets.map(|[a, b, c, d, ..]| u32::from_le_bytes([a, b, c, d])).collect(), high)
    } else {
        return None;
    };
    Some(Packed { base: low, stored })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packed_values_are_the_same_values(
            low in prop_oneof![Just(0), Just(i64::MIN), Just(-3), Just(i64::MAX - 300)],
            spread in prop_oneof![Just(1u64), Just(200), Just(60_000), Just(u64::from(u32::MAX)), Just(1 << 40), Just(1 << 48), Just(u64::MAX)],
            parts in prop::collection::vec(any::<u64>(), 0..50),
            start in 0usize..60,
            len in 0usize..60,
        ) {
            let values: Vec<i64> = parts.iter().map(|part| low.saturating_add_unsigned(part % spread)).collect();
            let plain = Packed::from(values.clone());
            let packed = plain.clone().pack();
            prop_assert_eq!(packed.clone().pack(), packed.clone());
            prop_assert_eq!(Packed::narrow(&values), packed.clone());
            prop_assert!(packed.memory() <= plain.memory());
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), values.clone());
            let cut = &values[start.min(values.len())..(start + len).min(values.len()).max(start.min(values.len()))];
            let mut out = Vec::new();
            packed.extend(start..start + len, &mut out);
            prop_assert_eq!(&out, cut);
            let mut ids = Vec::new();
            packed.extend_ids(start..start + len, &mut ids);
            prop_assert_eq!(ids, cut.iter().map(|value| u32::try_from(*value).unwrap_or(u32::MAX)).collect::<Vec<_>>());
            let passing = packed.test(start..start + len, |value| value % 2 == 0);
            prop_assert_eq!(passing.ones_iter().count(), cut.iter().filter(|value| **value % 2 == 0).count());
            prop_assert_eq!(packed.get(values.len()), None);
        }
    }
}
