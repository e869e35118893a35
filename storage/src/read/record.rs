//! Puts whole traces together again: the columns of a row group, walked side by side, written as an encoded trace.
//!
//! Only what OTLP has is read; the columns that exist for searching (nested sets, rounded times, service statistics) are not touched.

use std::ops::{Range, RangeInclusive};

use bytes::Bytes;
use vivace_protocol::TraceId;

use super::{
    any_value,
    block::OpenBlock,
    chunk::READ_THROUGH,
    cursor::{Cursor, inconsistent},
    error::Result,
    rows::RowSet,
    starts::ANY_START,
    wire,
};
use crate::{
    dedicated::ValueType,
    meta::Version,
    schema::{AttrLeaves, Columns, DedicatedLeaf},
};

/// Field numbers of OTLP messages.
mod field {
    pub(super) const TRACE_RESOURCE_SPANS: u8 = 1;
    pub(super) const KEY: u8 = 1;
    pub(super) const VALUE: u8 = 2;
    pub(super) const RESOURCE: u8 = 1;
    pub(super) const RESOURCE_ATTRS: u8 = 1;
    pub(super) const RESOURCE_DROPPED: u8 = 2;
    pub(super) const SCOPE_SPANS: u8 = 2;
    pub(super) const SCOPE: u8 = 1;
    pub(super) const SCOPE_NAME: u8 = 1;
    pub(super) const SCOPE_VERSION: u8 = 2;
    pub(super) const SCOPE_ATTRS: u8 = 3;
    pub(super) const SCOPE_DROPPED: u8 = 4;
    pub(super) const SPAN: u8 = 2;
}

/// Traces below are copied out of a buffer that is used again; with a larger one goes the buffer, so that it is in memory once.
const LARGE: usize = 1 << 20;

/// What the last span of a piece may add without the buffer growing.
const SLACK: usize = 64 << 10;

/// The repetition level with which another span of a scope begins.
const SPAN_LEVEL: u8 = 3;

/// Reads the rows of one row group in order.
pub(crate) struct RecordReader<'a> {
    block: &'a OpenBlock,
    columns: &'a Columns,
    /// By leaf; none for leaves that are not read.
    cursors: Vec<Option<Cursor<'a>>>,
    /// Leaves below `rs`, `ss`, `Spans`: what has one placeholder entry when the list is empty.
    below_rs: Range<usize>,
    below_ss: Range<usize>,
    below_spans: Range<usize>,
    below_events: Range<usize>,
    below_links: Range<usize>,
    out: Vec<u8>,
    pieces: Pieces,
}

/// A row that is cut between spans while it is read.
struct Pieces {
    /// A piece from this size on is a finished one.
    most: usize,
    /// Spans that start elsewhen are passed over.
    starts: RangeInclusive<u64>,
    finished: Vec<Bytes>,
    /// Spans put together so far.
    spans: u64,
}

impl Pieces {
    /// Takes what is written, all of it closed.
    fn finish(&mut self, out: &mut Vec<u8>, next: Vec<u8>) {
        self.finished.push(std::mem::replace(out, next).into());
    }

    /// Ends a piece within the open resource and opens that anew: the first `head` bytes of it are said again.
    fn cut(&mut self, out: &mut Vec<u8>, resource: wire::Mark, head: usize) -> wire::Mark {
        let mut next = Vec::with_capacity(self.most.saturating_add(SLACK));
        let anew = wire::begin(&mut next, field::TRACE_RESOURCE_SPANS);
        next.extend_from_slice(&out[resource.start()..][..head]);
        wire::end(out, resource);
        self.finish(out, next);
        anew
    }
}

