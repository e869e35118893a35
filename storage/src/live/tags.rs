//! Names of the attributes of live traces.

use std::collections::HashSet;

use vivace_protocol::wire::WireError;
use vivace_traceql::{FetchError, Field, Intrinsic, Level, Scope};

use super::{
    LiveShare, LiveSource,
    shape::{self, Visitor},
};
use crate::{
    read::cells::lossy,
    tags::{TagNames, TagSet, TagSource, TagValue},
};

impl TagSource for LiveSource {
    fn tag_names(&self, scope: Option<Scope>, names: &mut TagNames) -> Result<(), FetchError> {
        let mut walker = Walker { scope, names, seen: HashSet::new() };
        for part in self.traces.iter().flat_map(|trace| trace.parts()) {
            shape::visit(part, &mut walker).map_err(|error| FetchError(Box::new(error)))?;
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

/// Each group by what it has: columns know names and texts without a look at spans, and names are noted by who lists them first.
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
            if let Some(known) = part.group.names() {
                let wanted = known.iter().filter(|(of, _)| scope.is_none_or(|wanted| wanted == *of));
                wanted.for_each(|(of, name)| names.insert(*of, name));
                continue;
            }
            let mut walker = Walker { scope, names, seen: HashSet::new() };
            let mut whole = true;
            // As columns do, it tells of traces too that are elsewhere by now: what is on their spans is there as well.
            for trace in part.group.traces() {
                if self.scan().has_ended() {
                    return Ok(());
                }
                part.group.walked(trace.bytes());
                for slice in trace.parts() {
                    shape::visit(slice, &mut walker).map_err(|error| FetchError(Box::new(error)))?;
                }
                if walker.names.is_full() {
                    whole = false;
                    break;
                }
            }
            if whole {
                part.group.note_names(walker.seen.iter());
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

struct Walker<'n, 'a> {
    scope: Option<Scope>,
    names: &'n mut TagNames,
    /// Names that were met, in any scope: most repeat on every span.
    seen: HashSet<(Scope, &'a [u8])>,
}

impl<'a> Visitor<'a> for Walker<'_, 'a> {
    fn attribute(&mut self, scope: Scope, name: &'a [u8], _value: &'a [u8]) -> Result<(), WireError> {
        if self.seen.insert((scope, name)) && self.scope.is_none_or(|wanted| wanted == scope) {
            self.names.insert(scope, &lossy(name));
        }
        Ok(())
    }

    fn text(&mut self, _field: Intrinsic, _text: &'a [u8]) {}
}
