//! A row group that is left for a while: what is known of it, so that it can be taken up again, also on another thread.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;
use vivace_traceql::{Bitmap, Condition, Dictionary};

use super::{Group, LeafState, rare};
use crate::read::{
    block::OpenBlock,
    error::Result,
    page::Page,
    source::{attribute::AttributeColumn, nesting::Nesting, nesting::Owner},
    values::Values,
};

/// Decoded pages up to this are kept for a second pass, in levels and values.
const SLIM_ENTRIES: usize = 1 << 19;

/// See the module. What reading has cost so far stays with it.
pub(in crate::read::source) struct Parked {
    number: usize,
    nesting: Option<Arc<Nesting>>,
    cached: usize,
    passing: Vec<(usize, Condition, Option<Arc<Bitmap>>)>,
    rare: Vec<rare::Known>,
    asked: Vec<(Owner, u32)>,
    attributes: Vec<((usize, Owner, u32), Arc<AttributeColumn>)>,
    leaves: Vec<(usize, ParkedLeaf)>,
}

struct ParkedLeaf {
    /// The dictionary, none for a column without, if it was looked at.
    dictionary: Option<Arc<Values>>,
    looked_at: bool,
    ahead: SmallVec<[(u64, Bytes); 2]>,
    pages: BTreeMap<usize, Arc<Page>>,
    texts: Option<Arc<Dictionary>>,
    at_hand: u64,
    pages_at_hand: u64,
    bytes_read: u64,
    pages_read: u32,
    requests: u32,
}

impl Parked {
    pub(in crate::read::source) fn number(&self) -> usize {
        self.number
    }

    /// Lets go of what a second pass over few rows does not need; of the nesting too, when there will be none.
    pub(in crate::read::source) fn slim(&mut self, keeps_nesting: bool) {
        if !keeps_nesting {
            self.nesting = None;
        }
        self.passing.clear();
        self.rare.clear();
        self.attributes.clear();
        let keeps_pages = keeps_nesting && self.cached <= SLIM_ENTRIES;
        if !keeps_pages {
            self.cached = 0;
        }
        for (_, leaf) in &mut self.leaves {
            if !keeps_pages {
                leaf.pages.clear();
            }
            leaf.texts = None;
            leaf.ahead.clear();
            if !keeps_nesting {
                (leaf.looked_at, leaf.dictionary) = (false, None);
            }
        }
    }
}

impl<'a> Group<'a> {
    /// Leaves the row group.
    pub(in crate::read::source) fn park(self) -> Result<Parked> {
        let mut leaves = Vec::with_capacity(self.leaves.len());
        for (leaf, state) in self.leaves {
            let LeafState { mut reader, pages, texts, at_hand, pages_at_hand } = state;
            let looked_at = reader.dictionary_is_read();
            let parked = ParkedLeaf {
                dictionary: if looked_at { reader.dictionary()? } else { None },
                looked_at,
                ahead: reader.ahead_read(),
                pages,
                texts,
                at_hand,
                pages_at_hand,
                bytes_read: reader.bytes_read,
                pages_read: reader.pages_read,
                requests: reader.requests,
            };
            leaves.push((leaf, parked));
        }
        Ok(Parked {
            number: self.number,
            nesting: self.nesting,
            cached: self.cached,
            passing: self.passing,
            rare: self.rare,
            asked: self.asked,
            attributes: self.attributes,
            leaves,
        })
    }

    /// Takes a row group up where it was left.
    pub(in crate::read::source) fn resume(block: &'a OpenBlock, parked: Parked) -> Result<Self> {
        let mut group = Self::open(block, parked.number)?;
        group.nesting = parked.nesting;
        group.cached = parked.cached;
        group.passing = parked.passing;
        group.rare = parked.rare;
        group.asked = parked.asked;
        group.attributes = parked.attributes;
        for (number, leaf) in parked.leaves {
            let state = group.leaf(number)?;
            if leaf.looked_at {
                state.reader.set_dictionary(leaf.dictionary);
            }
            state.reader.set_ahead_read(leaf.ahead);
            state.reader.bytes_read = leaf.bytes_read;
            state.reader.pages_read = leaf.pages_read;
            state.reader.requests = leaf.requests;
            state.pages = leaf.pages;
            state.texts = leaf.texts;
            state.at_hand = leaf.at_hand;
            state.pages_at_hand = leaf.pages_at_hand;
        }
        Ok(group)
    }
}
