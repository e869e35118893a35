//! What attributes and texts stand in a group of traces, in a few bits each: whether one may be there is told without a look at
//! the traces.
//!
//! A filter as Bloom's, in blocks of 256 bits, of which one entry sets eight. It may say yes to what is not there, once in some
//! hundred questions, and never says no to what is.
//!
//! Traces say the same again and again: most attributes of a span, names and whole resources were met shortly before, byte for byte.
//! These are recognised by their bytes and not taken apart, which is most of the time that making a digest would take.

mod recent;

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;
use vivace_protocol::wire::WireError;
use vivace_traceql::{Intrinsic, Scope, Value};

use self::recent::Recent;
use super::{
    LiveTrace, any,
    shape::{self, Visitor},
};
use crate::read::cells::Cell;

/// Bits for each entry.
const ENTRY_BITS: usize = 12;
/// A digest takes no more than this part of what it is of, however many entries there are.
const LEAST_SHARE: u64 = 64;
/// One odd factor for each word of a block.
const FACTORS: [u32; 8] =
    [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d, 0x27d4_eb2f, 0x1656_67b1, 0x2c1b_3c6d, 0x297a_2d39, 0xd35a_2d97];

type Block = [u32; 8];

/// What is looked for: an attribute of some name, with a value or with any, or a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64);

impl Mark {
    fn of(kind: u8, name: &[u8]) -> Hashing {
        let mut hasher = FixedState::with_seed(0).build_hasher();
        hasher.write_u8(kind);
        hasher.write(name);
        Hashing(hasher)
    }

    /// Some attribute of this name, in whatever scope.
    pub(super) fn of_name(name: &[u8]) -> Self {
        Self::of(0, name).finish()
    }

    /// An attribute of this name and value, or with the value among its items. None for values of which none is kept.
    pub(super) fn of_attribute(name: &[u8], value: &Value) -> Option<Self> {
        let mut hashing = Self::of(0, name);
        match value {
            Value::Str(text) => hashing.text(text.as_bytes()),
            Value::Int(value) => hashing.int(*value),
            Value::Bool(value) => hashing.bool(*value),
            _ => return None,
        }
        Some(hashing.finish())
    }

    /// A name, a status message, a version.
    pub(super) fn of_text(field: Intrinsic, text: &[u8]) -> Self {
        let mut hashing = Self::of(1, field.to_string().as_bytes());
        hashing.text(text);
        hashing.finish()
    }

    /// Which block of so many, and one bit in each of its words.
    fn place(self, blocks: usize) -> (usize, Block) {
        let [a, b, c, d, e, f, g, h] = self.0.to_le_bytes();
        let (low, high) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let block = usize::try_from((u64::from(high) * blocks as u64) >> 32).unwrap_or(0);
        (block, FACTORS.map(|factor| 1 << (low.wrapping_mul(factor) >> 27)))
    }
}

/// A mark under construction.
struct Hashing(<FixedState as BuildHasher>::Hasher);

impl Hashing {
    fn text(&mut self, text: &[u8]) {
        self.0.write_u8(1);
        self.0.write(text);
    }

    fn int(&mut self, value: i64) {
        self.0.write_u8(2);
        self.0.write_i64(value);
    }

    fn bool(&mut self, value: bool) {
        self.0.write_u8(3 + u8::from(value));
    }

    fn finish(&self) -> Mark {
        Mark(self.0.finish())
    }
}

/// Of some traces.
#[derive(Debug)]
pub(super) struct Digest(Box<[Block]>);

impl Digest {
    /// Walks the traces, which take `bytes`. An error where they are damaged.
    pub(super) fn of<'a>(traces: impl Iterator<Item = &'a LiveTrace>, bytes: u64) -> Result<Self, WireError> {
        let mut gathering = Gathering::into(Self::within(bytes / LEAST_SHARE));
        let mut parts: Vec<&[u8]> = traces.flat_map(LiveTrace::parts).map(|part| &**part).collect();
        // In the order in which they lie: memory is read ahead then.
        parts.sort_unstable_by_key(|part| part.as_ptr());
        for part in parts {
            shape::visit(part, &mut gathering)?;
        }
        Ok(gathering.digest.fit(gathering.entries))
    }

    /// An empty one, as large as it may become.
    fn within(bytes: u64) -> Self {
        let blocks = usize::try_from(bytes).unwrap_or(usize::MAX) / size_of::<Block>();
        // A power of two, so that it can be halved again and again.
        Self(vec![[0; 8]; ((blocks + 1).next_power_of_two() / 2).max(1)].into())
    }

    /// True if it was not there before, or seemed to be.
    fn insert(&mut self, mark: Mark) -> bool {
        let (block, bits) = mark.place(self.0.len());
        let mut new = 0;
        for (word, bit) in self.0[block].iter_mut().zip(bits) {
            new |= bit & !*word;
            *word |= bit;
        }
        new != 0
    }

    /// Made as small as so many entries allow: of neighbouring blocks one.
    fn fit(mut self, entries: usize) -> Self {
        while self.0.len() > 1 && entries * ENTRY_BITS <= self.0.len() / 2 * size_of::<Block>() * 8 {
            let joined =
                |pair: &[Block]| std::array::from_fn(|word| pair.iter().fold(0, |all, block| all | block[word]));
            self = Self(self.0.chunks(2).map(joined).collect());
        }
        self
    }

    /// Whether it may be there; false is certain.
    pub(super) fn may_hold(&self, mark: Mark) -> bool {
        let (block, bits) = mark.place(self.0.len());
        self.0[block].iter().zip(bits).all(|(word, bit)| word & bit != 0)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.0.len() * size_of::<Block>()
    }
}