impl<'a> RecordReader<'a> {
    /// A reader that begins with the first of `rows`, or with the first row of the group. The first pages of all columns are fetched together.
    pub(crate) fn new(block: &'a OpenBlock, group: usize, rows: Option<&RowSet>) -> Result<Self> {
        let columns = block.schema().columns();
        let leaves = block.schema().leaves().len();
        let (resource, scope, span) = (&columns.resource, &columns.scope, &columns.span);
        let below_spans = span.span_id..scope.span_count.unwrap_or(leaves);
        let mut this = Self {
            block,
            columns,
            cursors: Vec::with_capacity(leaves),
            below_rs: resource.service.min(resource.attrs.key)..leaves,
            below_ss: scope.name..leaves,
            below_spans,
            below_events: span.events.since_start..span.dropped_events,
            below_links: span.links.trace_id..span.dropped_links,
            out: Vec::new(),
            pieces: Pieces { most: usize::MAX, starts: ANY_START, finished: Vec::new(), spans: 0 },
        };
        let skipped = unused(columns);
        for leaf in 0..leaves {
            let cursor = if skipped.contains(&leaf) { None } else { Some(Cursor::new(block, group, leaf, rows)?) };
            this.cursors.push(cursor);
        }
        this.prefetch()?;
        Ok(this)
    }

    /// With only those spans that start in `starts`.
    pub(crate) fn starting_in(mut self, starts: RangeInclusive<u64>) -> Self {
        self.pieces.starts = starts;
        self
    }

