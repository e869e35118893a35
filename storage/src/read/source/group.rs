//! One row group while it is searched: dictionaries, decoded pages and nesting, each read once.

mod ahead;
mod parked;
mod rare;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use vivace_traceql::{Bitmap, Condition, Dictionary};

pub(super) use parked::Parked;

use super::{
    attribute::AttributeColumn,
    decoded::{Attribute, BlockParts},
    hits::key_id,
    nesting::{Builder, Nesting, Owner},
    places::Generic,
    verdict::is_coded,
};
use crate::{
    read::{
        block::OpenBlock,
        cells::lossy,
        chunk::ChunkReader,
        error::{Error, Result},
        page::Page,
        rows::RowSet,
        values::{ByteValues, Physical, Values, to_usize},
    },
    schema::Columns,
};

/// Decoded pages kept for a second look, in levels and values.
const CACHED_ENTRIES: usize = 8 << 20;

/// What reading a column has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeafCost {
    /// Bytes fetched.
    pub bytes: u64,
    /// Data pages decoded.
    pub pages: u64,
    /// Data pages that were passed over.
    pub skipped: u64,
    /// Reads of the object.
    pub requests: u64,
    /// Stored bytes of the data pages that were at hand from earlier queries.
    pub at_hand: u64,
}

struct LeafState<'a> {
    reader: ChunkReader<'a>,
    pages: BTreeMap<usize, Arc<Page>>,
    texts: Option<Arc<Dictionary>>,
    at_hand: u64,
    pages_at_hand: u64,
}

pub(super) struct Group<'a> {
    block: &'a OpenBlock,
    pub(super) columns: &'a Columns,
    pub(super) number: usize,
    pub(super) rows: u32,
    leaves: HashMap<usize, LeafState<'a>>,
    nesting: Option<Arc<Nesting>>,
    cached: usize,
    /// The entries of dictionaries that pass a condition, by column.
    passing: Vec<(usize, Condition, Option<Arc<Bitmap>>)>,
    /// The rows that can satisfy a condition, by column.
    rare: Vec<rare::Known>,
    /// Attributes that this query has asked for, by owner and id of the key, and those that it has as columns.
    asked: Vec<(Owner, u32)>,
    attributes: Vec<((usize, Owner, u32), Arc<AttributeColumn>)>,
    /// Whether pages are kept for a second look.
    keeps: bool,
}

impl<'a> Group<'a> {
    pub(super) fn open(block: &'a OpenBlock, number: usize) -> Result<Self> {
        let rows = block.row_group(number)?.rows;
        let columns = block.schema().columns();
        Ok(Self {
            block,
            columns,
            number,
            rows,
            leaves: HashMap::new(),
            nesting: None,
            cached: 0,
            passing: Vec::new(),
            rare: Vec::new(),
            asked: Vec::new(),
            attributes: Vec::new(),
            keeps: true,
        })
    }

