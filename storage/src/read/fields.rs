//! Numbers of few bits compared many at once, inside of words.

use super::{bits::ones_in, rle::word_at};

/// Calls a function of [`Fields`] of the given width, 1 to 8.
macro_rules! of_width {
    ($width:expr, $name:ident($($argument:expr),*)) => {
        match $width {
            1 => Fields::<1>::$name($($argument),*),
            2 => Fields::<2>::$name($($argument),*),
            3 => Fields::<3>::$name($($argument),*),
            4 => Fields::<4>::$name($($argument),*),
            5 => Fields::<5>::$name($($argument),*),
            6 => Fields::<6>::$name($($argument),*),
            7 => Fields::<7>::$name($($argument),*),
            _ => Fields::<8>::$name($($argument),*),
        }
    };
}
pub(super) use of_width;

/// Numbers of `W` bits side by side in a word. Comparing sets the highest bit of each number's place; these bits are then either
/// counted or moved together.
pub(super) struct Fields<const W: u32>;

impl<const W: u32> Fields<W> {
    /// Numbers compared together: as many as fit a word and begin and end with a byte.
    const COUNT: u32 = match W {
        1 => 64,
        2 => 32,
        3 | 4 => 16,
        _ => 8,
    };
    /// Bytes that these take.
    const STEP: usize = (Self::COUNT * W / 8) as usize;
    const WORDS: usize = (64 / Self::COUNT) as usize;
    const ALL: u64 = u64::MAX >> (64 - Self::COUNT * W);
    /// The lowest bit of each number.
    const LOW: u64 = repeated(1, W, Self::COUNT);
    /// The highest bit of each number.
    const HIGH: u64 = Self::LOW << (W - 1);
    /// The bits below that.
    const REST: u64 = Self::ALL & !Self::HIGH;
    /// For moving together: twice as many bits side by side after each step.
    const STEPS: [u64; 5] = {
        let mut steps = [0; 5];
        let mut step = 0;
        while step < 5 && 2 << step <= Self::COUNT {
            let bits = 2 << step;
            steps[step] = repeated(u64::MAX >> (64 - bits), bits * W, Self::COUNT / bits);
            step += 1;
        }
        steps
    };

    /// The number in every place.
    fn everywhere(number: u64) -> u64 {
        Self::LOW * number
    }

    #[inline]
    fn word(bytes: &[u8], block: usize, word: usize) -> u64 {
        word_at(bytes, (block * Self::WORDS + word) * Self::STEP) & Self::ALL
    }

    /// Moves the highest bits of the places together.
    #[inline]
    fn together(marks: u64) -> u64 {
        let mut bits = marks >> (W - 1);
        if W > 1 {
            let mut step = 0;
            while 2 << step <= Self::COUNT {
                bits = (bits | bits >> ((W - 1) << step)) & Self::STEPS[step];
                step += 1;
            }
        }
        bits
    }

    /// A bit for each of the 64 numbers of a block.
    #[inline]
    fn block(bytes: &[u8], block: usize, compare: impl Fn(u64) -> u64) -> u64 {
        let words = (0..Self::WORDS).zip((0u32..).step_by(Self::COUNT as usize));
        words.fold(0, |bits, (word, at)| bits | Self::together(compare(Self::word(bytes, block, word))) << at)
    }

    /// For `least` of at most `W` bits.
    #[inline]
    fn compare_at_least(least: u64) -> impl Fn(u64) -> u64 {
        let (high, rest) = (least >> (W - 1) & 1 == 1, Self::everywhere(least) & Self::REST);
        move |word| {
            // The highest bit of a place survives where the bits below it are at least those of `least`.
            let below = (word | Self::HIGH) - rest;
            (if high { word & below } else { word | below }) & Self::HIGH
        }
    }

    pub(super) fn at_least(bytes: &[u8], block: usize, least: u64) -> u64 {
        Self::block(bytes, block, Self::compare_at_least(least))
    }

    pub(super) fn equal(bytes: &[u8], block: usize, number: u64) -> u64 {
        let number = Self::everywhere(number);
        Self::block(bytes, block, |word| {
            let other = word ^ number;
            !(((other & Self::REST) + Self::REST) | other) & Self::HIGH
        })
    }

    /// As [`Self::count_at_least`], when none is to be expected.
    pub(super) fn none_at_least(bytes: &[u8], blocks: usize, limit: u64) -> bool {
        let compare = Self::compare_at_least(limit);
        (0..blocks * Self::WORDS).fold(0, |marks, word| marks | compare(Self::word(bytes, 0, word))) == 0
    }

    /// Over the first so many blocks.
    pub(super) fn count_at_least(bytes: &[u8], blocks: usize, least: u64) -> usize {
        let compare = Self::compare_at_least(least);
        let words = blocks * Self::WORDS;
        let (mut count, mut marks, mut free) = (0, 0, W);
        for word in 0..words {
            // Only every W-th bit is a mark, so that as many words are counted at once.
            free -= 1;
            marks |= compare(Self::word(bytes, 0, word)) >> free;
            if free == 0 {
                count += ones_in(marks);
                (marks, free) = (0, W);
            }
        }
        count + ones_in(marks)
    }
}

/// `bits` at every `distance`, `count` times.
const fn repeated(bits: u64, distance: u32, count: u32) -> u64 {
    let (mut all, mut at) = (0, 0);
    while at < count {
        all |= bits << (at * distance);
        at += 1;
    }
    all
}
