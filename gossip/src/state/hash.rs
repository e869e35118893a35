//! The hash of this crate: stamps of records, state hashes, tokens, shards.
//!
//! It is part of what members agree on: it never changes with the platform, the version of Rust or the process. It is
//! not meant to resist an attacker; who may write records at all is decided before.

use std::fmt;
use std::ops::{AddAssign, SubAssign};

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a over the parts, each followed by its length, then the finish of SplitMix64, which spreads every bit.
#[must_use]
pub fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut hash = OFFSET;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    };
    for part in parts {
        eat(part);
        // Without the length, ("ab", "c") and ("a", "bc") would be one.
        eat(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
    }
    finish(hash)
}

fn finish(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What a record says, in eight bytes. Two members hold the same record exactly if their stamps of it are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp(pub u64);

/// The sum over all records: equal on two members exactly if they hold the same records, in whatever order they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StateHash(pub u64);

impl AddAssign<u64> for StateHash {
    fn add_assign(&mut self, item: u64) {
        self.0 = self.0.wrapping_add(item);
    }
}

impl SubAssign<u64> for StateHash {
    fn sub_assign(&mut self, item: u64) {
        self.0 = self.0.wrapping_sub(item);
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_what_it_was() {
        // Members of different versions compare these: a change here splits clusters during an update.
        assert_eq!(stable_hash(&[]), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(stable_hash(&[b"live-store", b"a-0"]), 0x89e2_e255_6823_013b);
        assert_ne!(stable_hash(&[b"ab", b"c"]), stable_hash(&[b"a", b"bc"]));
    }

    #[test]
    fn sums_forget_what_is_taken_out() {
        let mut hash = StateHash::default();
        hash += u64::MAX;
        hash += 5;
        hash -= u64::MAX;
        hash -= 5;
        assert_eq!(hash, StateHash::default());
    }
}
