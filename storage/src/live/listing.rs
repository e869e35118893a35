//! The values of one field on the spans of a group: walks to where the field stands and past everything else.

use std::collections::HashSet;
use std::sync::Arc;

use vivace_protocol::wire::WireError;
use vivace_traceql::{FetchError, Field, Intrinsic, Predicate, Scope, Value};

use super::{LiveCursor, LiveGroup, LiveTrace, any, cursor::BATCH_SPANS, wants::Plan};
use crate::{
    read::cells::lossy,
    tags::{TagSet, TagValue, gather_values, values_spec},
};

/// Encoded values that are remembered: more would not be quicker.
const MOST_MET: usize = 1 << 14;
/// Traces that are fetched in one go.
const TRACES: usize = 512;

/// Adds the values of `field` of all traces of the group, also of those that are elsewhere by now, until a limit is reached. False
/// when it has not looked at all of them because `ended` said so.
pub(super) fn list(
    group: &LiveGroup,
    field: &Field,
    ended: &dyn Fn() -> bool,
    values: &mut TagSet<TagValue>,
) -> Result<bool, FetchError> {
    let mut listing = Place::of(field).map(|place| Listing { place, values: &mut *values, met: HashSet::default() });
    let mut others = Vec::new();
    // In the order in which they lie in memory, mostly that of their arrival: jumping about takes longer than the walk itself.
    let mut traces: Vec<_> = group.traces().iter().zip(group.bounds()).collect();
    traces.sort_by_cached_key(|(trace, _)| trace.parts().first().map(|part| part.as_ptr().addr()));
    for (trace, bounds) in traces {
        // The second of two equal spans does not count, and damage is for a walk over everything to report.
        let Some(listing) = listing.as_mut().filter(|_| !bounds.repeats) else {
            others.push(&**trace);
            continue;
        };
        if ended() {
            return Ok(false);
        }
        if listing.values.is_full() {
            break;
        }
        group.searched(trace.bytes());
        listing.trace(trace).map_err(|error| FetchError(Box::new(error)))?;
    }
    drop(listing);
    fetch(group, &others, field, ended, values)
}

/// As [`list`], of some traces, for each field.
fn fetch(
    group: &LiveGroup,
    traces: &[&LiveTrace],
    field: &Field,
    ended: &dyn Fn() -> bool,
    values: &mut TagSet<TagValue>,
) -> Result<bool, FetchError> {
    let spec = values_spec(field, &Predicate::Always);
    let plan = Arc::new(Plan::of_fetch(&spec));
    for some in traces.chunks(TRACES) {
        if ended() {
            return Ok(false);
        }
        if values.is_full() {
            break;
        }
        some.iter().for_each(|trace| group.walked(trace.bytes()));
        gather_values(&mut LiveCursor::of_measured(some.to_vec(), &plan, &spec, BATCH_SPANS), field, values)?;
    }
    Ok(true)
}

/// Where a field stands: in which messages, each of which has one value at most, and where in these.
#[derive(Debug, Clone, Copy)]
struct Place<'f> {
    /// The way to them from a trace, by the keys of fields.
    way: &'static [u32],
    /// The way from there to a span: what no span belongs to does not count.
    span: &'static [u32],
    /// The message that it stands in, unless it stands in that at the end of the way itself. Several of one key are one.
    inner: Option<u32>,
    key: u32,
    /// Of an attribute; none where it is a text.
    name: Option<&'f [u8]>,
}

