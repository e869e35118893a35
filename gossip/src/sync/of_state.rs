//! The rings' state as records of this layer.

use super::{BUCKETS, Replicated};
use crate::state::{Key, Record, State};

impl Replicated for State {
    fn digest(&self) -> u64 {
        Self::digest(self).0
    }

    fn buckets(&self) -> [u64; BUCKETS] {
        let hashes = self.bucket_hashes();
        std::array::from_fn(|bucket| hashes.get(bucket).copied().unwrap_or(0))
    }

    fn stamps(&self, bucket: usize) -> Vec<(Vec<u8>, u64)> {
        self.digests(bucket).into_iter().map(|(key, stamp)| (key.encode(), stamp.0)).collect()
    }

    fn stamp(&self, key: &[u8]) -> Option<u64> {
        let key = Key::decode(key).ok()?;
        Self::record(self, &key).map(|record| record.stamp().0)
    }

    fn record(&self, key: &[u8]) -> Option<Vec<u8>> {
        let key = Key::decode(key).ok()?;
        Self::record(self, &key).map(|record| record.encode())
    }

    fn key_of(&self, record: &[u8]) -> Option<Vec<u8>> {
        Record::decode(record).ok().map(|record| record.key().encode())
    }

    fn apply(&mut self, record: &[u8]) -> Option<Vec<u8>> {
        let record = Record::decode(record).ok()?;
        Self::apply(self, vec![record]).pop().map(|key| key.encode())
    }

    fn take_broadcasts(&mut self) -> Vec<Vec<u8>> {
        Self::take_broadcasts(self).iter().map(Record::encode).collect()
    }
}
