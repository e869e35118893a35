//! Bloom filters over trace ids: the layout of Go's `bits-and-blooms` v3, one object a shard.
//!
//! ```text
//! object bloom-<n>, all big-endian u64:   m | k | m | word 0 | word 1 | …      bit p = bit p mod 64 of word p / 64
//! ```
//! The shard of an id is its FNV-1 hash modulo the number of shards, which `meta.json` records; `m` and `k` are read
//! from the object, so shards of other sizes work.

use bytes::Bytes;

/// Default size of one shard's bits in bytes.
pub(crate) const SHARD_BYTES: usize = 100 * 1024;
/// Default share of absent ids that a shard does not exclude.
pub(crate) const FALSE_POSITIVES: f64 = 0.01;

const MAX_SHARDS: u64 = 1000;
const HEADER_BYTES: usize = 24;

/// Why a shard was refused. Its content comes from storage: retrying gives the same answer. It says nothing about
/// whether an id is present, so the block has to be searched or reported as unread.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The object ends within its header or its words.
    #[error("bloom filter of {0} bytes is cut short")]
    CutShort(usize),
    /// The header names no bits, no hashes, or two different sizes.
    #[error("bloom filter header is inconsistent: {bits} bits, {hashes} hashes, {length} bits stored")]
    Header {
        /// Bits that positions are taken modulo.
        bits: u64,
        /// Positions for each id.
        hashes: u64,
        /// Bits stored.
        length: u64,
    },
}

/// Bytes of a shard that say how it is laid out.
pub(crate) const HEADER: std::ops::Range<u64> = 0..24;

/// The bytes of a shard with this header that decide about one id: an id is certainly absent unless every
/// byte has the bit of its mask.
pub(crate) fn probes(header: &[u8], id: &[u8; 16]) -> Result<Vec<(std::ops::Range<u64>, u8)>, Error> {
    let number = |at: usize| header.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    let (Some(bits), Some(hashes), Some(length)) = (number(0), number(8), number(16)) else {
        return Err(Error::CutShort(header.len()));
    };
    if bits == 0 || bits != length || hashes > 64 {
        return Err(Error::Header { bits, hashes, length });
    }
    Ok(positions(id, bits, hashes)
        .map(|bit| {
            // Words are big-endian, bits count from the low end of a word.
            let byte = HEADER.end + bit / 64 * 8 + 7 - bit % 64 / 8;
            (byte..byte + 1, 1 << (bit % 8))
        })
        .collect())
}

/// The shard that holds `id` when there are `shards` of them (at least one).
pub fn shard_of(id: &[u8; 16], shards: u32) -> u32 {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in id {
        hash = hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte);
    }
    hash % shards.max(1)
}

/// The positions of an id, without the modulus: `base(i) = h[i mod 2] + i · h[2 + …]`.
fn hashes(id: &[u8; 16]) -> [u64; 4] {
    let (low, high) = (u64::from_le_bytes(first8(id)), u64::from_le_bytes(last8(id)));
    let [h0, h1] = murmur3(low, high, 0, 16);
    let [h2, h3] = murmur3(low, high, 1, 17);
    [h0, h1, h2, h3]
}

fn first8(id: &[u8; 16]) -> [u8; 8] {
    id[..8].try_into().expect("half of sixteen bytes")
}

fn last8(id: &[u8; 16]) -> [u8; 8] {
    id[8..].try_into().expect("half of sixteen bytes")
}

/// murmur3 x64-128 with seed 0 of one sixteen-byte block and, if `length` is 17, one byte of tail.
fn murmur3(block_low: u64, block_high: u64, tail: u64, length: u64) -> [u64; 2] {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mut h1 = block_low.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    h1 = h1.rotate_left(27).wrapping_mul(5).wrapping_add(0x52dc_e729);
    let mut h2 = block_high.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    if length == 17 {
        h1 ^= tail.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    }
    h1 ^= length;
    h2 ^= length;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    h1 = mix(h1);
    h2 = mix(h2);
    h1 = h1.wrapping_add(h2);
    [h1, h2.wrapping_add(h1)]
}

