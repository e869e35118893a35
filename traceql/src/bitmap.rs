//! A packed vector of booleans, one per row of a batch.

/// Booleans packed 64 to a word. Bits past `len` in the last word are always zero, so counting and
/// comparing whole words is exact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: usize,
}

impl Bitmap {
    /// `len` rows, all false.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// `len` rows, all true.
    #[must_use]
    pub fn ones(len: usize) -> Self {
        let mut map = Self { words: vec![u64::MAX; len.div_ceil(64)], len };
        map.trim();
        map
    }

    /// `len` rows, all equal to `value`.
    #[must_use]
    pub fn filled(len: usize, value: bool) -> Self {
        if value { Self::ones(len) } else { Self::zeros(len) }
    }

    /// One bit per row from a test on the row number. The closure is called in row order.
    #[must_use]
    pub fn from_fn(len: usize, mut test: impl FnMut(usize) -> bool) -> Self {
        let mut words = Vec::with_capacity(len.div_ceil(64));
        let mut row = 0;
        while row < len {
            let end = len.min(row + 64);
            let mut word = 0_u64;
            for bit in 0..end - row {
                word |= u64::from(test(row + bit)) << bit;
            }
            words.push(word);
            row = end;
        }
        Self { words, len }
    }

    /// One bit per element of `items`. Written so that the compiler vectorises cheap tests.
    #[must_use]
    pub fn from_slice<T>(items: &[T], mut test: impl FnMut(&T) -> bool) -> Self {
        let mut words = Vec::with_capacity(items.len().div_ceil(64));
        let mut chunks = items.chunks_exact(64);
        for chunk in &mut chunks {
            let mut word = 0_u64;
            // Eight bytes of eight flags each: short inner loops over a fixed size unroll fully.
            for (byte, eight) in chunk.chunks_exact(8).enumerate() {
                let mut bits = 0_u64;
                for (bit, item) in eight.iter().enumerate() {
                    bits |= u64::from(test(item)) << bit;
                }
                word |= bits << (byte * 8);
            }
            words.push(word);
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut word = 0_u64;
            for (bit, item) in rest.iter().enumerate() {
                word |= u64::from(test(item)) << bit;
            }
            words.push(word);
        }
        Self { words, len: items.len() }
    }

    /// `len` rows, 64 at a time from the lowest bit on. What lies past the end is dropped, what is missing is false.
    #[must_use]
    pub fn from_words(len: usize, words: impl IntoIterator<Item = u64>) -> Self {
        let mut all = Vec::with_capacity(len.div_ceil(64));
        all.extend(words.into_iter().take(len.div_ceil(64)));
        all.resize(len.div_ceil(64), 0);
        let mut map = Self { words: all, len };
        map.trim();
        map
    }

    /// 64 rows from `start` on, the first as the lowest bit; false past the end.
    #[must_use]
    pub fn word_at(&self, start: usize) -> u64 {
        let (word, shift) = (start / 64, start % 64);
        let low = self.words.get(word).map_or(0, |bits| bits >> shift);
        let high = if shift == 0 { 0 } else { self.words.get(word + 1).map_or(0, |bits| bits << (64 - shift)) };
        low | high
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are no rows at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bit of `row`; false past the end.
    #[must_use]
    pub fn get(&self, row: usize) -> bool {
        self.words.get(row / 64).is_some_and(|word| (word >> (row % 64)) & 1 == 1)
    }

    /// Sets the bit of `row`.
    ///
    /// # Panics
    /// When `row` is not below [`len`](Self::len).
    pub fn set(&mut self, row: usize, value: bool) {
        assert!(row < self.len, "row {row} of a bitmap of {}", self.len);
        let mask = 1_u64 << (row % 64);
        if value {
            self.words[row / 64] |= mask;
        } else {
            self.words[row / 64] &= !mask;
        }
    }

    /// Sets the bits of `start..end`.
    ///
    /// # Panics
    /// When `end` is above [`len`](Self::len).
    pub fn set_range(&mut self, start: usize, end: usize) {
        assert!(end <= self.len, "rows up to {end} of a bitmap of {}", self.len);
        let (mut at, last) = (start, end);
        while at < last {
            let bits = (64 - at % 64).min(last - at);
            let ones = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
            self.words[at / 64] |= ones << (at % 64);
            at += bits;
        }
    }

    /// Sets the bits that `other` has set, moved by `start`.
    ///
    /// # Panics
    /// When the last bit of `other` comes to lie past the end.
    pub fn or_at(&mut self, start: usize, other: &Self) {
        assert!(start + other.len <= self.len, "{} rows at {start} of a bitmap of {}", other.len, self.len);
        let (word, shift) = (start / 64, start % 64);
        for (at, bits) in other.words.iter().enumerate() {
            self.words[word + at] |= bits << shift;
            let over = if shift == 0 { 0 } else { bits >> (64 - shift) };
            if over != 0 {
                self.words[word + at + 1] |= over;
            }
        }
    }

    /// Adds one row at the end.
    pub fn push(&mut self, value: bool) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        self.len += 1;
        if value {
            self.set(self.len - 1, true);
        }
    }

