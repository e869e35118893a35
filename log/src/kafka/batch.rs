//! Which records travel together: a plain rule over sizes, without time and IO.

/// What waits to be sent to one partition, in order.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    items: Vec<T>,
    bytes: usize,
}

/// How large a batch may be. Learned: a broker that refuses a batch as too large halves it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimit {
    bytes: usize,
}

/// A broker that takes less than this takes no traces.
const LIMIT_BYTES_MIN: usize = 16 << 10;
/// Each record's bookkeeping on the wire, generously: lengths, deltas, the sequence.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 80;

impl<T> Batch<T> {
    pub(crate) fn new() -> Self {
        Self { items: Vec::new(), bytes: 0 }
    }

    /// Takes the item, or gives it back when the batch would grow above the limit. The first always fits.
    pub(crate) fn push(&mut self, item: T, bytes: usize, limit: BatchLimit) -> Option<T> {
        if !self.items.is_empty() && self.bytes + bytes > limit.bytes {
            return Some(item);
        }
        self.bytes += bytes;
        self.items.push(item);
        None
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn items(&self) -> &[T] {
        &self.items
    }

    pub(crate) fn into_items(self) -> Vec<T> {
        self.items
    }

    /// Two halves by bytes, in order, neither empty; `Err(self)` when there is only one item.
    pub(crate) fn halves(mut self, size: impl Fn(&T) -> usize) -> Result<[Self; 2], Self> {
        if self.items.len() < 2 {
            return Err(self);
        }
        let (mut at, mut bytes) = (0, 0);
        while at < self.items.len() - 1 && (at == 0 || bytes + size(&self.items[at]) <= self.bytes / 2) {
            bytes += size(&self.items[at]);
            at += 1;
        }
        let rest = self.items.split_off(at);
        let rest_bytes = self.bytes - bytes;
        Ok([Self { items: self.items, bytes }, Self { items: rest, bytes: rest_bytes }])
    }
}

impl BatchLimit {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes }
    }

    /// A batch of `bytes` was too large.
    pub(crate) fn refused(&mut self, bytes: usize) {
        self.bytes = self.bytes.min(bytes / 2).max(LIMIT_BYTES_MIN);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_stays_below_its_limit_and_takes_one_item_of_any_size() {
        let mut batch = Batch::new();
        let limit = BatchLimit::new(10);
        assert_eq!(batch.push("large", 50, limit), None);
        assert_eq!(batch.push("more", 1, limit), Some("more"));
        let mut batch = Batch::new();
        assert_eq!(batch.push("a", 6, limit), None);
        assert_eq!(batch.push("b", 4, limit), None);
        assert_eq!(batch.push("c", 1, limit), Some("c"));
        assert_eq!((batch.items(), batch.bytes()), (["a", "b"].as_slice(), 10));
    }

    #[test]
    fn a_refused_batch_lowers_the_limit_but_not_below_sense() {
        let mut limit = BatchLimit::new(16_000_000);
        limit.refused(4_000_000);
        assert_eq!(limit.bytes, 2_000_000);
        limit.refused(3_000_000);
        assert_eq!(limit.bytes, 1_500_000);
        limit.refused(100);
        assert_eq!(limit.bytes, LIMIT_BYTES_MIN);
    }

    proptest! {
        #[test]
        fn halves_keep_the_order_and_lose_nothing(sizes in prop::collection::vec(1_usize..1000, 1..50)) {
            let mut batch = Batch::new();
            for (number, size) in sizes.iter().enumerate() {
                prop_assert_eq!(batch.push((number, *size), *size, BatchLimit::new(usize::MAX)), None);
            }
            let whole = batch.items().to_vec();
            match batch.halves(|item| item.1) {
                Err(one) => prop_assert_eq!(one.items().len(), 1),
                Ok([first, second]) => {
                    prop_assert!(!first.items().is_empty() && !second.items().is_empty());
                    for half in [&first, &second] {
                        prop_assert_eq!(half.bytes(), half.items().iter().map(|item| item.1).sum::<usize>());
                    }
                    let mut both = first.into_items();
                    both.extend(second.into_items());
                    prop_assert_eq!(both, whole);
                }
            }
        }
    }
}
