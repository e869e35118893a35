//! Takes one settled trace apart into the columns of the row group.

use std::ops::Range;

use super::{
    attributes::{self, Dedicated},
    keys::Keys,
    nested_set::{NestedSet, Numbers, Place},
    row_group::{RowGroup, leaf},
    trace::{Span, Trace},
    wire::Fields,
};
use crate::dedicated::{DedicatedColumns, Scope};

const STATUS_ERROR: u64 = 2;
const ROUNDED_SECONDS: [u64; 4] = [15, 60, 300, 3600];

/// Times and counts of a trace that the block's metadata is made of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Summary {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) damaged_attributes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shredder {
    resource_keys: Keys,
    scope_keys: Keys,
    span_keys: Keys,
    event_keys: Keys,
    link_keys: Keys,
    nested_set: NestedSet,
    numbers: Vec<Numbers>,
    damaged: u64,
}

/// Index of the right-closed interval of `seconds` that holds `start`; 0 for an unknown start.
fn rounded(start: u64, seconds: u64) -> i32 {
    let interval = seconds * 1_000_000_000;
    let index = start.div_ceil(interval).saturating_sub(1);
    u32::try_from(index).unwrap_or(u32::MAX).cast_signed()
}

fn count(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

impl Shredder {
    pub(super) fn new(dedicated: &DedicatedColumns) -> Self {
        Self {
            resource_keys: Keys::of(dedicated, Scope::Resource),
            scope_keys: Keys::generic(),
            span_keys: Keys::of(dedicated, Scope::Span),
            event_keys: Keys::of(dedicated, Scope::Event),
            link_keys: Keys::generic(),
            nested_set: NestedSet::default(),
            numbers: Vec::new(),
            damaged: 0,
        }
    }

    /// Starts the next row group.
    pub(super) fn reset(&mut self) {
        let all = [
            &mut self.resource_keys,
            &mut self.scope_keys,
            &mut self.span_keys,
            &mut self.event_keys,
            &mut self.link_keys,
        ];
        all.into_iter().for_each(Keys::reset);
    }

    /// Appends one row; the trace has at least one span.
    pub(super) fn put(&mut self, id: &[u8; 16], trace: &Trace<'_>, group: &mut RowGroup) -> Summary {
        self.damaged = 0;
        let places: Vec<Place> = trace.spans.iter().map(|span| Place::new(span.id, span.parent, span.kind)).collect();
        self.nested_set.number(&places, &mut self.numbers);

        let summary = put_trace(id, trace, group);
        let batches = trace.groups(0..trace.spans.len(), |span| trace.resource_of(trace.scope_of(span)));
        put_stats(trace, &batches, group);
        for (position, batch) in batches.into_iter().enumerate() {
            self.put_batch(trace, batch, u8::from(position > 0), group);
        }
        Summary { damaged_attributes: self.damaged, ..summary }
    }

    fn put_batch(&mut self, trace: &Trace<'_>, batch: Range<usize>, rep: u8, group: &mut RowGroup) {
        let resource = &trace.resources[trace.resource_of(trace.scope_of(&trace.spans[batch.start])) as usize];
        let mut dedicated = Dedicated::none();
        let service = attributes::put(
            trace.attributes_of_resource(resource),
            &mut self.resource_keys,
            &mut group.resource_attrs,
            (rep, 1),
            &mut dedicated,
            &mut self.damaged,
        );
        group.resource.enter(rep);
        group.resource.chunks[leaf::resource::SERVICE].values.push_text(service.unwrap_or(&[]));
        group.resource.chunks[leaf::resource::DROPPED].values.push_i32(resource.dropped.cast_signed());
        dedicated.put(&mut group.resource, leaf::resource::DEDICATED);
        for (position, spans) in trace.groups(batch, |span| trace.scope_of(span)).into_iter().enumerate() {
            self.put_scope(trace, spans, if position > 0 { 2 } else { rep }, group);
        }
    }

    fn put_scope(&mut self, trace: &Trace<'_>, spans: Range<usize>, rep: u8, group: &mut RowGroup) {
        let scope = &trace.scopes[trace.scope_of(&trace.spans[spans.start]) as usize];
        attributes::put(
            trace.attributes_of_scope(scope),
            &mut self.scope_keys,
            &mut group.scope_attrs,
            (rep, 2),
            &mut Dedicated::none(),
            &mut self.damaged,
        );
        group.scope.enter(rep);
        let chunks = &mut group.scope.chunks;
        chunks[leaf::scope::NAME].values.push_text(scope.name);
        chunks[leaf::scope::VERSION].values.push_text(scope.version);
        chunks[leaf::scope::DROPPED].values.push_i32(scope.dropped.cast_signed());
        chunks[leaf::scope::SPANS].values.push_i32(count(spans.len()));
        let first = spans.start;
        for index in spans {
            self.put_span(trace, index, if index > first { 3 } else { rep }, group);
        }
    }

    fn put_span(&mut self, trace: &Trace<'_>, index: usize, rep: u8, group: &mut RowGroup) {
        let (span, numbers) = (&trace.spans[index], self.numbers[index]);
        let mut dedicated = Dedicated::none();
        attributes::put(
            trace.attributes_of_span(span),
            &mut self.span_keys,
            &mut group.span_attrs,
            (rep, 3),
            &mut dedicated,
            &mut self.damaged,
        );
        group.span.enter(rep);
        let chunks = &mut group.span.chunks;
        chunks[leaf::span::ID].values.push_text(span.id);
        chunks[leaf::span::PARENT_ID].values.push_text(span.parent);
        chunks[leaf::span::PARENT].values.push_i32(numbers.parent);
        chunks[leaf::span::LEFT].values.push_i32(numbers.left);
        chunks[leaf::span::RIGHT].values.push_i32(numbers.right);
        chunks[leaf::span::CHILDREN].values.push_i32(numbers.children);
        chunks[leaf::span::NAME].values.push_text(span.name);
        chunks[leaf::span::KIND].values.push_i64(span.kind.cast_signed());
        chunks[leaf::span::STATE].values.push_text(span.state);
        chunks[leaf::span::START].values.push_i64(span.start.cast_signed());
        chunks[leaf::span::DURATION].values.push_i64(span.end.wrapping_sub(span.start).cast_signed());
        chunks[leaf::span::STATUS].values.push_i64(span.status.cast_signed());
        chunks[leaf::span::STATUS_MESSAGE].values.push_text(span.status_message);
        chunks[leaf::span::DROPPED].values.push_i32(span.dropped_attributes.cast_signed());
        chunks[leaf::span::DROPPED_EVENTS].values.push_i32(span.dropped_events.cast_signed());
        chunks[leaf::span::DROPPED_LINKS].values.push_i32(span.dropped_links.cast_signed());
        for (position, seconds) in ROUNDED_SECONDS.into_iter().enumerate() {
            chunks[leaf::span::ROUNDED + position].values.push_i32(rounded(span.start, seconds));
        }
        dedicated.put(&mut group.span, leaf::span::DEDICATED);
        self.put_events(trace, span, rep, group);
        self.put_links(trace, span, rep, group);
    }

    fn put_events(&mut self, trace: &Trace<'_>, span: &Span<'_>, rep: u8, group: &mut RowGroup) {
        let events = trace.events_of(span);
        if events.is_empty() {
            group.event.skip(rep, 3);
            group.event_attrs.skip_holding(rep, 3);
            return;
        }
        let mut attrs: Vec<&[u8]> = Vec::new();
        for (position, event) in events.iter().enumerate() {
            let (mut time, mut name, mut dropped) = (0, &[][..], 0);
            attrs.clear();
            let mut fields = Fields::of(event);
            loop {
                match fields.next() {
                    Ok(Some((1, wire))) => time = wire.number(),
                    Ok(Some((2, wire))) => name = wire.bytes(),
                    Ok(Some((3, wire))) => attrs.push(wire.bytes()),
                    Ok(Some((4, wire))) => dropped = wire.number32(),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_damage) => {
                        self.damaged += 1;
                        break;
                    }
                }
            }
            let rep = if position > 0 { 4 } else { rep };
            let mut dedicated = Dedicated::none();
            attributes::put(
                &attrs,
                &mut self.event_keys,
                &mut group.event_attrs,
                (rep, 4),
                &mut dedicated,
                &mut self.damaged,
            );
            group.event.enter(rep);
            let chunks = &mut group.event.chunks;
            chunks[leaf::event::SINCE_START].values.push_i64(time.wrapping_sub(span.start).cast_signed());
            chunks[leaf::event::NAME].values.push_text(name);
            chunks[leaf::event::DROPPED].values.push_i32(dropped.cast_signed());
            dedicated.put(&mut group.event, leaf::event::DEDICATED);
        }
    }

    fn put_links(&mut self, trace: &Trace<'_>, span: &Span<'_>, rep: u8, group: &mut RowGroup) {
        let links = trace.links_of(span);
        if links.is_empty() {
            group.link.skip(rep, 3);
            group.link_attrs.skip_holding(rep, 3);
            return;
        }
        for (position, link) in links.iter().enumerate() {
            let link = Link::parse(link, &mut self.damaged);
            let rep = if position > 0 { 4 } else { rep };
            attributes::put(
                &link.attrs,
                &mut self.link_keys,
                &mut group.link_attrs,
                (rep, 4),
                &mut Dedicated::none(),
                &mut self.damaged,
            );
            group.link.enter(rep);
            let chunks = &mut group.link.chunks;
            chunks[leaf::link::TRACE_ID].values.push_text(link.trace_id);
            chunks[leaf::link::SPAN_ID].values.push_text(link.span_id);
            chunks[leaf::link::STATE].values.push_text(link.state);
            chunks[leaf::link::DROPPED].values.push_i32(link.dropped.cast_signed());
        }
    }
}

