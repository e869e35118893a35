//! The replicated state as this layer sees it: opaque records with keys and stamps, in buckets.

/// Buckets that keys are spread over, so that a single difference among thousands is found in a few hundred bytes.
pub const BUCKETS: usize = 64;

/// A set of records that merge.
///
/// Applying is commutative, associative and idempotent; whoever holds the same records has the same sums.
pub trait Replicated {
    /// The sum over all records.
    fn digest(&self) -> u64;

    /// The sums of the buckets; their order is the same everywhere.
    fn buckets(&self) -> [u64; BUCKETS];

    /// Keys of one bucket with the stamps of their records.
    fn stamps(&self, bucket: usize) -> Vec<(Vec<u8>, u64)>;

    /// The stamp of one record.
    fn stamp(&self, key: &[u8]) -> Option<u64>;

    /// The bytes of one record.
    fn record(&self, key: &[u8]) -> Option<Vec<u8>>;

    /// The key of an encoded record; none if it cannot be read.
    fn key_of(&self, record: &[u8]) -> Option<Vec<u8>>;

    /// Merges a record. Answers with its key if that changed anything; a record that cannot be read changes nothing.
    fn apply(&mut self, record: &[u8]) -> Option<Vec<u8>>;

    /// Local changes that were not yet told to anybody.
    fn take_broadcasts(&mut self) -> Vec<Vec<u8>>;
}
