//! The newest durable records, kept in memory so that readers who keep up never touch the disk.

use std::collections::VecDeque;

use crate::record::{Entry, Offset};

/// Every durable record at or above `covers_from`, bounded by what its records are charged.
pub(crate) struct Tail {
    entries: VecDeque<Entry>,
    covers_from: Offset,
    bytes: usize,
    limit_bytes: usize,
}

impl Tail {
    /// Holds nothing yet, and misses nothing at or above `end`.
    pub(crate) fn new(end: Offset, limit_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), covers_from: end, bytes: 0, limit_bytes }
    }

    /// Takes the next durable record and lets the oldest go while there are too many bytes.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.bytes += entry.record.charged_bytes();
        self.entries.push_back(entry);
        while self.bytes > self.limit_bytes
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.record.charged_bytes();
            self.covers_from = oldest.offset.next();
        }
    }

    /// Lets everything below `below` go.
    pub(crate) fn release(&mut self, below: Offset) {
        while let Some(oldest) = self.entries.pop_front_if(|entry| entry.offset < below) {
            self.bytes -= oldest.record.charged_bytes();
            self.covers_from = oldest.offset.next();
        }
    }

    /// Whether everything durable from `position` on is here.
    pub(crate) fn covers(&self, position: Offset) -> bool {
        position >= self.covers_from
    }

    /// Up to `max_bytes` of records from `position` on, at least one if there is one.
    pub(crate) fn read(&self, position: Offset, max_bytes: usize) -> Vec<Entry> {
        let start = self.entries.partition_point(|entry| entry.offset < position);
        let mut bytes = 0;
        let mut read = Vec::new();
        for entry in self.entries.range(start..) {
            bytes += entry.record.charged_bytes();
            if bytes > max_bytes && !read.is_empty() {
                break;
            }
            read.push(entry.clone());
        }
        read
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::Record;

    fn entry(offset: u64, value_bytes: usize) -> Entry {
        let record = Record { value: Bytes::from(vec![1; value_bytes]), ..Record::default() };
        Entry { offset: Offset(offset), record }
    }

    #[test]
    fn the_oldest_records_go_first_and_the_tail_knows_what_it_misses() {
        let one = entry(0, 1000).record.charged_bytes();
        let mut tail = Tail::new(Offset(10), 3 * one);
        for offset in [10, 11, 14, 15] {
            tail.push(entry(offset, 1000));
        }
        assert_eq!(tail.bytes(), 3 * one);
        assert!(!tail.covers(Offset(10)));
        assert!(tail.covers(Offset(11)));
        let offsets = |entries: Vec<Entry>| entries.iter().map(|e| e.offset.0).collect::<Vec<_>>();
        assert_eq!(offsets(tail.read(Offset(11), usize::MAX)), [11, 14, 15]);
        assert_eq!(offsets(tail.read(Offset(12), 2 * one)), [14, 15]);
        assert_eq!(offsets(tail.read(Offset(12), 1)), [14]);
        assert!(tail.read(Offset(16), 1).is_empty());
    }

    #[test]
    fn a_record_larger_than_the_tail_is_not_kept() {
        let mut tail = Tail::new(Offset(0), 10);
        tail.push(entry(0, 100));
        assert_eq!(tail.bytes(), 0);
        assert!(!tail.covers(Offset(0)));
        assert!(tail.covers(Offset(1)));
    }
}