#[derive(Default)]
struct Link<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
    state: &'a [u8],
    attrs: Vec<&'a [u8]>,
    dropped: u32,
}

impl<'a> Link<'a> {
    /// Reads an encoded link up to damage, which is counted.
    fn parse(message: &'a [u8], damaged: &mut u64) -> Self {
        let (mut link, mut fields) = (Self::default(), Fields::of(message));
        loop {
            match fields.next() {
                Ok(Some((1, wire))) => link.trace_id = wire.bytes(),
                Ok(Some((2, wire))) => link.span_id = wire.bytes(),
                Ok(Some((3, wire))) => link.state = wire.bytes(),
                Ok(Some((4, wire))) => link.attrs.push(wire.bytes()),
                Ok(Some((5, wire))) => link.dropped = wire.number32(),
                Ok(Some(_)) => {}
                Ok(None) => return link,
                Err(_damage) => {
                    *damaged += 1;
                    return link;
                }
            }
        }
    }

    fn has_attribute(&self, key: &[u8], text: &[u8]) -> bool {
        use super::any_value::{AnyValue, KeyValue};
        let wanted = KeyValue { key, value: AnyValue::Text(text) };
        self.attrs.iter().any(|attribute| KeyValue::parse(attribute).is_ok_and(|found| found == wanted))
    }
}

