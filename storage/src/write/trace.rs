//! One trace as it is read from its encoded parts: spans without copies, doubles dropped, equal resources and scopes joined.

use std::{collections::HashMap, hash::BuildHasher, ops::Range};

use super::{
    any_value::{AnyValue, KeyValue},
    nested_set::short_id,
    wire::{Damaged, Fields},
};

/// A resource of some part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resource<'a> {
    /// Attributes, as a range of [`Trace::attributes`].
    attributes: (u32, u32),
    pub(super) dropped: u32,
    /// First `service.name`, empty if absent or no text.
    pub(super) service: &'a [u8],
    /// An equal resource before it, or itself.
    same_as: u32,
}

/// An instrumentation scope of some resource.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) resource: u32,
    pub(super) name: &'a [u8],
    pub(super) version: &'a [u8],
    attributes: (u32, u32),
    pub(super) dropped: u32,
    same_as: u32,
}

/// A span; lists as ranges of the trace's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span<'a> {
    pub(super) scope: u32,
    pub(super) id: &'a [u8],
    pub(super) parent: &'a [u8],
    pub(super) state: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) kind: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) status: u64,
    pub(super) status_message: &'a [u8],
    attributes: (u32, u32),
    events: (u32, u32),
    links: (u32, u32),
    pub(super) dropped_attributes: u32,
    pub(super) dropped_events: u32,
    pub(super) dropped_links: u32,
}

/// See the module. Lists keep their room from trace to trace.
#[derive(Debug, Default)]
pub(super) struct Trace<'a> {
    attributes: Vec<&'a [u8]>,
    events: Vec<&'a [u8]>,
    links: Vec<&'a [u8]>,
    pub(super) resources: Vec<Resource<'a>>,
    pub(super) scopes: Vec<Scope<'a>>,
    /// In the order of emission: by resource, scope, arrival.
    pub(super) spans: Vec<Span<'a>>,
    /// Spans left out because an equal one came before.
    pub(super) duplicates: usize,
    by_id: Vec<(u64, u32)>,
    equal: HashMap<u64, u32, foldhash::fast::FixedState>,
}

/// An emptied list with the room of the old one, for content that lives elsewhere.
fn emptied<T, U>(mut list: Vec<T>) -> Vec<U> {
    list.clear();
    // Collecting in place keeps the allocation, as both element types have the same layout.
    list.into_iter().map(|_| unreachable!("the list was cleared")).collect()
}

fn slice<T>(list: &[T], (from, to): (u32, u32)) -> &[T] {
    &list[from as usize..to as usize]
}

fn position<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).expect("a row holds far fewer elements than 2^32 bytes could encode")
}

impl<'a> Trace<'a> {
    /// An empty trace for other parts.
    pub(super) fn recycle<'b>(self) -> Trace<'b> {
        let mut by_id = self.by_id;
        let mut equal = self.equal;
        by_id.clear();
        equal.clear();
        Trace {
            attributes: emptied(self.attributes),
            events: emptied(self.events),
            links: emptied(self.links),
            resources: emptied(self.resources),
            scopes: emptied(self.scopes),
            spans: emptied(self.spans),
            duplicates: 0,
            by_id,
            equal,
        }
    }

    pub(super) fn attributes_of_resource(&self, resource: &Resource<'a>) -> &[&'a [u8]] {
        slice(&self.attributes, resource.attributes)
    }

    pub(super) fn attributes_of_scope(&self, scope: &Scope<'a>) -> &[&'a [u8]] {
        slice(&self.attributes, scope.attributes)
    }

    pub(super) fn attributes_of_span(&self, span: &Span<'a>) -> &[&'a [u8]] {
        slice(&self.attributes, span.attributes)
    }

    /// Encoded events of a span.
    pub(super) fn events_of(&self, span: &Span<'a>) -> &[&'a [u8]] {
        slice(&self.events, span.events)
    }

    /// Encoded links of a span.
    pub(super) fn links_of(&self, span: &Span<'a>) -> &[&'a [u8]] {
        slice(&self.links, span.links)
    }

    /// Reads one part: an encoded message whose field 1 repeats `ResourceSpans`. After an error the trace is to be
    /// recycled.
    pub(super) fn read(&mut self, part: &'a [u8]) -> Result<(), Damaged> {
        let mut fields = Fields::of(part);
        while let Some((number, wire)) = fields.next()? {
            if number == 1 {
                self.read_batch(wire.bytes())?;
            }
        }
        Ok(())
    }