    /// Number of true rows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// True when at least one row is true.
    #[must_use]
    pub fn any(&self) -> bool {
        self.words.iter().any(|word| *word != 0)
    }

    /// Row-wise `self && other`; both have the same length.
    pub fn and(&mut self, other: &Self) {
        debug_assert_eq!(self.len, other.len);
        for (a, b) in self.words.iter_mut().zip(&other.words) {
            *a &= b;
        }
    }

    /// Row-wise `self && !other`; both have the same length.
    pub fn and_not(&mut self, other: &Self) {
        debug_assert_eq!(self.len, other.len);
        for (a, b) in self.words.iter_mut().zip(&other.words) {
            *a &= !b;
        }
    }

    /// Row-wise `self || other`; both have the same length.
    pub fn or(&mut self, other: &Self) {
        debug_assert_eq!(self.len, other.len);
        for (a, b) in self.words.iter_mut().zip(&other.words) {
            *a |= b;
        }
    }

    /// Row-wise negation.
    pub fn negate(&mut self) {
        for word in &mut self.words {
            *word = !*word;
        }
        self.trim();
    }

    /// The true rows, ascending.
    pub fn ones_iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            std::iter::successors(Some(*word), |rest| Some(rest & rest.wrapping_sub(1)))
                .take_while(|rest| *rest != 0)
                .map(move |rest| index * 64 + rest.trailing_zeros() as usize)
        })
    }

    /// The true rows within `start..end`, ascending; costs only the words it touches.
    pub fn ones_in(&self, start: usize, end: usize) -> impl Iterator<Item = usize> + '_ {
        let last = end.min(self.len);
        let first_word = start / 64;
        let last_word = last.div_ceil(64).max(first_word);
        (first_word..last_word).flat_map(move |index| {
            let mut word = self.words[index];
            if index == first_word {
                word &= u64::MAX << (start % 64);
            }
            if index * 64 + 64 > last {
                word &= u64::MAX >> (64 - (last - index * 64).min(64)).min(63);
                if last == index * 64 {
                    word = 0;
                }
            }
            std::iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)))
                .take_while(|rest| *rest != 0)
                .map(move |rest| index * 64 + rest.trailing_zeros() as usize)
        })
    }

    fn trim(&mut self) {
        if !self.len.is_multiple_of(64)
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1_u64 << (self.len % 64)) - 1;
        }
    }
}

impl FromIterator<bool> for Bitmap {
    fn from_iter<I: IntoIterator<Item = bool>>(iter: I) -> Self {
        let mut map = Self::default();
        for value in iter {
            map.push(value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_vector_of_booleans(bits in prop::collection::vec(any::<bool>(), 0..300), from in 0_usize..300, to in 0_usize..300) {
            let map: Bitmap = bits.iter().copied().collect();
            prop_assert_eq!(&map, &Bitmap::from_slice(&bits, |b| *b));
            prop_assert_eq!(&map, &Bitmap::from_fn(bits.len(), |row| bits[row]));
            let word = |start: usize| (0..64).map(|row| u64::from(bits.get(start + row) == Some(&true)) << row).sum::<u64>();
            prop_assert_eq!(&map, &Bitmap::from_words(bits.len(), (0..bits.len()).step_by(64).map(word)));
            prop_assert_eq!(map.word_at(from), word(from));
            let ones = Bitmap::from_words(bits.len(), std::iter::repeat(u64::MAX));
            prop_assert_eq!(ones, Bitmap::ones(bits.len()));
            prop_assert_eq!(map.count(), bits.iter().filter(|b| **b).count());
            let ones: Vec<usize> = (0..bits.len()).filter(|row| bits[*row]).collect();
            prop_assert_eq!(map.ones_iter().collect::<Vec<_>>(), ones.clone());
            let within: Vec<usize> = ones.iter().copied().filter(|row| (from..to).contains(row)).collect();
            prop_assert_eq!(map.ones_in(from.min(bits.len()), to).collect::<Vec<_>>(), within);
            let mut negated = map.clone();
            negated.negate();
            prop_assert_eq!(negated.count(), bits.len() - map.count());
            let mut all = negated.clone();
            all.or(&map);
            prop_assert_eq!(&all, &Bitmap::ones(bits.len()));
            all.and_not(&map);
            prop_assert_eq!(all, negated);
        }
    }
}
