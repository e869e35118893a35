//! The state of simulated members: one register per writer, the higher version wins.

use std::collections::BTreeMap;

use vivace_gossip::sync::{BUCKETS, Replicated};

/// Bytes of a record: about those of an instance's.
const RECORD_BYTES: usize = 180;

#[derive(Debug, Default, Clone)]
pub(crate) struct Registers {
    /// By bucket.
    values: Vec<BTreeMap<u32, u64>>,
    news: Vec<u32>,
    sums: Vec<u64>,
}

impl Registers {
    pub(crate) fn put(&mut self, key: u32, version: u64) {
        if self.merge(key, version) {
            self.news.push(key);
        }
    }

    pub(crate) fn get(&self, key: u32) -> Option<u64> {
        self.values.get(key as usize % BUCKETS)?.get(&key).copied()
    }

    fn merge(&mut self, key: u32, version: u64) -> bool {
        let before = self.get(key);
        if before.is_some_and(|before| before >= version) {
            return false;
        }
        self.sums.resize(BUCKETS, 0);
        self.values.resize(BUCKETS, BTreeMap::new());
        let sum = &mut self.sums[key as usize % BUCKETS];
        if let Some(before) = before {
            *sum = sum.wrapping_sub(mix(key, before));
        }
        *sum = sum.wrapping_add(mix(key, version));
        self.values[key as usize % BUCKETS].insert(key, version);
        true
    }
}

fn mix(key: u32, version: u64) -> u64 {
    let mut x = u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn encode(key: u32, version: u64) -> Vec<u8> {
    let mut bytes = key.to_be_bytes().to_vec();
    bytes.extend(version.to_be_bytes());
    bytes.resize(RECORD_BYTES, 0);
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u32, u64)> {
    let (key, rest) = bytes.split_first_chunk::<4>()?;
    let (version, _) = rest.split_first_chunk::<8>()?;
    Some((u32::from_be_bytes(*key), u64::from_be_bytes(*version)))
}

fn key_from(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<4>().map(|key| u32::from_be_bytes(*key))
}

impl Replicated for Registers {
    fn digest(&self) -> u64 {
        self.sums.iter().fold(0, |sum, bucket| sum.wrapping_add(*bucket))
    }

    fn buckets(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|bucket| self.sums.get(bucket).copied().unwrap_or(0))
    }

    fn stamps(&self, bucket: usize) -> Vec<(Vec<u8>, u64)> {
        let held = self.values.get(bucket).into_iter().flatten();
        held.map(|(key, version)| (key.to_be_bytes().to_vec(), *version)).collect()
    }

    fn stamp(&self, key: &[u8]) -> Option<u64> {
        self.get(key_from(key)?)
    }

    fn record(&self, key: &[u8]) -> Option<Vec<u8>> {
        let key = key_from(key)?;
        Some(encode(key, self.get(key)?))
    }

    fn key_of(&self, record: &[u8]) -> Option<Vec<u8>> {
        decode(record).map(|(key, _)| key.to_be_bytes().to_vec())
    }

    fn apply(&mut self, record: &[u8]) -> Option<Vec<u8>> {
        let (key, version) = decode(record)?;
        self.merge(key, version).then(|| key.to_be_bytes().to_vec())
    }

    fn take_broadcasts(&mut self) -> Vec<Vec<u8>> {
        let news = std::mem::take(&mut self.news);
        news.into_iter().filter_map(|key| Some(encode(key, self.get(key)?))).collect()
    }
}
