//! Randomness as an injected value: seeded in tests and simulations, from the operating system in production.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng, TryRng};

/// A random generator that is handed in, never found. It implements `rand`'s `Rng`, so it fits every crate that takes one.
///
/// The same seed gives the same sequence in every process and on every machine of one build.
#[derive(Debug)]
pub struct Rng(StdRng);

impl Rng {
    /// A generator whose whole future is decided by `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A generator seeded by the operating system, for production.
    #[must_use]
    pub fn from_system() -> Self {
        Self(rand::make_rng())
    }

    /// An independent generator, so that one consumer's draws do not shift another's.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::seeded(self.next())
    }

    /// Sixty-four random bits.
    // Not an iterator: there is no end to wait for.
    #[expect(
        clippy::should_implement_trait,
        reason = "a generator is not an iterator, and `next` is the plainest word"
    )]
    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..bound`; 0 when the bound is 0. The bias of the multiply-shift is below 2⁻³² for bounds below 2³².
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A position in a slice of `len` elements; 0 when it is empty.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// True in `numerator` of `denominator` cases.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    /// A number in `[0, 1)`.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Fills `buffer` with random bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill_bytes(buffer);
    }
}

impl TryRng for Rng {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.0.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill_bytes(dst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut a, mut b) = (Rng::seeded(7), Rng::seeded(7));
        assert_eq!((0..50).map(|_| a.next()).collect::<Vec<_>>(), (0..50).map(|_| b.next()).collect::<Vec<_>>());
        assert_ne!(Rng::seeded(7).next(), Rng::seeded(8).next());
    }

    #[test]
    fn numbers_stay_below_their_bound() {
        let mut rng = Rng::seeded(1);
        assert!((0..1000).all(|_| rng.below(3) < 3));
        assert_eq!(rng.below(0), 0);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&rng.unit())));
    }
}