    fn read_batch(&mut self, batch: &'a [u8]) -> Result<(), Damaged> {
        let own = position(&self.resources);
        self.resources.push(Resource { attributes: (0, 0), dropped: 0, service: &[], same_as: own });
        let mut fields = Fields::of(batch);
        while let Some((number, wire)) = fields.next()? {
            match number {
                1 => self.resources[own as usize] = self.read_resource(wire.bytes(), own)?,
                2 => self.read_scope_spans(wire.bytes(), own)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_resource(&mut self, message: &'a [u8], own: u32) -> Result<Resource<'a>, Damaged> {
        let (from, mut dropped) = (position(&self.attributes), 0);
        let mut fields = Fields::of(message);
        while let Some((number, wire)) = fields.next()? {
            match number {
                1 => self.attributes.push(wire.bytes()),
                2 => dropped = wire.number32(),
                _ => {}
            }
        }
        let attributes = (from, position(&self.attributes));
        let service = service_of(slice(&self.attributes, attributes));
        Ok(Resource { attributes, dropped, service, same_as: own })
    }

    fn read_scope_spans(&mut self, message: &'a [u8], resource: u32) -> Result<(), Damaged> {
        let own = position(&self.scopes);
        let empty = (position(&self.attributes), position(&self.attributes));
        self.scopes.push(Scope { resource, name: &[], version: &[], attributes: empty, dropped: 0, same_as: own });
        let mut fields = Fields::of(message);
        while let Some((number, wire)) = fields.next()? {
            match number {
                1 => self.read_scope(wire.bytes(), own)?,
                2 => self.read_span(wire.bytes(), own)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_scope(&mut self, message: &'a [u8], own: u32) -> Result<(), Damaged> {
        let from = position(&self.attributes);
        let mut fields = Fields::of(message);
        while let Some((number, wire)) = fields.next()? {
            let scope = &mut self.scopes[own as usize];
            match number {
                1 => scope.name = wire.bytes(),
                2 => scope.version = wire.bytes(),
                3 => self.attributes.push(wire.bytes()),
                4 => scope.dropped = wire.number32(),
                _ => {}
            }
        }
        self.scopes[own as usize].attributes = (from, position(&self.attributes));
        Ok(())
    }

    fn read_span(&mut self, message: &'a [u8], scope: u32) -> Result<(), Damaged> {
        let mut span = Span { scope, ..Span::default() };
        let from = (position(&self.attributes), position(&self.events), position(&self.links));
        let mut fields = Fields::of(message);
        while let Some((number, wire)) = fields.next()? {
            match number {
                2 => span.id = wire.bytes(),
                3 => span.state = wire.bytes(),
                4 => span.parent = wire.bytes(),
                5 => span.name = wire.bytes(),
                6 => span.kind = wire.number(),
                7 => span.start = wire.number(),
                8 => span.end = wire.number(),
                9 => self.attributes.push(wire.bytes()),
                10 => span.dropped_attributes = wire.number32(),
                11 => self.events.push(wire.bytes()),
                12 => span.dropped_events = wire.number32(),
                13 => self.links.push(wire.bytes()),
                14 => span.dropped_links = wire.number32(),
                15 => (span.status, span.status_message) = read_status(wire.bytes())?,
                _ => {}
            }
        }
        span.attributes = (from.0, position(&self.attributes));
        span.events = (from.1, position(&self.events));
        span.links = (from.2, position(&self.links));
        self.spans.push(span);
        Ok(())
    }

    /// Drops doubles, joins what is equal, and brings the spans into the order of emission.
    pub(super) fn settle(&mut self) {
        self.drop_doubles();
        self.join_resources();
        self.join_scopes();
        // Stable, so spans of one scope keep the order in which they came; mostly sorted already.
        let (scopes, resources) = (&self.scopes, &self.resources);
        let rank = |span: &Span<'_>| {
            let scope = scopes[span.scope as usize].same_as;
            (resources[scopes[scope as usize].resource as usize].same_as, scope)
        };
        if !self.spans.is_sorted_by_key(rank) {
            self.spans.sort_by_key(rank);
        }
    }

    /// The scope that a span is emitted in.
    pub(super) fn scope_of(&self, span: &Span<'a>) -> u32 {
        self.scopes[span.scope as usize].same_as
    }

    /// The resource that a scope is emitted in.
    pub(super) fn resource_of(&self, scope: u32) -> u32 {
        self.resources[self.scopes[scope as usize].resource as usize].same_as
    }

    /// A span counts once for each id, kind and start; the first one stays.
    fn drop_doubles(&mut self) {
        self.duplicates = 0;
        if self.spans.len() < 2 {
            return;
        }
        self.by_id.clear();
        self.by_id.extend((0u32..).zip(&self.spans).map(|(index, span)| (short_id(span.id), index)));
        self.by_id.sort_unstable();
        if self.by_id.windows(2).all(|pair| pair[0].0 != pair[1].0) {
            return;
        }
        let mut doubles = Vec::new();
        let key = |span: &Span<'a>| (span.kind, span.start, span.id);
        for run in self.by_id.chunk_by(|a, b| a.0 == b.0).filter(|run| run.len() > 1) {
            let mut run: Vec<u32> = run.iter().map(|(_, index)| *index).collect();
            run.sort_by_key(|index| (key(&self.spans[*index as usize]), *index));
            let repeated =
                run.windows(2).filter(|w| key(&self.spans[w[0] as usize]) == key(&self.spans[w[1] as usize]));
            doubles.extend(repeated.map(|pair| pair[1]));
        }
        doubles.sort_unstable();
        let mut index = 0;
        self.spans.retain(|_| {
            index += 1;
            doubles.binary_search(&(index - 1)).is_err()
        });
        self.duplicates = doubles.len();
    }

    fn join_resources(&mut self) {
        for resource in &self.resources {
            let (from, to) = resource.attributes;
            sort_by_key(&mut self.attributes[from as usize..to as usize]);
        }
        if self.resources.len() < 2 {
            return;
        }
        self.equal.clear();
        let hasher = foldhash::fast::FixedState::default();
        for own in 0..position(&self.resources) {
            let resource = self.resources[own as usize];
            let attributes = slice(&self.attributes, resource.attributes);
            let hash = hasher.hash_one((attributes, resource.dropped));
            let same = |other: u32| {
                let other = &self.resources[other as usize];
                other.dropped == resource.dropped && slice(&self.attributes, other.attributes) == attributes
            };
            self.resources[own as usize].same_as = first_equal(&mut self.equal, hash, own, same);
        }
    }

    fn join_scopes(&mut self) {
        if self.scopes.len() < 2 {
            return;
        }
        self.equal.clear();
        let hasher = foldhash::fast::FixedState::default();
        for own in 0..position(&self.scopes) {
            let scope = self.scopes[own as usize];
            let (from, to) = scope.attributes;
            sort_by_key(&mut self.attributes[from as usize..to as usize]);
            let attributes = slice(&self.attributes, scope.attributes);
            let resource = self.resources[scope.resource as usize].same_as;
            let hash = hasher.hash_one((resource, scope.name, scope.version, attributes, scope.dropped));
            let same = |other: u32| {
                let other = &self.scopes[other as usize];
                self.resources[other.resource as usize].same_as == resource
                    && (other.name, other.version, other.dropped) == (scope.name, scope.version, scope.dropped)
                    && slice(&self.attributes, other.attributes) == attributes
            };
            self.scopes[own as usize].same_as = first_equal(&mut self.equal, hash, own, same);
        }
    }

    /// Groups of spans with equal `group`, in the order of emission.
    pub(super) fn groups(&self, within: Range<usize>, group: impl Fn(&Span<'a>) -> u32) -> Vec<Range<usize>> {
        let mut groups = Vec::new();
        let mut start = within.start;
        for run in self.spans[within].chunk_by(|a, b| group(a) == group(b)) {
            groups.push(start..start + run.len());
            start += run.len();
        }
        groups
    }
}

/// Whatever else has the same hash takes the next free one.
fn first_equal(
    table: &mut HashMap<u64, u32, foldhash::fast::FixedState>,
    mut hash: u64,
    own: u32,
    same: impl Fn(u32) -> bool,
) -> u32 {
    loop {
        let found = *table.entry(hash).or_insert(own);
        if found == own || same(found) {
            return found;
        }
        hash = hash.wrapping_add(1);
    }
}

fn key_of(attribute: &[u8]) -> &[u8] {
    KeyValue::parse(attribute).map_or(&[], |attribute| attribute.key)
}

/// Attributes of resources are compared, and stored, in the order of their keys.
fn sort_by_key(attributes: &mut [&[u8]]) {
    if !attributes.is_sorted_by_key(|attribute| key_of(attribute)) {
        attributes.sort_by_key(|attribute| key_of(attribute));
    }
}

fn service_of<'a>(attributes: &[&'a [u8]]) -> &'a [u8] {
    let named = |attribute: &&'a [u8]| {
        let attribute = KeyValue::parse(attribute).ok()?;
        (attribute.key == b"service.name").then_some(attribute.value)
    };
    match attributes.iter().find_map(named) {
        Some(AnyValue::Text(name)) => name,
        _ => &[],
    }
}

fn read_status(message: &[u8]) -> Result<(u64, &[u8]), Damaged> {
    let (mut code, mut text, mut fields) = (0, &[][..], Fields::of(message));
    while let Some((number, wire)) = fields.next()? {
        match number {
            2 => text = wire.bytes(),
            3 => code = wire.number(),
            _ => {}
        }
    }
    Ok((code, text))
}
