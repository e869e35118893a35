//! What a partition knows of its idempotent producers, as rules without IO: a batch that is sent again gets the offset that it
//! already has, a gap in the sequence is refused.

use std::collections::{HashMap, VecDeque};

use crate::batch::Head;

/// Batches remembered for each producer: a client has at most five requests under way.
const REMEMBERED: usize = 5;
/// Producers remembered. When there are more, the one that was silent for longest is forgotten and may begin anew.
const MAX_PRODUCERS: usize = 1000;

/// The producers of one partition.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    known: HashMap<i64, Producer>,
    /// Counts batches, so that the longest silence can be found without a clock.
    turn: u64,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    last_turn: u64,
    batches: VecDeque<Sent>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    first: i32,
    last: i32,
    base_offset: u64,
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    /// It is there already.
    Duplicate {
        base_offset: u64,
    },
    /// The producer's epoch is older than one that was seen.
    Fenced,
    /// A batch before this one is missing.
    OutOfOrder,
}

impl Producers {
    /// Judges a batch; changes nothing. A producer that is not known may begin anywhere: its past may have been forgotten.
    pub(crate) fn judge(&self, head: &Head) -> Verdict {
        if head.producer_id < 0 {
            return Verdict::Append;
        }
        let Some(producer) = self.known.get(&head.producer_id) else { return Verdict::Append };
        if head.producer_epoch < producer.epoch {
            return Verdict::Fenced;
        }
        if head.producer_epoch > producer.epoch {
            return if head.base_sequence == 0 { Verdict::Append } else { Verdict::OutOfOrder };
        }
        let same = |sent: &&Sent| sent.first == head.base_sequence && sent.last == head.last_sequence();
        if let Some(sent) = producer.batches.iter().find(same) {
            return Verdict::Duplicate { base_offset: sent.base_offset };
        }
        match producer.batches.back() {
            Some(last) if following(last.last) != head.base_sequence => Verdict::OutOfOrder,
            _ => Verdict::Append,
        }
    }

    /// Takes note of a batch that is durable now.
    pub(crate) fn appended(&mut self, head: &Head, base_offset: u64) {
        if head.producer_id < 0 {
            return;
        }
        self.turn += 1;
        let turn = self.turn;
        let producer = self.known.entry(head.producer_id).or_insert_with(|| Producer {
            epoch: head.producer_epoch,
            last_turn: turn,
            batches: VecDeque::new(),
        });
        if producer.epoch != head.producer_epoch {
            producer.epoch = head.producer_epoch;
            producer.batches.clear();
        }
        producer.last_turn = turn;
        producer.batches.push_back(Sent { first: head.base_sequence, last: head.last_sequence(), base_offset });
        if producer.batches.len() > REMEMBERED {
            producer.batches.pop_front();
        }
        if self.known.len() > MAX_PRODUCERS {
            let silent = self.known.iter().min_by_key(|(_, producer)| producer.last_turn).map(|(&id, _)| id);
            silent.and_then(|id| self.known.remove(&id));
        }
    }
}

fn following(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(producer_epoch: i16, base_sequence: i32, records: u32) -> Head {
        Head {
            attributes: 0,
            last_offset_delta: records - 1,
            base_timestamp_ms: 0,
            max_timestamp_ms: 0,
            producer_id: 7,
            producer_epoch,
            base_sequence,
        }
    }

    #[test]
    fn a_batch_sent_again_is_found_with_its_offset_and_a_gap_is_refused() {
        let mut producers = Producers::default();
        for (sequence, offset) in [(0, 100), (3, 103), (6, 110)] {
            assert_eq!(producers.judge(&batch(0, sequence, 3)), Verdict::Append);
            producers.appended(&batch(0, sequence, 3), offset);
        }
        assert_eq!(producers.judge(&batch(0, 3, 3)), Verdict::Duplicate { base_offset: 103 });
        assert_eq!(producers.judge(&batch(0, 12, 3)), Verdict::OutOfOrder);
        assert_eq!(producers.judge(&batch(0, 3, 2)), Verdict::OutOfOrder, "another batch with the same start");
        assert_eq!(producers.judge(&batch(0, 9, 1)), Verdict::Append);
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old_one() {
        let mut producers = Producers::default();
        producers.appended(&batch(1, 0, 5), 0);
        assert_eq!(producers.judge(&batch(2, 5, 1)), Verdict::OutOfOrder);
        assert_eq!(producers.judge(&batch(2, 0, 1)), Verdict::Append);
        producers.appended(&batch(2, 0, 1), 5);
        assert_eq!(producers.judge(&batch(1, 5, 1)), Verdict::Fenced);
        assert_eq!(producers.judge(&batch(2, 0, 1)), Verdict::Duplicate { base_offset: 5 });
    }

    #[test]
    fn sequence_numbers_go_on_at_zero_behind_the_largest() {
        let mut producers = Producers::default();
        producers.appended(&batch(0, i32::MAX - 1, 4), 0);
        assert_eq!(batch(0, i32::MAX - 1, 4).last_sequence(), 1);
        assert_eq!(producers.judge(&batch(0, 2, 1)), Verdict::Append);
    }

    #[test]
    fn the_number_of_producers_is_bounded() {
        let mut producers = Producers::default();
        for id in 0..1500 {
            producers.appended(&Head { producer_id: id, ..batch(0, 0, 1) }, 0);
        }
        assert_eq!(producers.known.len(), MAX_PRODUCERS);
        assert!(producers.known.contains_key(&1499));
    }
}
