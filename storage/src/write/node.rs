//! A repeated group and its leaves: one stream of levels for all of them, pages cut at the same rows.
//!
//! Leaves directly in the group have one value an entry, so they share the group's levels as they are. A list of values
//! (an attribute's, or a dedicated column's) nearly always has one value or none: its levels are the group's, with the
//! definition level raised by one where there is a value. Only entries with several values need more.

use super::{
    Error,
    chunk::Chunk,
    compressor::Compressor,
    hybrid::{self, bits_for},
};

/// What an entry of a list of attributes holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Holds {
    Nothing = 0,
    Text = 1,
    Int = 2,
    Double = 3,
    Bool = 4,
    Unsupported = 5,
}

/// Where a leaf's presence comes from.
#[derive(Debug)]
pub(super) enum Presence {
    /// One value for each entry.
    Always,
    /// A value where the node's entry holds this.
    Where(Holds),
    /// Own flags, one for each entry, 0 or 1.
    Own(Vec<u8>),
}

/// Buffers shared by the nodes of a writer.
#[derive(Debug)]
pub(super) struct PageRoom {
    pub(super) compressor: Compressor,
    body: Vec<u8>,
    def: Vec<u8>,
    rep: Vec<u8>,
    /// Entries after which a page ends.
    page_entries: usize,
}

impl PageRoom {
    pub(super) fn new(page_entries: usize) -> Result<Self, Error> {
        let compressor = Compressor::new()?;
        Ok(Self { compressor, body: Vec::new(), def: Vec::new(), rep: Vec::new(), page_entries })
    }
}

/// A repeated group (or the root) with its leaves.
#[derive(Debug)]
pub(super) struct Node {
    /// Both maximum levels of an entry.
    depth: u8,
    rep: Vec<u8>,
    def: Vec<u8>,
    /// For lists of attributes: what each entry holds, as a [`Holds`].
    holds: Vec<u8>,
    pub(super) chunks: Vec<Chunk>,
    first_row: u64,
}

/// Levels of a page in their encoding, each with its length before it.
#[derive(Default)]
struct Encoded {
    /// Of the node itself, and of a leaf one level deeper that has no value.
    rep: [Option<Vec<u8>>; 2],
    def: [Option<Vec<u8>>; 2],
}

pub(super) fn put_levels(levels: &[u8], max: u8, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    hybrid::encode(levels, bits_for(u32::from(max)), out);
    let length = u32::try_from(out.len() - at - 4).expect("levels of a page are far below 4 GiB");
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

fn cached<'a>(slots: &'a mut [Option<Vec<u8>>; 2], levels: &[u8], depth: u8, max: u8) -> &'a [u8] {
    slots[usize::from(max - depth)].get_or_insert_with(|| {
        let mut encoded = Vec::new();
        if max > 0 {
            put_levels(levels, max, &mut encoded);
        }
        encoded
    })
}

impl Node {
    pub(super) fn new(depth: u8, chunks: Vec<Chunk>) -> Self {
        Self { depth, rep: Vec::new(), def: Vec::new(), holds: Vec::new(), chunks, first_row: 0 }
    }

    /// Notes an entry with the repetition level `rep`.
    #[inline]
    pub(super) fn enter(&mut self, rep: u8) {
        self.rep.push(rep);
        self.def.push(self.depth);
    }

    /// As [`Self::enter`] for a list of attributes.
    #[inline]
    pub(super) fn enter_holding(&mut self, rep: u8, holds: Holds) {
        self.enter(rep);
        self.holds.push(holds as u8);
    }

    /// Notes that the list is empty in an owner with these levels.
    #[inline]
    pub(super) fn skip(&mut self, rep: u8, def: u8) {
        self.rep.push(rep);
        self.def.push(def);
        for chunk in &mut self.chunks {
            if let Presence::Own(flags) = &mut chunk.presence {
                flags.push(0);
            }
        }
    }

    /// As [`Self::skip`] for a list of attributes.
    #[inline]
    pub(super) fn skip_holding(&mut self, rep: u8, def: u8) {
        self.rep.push(rep);
        self.def.push(def);
        self.holds.push(Holds::Nothing as u8);
    }

    pub(super) fn depth(&self) -> u8 {
        self.depth
    }

    /// Entries in the page that waits, for [`Chunk::add_more`].
    #[inline]
    pub(super) fn entries(&self) -> usize {
        self.rep.len()
    }

    /// The size of the largest waiting page before compression, about.
    pub(super) fn pending_bytes(&self) -> usize {
        let values = self.chunks.iter().map(|chunk| chunk.values.pending_bytes()).max().unwrap_or(0);
        values + self.rep.len() / 2
    }

