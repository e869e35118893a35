//! Changes inputs: bits, bytes, numbers that break things, chunks that come twice, go, or come from elsewhere, and words.

use crate::dice::Dice;

/// Numbers at which sizes, signs and widths turn over.
const NUMBERS: [u64; 22] = [
    0,
    1,
    2,
    7,
    8,
    0x0f,
    0x10,
    0x1f,
    0x20,
    0x3f,
    0x40,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// The rules of change of one campaign.
#[derive(Debug, Clone)]
pub(crate) struct Mutator {
    /// Words of the language under test.
    pub(crate) tokens: Vec<Vec<u8>>,
    /// Longer inputs are cut.
    pub(crate) max_bytes: usize,
}

impl Mutator {
    /// An input made of one of the pool, changed one to sixteen times.
    pub(crate) fn next(&self, pool: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
        let mut input = dice.pick(pool).cloned().unwrap_or_default();
        let most = 1 << dice.below(5);
        let changes = 1 + dice.below(most);
        for _ in 0..changes {
            self.change(&mut input, pool, dice);
            input.truncate(self.max_bytes);
        }
        input
    }

    fn change(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], dice: &mut Dice) {
        let len = input.len();
        let at = dice.below(len);
        match dice.below(13) {
            0 if len > 0 => input[at] ^= 1 << dice.below(8),
            1 if len > 0 => input[at] = dice.byte(),
            2 if len > 0 => input[at] = input[at].wrapping_add(if dice.below(2) == 0 { 1 } else { 0xff }),
            3 => overwrite(input, at, &fixed(dice)),
            4 => insert(input, at, &varint(dice)),
            5 => overwrite(input, at, &varint(dice)),
            6 => drop(input.drain(dice.range(len))),
            7 => {
                // A chunk again, once or often enough to be a heap of them.
                let chunk = input[dice.range(len)].to_vec();
                let times = if dice.below(8) == 0 { 1 + dice.below(200) } else { 1 };
                let room = self.max_bytes.saturating_sub(len) / chunk.len().max(1);
                insert(input, at, &chunk.repeat(times.min(room)));
            }
            8 => {
                let chunk = input[dice.range(len)].to_vec();
                overwrite(input, at, &chunk);
            }
            9 => input.truncate(at),
            10 => {
                // The head of this and the tail of another.
                if let Some(other) = dice.pick(pool) {
                    input.truncate(at);
                    input.extend_from_slice(&other[dice.below(other.len() + 1)..]);
                }
            }
            11 => {
                if let Some(other) = dice.pick(pool) {
                    let chunk = other[dice.range(other.len())].to_vec();
                    insert(input, at, &chunk);
                }
            }
            _ => match dice.pick(&self.tokens) {
                Some(token) if dice.below(2) == 0 => insert(input, at, token),
                Some(token) => overwrite(input, at, token),
                None => {
                    let bytes = [dice.byte(), dice.byte(), dice.byte(), dice.byte()];
                    insert(input, at, &bytes[..1 + dice.below(4)]);
                }
            },
        }
    }
}

fn overwrite(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = (at + bytes.len()).min(input.len());
    input.splice(at..end, bytes.iter().copied());
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    input.splice(at..at, bytes.iter().copied());
}

fn number(dice: &mut Dice) -> u64 {
    let number = dice.pick(&NUMBERS).copied().unwrap_or(0);
    if dice.below(4) == 0 { dice.roll() >> dice.below(64) } else { number }
}

/// A number of 1, 2, 4 or 8 bytes in either order.
fn fixed(dice: &mut Dice) -> Vec<u8> {
    let number = number(dice);
    let size = 1 << dice.below(4);
    let mut bytes = number.to_le_bytes()[..size].to_vec();
    if dice.below(2) == 0 {
        bytes.reverse();
    }
    bytes
}

/// A base-128 number, sometimes longer than any number may be.
fn varint(dice: &mut Dice) -> Vec<u8> {
    let mut rest = number(dice);
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    bytes.push(rest.to_le_bytes()[0]);
    if dice.below(16) == 0 {
        bytes = vec![0x80; 1 + dice.below(12)];
        bytes.push(1);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_makes_the_same_inputs_again_and_they_keep_to_the_bound() {
        let pool = vec![b"one".to_vec(), Vec::new(), vec![7; 90]];
        let mutator = Mutator { tokens: vec![b"word".to_vec()], max_bytes: 100 };
        let make = |seed| {
            let mut dice = Dice::new(seed);
            (0..3000).map(|_| mutator.next(&pool, &mut dice)).collect::<Vec<_>>()
        };
        let inputs = make(1);
        assert!(inputs == make(1) && inputs != make(2));
        assert!(inputs.iter().all(|input| input.len() <= 100));
        let distinct: std::collections::HashSet<_> = inputs.iter().collect();
        assert!(distinct.len() > 1500, "{} distinct inputs", distinct.len());
        assert!(inputs.iter().any(|input| input.windows(4).any(|w| w == b"word")));
    }
}
