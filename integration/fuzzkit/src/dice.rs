//! Random numbers whose sequence belongs to this crate, so that a seed in a report makes the same inputs with every version
//! of every dependency.

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Sixty-four random bits.
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `bound`; 0 when the bound is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let product = u128::from(self.roll()) * bound as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// One of the items, none of none.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// A random byte.
    pub(crate) fn byte(&mut self) -> u8 {
        self.roll().to_le_bytes()[0]
    }

    /// A range inside `0..len`, mostly short.
    pub(crate) fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let longest = if self.below(4) == 0 { len } else { len.min(16) };
        let size = self.below(longest + 1);
        let start = self.below(len - size + 1);
        start..start + size
    }
}