    /// Encodes what waits as one page of each leaf; `rows` is the number of rows begun in this row group.
    pub(super) fn cut_page(&mut self, rows: u64, room: &mut PageRoom) -> Result<(), Error> {
        if self.rep.is_empty() {
            return Ok(());
        }
        let absent = self.def.iter().filter(|def| **def < self.depth).count();
        let mut encoded = Encoded::default();
        let mut empty: Option<(Vec<u8>, usize)> = None;
        for chunk in &mut self.chunks {
            if chunk.parts > 1 && matches!(chunk.presence, Presence::Always) {
                cut_parts(chunk, (&self.rep, &self.def), self.first_row, room)?;
                continue;
            }
            room.body.clear();
            let entries = self.rep.len();
            let own;
            let (present, wanted) = match &mut chunk.presence {
                Presence::Always => {
                    room.body.extend_from_slice(cached(&mut encoded.rep, &self.rep, self.depth, chunk.max_rep));
                    room.body.extend_from_slice(cached(&mut encoded.def, &self.def, self.depth, chunk.max_def));
                    chunk.finish_page(entries, absent, self.first_row, room.body_and_compressor())?;
                    continue;
                }
                Presence::Where(holds) => (self.holds.as_slice(), *holds as u8),
                Presence::Own(flags) => {
                    own = std::mem::take(flags);
                    (own.as_slice(), 1)
                }
            };
            let filled = present.iter().filter(|holds| **holds == wanted).count();
            if filled == 0 {
                let alike = chunk.max_rep > self.depth && chunk.values.is_plain();
                if alike && let Some((body, uncompressed)) = &empty {
                    chunk.add_page(entries, entries, self.first_row, body, *uncompressed);
                    continue;
                }
                room.body.extend_from_slice(cached(&mut encoded.rep, &self.rep, self.depth, chunk.max_rep));
                room.body.extend_from_slice(cached(&mut encoded.def, &self.def, self.depth, chunk.max_def));
                chunk.finish_page(entries, entries, self.first_row, room.body_and_compressor())?;
                if alike {
                    empty = Some(chunk.last_body(room.body.len()));
                }
                continue;
            }
            if chunk.lists_rows() {
                let more = std::mem::take(&mut chunk.more);
                let mut beyond = more.iter().peekable();
                let counts = present.iter().enumerate().map(|(entry, holds)| {
                    let more = beyond.next_if(|(at, _)| *at == entry).map_or(0, |(_, count)| *count);
                    if *holds == wanted { 1 + more } else { 0 }
                });
                chunk.note_rows(self.first_row, self.rep.iter().map(|rep| *rep == 0).zip(counts));
                chunk.more = more;
            }
            room.def.clear();
            room.def.extend(self.def.iter().zip(present).map(|(def, holds)| def + u8::from(*holds == wanted)));
            let mut total = entries;
            if chunk.more.is_empty() {
                room.body.extend_from_slice(cached(&mut encoded.rep, &self.rep, self.depth, chunk.max_rep));
            } else {
                total += insert_more(&chunk.more, &self.rep, chunk, &mut room.rep, &mut room.def);
                put_levels(&room.rep, chunk.max_rep, &mut room.body);
                chunk.more.clear();
            }
            put_levels(&room.def, chunk.max_def, &mut room.body);
            chunk.finish_page(total, entries - filled, self.first_row, room.body_and_compressor())?;
        }
        self.rep.clear();
        self.def.clear();
        self.holds.clear();
        self.first_row = rows;
        Ok(())
    }

    /// Starts the next row group.
    pub(super) fn reset(&mut self) {
        self.first_row = 0;
    }
}

/// Completes what waits as several pages, each of which begins with a row. Levels of repetition may be missing where every entry is a
/// row.
pub(super) fn cut_parts(
    chunk: &mut Chunk,
    (rep, def): (&[u8], &[u8]),
    mut first_row: u64,
    room: &mut PageRoom,
) -> Result<(), Error> {
    let least = room.page_entries.div_ceil(chunk.parts).max(1);
    let mut from = 0;
    while from < def.len() {
        let end = part_end(rep, from, least, def.len());
        let def = &def[from..end];
        room.body.clear();
        let mut rows = def.len();
        if chunk.max_rep > 0 {
            put_levels(&rep[from..end], chunk.max_rep, &mut room.body);
            rows = rep[from..end].iter().filter(|rep| **rep == 0).count();
        }
        if chunk.max_def > 0 {
            put_levels(def, chunk.max_def, &mut room.body);
        }
        let nulls = def.iter().filter(|def| **def < chunk.max_def).count();
        chunk.finish_page(def.len(), nulls, first_row, room.body_and_compressor())?;
        first_row += rows as u64;
        from = end;
    }
    Ok(())
}

/// Where a part ends that begins at `from`: with a row, and not so that hardly anything is left.
fn part_end(rep: &[u8], from: usize, least: usize, len: usize) -> usize {
    if len - from < least + least.div_ceil(2) {
        return len;
    }
    let end = from + least;
    if rep.is_empty() {
        return end;
    }
    rep[end..].iter().position(|rep| *rep == 0).map_or(len, |more| end + more)
}

/// Writes the levels of a list some of whose entries have several values. Returns how many levels that adds.
fn insert_more(more: &[(usize, usize)], node_rep: &[u8], chunk: &Chunk, rep: &mut Vec<u8>, def: &mut Vec<u8>) -> usize {
    let added: usize = more.iter().map(|(_, count)| count).sum();
    let single = std::mem::take(def);
    rep.clear();
    rep.reserve(single.len() + added);
    def.reserve(single.len() + added);
    let mut done = 0;
    for (entry, count) in more {
        rep.extend_from_slice(&node_rep[done..=*entry]);
        def.extend_from_slice(&single[done..=*entry]);
        rep.extend(std::iter::repeat_n(chunk.max_rep, *count));
        def.extend(std::iter::repeat_n(chunk.max_def, *count));
        done = entry + 1;
    }
    rep.extend_from_slice(&node_rep[done..]);
    def.extend_from_slice(&single[done..]);
    added
}

impl PageRoom {
    fn body_and_compressor(&mut self) -> (&mut Vec<u8>, &mut Compressor) {
        (&mut self.body, &mut self.compressor)
    }
}
