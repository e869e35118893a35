//! Sets of rows of one row group.

use std::ops::Range;

use super::values::to_usize;

/// Ascending, disjoint, non-empty, non-touching ranges of rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RowSet {
    ranges: Vec<Range<u32>>,
}

impl RowSet {
    /// All rows below `rows`.
    pub(crate) fn all(rows: u32) -> Self {
        let mut set = Self::default();
        set.push_range(0..rows);
        set
    }

    /// One row.
    pub(crate) fn one(row: u32) -> Self {
        let mut set = Self::default();
        set.push(row);
        set
    }

    /// Adds a row at or above all that are in the set.
    pub(crate) fn push(&mut self, row: u32) {
        self.push_range(row..row.saturating_add(1));
    }

    /// Adds rows at or above all that are in the set.
    pub(crate) fn push_range(&mut self, rows: Range<u32>) {
        match self.ranges.last_mut() {
            _ if rows.is_empty() => {}
            Some(last) if rows.start <= last.end => last.end = last.end.max(rows.end),
            _ => self.ranges.push(rows),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> u32 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    pub(crate) fn ranges(&self) -> &[Range<u32>] {
        &self.ranges
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().cloned().flatten()
    }

    /// The rows that are in both.
    pub(crate) fn intersect(&self, other: &Self) -> Self {
        let mut both = Self::default();
        let mut others = other.ranges.iter().peekable();
        for range in &self.ranges {
            while let Some(other) = others.peek().filter(|other| other.start < range.end) {
                both.push_range(other.start.max(range.start)..other.end.min(range.end));
                if other.end > range.end {
                    break;
                }
                others.next();
            }
        }
        both
    }

    /// The rows of the set that are not among `others`, which ascend.
    pub(crate) fn without(&self, others: &[u32]) -> Self {
        let mut left = Self::default();
        for range in &self.ranges {
            let mut from = range.start;
            let first = others.partition_point(|row| *row < range.start);
            for row in others[first..].iter().take_while(|row| **row < range.end) {
                left.push_range(from..*row);
                from = row.saturating_add(1);
            }
            left.push_range(from..range.end);
        }
        left
    }

    /// The rows of the set among the `len` from `first` on, as ranges of their distance to `first`.
    pub(crate) fn within(&self, first: u32, len: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let end = first.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        let from = self.ranges.partition_point(|range| range.end <= first);
        let near = self.ranges[from..].iter().take_while(move |range| range.start < end);
        near.map(move |range| to_usize(range.start.max(first) - first)..to_usize(range.end.min(end) - first))
    }

    /// Whether any of `rows` is in the set.
    pub(crate) fn overlaps(&self, rows: Range<u32>) -> bool {
        let next = self.ranges.partition_point(|range| range.end <= rows.start);
        self.ranges.get(next).is_some_and(|range| range.start < rows.end)
    }

    pub(crate) fn contains(&self, row: u32) -> bool {
        self.overlaps(row..row.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_rows_become_one_range() {
        let mut set = RowSet::one(3);
        set.push(4);
        set.push_range(9..12);
        set.push(11);
        assert_eq!(set.ranges(), [3..5, 9..12]);
        assert_eq!((set.len(), set.contains(4), set.contains(5)), (5, true, false));
        assert!(set.overlaps(5..10) && !set.overlaps(5..9) && !RowSet::default().overlaps(0..9));
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 4, 9, 10, 11]);
        let mut other = RowSet::one(2);
        other.push_range(4..10);
        other.push(11);
        assert_eq!(set.intersect(&other).ranges(), [4..5, 9..10, 11..12]);
        assert_eq!(other.intersect(&set), set.intersect(&other));
        assert_eq!(set.within(4, 6).collect::<Vec<_>>(), [0..1, 5..6]);
        assert_eq!(set.without(&[0, 3, 7, 10, 20]).ranges(), [4..5, 9..10, 11..12]);
        assert_eq!((set.without(&[]), set.without(&[3, 4, 9, 10, 11])), (set.clone(), RowSet::default()));
        assert!(set.within(5, 4).next().is_none() && set.within(0, 100).eq([3..5, 9..12]));
    }
}
