//! Decoded parts of blocks, kept from one query to the next.
//!
//! Most of the time of a query goes into taking pages apart, and dashboards ask for the same columns again and again. What is
//! kept are pages, dictionaries and nesting, never answers. Which parts stay is decided by use, so that one scan of everything
//! does not push out what is asked for often.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use moka::sync::Cache;
use vivace_traceql::Dictionary;

use super::{
    attribute::AttributeColumn,
    nesting::{Nesting, Owner},
};
use crate::read::{page::Page, values::Values};

/// What an entry costs beside its content.
const ENTRY_BYTES: usize = 128;

/// One of an open block, of which the same file may have several over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    block: u64,
    group: usize,
    leaf: usize,
    part: Slot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Slot {
    Page(usize),
    Dictionary,
    Texts,
    Nesting,
    /// An attribute by the id of its key.
    Attribute(Owner, u32),
}

/// What is known of an attribute.
#[derive(Clone)]
pub(super) enum Attribute {
    /// A query asked for it, nothing more.
    Asked,
    /// As a column it is too large to be kept.
    TooLarge,
    Column(Arc<AttributeColumn>),
}

#[derive(Clone)]
enum Part {
    Page(Arc<Page>),
    /// None: the column has no dictionary.
    Dictionary(Option<Arc<Values>>),
    Texts(Arc<Dictionary>),
    Nesting(Arc<Nesting>),
    Attribute(Attribute),
}

impl Part {
    fn memory(&self) -> u32 {
        let bytes = match self {
            Self::Page(page) => page.memory(),
            Self::Dictionary(values) => values.as_ref().map_or(0, |values| values.memory()),
            Self::Texts(texts) => texts.memory(),
            Self::Nesting(nesting) => nesting.memory(),
            Self::Attribute(Attribute::Column(column)) => column.memory(),
            Self::Attribute(Attribute::Asked | Attribute::TooLarge) => 0,
        };
        u32::try_from(bytes + ENTRY_BYTES).unwrap_or(u32::MAX)
    }
}

struct Kept {
    parts: Cache<Key, Part, foldhash::fast::RandomState>,
    opened: AtomicU64,
}

/// A bounded store of decoded parts, shared by all blocks that were opened for it.
#[derive(Clone)]
pub struct Decoded(Arc<Kept>);

impl fmt::Debug for Decoded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Decoded").field("parts", &self.len()).field("bytes", &self.bytes()).finish()
    }
}

impl Decoded {
    /// Keeps at most about `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        let parts = Cache::builder().max_capacity(max_bytes as u64).weigher(|_, part: &Part| part.memory());
        let parts = parts.build_with_hasher(foldhash::fast::RandomState::default());
        Self(Arc::new(Kept { parts, opened: AtomicU64::new(0) }))
    }

    /// Parts at hand.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.parts.entry_count()
    }

    /// Whether nothing is at hand.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.parts.weighted_size()
    }

    /// Does at once what otherwise happens in the course of later calls.
    #[cfg(test)]
    pub(crate) fn settle(&self) {
        (0..16).for_each(|_| self.0.parts.run_pending_tasks());
    }

    /// The place of a block that is opened now.
    pub(crate) fn of_block(&self) -> BlockParts {
        BlockParts { block: self.0.opened.fetch_add(1, Ordering::Relaxed), decoded: self.clone() }
    }
}

/// The parts of one open block, which go with it.
#[derive(Debug)]
pub(crate) struct BlockParts {
    block: u64,
    decoded: Decoded,
}

impl Drop for BlockParts {
    fn drop(&mut self) {
        let parts = &self.decoded.0.parts;
        let own: Vec<Arc<Key>> = parts.iter().map(|(key, _)| key).filter(|key| key.block == self.block).collect();
        own.iter().for_each(|key| parts.invalidate(&**key));
    }
}

impl BlockParts {
    fn get(&self, group: usize, leaf: usize, part: Slot) -> Option<Part> {
        self.decoded.0.parts.get(&Key { block: self.block, group, leaf, part })
    }

    fn put(&self, group: usize, leaf: usize, slot: Slot, part: Part) {
        self.decoded.0.parts.insert(Key { block: self.block, group, leaf, part: slot }, part);
    }

    pub(super) fn page(&self, group: usize, leaf: usize, number: usize) -> Option<Arc<Page>> {
        match self.get(group, leaf, Slot::Page(number))? {
            Part::Page(page) => Some(page),
            _ => None,
        }
    }

    pub(super) fn keep_page(&self, group: usize, leaf: usize, number: usize, page: &Arc<Page>) {
        self.put(group, leaf, Slot::Page(number), Part::Page(Arc::clone(page)));
    }

    /// Pages are of less use from now on.
    pub(super) fn forget_pages(&self, group: usize, leaf: usize, count: usize) {
        for number in 0..count {
            self.decoded.0.parts.invalidate(&Key { block: self.block, group, leaf, part: Slot::Page(number) });
        }
    }

    pub(super) fn attribute(&self, group: usize, leaf: usize, owner: Owner, key: u32) -> Option<Attribute> {
        match self.get(group, leaf, Slot::Attribute(owner, key))? {
            Part::Attribute(attribute) => Some(attribute),
            _ => None,
        }
    }

    pub(super) fn keep_attribute(&self, group: usize, leaf: usize, owner: Owner, key: u32, attribute: Attribute) {
        self.put(group, leaf, Slot::Attribute(owner, key), Part::Attribute(attribute));
    }

    /// The dictionary of a column, `Some(None)` when it is known to have none.
    #[expect(clippy::option_option, reason = "not looked at, and looked at and not there, are two things")]
    pub(super) fn dictionary(&self, group: usize, leaf: usize) -> Option<Option<Arc<Values>>> {
        match self.get(group, leaf, Slot::Dictionary)? {
            Part::Dictionary(values) => Some(values),
            _ => None,
        }
    }

    pub(super) fn keep_dictionary(&self, group: usize, leaf: usize, values: Option<&Arc<Values>>) {
        self.put(group, leaf, Slot::Dictionary, Part::Dictionary(values.cloned()));
    }

    pub(super) fn texts(&self, group: usize, leaf: usize) -> Option<Arc<Dictionary>> {
        match self.get(group, leaf, Slot::Texts)? {
            Part::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    pub(super) fn keep_texts(&self, group: usize, leaf: usize, texts: &Arc<Dictionary>) {
        self.put(group, leaf, Slot::Texts, Part::Texts(Arc::clone(texts)));
    }

    pub(super) fn nesting(&self, group: usize) -> Option<Arc<Nesting>> {
        match self.get(group, 0, Slot::Nesting)? {
            Part::Nesting(nesting) => Some(nesting),
            _ => None,
        }
    }

    pub(super) fn keep_nesting(&self, group: usize, nesting: &Arc<Nesting>) {
        self.put(group, 0, Slot::Nesting, Part::Nesting(Arc::clone(nesting)));
    }
}