    pub(super) fn block(&self) -> &'a OpenBlock {
        self.block
    }

    fn parts(&self) -> Option<&'a BlockParts> {
        self.block.decoded()
    }

    fn leaf(&mut self, leaf: usize) -> Result<&mut LeafState<'a>> {
        match self.leaves.entry(leaf) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let reader = ChunkReader::new(self.block, self.number, leaf, Some(&RowSet::default()))?;
                Ok(entry.insert(LeafState {
                    reader,
                    pages: BTreeMap::new(),
                    texts: None,
                    at_hand: 0,
                    pages_at_hand: 0,
                }))
            }
        }
    }

    /// Whether no entry of the column has a value, by its statistics.
    pub(super) fn is_empty(&self, leaf: usize) -> Result<bool> {
        let group = self.block.row_group(self.number)?;
        Ok(group.chunks.get(leaf).is_none_or(|chunk| chunk.nulls.is_some_and(|nulls| nulls >= chunk.values)))
    }

    /// Smallest and largest integer of the column, when the file says.
    pub(super) fn int_bounds(&self, leaf: usize) -> Result<Option<(i64, i64)>> {
        if !matches!(self.block.shape(leaf)?.physical, Physical::Int32 | Physical::Int64) {
            return Ok(None);
        }
        let group = self.block.row_group(self.number)?;
        let bounds = group.chunks.get(leaf).and_then(|chunk| chunk.bounds.as_ref());
        let int = |raw: &[u8]| match raw.len() {
            4 => raw.try_into().ok().map(|raw| i64::from(i32::from_le_bytes(raw))),
            8 => raw.try_into().ok().map(i64::from_le_bytes),
            _ => None,
        };
        // Unsigned columns order their bounds as such; with values above the signed range they say nothing here.
        Ok(bounds.and_then(|(low, high)| int(low).zip(int(high))).filter(|(low, high)| low <= high))
    }

    /// The dictionary of a column of byte strings, none when its values are written out.
    pub(super) fn dictionary(&mut self, leaf: usize) -> Result<Option<Arc<Values>>> {
        let (number, parts) = (self.number, self.parts());
        let reader = &mut self.leaf(leaf)?.reader;
        if let Some(parts) = parts.filter(|_| !reader.dictionary_is_read()) {
            match parts.dictionary(number, leaf) {
                Some(dictionary) => reader.set_dictionary(dictionary),
                None => parts.keep_dictionary(number, leaf, reader.dictionary()?.as_ref()),
            }
        }
        let dictionary = reader.dictionary()?;
        Ok(dictionary.filter(|dictionary| matches!(**dictionary, Values::Bytes(_))))
    }

    /// The entries of the column's dictionary that satisfy a condition on texts, found once for a query. None when there is no
    /// dictionary, or when entries have to be looked at one by one: then it may be better to look at few.
    pub(super) fn passing(&mut self, leaf: usize, condition: &Condition) -> Result<Option<Arc<Bitmap>>> {
        if is_coded(condition) {
            return Ok(None);
        }
        if let Some((_, _, found)) = self.passing.iter().find(|(of, known, _)| *of == leaf && known == condition) {
            return Ok(found.clone());
        }
        let found = match self.dictionary(leaf)?.as_deref() {
            Some(Values::Bytes(entries)) => entries.matching(condition).map(Arc::new),
            _ => None,
        };
        self.passing.push((leaf, condition.clone(), found.clone()));
        Ok(found)
    }

    /// An attribute in a column of its own with the values of one type, where that is at hand, or worth making: when an earlier
    /// query has asked for the attribute, and this one would read most of the lists anyway.
    pub(super) fn attribute(
        &mut self,
        nesting: &Arc<Nesting>,
        owner: Owner,
        generic: &Generic,
        leaf: usize,
        rows: &RowSet,
    ) -> Result<Option<Arc<AttributeColumn>>> {
        let Some(parts) = self.parts() else { return Ok(None) };
        let (number, keys) = (self.number, generic.leaves.key);
        let Some(key) = key_id(self.dictionary(keys)?.as_deref(), &generic.name) else { return Ok(None) };
        let place = (leaf, owner, key);
        if let Some((_, column)) = self.attributes.iter().find(|(known, _)| *known == place) {
            return Ok(Some(column.clone()));
        }
        match parts.attribute(number, leaf, owner, key) {
            Some(Attribute::Column(column)) => {
                self.attributes.push((place, column.clone()));
                return Ok(Some(column));
            }
            Some(Attribute::TooLarge) => return Ok(None),
            Some(Attribute::Asked) | None => {}
        }
        let reader = &self.leaf(keys)?.reader;
        let pages = reader.page_count();
        let worth = reader.page_numbers(rows).is_some_and(|wanted| wanted.len() * 2 > pages);
        if !worth || self.asked.contains(&(owner, key)) {
            return Ok(None);
        }
        if parts.attribute(number, keys, owner, key).is_none() {
            parts.keep_attribute(number, keys, owner, key, Attribute::Asked);
            self.asked.push((owner, key));
            return Ok(None);
        }
        self.keeps = false;
        let column = AttributeColumn::read(self, nesting, owner, generic, leaf);
        self.keeps = true;
        let column = column?.map(Arc::new);
        for leaf in [keys, leaf] {
            let pages = self.leaf(leaf)?.reader.page_count();
            parts.forget_pages(number, leaf, pages);
        }
        let known = column.clone().map_or(Attribute::TooLarge, Attribute::Column);
        parts.keep_attribute(number, leaf, owner, key, known);
        self.attributes.extend(column.clone().map(|column| (place, column)));
        Ok(column)
    }

    /// The whole dictionary in the form of the query engine, made once.
    pub(super) fn texts(&mut self, leaf: usize, entries: &ByteValues) -> Result<Arc<Dictionary>> {
        let (number, parts) = (self.number, self.parts());
        let state = self.leaf(leaf)?;
        if let Some(texts) = &state.texts {
            return Ok(texts.clone());
        }
        if let Some(texts) = parts.and_then(|parts| parts.texts(number, leaf)) {
            state.texts = Some(texts.clone());
            return Ok(texts);
        }
        let mut texts = Dictionary::with_capacity(entries.len(), entries.size());
        for text in entries.iter() {
            texts.push(&lossy(text));
        }
        let texts = Arc::new(texts);
        if let Some(parts) = parts {
            parts.keep_texts(number, leaf, &texts);
        }
        state.texts = Some(texts.clone());
        Ok(texts)
    }

    pub(super) fn has_texts(&self, leaf: usize) -> bool {
        self.leaves.get(&leaf).is_some_and(|state| state.texts.is_some())
            || self.parts().is_some_and(|parts| parts.texts(self.number, leaf).is_some())
    }

    /// Calls `each` with every page that holds some of `rows`, in order.
    pub(super) fn pages(
        &mut self,
        leaf: usize,
        rows: &RowSet,
        mut each: impl FnMut(&Arc<Page>) -> Result<()>,
    ) -> Result<()> {
        let (group, parts) = (self.number, self.parts());
        let numbers = {
            let state = self.leaf(leaf)?;
            state.reader.page_numbers(rows)
        };
        let Some(numbers) = numbers else { return self.all_pages(leaf, rows, each) };
        // Pages at hand are held here, since keeping others may push them out.
        let state = self.leaf(leaf)?;
        let mut at_hand: Vec<Option<Arc<Page>>> =
            numbers.iter().map(|number| state.pages.get(number).cloned()).collect();
        if let Some(parts) = parts {
            for (number, page) in numbers.iter().zip(&mut at_hand).filter(|(_, page)| page.is_none()) {
                *page = parts.page(group, leaf, *number);
                if let Some(page) = page {
                    self.know(leaf, *number, page)?;
                }
            }
            if at_hand.iter().any(Option::is_none) {
                // Pages are decoded with it.
                self.dictionary(leaf)?;
            }
        }
        let state = self.leaf(leaf)?;
        let missing = numbers.iter().zip(&at_hand).filter(|(_, page)| page.is_none());
        state.reader.set_queue(missing.map(|(number, _)| *number));
        for (number, at_hand) in numbers.into_iter().zip(at_hand) {
            let page = match at_hand {
                Some(page) => page,
                None => {
                    let page = self.leaf(leaf)?.reader.next_page()?;
                    let mut page = page.ok_or_else(|| Error::malformed("column chunk", "ends early"))?;
                    if parts.is_some() {
                        page.pack(self.is_plain(leaf));
                    }
                    let page = Arc::new(page);
                    if self.keeps {
                        if let Some(parts) = parts {
                            parts.keep_page(group, leaf, number, &page);
                        }
                        self.keep(leaf, number, &page)?;
                    }
                    page
                }
            };
            each(&page)?;
        }
        Ok(())
    }

    /// Without an offset index all pages are read, one after the other.
    fn all_pages(&mut self, leaf: usize, rows: &RowSet, mut each: impl FnMut(&Arc<Page>) -> Result<()>) -> Result<()> {
        let state = self.leaf(leaf)?;
        if state.pages.is_empty() {
            let mut number = 0;
            while let Some(page) = state.reader.next_page()? {
                if page.rep.get(0).is_some_and(|rep| rep != 0) {
                    return Err(Error::Unsupported("rows that continue in the next page".to_owned()));
                }
                if page.len > 0 {
                    state.pages.insert(number, Arc::new(page));
                    number += 1;
                }
            }
        }
        let pages: Vec<Arc<Page>> = state.pages.values().cloned().collect();
        for page in pages {
            let end = page.first_row + u32::try_from(page.rows()).unwrap_or(0);
            if rows.overlaps(page.first_row..end) {
                each(&page)?;
            }
        }
        Ok(())
    }

    /// Whether the column has one value for each span, so that nesting says all that its levels do.
    fn is_plain(&self, leaf: usize) -> bool {
        let span = &self.columns.span;
        let mut plain =
            vec![span.span_id, span.parent_span_id, span.parent, span.left, span.right, span.name, span.kind];
        plain.extend([span.start, span.duration, span.status_message]);
        // Nesting itself is read from the status where scopes do not count their spans.
        plain.extend(self.columns.scope.span_count.map(|_| span.status));
        plain.contains(&leaf)
    }

    /// Counts a page of an earlier query and keeps it for this one.
    fn know(&mut self, leaf: usize, number: usize, page: &Arc<Page>) -> Result<()> {
        let state = self.leaf(leaf)?;
        state.at_hand += state.reader.page_bytes(number);
        state.pages_at_hand += 1;
        self.keep(leaf, number, page)
    }

    fn keep(&mut self, leaf: usize, number: usize, page: &Arc<Page>) -> Result<()> {
        if self.cached + page.len > CACHED_ENTRIES {
            // Columns without an offset index could not be read again, so theirs stay.
            self.leaves.values_mut().filter(|state| state.reader.has_index()).for_each(|state| state.pages.clear());
            self.cached = 0;
        }
        if self.leaf(leaf)?.pages.insert(number, page.clone()).is_none() {
            self.cached += page.len;
        }
        Ok(())
    }

    /// The column that tells how spans lie in rows.
    pub(super) fn nesting_leaf(&self) -> usize {
        self.columns.scope.span_count.unwrap_or(self.columns.span.status)
    }

    /// How spans lie in rows, if that was found out before.
    pub(super) fn known_nesting(&mut self) -> Option<Arc<Nesting>> {
        if self.nesting.is_none() {
            self.nesting = self.parts().and_then(|parts| parts.nesting(self.number));
        }
        self.nesting.clone()
    }

    pub(super) fn nesting(&mut self) -> Result<Arc<Nesting>> {
        if let Some(nesting) = self.known_nesting() {
            return Ok(nesting);
        }
        let row_group = self.block.row_group(self.number)?;
        let limit = row_group.chunks.get(self.columns.span.status).map_or(0, |chunk| chunk.values);
        let (leaf, per_span) = (self.nesting_leaf(), self.columns.scope.span_count.is_none());
        let scopes = row_group.chunks.get(leaf).filter(|_| !per_span).map_or(0, |chunk| chunk.values);
        let mut builder = Builder::new(limit, self.rows, scopes);
        self.pages(leaf, &RowSet::all(self.rows), |page| builder.add(page, per_span))?;
        let nesting = Arc::new(builder.finish(self.rows)?);
        if let Some(parts) = self.parts() {
            parts.keep_nesting(self.number, &nesting);
        }
        self.nesting = Some(nesting.clone());
        Ok(nesting)
    }

    /// Cost by leaf so far.
    pub(super) fn costs(&self) -> impl Iterator<Item = (usize, LeafCost)> + '_ {
        self.leaves.iter().map(|(leaf, state)| {
            let pages = u64::from(state.reader.pages_read);
            let all = state.reader.page_count() as u64;
            let cost = LeafCost {
                bytes: state.reader.bytes_read,
                pages,
                skipped: all.saturating_sub(pages + state.pages_at_hand),
                requests: u64::from(state.reader.requests),
                at_hand: state.at_hand,
            };
            (*leaf, cost)
        })
    }
}

/// The text of a value of a byte-string page.
pub(super) fn text<'p>(page: &'p Page, dictionary: Option<&'p Values>, index: usize) -> Option<&'p [u8]> {
    text_of(&page.values, dictionary, index)
}

/// The text of one of some byte strings.
pub(super) fn text_of<'p>(values: &'p Values, dictionary: Option<&'p Values>, index: usize) -> Option<&'p [u8]> {
    match (values, dictionary) {
        (Values::Bytes(values), _) => values.get(index),
        (Values::Ids(ids), Some(Values::Bytes(entries))) => ids.id(index).and_then(|id| entries.get(to_usize(id))),
        _ => None,
    }
}

/// First owner of a page, and one past its last row.
pub(super) fn bounds(page: &Page, nesting: &Nesting, owner: Owner) -> (u32, u32) {
    let end = page.first_row + u32::try_from(page.rows()).unwrap_or(u32::MAX - page.first_row);
    (nesting.first(owner, page.first_row), nesting.first(owner, end))
}