    /// Fetches the first pages of all columns, close ones in one request.
    fn prefetch(&mut self) -> Result<()> {
        let mut wanted: Vec<(Range<u64>, usize)> = Vec::new();
        for (leaf, cursor) in self.cursors.iter_mut().enumerate() {
            let Some(cursor) = cursor else { continue };
            wanted.extend(cursor.reader().wanted().into_iter().map(|range| (range, leaf)));
        }
        wanted.sort_by_key(|(range, _)| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for (range, _) in &wanted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end.saturating_add(READ_THROUGH) => {
                    last.end = last.end.max(range.end)
                }
                _ => merged.push(range.clone()),
            }
        }
        let fetched = self.block.data().read_many(&merged)?;
        for (range, leaf) in wanted {
            let at = merged.partition_point(|whole| whole.end < range.end);
            let (Some(whole), Some(bytes), Some(cursor)) = (merged.get(at), fetched.get(at), &mut self.cursors[leaf])
            else {
                continue;
            };
            let start = usize::try_from(range.start - whole.start).unwrap_or(usize::MAX);
            let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            if start.checked_add(len).is_some_and(|end| end <= bytes.len()) {
                cursor.reader().give(range.start, bytes.slice(start..start + len));
            }
        }
        Ok(())
    }

    /// Moves all columns to `row`.
    pub(crate) fn seek(&mut self, row: u32) -> Result<()> {
        self.cursors.iter_mut().flatten().try_for_each(|cursor| cursor.seek(row))
    }

    /// Spans put together so far.
    #[cfg(test)]
    pub(crate) fn spans_read(&self) -> u64 {
        self.pieces.spans
    }

    /// Bytes fetched so far.
    pub(crate) fn bytes_read(&mut self) -> u64 {
        self.cursors.iter_mut().flatten().map(|cursor| cursor.reader().bytes_read).sum()
    }

    /// The trace of the next row as an encoded `tempopb.Trace`, none after the last row.
    pub(crate) fn next_row(&mut self) -> Result<Option<(TraceId, Bytes)>> {
        let Some(id) = self.next_id()? else { return Ok(None) };
        self.cursor(self.columns.trace.trace_id)?.advance();
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        self.resources(id, &mut out)?;
        if out.len() >= LARGE {
            return Ok(Some((id, out.into())));
        }
        let trace = Bytes::copy_from_slice(&out);
        self.out = out;
        Ok(Some((id, trace)))
    }

    /// As [`Self::next_row`], with a large trace in pieces of about `most` bytes: each an encoded `tempopb.Trace`, and together
    /// the trace. None of them holds on to another, so that who takes them one by one frees them one by one.
    pub(crate) fn next_row_in_pieces(&mut self, most: usize) -> Result<Option<(TraceId, Vec<Bytes>)>> {
        self.pieces.most = most;
        let row = self.next_row();
        self.pieces.most = usize::MAX;
        let mut pieces = std::mem::take(&mut self.pieces.finished);
        let Some((id, last)) = row? else { return Ok(None) };
        pieces.push(last);
        Ok(Some((id, pieces)))
    }

    /// The id of the next row, none after the last row.
    pub(crate) fn next_id(&mut self) -> Result<Option<TraceId>> {
        let id_leaf = self.columns.trace.trace_id;
        if self.peek(id_leaf)?.is_none() {
            return Ok(None);
        }
        Ok(Some(trace_id(self.cursor(id_leaf)?.bytes()?)))
    }

    fn cursor(&mut self, leaf: usize) -> Result<&mut Cursor<'a>> {
        self.cursors.get_mut(leaf).and_then(Option::as_mut).ok_or_else(inconsistent)
    }

    #[inline]
    fn peek(&mut self, leaf: usize) -> Result<Option<(u8, u8)>> {
        self.cursor(leaf)?.peek()
    }

    /// Whether the list at `level` that `driver` leads has another element. Consumes the placeholders of `below` when the list is empty.
    fn element(&mut self, first: bool, driver: usize, level: u8, below: Range<usize>) -> Result<bool> {
        let Some((rep, def)) = self.peek(driver)? else {
            return if first { Err(inconsistent()) } else { Ok(false) };
        };
        if !first {
            return Ok(rep == level);
        }
        if rep >= level && rep > 0 {
            return Err(inconsistent());
        }
        if def >= level {
            return Ok(true);
        }
        for leaf in below {
            if let Some(cursor) = &mut self.cursors[leaf] {
                match cursor.peek()? {
                    Some((_, def)) if def < level => cursor.advance(),
                    _ => return Err(inconsistent()),
                }
            }
        }
        Ok(false)
    }

    fn int(&mut self, leaf: usize) -> Result<i64> {
        let cursor = self.cursor(leaf)?;
        cursor.peek()?.ok_or_else(inconsistent)?;
        let value = cursor.int()?;
        cursor.advance();
        Ok(value)
    }

    /// Appends the byte string of the next entry of `leaf` as a field.
    fn text(&mut self, out: &mut Vec<u8>, field: u8, leaf: usize) -> Result<()> {
        let cursor = self.cursor(leaf)?;
        cursor.peek()?.ok_or_else(inconsistent)?;
        wire::bytes(out, field, cursor.bytes()?);
        cursor.advance();
        Ok(())
    }

    fn count(&mut self, out: &mut Vec<u8>, field: u8, leaf: usize) -> Result<()> {
        // Counts are unsigned 32-bit in OTLP and signed in the file: the bits are kept.
        let value = self.int(leaf)?;
        wire::uint(out, field, value.cast_unsigned() & u64::from(u32::MAX));
        Ok(())
    }

    fn resources(&mut self, id: TraceId, out: &mut Vec<u8>) -> Result<()> {
        let columns = self.columns;
        let mut first = true;
        while self.element(first, columns.resource.service, 1, self.below_rs.clone())? {
            first = false;
            if out.len() >= self.pieces.most {
                self.pieces.finish(out, Vec::new());
            }
            let (before, spans, finished) = (out.len(), self.pieces.spans, self.pieces.finished.len());
            let batch = wire::begin(out, field::TRACE_RESOURCE_SPANS);
            let resource = wire::begin(out, field::RESOURCE);
            self.attributes(out, field::RESOURCE_ATTRS, &columns.resource.attrs, 2)?;
            self.dedicated(out, field::RESOURCE_ATTRS, &columns.resource.dedicated, 2)?;
            self.fixed(out, field::RESOURCE_ATTRS, &columns.resource.fixed, 2)?;
            let cursor = self.cursor(columns.resource.service)?;
            let service = cursor.bytes()?;
            if !service.is_empty() {
                string_attribute(out, field::RESOURCE_ATTRS, b"service.name", service);
            }
            cursor.advance();
            self.count(out, field::RESOURCE_DROPPED, columns.resource.dropped)?;
            wire::end(out, resource);
            let batch = self.scopes(id, out, batch)?;
            wire::end(out, batch);
            let none = spans == self.pieces.spans && finished == self.pieces.finished.len();
            if none && self.pieces.starts != ANY_START {
                out.truncate(before);
            }
        }
        Ok(())
    }

    /// The scopes of the resource that is open. A cut opens it anew.
    fn scopes(&mut self, id: TraceId, out: &mut Vec<u8>, mut resource: wire::Mark) -> Result<wire::Mark> {
        let columns = self.columns;
        let resource_head = out.len() - resource.start();
        let mut first = true;
        while self.element(first, columns.scope.name, 2, self.below_ss.clone())? {
            if !std::mem::take(&mut first) && out.len() >= self.pieces.most {
                resource = self.pieces.cut(out, resource, resource_head);
            }
            let mut batch = wire::begin(out, field::SCOPE_SPANS);
            let scope = wire::begin(out, field::SCOPE);
            self.text(out, field::SCOPE_NAME, columns.scope.name)?;
            self.text(out, field::SCOPE_VERSION, columns.scope.version)?;
            self.attributes(out, field::SCOPE_ATTRS, &columns.scope.attrs, 3)?;
            self.count(out, field::SCOPE_DROPPED, columns.scope.dropped)?;
            wire::end(out, scope);
            let scope_head = out.len() - batch.start();
            let mut first_span = true;
            while self.element(first_span, columns.span.span_id, 3, self.below_spans.clone())? {
                if self.pass_over()? {
                    first_span = false;
                    continue;
                }
                if !std::mem::take(&mut first_span) && out.len() >= self.pieces.most {
                    let scope = out[batch.start()..][..scope_head].to_vec();
                    wire::end(out, batch);
                    resource = self.pieces.cut(out, resource, resource_head);
                    batch = wire::begin(out, field::SCOPE_SPANS);
                    out.extend_from_slice(&scope);
                }
                self.span(id, out)?;
                self.pieces.spans += 1;
            }
            wire::end(out, batch);
        }
        Ok(resource)
    }

    /// Passes over the spans up to the next one of the scope that is wanted: one column says which these are, of all others only levels
    /// are looked at. Whether there were any.
    fn pass_over(&mut self) -> Result<bool> {
        if self.pieces.starts == ANY_START {
            return Ok(false);
        }
        let leaf = self.columns.span.start;
        let starts = self.cursors.get_mut(leaf).and_then(Option::as_mut).ok_or_else(inconsistent)?;
        let mut passed = 0;
        while let Some((rep, _)) = starts.peek()?
            && (passed == 0 || rep == SPAN_LEVEL)
            && !self.pieces.starts.contains(&starts.int()?.cast_unsigned())
        {
            starts.advance();
            passed += 1;
        }
        for other in self.below_spans.clone().filter(|other| passed > 0 && *other != leaf) {
            if let Some(cursor) = &mut self.cursors[other] {
                cursor.skip(passed, SPAN_LEVEL)?;
            }
        }
        Ok(passed > 0)
    }

    /// Appends a span.
    fn span(&mut self, id: TraceId, out: &mut Vec<u8>) -> Result<()> {
        let columns = &self.columns.span;
        let span = wire::begin(out, field::SPAN);
        wire::bytes(out, 1, id.as_bytes());
        self.text(out, 2, columns.span_id)?;
        self.text(out, 3, columns.trace_state)?;
        self.text(out, 4, columns.parent_span_id)?;
        self.text(out, 5, columns.name)?;
        let kind = self.int(columns.kind)?;
        wire::uint(out, 6, kind.cast_unsigned());
        let start = self.int(columns.start)?.cast_unsigned();
        wire::fixed(out, 7, start);
        let duration = self.int(columns.duration)?.cast_unsigned();
        wire::fixed(out, 8, start.wrapping_add(duration));
        self.attributes(out, 9, &columns.attrs, 4)?;
        self.dedicated(out, 9, &columns.dedicated, 4)?;
        self.fixed(out, 9, &columns.fixed, 4)?;
        self.count(out, 10, columns.dropped)?;
        self.events(start, out)?;
        self.count(out, 12, columns.dropped_events)?;
        self.links(out)?;
        self.count(out, 14, columns.dropped_links)?;
        let status = wire::begin(out, 15);
        self.text(out, 2, columns.status_message)?;
        let code = self.int(columns.status)?;
        wire::uint(out, 3, code.cast_unsigned());
        wire::end(out, status);
        wire::end(out, span);
        Ok(())
    }

    fn events(&mut self, span_start: u64, out: &mut Vec<u8>) -> Result<()> {
        let columns = &self.columns.span.events;
        let mut first = true;
        while self.element(first, columns.name, 4, self.below_events.clone())? {
            first = false;
            let event = wire::begin(out, 11);
            let since = self.int(columns.since_start)?.cast_unsigned();
            wire::fixed(out, 1, span_start.wrapping_add(since));
            self.text(out, 2, columns.name)?;
            self.attributes(out, 3, &columns.attrs, 5)?;
            self.dedicated(out, 3, &columns.dedicated, 5)?;
            self.count(out, 4, columns.dropped)?;
            wire::end(out, event);
        }
        Ok(())
    }

    fn links(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let columns = &self.columns.span.links;
        let mut first = true;
        while self.element(first, columns.trace_id, 4, self.below_links.clone())? {
            first = false;
            let link = wire::begin(out, 13);
            self.text(out, 1, columns.trace_id)?;
            self.text(out, 2, columns.span_id)?;
            self.text(out, 3, columns.trace_state)?;
            self.attributes(out, 4, &columns.attrs, 5)?;
            self.count(out, 5, columns.dropped)?;
            wire::end(out, link);
        }
        Ok(())
    }

    /// The generic attributes of one owner; `level` is that of the attributes.
    fn attributes(&mut self, out: &mut Vec<u8>, field: u8, leaves: &AttrLeaves, level: u8) -> Result<()> {
        let mut first = true;
        while self.element(first, leaves.key, level, leaves.key..leaves.unsupported + 1)? {
            first = false;
            self.attribute(out, field, leaves, level)?;
        }
        Ok(())
    }

    fn attribute(&mut self, out: &mut Vec<u8>, field: u8, leaves: &AttrLeaves, level: u8) -> Result<()> {
        let undo = out.len();
        let attribute = wire::begin(out, field);
        let key = self.cursor(leaves.key)?;
        wire::present_bytes(out, field::KEY, key.bytes()?);
        key.advance();
        let is_array = self.cursor(leaves.is_array)?;
        is_array.peek()?.ok_or_else(inconsistent)?;
        let array = is_array.boolean()?;
        is_array.advance();
        let value = wire::begin(out, field::VALUE);
        let mut elements = Elements::new(out.len());
        self.values(out, leaves.value, level + 1, &mut elements, |out, cursor| {
            wire::present_bytes(out, any_value::STRING, cursor.bytes()?);
            Ok(())
        })?;
        self.values(out, leaves.value_int, level + 1, &mut elements, |out, cursor| {
            wire::present_uint(out, any_value::INT, cursor.int()?.cast_unsigned());
            Ok(())
        })?;
        self.values(out, leaves.value_double, level + 1, &mut elements, |out, cursor| {
            wire::present_fixed(out, any_value::DOUBLE, cursor.double()?.to_bits());
            Ok(())
        })?;
        self.values(out, leaves.value_bool, level + 1, &mut elements, |out, cursor| {
            wire::present_uint(out, any_value::BOOL, u64::from(cursor.boolean()?));
            Ok(())
        })?;
        let unsupported = self.cursor(leaves.unsupported)?;
        let (_, def) = unsupported.peek()?.ok_or_else(inconsistent)?;
        let has_unsupported = def > level;
        if has_unsupported {
            any_value::from_json(out, unsupported.bytes()?);
        }
        unsupported.advance();
        if array || elements.count() > 1 {
            elements.wrap(out);
        }
        let empty = !array && !has_unsupported && elements.count() == 0;
        if empty && *self.block.schema().version() == Version::V5 {
            // An attribute without any value is not restored.
            out.truncate(undo);
            return Ok(());
        }
        wire::end(out, value);
        wire::end(out, attribute);
        Ok(())
    }

    /// The values that one owner has in a repeated column, one `AnyValue` content after the other.
    fn values(
        &mut self,
        out: &mut Vec<u8>,
        leaf: usize,
        level: u8,
        elements: &mut Elements,
        write: impl Fn(&mut Vec<u8>, &Cursor<'a>) -> Result<()>,
    ) -> Result<()> {
        let cursor = self.cursor(leaf)?;
        let (_, def) = cursor.peek()?.ok_or_else(inconsistent)?;
        if def < level {
            cursor.advance();
            return Ok(());
        }
        loop {
            let (_, def) = cursor.peek()?.ok_or_else(inconsistent)?;
            if def < level {
                return Err(inconsistent());
            }
            write(out, cursor)?;
            elements.close(out.len());
            cursor.advance();
            match cursor.peek()? {
                Some((rep, _)) if rep >= level => {}
                _ => return Ok(()),
            }
        }
    }

    /// The attributes that have columns of their own. `level` is that of a value: one deeper than the owner.
    fn dedicated(&mut self, out: &mut Vec<u8>, field: u8, leaves: &[DedicatedLeaf], level: u8) -> Result<()> {
        let block = self.block;
        for dedicated in leaves {
            let Some(column) = block.meta().dedicated_columns.0.get(dedicated.position) else { continue };
            self.column(out, field, column.name.as_bytes(), dedicated.leaf, dedicated.spare.value_type, level)?;
        }
        Ok(())
    }

    fn fixed(&mut self, out: &mut Vec<u8>, field: u8, leaves: &[(&'static str, usize)], level: u8) -> Result<()> {
        for (name, leaf) in leaves {
            let kind = if *name == "http.status_code" { ValueType::Int } else { ValueType::String };
            self.column(out, field, name.as_bytes(), *leaf, kind, level)?;
        }
        Ok(())
    }

    fn column(
        &mut self,
        out: &mut Vec<u8>,
        field: u8,
        name: &[u8],
        leaf: usize,
        kind: ValueType,
        level: u8,
    ) -> Result<()> {
        let undo = out.len();
        let attribute = wire::begin(out, field);
        wire::present_bytes(out, field::KEY, name);
        let value = wire::begin(out, field::VALUE);
        let mut elements = Elements::new(out.len());
        self.values(out, leaf, level, &mut elements, |out, cursor| {
            match kind {
                ValueType::String => wire::present_bytes(out, any_value::STRING, cursor.bytes()?),
                ValueType::Int => wire::present_uint(out, any_value::INT, cursor.int()?.cast_unsigned()),
            }
            Ok(())
        })?;
        match elements.count() {
            0 => {
                out.truncate(undo);
                return Ok(());
            }
            1 => {}
            _ => elements.wrap(out),
        }
        wire::end(out, value);
        wire::end(out, attribute);
        Ok(())
    }
}

/// Leaves that whole traces do not need.
fn unused(columns: &Columns) -> Vec<usize> {
    let (trace, stats, span) = (&columns.trace, &columns.stats, &columns.span);
    let mut unused =
        vec![trace.trace_id_text, trace.start, trace.end, trace.duration, trace.root_service, trace.root_name];
    unused.extend([stats.service, stats.spans, stats.errors, span.parent, span.left, span.right]);
    unused.extend(span.child_count);
    unused.extend(columns.scope.span_count);
    unused.extend(span.rounded.into_iter().flatten());
    unused
}

/// Ids are left-padded to 16 bytes; longer ones keep their end.
pub(crate) fn trace_id(bytes: &[u8]) -> TraceId {
    let mut id = [0; 16];
    let tail = &bytes[bytes.len().saturating_sub(16)..];
    id[16 - tail.len()..].copy_from_slice(tail);
    TraceId(id)
}

fn string_attribute(out: &mut Vec<u8>, field: u8, key: &[u8], value: &[u8]) {
    let attribute = wire::begin(out, field);
    wire::present_bytes(out, field::KEY, key);
    let any = wire::begin(out, field::VALUE);
    wire::present_bytes(out, any_value::STRING, value);
    wire::end(out, any);
    wire::end(out, attribute);
}

/// Ends of `AnyValue` contents written one after the other, until it is known whether they are an array.
struct Elements {
    start: usize,
    ends: smallvec::SmallVec<[usize; 4]>,
}

impl Elements {
    fn new(start: usize) -> Self {
        Self { start, ends: smallvec::SmallVec::new() }
    }

    fn close(&mut self, end: usize) {
        self.ends.push(end);
    }

    fn count(&self) -> usize {
        self.ends.len()
    }

    /// Turns the contents into an array value.
    fn wrap(&self, out: &mut Vec<u8>) {
        let contents = out.split_off(self.start);
        let array = wire::begin(out, any_value::ARRAY);
        let mut start = self.start;
        for end in &self.ends {
            wire::present_bytes(out, 1, &contents[start - self.start..end - self.start]);
            start = *end;
        }
        wire::end(out, array);
    }
}
