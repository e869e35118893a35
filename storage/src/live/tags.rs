//! Names and values of the attributes of live traces.

use std::collections::HashSet;
use std::sync::Arc;

use vivace_protocol::wire::WireError;
use vivace_traceql::{FetchError, Field, Intrinsic, Level, Scope};

use super::{
    LiveGroup, LiveShare, LiveSource,
    known::Noted,
    listing::list,
    shape::{self, Visitor},
};
use crate::{
    BlockSource,
    read::cells::lossy,
    tags::{TagNames, TagSet, TagSource, TagValue},
};

impl TagSource for LiveSource {
    fn tag_names(&self, scope: Option<Scope>, names: &mut TagNames) -> Result<(), FetchError> {
        let mut walker = Walker { scope, names, seen: HashSet::default() };
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

/// Each group by what it has: columns know names and texts without a look at spans, and names and values are noted by who lists them
/// first.
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
            let mut walker = Walker { scope, names, seen: HashSet::default() };
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
        // What a trace that is elsewhere by now has on its spans it has there too, but its root may be another one.
        if field.level() == Level::Trace && parts.iter().any(|part| !part.without.is_empty()) {
            return Ok(false);
        }
        for (number, part) in parts.iter().enumerate() {
            if values.is_full() || self.scan().has_ended() {
                break;
            }
            self.values_of(&part.group, self.scan().block(number), field, values)?;
        }
        Ok(true)
    }
}

impl LiveShare {
    /// Adds the values that a field has in a group.
    fn values_of(
        &self,
        group: &LiveGroup,
        block: Option<&BlockSource>,
        field: &Field,
        values: &mut TagSet<TagValue>,
    ) -> Result<(), FetchError> {
        let add = |all: &[TagValue], values: &mut TagSet<TagValue>| {
            all.iter().for_each(|value| values.insert(value.clone(), value.value.len()));
        };
        let (known, ended) = (group.known(), || self.scan().has_ended());
        let noted = known.of(field);
        if let Some(Noted::All(all)) = &noted {
            add(all, values);
            return Ok(());
        }
        if let Some(block) = block
            && block.known_values(field, values)?
        {
            return Ok(());
        }
        if noted.is_none()
            && let Some(limits) = known.limits()
        {
            let mut own = TagSet::new(limits);
            if !list(group, field, &ended, &mut own)? {
                return Ok(());
            }
            if !own.is_over() {
                let all: Arc<[TagValue]> = own.into_entries().into_iter().collect();
                add(&all, values);
                known.note(field, Noted::All(all));
                return Ok(());
            }
            known.note(field, Noted::TooMany);
        }
        list(group, field, &ended, values).map(drop)
    }
}

struct Walker<'n, 'a> {
    scope: Option<Scope>,
    names: &'n mut TagNames,
    /// Names that were met, in any scope: most repeat on every span.
    seen: HashSet<(Scope, &'a [u8]), foldhash::fast::RandomState>,
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

#[cfg(test)]
mod tests;