const TEXTS: [Intrinsic; 5] = [
    Intrinsic::Name,
    Intrinsic::StatusMessage,
    Intrinsic::EventName,
    Intrinsic::InstrumentationName,
    Intrinsic::InstrumentationVersion,
];

/// Places for marks that were added lately: names of attributes, above all.
const MARKS: usize = 256;

/// What was found so far.
struct Gathering<'a> {
    digest: Digest,
    entries: usize,
    /// Marks that were added lately, each at its place.
    added: Box<[Option<Mark>; MARKS]>,
    /// What marks of texts begin with.
    texts: [(Intrinsic, <FixedState as BuildHasher>::Hasher); TEXTS.len()],
    attributes: Recent<'a, 2048>,
    names: Recent<'a, 256>,
    resources: Recent<'a, 256>,
    instrumentation: Recent<'a, 64>,
}

impl Gathering<'_> {
    fn into(digest: Digest) -> Self {
        Self {
            digest,
            entries: 0,
            added: Box::new([None; MARKS]),
            texts: TEXTS.map(|field| (field, Mark::of(1, field.to_string().as_bytes()).0)),
            attributes: Recent::new(),
            names: Recent::new(),
            resources: Recent::new(),
            instrumentation: Recent::new(),
        }
    }

    fn add(&mut self, mark: Mark) {
        let place = &mut self.added[usize::try_from(mark.0 % MARKS as u64).unwrap_or(0)];
        if *place != Some(mark) {
            *place = Some(mark);
            self.entries += usize::from(self.digest.insert(mark));
        }
    }
}

impl<'a> Visitor<'a> for Gathering<'a> {
    fn is_known(&mut self, of: Scope, message: &'a [u8]) -> bool {
        match of {
            Scope::Resource => self.resources.has(message),
            Scope::Instrumentation => self.instrumentation.has(message),
            Scope::Any | Scope::Span | Scope::Event | Scope::Link => false,
        }
    }

    fn key_value(&mut self, scope: Scope, message: &'a [u8]) -> Result<(), WireError> {
        // The same in whatever scope.
        if self.attributes.has(message) {
            return Ok(());
        }
        let (name, value) = any::key_value(message)?;
        self.attribute(scope, name, value)?;
        // Of an attribute with several names walks may go by the first.
        let first = any::name(message)?;
        if first == name { Ok(()) } else { self.attribute(scope, first, value) }
    }

    fn attribute(&mut self, _scope: Scope, name: &'a [u8], value: &'a [u8]) -> Result<(), WireError> {
        let mut hashing = Mark::of(0, name);
        self.add(hashing.finish());
        match any::cell(value)? {
            Cell::Str(text) => hashing.text(text),
            Cell::Int(value) => hashing.int(value),
            Cell::Bool(value) => hashing.bool(value),
            Cell::List(items) => {
                items.iter().filter_map(|item| Mark::of_attribute(name, item)).for_each(|mark| self.add(mark));
                return Ok(());
            }
            Cell::Float(_) | Cell::Nil => return Ok(()),
        }
        self.add(hashing.finish());
        Ok(())
    }

    fn text(&mut self, field: Intrinsic, text: &'a [u8]) {
        if field == Intrinsic::Name && self.names.has(text) {
            return;
        }
        if let Some((_, begun)) = self.texts.iter().find(|(known, _)| *known == field) {
            let mut hashing = Hashing(begun.clone());
            hashing.text(text);
            self.add(hashing.finish());
        }
    }
}

#[cfg(test)]
mod tests;
