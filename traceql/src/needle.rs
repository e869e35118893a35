//! Finds one text in many that lie side by side in a buffer, without looking at each of them.
//!
//! A dictionary of a column with many values holds tens of thousands of short texts. Searching their buffer as a whole passes over
//! gigabytes a second; taking them one by one costs tens of nanoseconds each before anything is compared.

use std::ops::Range;

use memchr::memmem::Finder;

/// What stands for bytes that are no UTF-8: it is found in no buffer, only in texts made from one.
const REPLACEMENT: char = '\u{fffd}';

/// A text to look for.
#[derive(Clone, Debug)]
pub struct Needle(Box<Finder<'static>>);

impl Needle {
    /// None when looking for `text` in bytes would tell nothing: it is empty, or can stand for bytes that are no UTF-8.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let useful = !text.is_empty() && !text.contains(REPLACEMENT);
        useful.then(|| Self(Box::new(Finder::new(text).into_owned())))
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> &[u8] {
        self.0.needle()
    }

    /// Whether `text` contains it.
    #[must_use]
    pub fn is_in(&self, text: &[u8]) -> bool {
        self.0.find(text).is_some()
    }

    /// The numbers of the texts that contain it, ascending. Text `n` below `count` is `buffer[bounds(n)]`; texts ascend and do not
    /// overlap, and what lies between them belongs to none.
    ///
    /// UTF-8 needs no care: whole characters are found in bytes exactly where they are found after all that is invalid has been
    /// replaced, because no character begins inside another and the needle holds no replacement.
    pub(crate) fn in_texts(&self, buffer: &[u8], count: usize, bounds: impl Fn(usize) -> Range<usize>) -> Vec<u32> {
        let len = self.0.needle().len();
        let mut found = Vec::new();
        let (mut number, mut at) = (0, 0);
        while let Some(hit) = buffer.get(at..).and_then(|rest| self.0.find(rest)).map(|hit| at + hit) {
            while number < count && bounds(number).end <= hit {
                number += 1;
            }
            if number == count {
                break;
            }
            let text = bounds(number);
            if text.start <= hit && hit + len <= text.end {
                found.extend(u32::try_from(number));
                (number, at) = (number + 1, text.end);
            } else {
                at = hit + 1;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_lies_between_texts_belongs_to_none() {
        let (buffer, bounds) = (b"ab|ab-ab", [0..2, 2..2, 4..5, 6..8]);
        let needle = |text| Needle::new(text).unwrap().in_texts(buffer, bounds.len(), |n| bounds[n].clone());
        assert_eq!(needle("ab"), [0, 3]);
        assert_eq!(needle("b"), [0, 2, 3]);
        assert!(needle("|").is_empty() && needle("b-").is_empty() && needle("abc").is_empty());
        assert!(Needle::new("").is_none() && Needle::new("a\u{fffd}").is_none());
    }

    proptest! {
        #[test]
        fn the_same_texts_are_found_as_one_by_one_after_invalid_bytes_were_replaced(
            texts in prop::collection::vec(prop::collection::vec(prop::sample::select(b"aab-\xc3\xa9\xe2\x82\xac\xff".to_vec()), 0..8), 0..12),
            gap in 0_usize..3,
            needle in "[ab\u{e9}\u{20ac}-]{1,3}",
        ) {
            let (mut buffer, mut bounds) = (Vec::new(), Vec::new());
            for text in &texts {
                buffer.extend(std::iter::repeat_n(b'a', gap));
                let start = buffer.len();
                buffer.extend_from_slice(text);
                bounds.push(start..buffer.len());
            }
            let due: Vec<u32> = (0..)
                .zip(&texts)
                .filter(|(_, text)| String::from_utf8_lossy(text).contains(&needle))
                .map(|(number, _)| number)
                .collect();
            let found = Needle::new(&needle).unwrap().in_texts(&buffer, texts.len(), |n| bounds[n].clone());
            prop_assert_eq!(found, due);
        }
    }
}