fn put_trace(id: &[u8; 16], trace: &Trace<'_>, group: &mut RowGroup) -> Summary {
    let starts = trace.spans.iter().map(|span| span.start).filter(|start| *start != 0);
    let start = starts.min().unwrap_or(0);
    let end = trace.spans.iter().map(|span| span.end).max().unwrap_or(0);
    let root = trace.spans.iter().rfind(|span| span.parent.is_empty() && !follows_opentracing(id, trace, span));
    let (service, name) = root.map_or((&[][..], &[][..]), |root| {
        (trace.resources[trace.resource_of(trace.scope_of(root)) as usize].service, root.name)
    });
    group.trace.enter(0);
    let chunks = &mut group.trace.chunks;
    chunks[leaf::trace::ID].values.push_text(id);
    let text = format!("{:x}", u128::from_be_bytes(*id));
    chunks[leaf::trace::ID_TEXT].values.push_text(text.as_bytes());
    chunks[leaf::trace::START].values.push_i64(start.cast_signed());
    chunks[leaf::trace::END].values.push_i64(end.cast_signed());
    chunks[leaf::trace::DURATION].values.push_i64(end.wrapping_sub(start).cast_signed());
    chunks[leaf::trace::ROOT_SERVICE].values.push_text(service);
    chunks[leaf::trace::ROOT_NAME].values.push_text(name);
    Summary { start, end, damaged_attributes: 0 }
}

/// OpenTracing bridges send the parent as a link: such a span is no root though it has no parent id.
fn follows_opentracing(id: &[u8; 16], trace: &Trace<'_>, span: &Span<'_>) -> bool {
    trace.links_of(span).iter().any(|link| {
        let link = Link::parse(link, &mut 0);
        link.trace_id == id && link.has_attribute(b"opentracing.ref_type", b"child_of")
    })
}

fn put_stats(trace: &Trace<'_>, batches: &[Range<usize>], group: &mut RowGroup) {
    let mut stats: Vec<(&[u8], i32, i32)> = batches
        .iter()
        .map(|batch| {
            let spans = &trace.spans[batch.clone()];
            let resource = trace.resource_of(trace.scope_of(&spans[0]));
            let errors = spans.iter().filter(|span| span.status == STATUS_ERROR).count();
            (trace.resources[resource as usize].service, count(spans.len()), count(errors))
        })
        .collect();
    stats.sort_unstable();
    for (position, services) in stats.chunk_by(|a, b| a.0 == b.0).enumerate() {
        group.stats.enter(u8::from(position > 0));
        let chunks = &mut group.stats.chunks;
        chunks[leaf::stats::SERVICE].values.push_text(services[0].0);
        chunks[leaf::stats::SPANS].values.push_i32(services.iter().map(|service| service.1).sum());
        chunks[leaf::stats::ERRORS].values.push_i32(services.iter().map(|service| service.2).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_rounded_into_right_closed_intervals() {
        let second = 1_000_000_000;
        let by15 = [0, 1, 15 * second, 15 * second + 1, 30 * second, 100 * second].map(|start| rounded(start, 15));
        assert_eq!(by15, [0, 0, 0, 1, 1, 6]);
        let start = 1_795_174_031_419_738_624;
        assert_eq!(ROUNDED_SECONDS.map(|s| rounded(start, s)), [119_678_268, 29_919_567, 5_983_913, 498_659]);
        assert_eq!(rounded(u64::MAX, 1), -1);
    }
}
