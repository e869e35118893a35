//! Names of the attributes of live traces.

use std::collections::HashSet;

use vivace_protocol::wire::{Reader, WireError};
use vivace_traceql::{FetchError, Field, Level, Scope};

use super::{
    LiveShare, LiveSource,
    any::{self, GROUP_DEPTH},
};
use crate::{
    read::cells::lossy,
    tags::{TagNames, TagSet, TagSource, TagValue},
};

impl TagSource for LiveSource {
    fn tag_names(&self, scope: Option<Scope>, names: &mut TagNames) -> Result<(), FetchError> {
        let mut walker = Walker { scope, names, seen: HashSet::new() };
        for part in self.traces.iter().flat_map(|trace| trace.parts()) {
            walker.message(part, &TRACE).map_err(|error| FetchError(Box::new(error)))?;
            if walker.names.is_full() {
                break;
            }
        }
        Ok(())
    }

    /// Live traces have no dictionaries.
    fn known_values(&self, _field: &Field, _values: &mut TagSet<TagValue>) -> Result<bool, FetchError> {
        Ok(false)
    }
}

/// Each group by what it has: columns know names and texts without a look at spans.
impl TagSource for LiveShare {
    fn tag_names(&self, scope: Option<Scope>, names: &mut TagNames) -> Result<(), FetchError> {
        for (number, part) in self.scan().view().parts.iter().enumerate() {
            if names.is_full() {
                break;
            }
            if let Some(block) = self.scan().block(number) {
                block.tag_names(scope, names)?;
                continue;
            }
            let mut walker = Walker { scope, names, seen: HashSet::new() };
            for (_, trace) in part.seen() {
                part.group.walked(trace.bytes());
                for slice in trace.parts() {
                    walker.message(slice, &TRACE).map_err(|error| FetchError(Box::new(error)))?;
                }
                if walker.names.is_full() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn known_values(&self, field: &Field, values: &mut TagSet<TagValue>) -> Result<bool, FetchError> {
        let parts = &self.scan().view().parts;
        if (0..parts.len()).any(|part| self.scan().block(part).is_none()) {
            return Ok(false);
        }
        // What a trace that is elsewhere by now has on its spans it has there too, but its root may be another one.
        if field.level() == Level::Trace && parts.iter().any(|part| !part.without.is_empty()) {
            return Ok(false);
        }
        for block in (0..parts.len()).filter_map(|part| self.scan().block(part)) {
            if !block.known_values(field, values)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A message kind: which fields are attributes of which scope, and which lead to further messages.
struct Shape {
    attributes: Option<(u32, Scope)>,
    children: &'static [(u32, &'static Shape)],
}

static EVENT: Shape = Shape { attributes: Some((0x1a, Scope::Event)), children: &[] };
static LINK: Shape = Shape { attributes: Some((0x22, Scope::Link)), children: &[] };
static SPAN: Shape = Shape { attributes: Some((0x4a, Scope::Span)), children: &[(0x5a, &EVENT), (0x6a, &LINK)] };
static INSTRUMENTATION: Shape = Shape { attributes: Some((0x1a, Scope::Instrumentation)), children: &[] };
static SCOPE_SPANS: Shape = Shape { attributes: None, children: &[(0x0a, &INSTRUMENTATION), (0x12, &SPAN)] };
static RESOURCE: Shape = Shape { attributes: Some((0x0a, Scope::Resource)), children: &[] };
static RESOURCE_SPANS: Shape = Shape { attributes: None, children: &[(0x0a, &RESOURCE), (0x12, &SCOPE_SPANS)] };
static TRACE: Shape = Shape { attributes: None, children: &[(0x0a, &RESOURCE_SPANS)] };

struct Walker<'n, 'a> {
    scope: Option<Scope>,
    names: &'n mut TagNames,
    /// Names that were handed on: most repeat on every span.
    seen: HashSet<(Scope, &'a [u8])>,
}

impl<'a> Walker<'_, 'a> {
    fn message(&mut self, message: &'a [u8], shape: &Shape) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            if let Some((attribute, scope)) = shape.attributes
                && key == attribute
            {
                let (name, _) = any::key_value(reader.bytes()?)?;
                if self.scope.is_none_or(|wanted| wanted == scope) && self.seen.insert((scope, name)) {
                    self.names.insert(scope, &lossy(name));
                }
            } else if let Some((_, child)) = shape.children.iter().find(|(field, _)| *field == key) {
                self.message(reader.bytes()?, child)?;
            } else {
                reader.skip(key, GROUP_DEPTH)?;
            }
        }
        Ok(())
    }
}