impl<'f> Place<'f> {
    /// None for what no message has as it is.
    fn of(field: &'f Field) -> Option<Self> {
        let (kind, key, name) = match field {
            Field::Attribute { parent: false, scope, name } => {
                let (kind, key) = match scope {
                    Scope::Resource => (RESOURCE, 0x0a),
                    Scope::Instrumentation => (SCOPE, 0x1a),
                    Scope::Span => (SPAN, 0x4a),
                    Scope::Event => (EVENT, 0x1a),
                    Scope::Link => (LINK, 0x22),
                    Scope::Any => return None,
                };
                (kind, key, Some(name.as_bytes()))
            }
            Field::Intrinsic(Intrinsic::InstrumentationName) => (SCOPE, 0x0a, None),
            Field::Intrinsic(Intrinsic::InstrumentationVersion) => (SCOPE, 0x12, None),
            Field::Intrinsic(Intrinsic::Name) => (SPAN, 0x2a, None),
            Field::Intrinsic(Intrinsic::StatusMessage) => (STATUS, 0x12, None),
            Field::Intrinsic(Intrinsic::EventName) => (EVENT, 0x12, None),
            Field::Attribute { parent: true, .. } | Field::Intrinsic(_) => return None,
        };
        let (way, span, inner) = kind;
        Some(Self { way, span, inner, key, name })
    }

    /// The field in a message at the end of the way: the first attribute of a name counts, of texts the last.
    fn value<'a>(&self, message: &'a [u8]) -> Result<Option<&'a [u8]>, WireError> {
        let mut found = None;
        let mut look = |message: &'a [u8]| match self.name {
            Some(_) if found.is_some() => Ok(()),
            Some(name) => any::first(message, self.key, name).map(|value| found = value),
            None => any::each(message, self.key, |text| {
                found = Some(text);
                Ok(())
            }),
        };
        match self.inner {
            Some(key) => any::each(message, key, look)?,
            None => look(message)?,
        }
        Ok(found)
    }
}

/// Way to the messages, way from there to a span, and the message inside.
type Kind = (&'static [u32], &'static [u32], Option<u32>);

const RESOURCE: Kind = (&[0x0a], &[0x12, 0x12], Some(0x0a));
const SCOPE: Kind = (&[0x0a, 0x12], &[0x12], Some(0x0a));
const SPAN: Kind = (&[0x0a, 0x12, 0x12], &[], None);
const STATUS: Kind = (&[0x0a, 0x12, 0x12], &[], Some(0x7a));
const EVENT: Kind = (&[0x0a, 0x12, 0x12, 0x5a], &[], None);
const LINK: Kind = (&[0x0a, 0x12, 0x12, 0x6a], &[], None);

/// A list under construction.
struct Listing<'l, 'a> {
    place: Place<'l>,
    values: &'l mut TagSet<TagValue>,
    /// What was met, encoded: most values repeat from span to span.
    met: HashSet<&'a [u8], foldhash::fast::RandomState>,
}

impl<'a> Listing<'_, 'a> {
    fn trace(&mut self, trace: &'a LiveTrace) -> Result<(), WireError> {
        let way = self.place.way;
        trace.parts().iter().try_for_each(|part| self.follow(part, way))
    }

    fn follow(&mut self, message: &'a [u8], way: &[u32]) -> Result<(), WireError> {
        match way {
            [key, further @ ..] => any::each(message, *key, |inner| self.follow(inner, further)),
            [] => self.end(message),
        }
    }

    /// At the end of the way.
    fn end(&mut self, message: &'a [u8]) -> Result<(), WireError> {
        let Some(value) = self.place.value(message)? else { return Ok(()) };
        if self.met.contains(value) || !has(message, self.place.span)? {
            return Ok(());
        }
        if self.met.len() >= MOST_MET {
            self.met.clear();
        }
        self.met.insert(value);
        let value = if self.place.name.is_some() { any::cell(value)?.value() } else { Value::str(&lossy(value)) };
        self.values.insert_value(&value);
        Ok(())
    }
}

/// Whether there is something at the end of the way.
fn has(message: &[u8], way: &[u32]) -> Result<bool, WireError> {
    let [key, further @ ..] = way else { return Ok(true) };
    let mut found = false;
    any::each(message, *key, |inner| {
        found = found || has(inner, further)?;
        Ok(())
    })?;
    Ok(found)
}