fn mix(mut k: u64) -> u64 {
    k ^= k >> 33;
    k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
    k ^= k >> 33;
    k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

fn positions(id: &[u8; 16], bits: u64, count: u64) -> impl Iterator<Item = u64> {
    let h = hashes(id);
    (0..count).map(move |i| {
        let first = if i % 2 == 0 { h[0] } else { h[1] };
        let second = if ((i + i % 2) % 4) / 2 == 0 { h[2] } else { h[3] };
        first.wrapping_add(i.wrapping_mul(second)) % bits
    })
}

/// The filters of one block under construction.
#[derive(Debug, Clone)]
pub struct Bloom {
    bits: u64,
    hash_count: u64,
    shards: Vec<Vec<u64>>,
}

impl Bloom {
    /// Room for `traces` ids with Tempo's defaults: shards of 100 KiB, one false positive in a hundred.
    pub fn for_traces(traces: u64) -> Self {
        Self::with_shards_of(traces, SHARD_BYTES, FALSE_POSITIVES)
    }

    /// Room for `traces` ids; `shard_bytes` is the size of a shard's bits, `false_positives` a probability in (0, 1).
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "float to integer saturates, and the shard count is clamped"
    )]
    pub fn with_shards_of(traces: u64, shard_bytes: usize, false_positives: f64) -> Self {
        let ln2 = std::f64::consts::LN_2;
        let traces = traces.max(1) as f64;
        let wanted = (-traces * false_positives.ln() / (ln2 * ln2)).ceil();
        let hash_count = (ln2 * wanted / traces).ceil().max(1.0) as u64;
        let bits = (shard_bytes.max(8) as u64) * 8;
        let shards = (wanted as u64).div_ceil(bits).clamp(1, MAX_SHARDS);
        let words = bits.div_ceil(64) as usize;
        Self { bits, hash_count, shards: vec![vec![0; words]; shards as usize] }
    }

    /// Number of shards, at least 1 and at most 1000.
    pub fn shard_count(&self) -> u32 {
        u32::try_from(self.shards.len()).expect("clamped to a thousand")
    }

    /// Adds an id.
    pub fn add(&mut self, id: &[u8; 16]) {
        let shard = shard_of(id, self.shard_count()) as usize;
        for position in positions(id, self.bits, self.hash_count) {
            let word = usize::try_from(position / 64).expect("below the number of words");
            self.shards[shard][word] |= 1 << (position % 64);
        }
    }

    /// The content of `bloom-0`, `bloom-1`, …
    pub fn to_objects(&self) -> Vec<Bytes> {
        let shard = |words: &Vec<u64>| {
            let mut object = Vec::with_capacity(HEADER_BYTES + words.len() * 8);
            for word in [self.bits, self.hash_count, self.bits].iter().chain(words) {
                object.extend_from_slice(&word.to_be_bytes());
            }
            Bytes::from(object)
        };
        self.shards.iter().map(shard).collect()
    }
}

/// One shard as read from its object.
#[derive(Debug, Clone)]
pub struct BloomFilter {
    bits: u64,
    hash_count: u64,
    words: Bytes,
}

impl BloomFilter {
    /// Checks the header and keeps the words where they are.
    pub fn from_object(object: Bytes) -> Result<Self, Error> {
        let number = |index: usize| -> Option<u64> {
            Some(u64::from_be_bytes(object.get(index * 8..index * 8 + 8)?.try_into().ok()?))
        };
        let header = (number(0), number(1), number(2));
        let (Some(bits), Some(hash_count), Some(length)) = header else {
            return Err(Error::CutShort(object.len()));
        };
        // More than a few dozen hashes make no sense, and a hostile count would make each test endless.
        if bits == 0 || hash_count == 0 || hash_count > 1000 || length != bits {
            return Err(Error::Header { bits, hashes: hash_count, length });
        }
        let stored = (object.len() - HEADER_BYTES) as u64 / 8;
        if stored < bits.div_ceil(64) {
            return Err(Error::CutShort(object.len()));
        }
        Ok(Self { bits, hash_count, words: object.slice(HEADER_BYTES..) })
    }

