//! Bytes that were met lately.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

/// Of bytes that share a place among `PLACES` those that came last, each with its hash: to look at others that lie somewhere in memory
/// only to see that they differ would take longer than all else.
pub(super) struct Recent<'a, const PLACES: usize>(Box<[(u64, &'a [u8])]>);

impl<'a, const PLACES: usize> Recent<'a, PLACES> {
    pub(super) fn new() -> Self {
        const { assert!(PLACES.is_power_of_two()) };
        Self(vec![(0, &[][..]); PLACES].into())
    }

    /// Whether the same bytes are there; they are from now on. It may forget, and never takes one for another.
    #[inline]
    pub(super) fn has(&mut self, bytes: &'a [u8]) -> bool {
        let hash = hash(bytes);
        // Cut off, whatever the width.
        let place = &mut self.0[usize::try_from(hash % PLACES as u64).unwrap_or(0)];
        let known = place.0 == hash && place.1 == bytes;
        *place = (hash, bytes);
        known
    }
}

/// Of bytes of middling length the ends tell most apart.
#[inline]
fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0).build_hasher();
    match (bytes.first_chunk(), bytes.last_chunk::<16>()) {
        (Some(first), Some(last)) if bytes.len() <= 64 => {
            hasher.write_u64(u64::from_le_bytes(*first) ^ bytes.len() as u64);
            hasher.write_u128(u128::from_le_bytes(*last));
        }
        _ => hasher.write(bytes),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_known_once_met_and_none_is_taken_for_another() {
        let texts: Vec<String> = (0..1000).map(|number: u32| format!("text {number}")).collect();
        let mut recent = Recent::<'_, 4>::new();
        for text in &texts {
            assert!(!recent.has(text.as_bytes()), "{text}");
            assert!(recent.has(text.as_bytes()), "{text}");
        }
        // Of these the hash is the same: what lies between the ends tells them apart.
        let alike = ["first word, one, sixteen bytes more", "first word, two, sixteen bytes more"].map(str::as_bytes);
        assert_eq!(hash(alike[0]), hash(alike[1]));
        assert!(!recent.has(alike[0]) && !recent.has(alike[1]) && recent.has(alike[1]) && !recent.has(alike[0]));
        let mut one = Recent::<'_, 1>::new();
        assert!(!one.has(b"a") && !one.has(b"b") && !one.has(b"a") && one.has(b"a"));
    }
}