    /// `false` means that the block does not hold the trace; `true` that it may.
    pub fn may_contain(&self, id: &[u8; 16]) -> bool {
        positions(id, self.bits, self.hash_count).all(|position| {
            // Words are big-endian, so bit p mod 64 lies in byte 7 - (p mod 64) / 8 of its word.
            let byte = (position / 64) * 8 + 7 - (position % 64) / 8;
            let byte = usize::try_from(byte).ok().and_then(|byte| self.words.get(byte));
            byte.is_some_and(|byte| byte & (1 << (position % 8)) != 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(hex: &str) -> [u8; 16] {
        u128::from_str_radix(hex, 16).unwrap().to_be_bytes()
    }

    #[test]
    fn shards_and_positions_are_those_of_the_go_library() {
        let cases: [(&str, u32, [u64; 7]); 3] = [
            (
                "00000000000000000c5c7fd0a6a3a450",
                583_936_213,
                [699_144, 165_012, 568_996, 656_166, 306_056, 723_916, 308_700],
            ),
            (
                "eeeacbe226e875555790f82ec1d3fcff",
                1_972_829_938,
                [238_803, 40_692, 427_605, 774_126, 261_239, 418_296, 411_993],
            ),
            (
                "00000000000000000000000000000001",
                1_768_495_364,
                [557_604, 548_096, 97_154, 260_469, 806_484, 479_164, 28_222],
            ),
        ];
        for (hex, hash, expected) in cases {
            assert_eq!(shard_of(&id(hex), u32::MAX), hash % u32::MAX);
            assert_eq!(shard_of(&id(hex), 10), hash % 10);
            assert_eq!(positions(&id(hex), 819_200, 7).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn murmur_words_are_right() {
        let words = hashes(&id("00000000000000000000000000000001"));
        assert_eq!(words, [0x23ef_f263_57c4_8224, 0x0189_7af0_aa0c_a051, 0x640e_b8eb_aa79_f30c, 0xea7a_7a80_f5fe_bcaf]);
    }

    #[test]
    fn shard_counts_follow_the_estimate() {
        for (traces, shards) in [(1, 1), (1_000, 1), (85_463, 1), (100_000, 2), (6_000_000, 71)] {
            let bloom = Bloom::for_traces(traces);
            assert_eq!((bloom.shard_count(), bloom.hash_count), (shards, 7), "{traces}");
        }
    }

    #[test]
    fn what_was_added_is_found_and_little_else() {
        let mut bloom = Bloom::for_traces(20_000);
        let ids: Vec<[u8; 16]> = (0..20_000u128).map(|n| (n * 0x9e37_79b9_7f4a_7c15).to_be_bytes()).collect();
        ids.iter().for_each(|id| bloom.add(id));
        let filters: Vec<_> = bloom.to_objects().into_iter().map(|o| BloomFilter::from_object(o).unwrap()).collect();
        let shards = bloom.shard_count();
        let hit = |id: &[u8; 16]| filters[shard_of(id, shards) as usize].may_contain(id);
        assert!(ids.iter().all(hit));
        let wrong = (0..10_000u128).filter(|n| hit(&(n * 0x0123_4567_89ab_cdef + 7).to_be_bytes())).count();
        assert!(wrong < 200, "{wrong} false positives in 10 000");
    }

    #[test]
    fn damaged_objects_are_errors() {
        let object = Bloom::for_traces(10).to_objects().remove(0);
        assert_eq!(object.len(), 102_424);
        assert!(matches!(BloomFilter::from_object(object.slice(..1000)), Err(Error::CutShort(1000))));
        assert!(matches!(BloomFilter::from_object(Bytes::new()), Err(Error::CutShort(0))));
        assert!(matches!(BloomFilter::from_object(Bytes::from(vec![0; 100])), Err(Error::Header { .. })));
    }
}
