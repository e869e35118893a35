//! The values of the spans of a walked trace.

use vivace_protocol::wire::{Reader, WireError};
use vivace_traceql::Value;

use super::{
    any::{self, GROUP_DEPTH},
    positions::Position,
    walk::{SpanView, id8},
    walked::Walked,
    wants::Getter,
};
use crate::read::cells::Cell;

pub(super) fn is_duration(getter: &Getter) -> bool {
    matches!(getter, Getter::Duration | Getter::TraceDuration | Getter::EventSince)
}

pub(super) fn hex(id: &[u8; 8]) -> Value {
    Value::str(&format!("{:016x}", u64::from_be_bytes(*id)))
}

pub(super) fn attribute(encoded: Option<&[u8]>) -> Result<Cell<'_>, WireError> {
    encoded.map_or(Ok(Cell::Nil), any::cell)
}

/// The value of one span, for getters that have one for each.
pub(super) fn get<'v>(getter: &Getter, walked: &'v Walked<'_>, row: usize) -> Result<Cell<'v>, WireError> {
    let view = &walked.view;
    let span = &view.spans[row];
    let position = |pick: fn(&Position) -> i32| {
        walked.positions.get(row).map_or(Cell::Nil, |position| Cell::Int(pick(position).into()))
    };
    Ok(match getter {
        Getter::Name => Cell::Str(span.name),
        Getter::StatusMessage => Cell::Str(span.status_message),
        Getter::Duration => Cell::Int(span.end.wrapping_sub(span.start).cast_signed()),
        Getter::Start => Cell::Int(span.start.cast_signed()),
        Getter::ChildCount => position(|position| position.children),
        Getter::Left => position(|position| position.left),
        Getter::Right => position(|position| position.right),
        Getter::Parent => position(|position| position.parent),
        Getter::ScopeName => Cell::Str(view.scope(span).name),
        Getter::ScopeVersion => Cell::Str(view.scope(span).version),
        Getter::SpanAttr(slot) => attribute(view.span_value(span, *slot))?,
        Getter::ResourceAttr(slot) => attribute(view.resource(span).values.get(*slot).copied().flatten())?,
        Getter::ScopeAttr(slot) => attribute(view.scope(span).values.get(*slot).copied().flatten())?,
        Getter::AnyAttr(own, inherited) => match view.span_value(span, *own) {
            Some(value) => any::cell(value)?,
            None => attribute(view.resource(span).values.get(*inherited).copied().flatten())?,
        },
        Getter::TraceDuration => Cell::Int(walked.duration.cast_signed()),
        Getter::RootName => Cell::Str(walked.info.root_name.as_bytes()),
        Getter::RootService => Cell::Str(walked.info.root_service.as_bytes()),
        _ => Cell::Nil,
    })
}

/// One value for each event of the span.
pub(super) fn per_event<'a>(span: &SpanView<'a>, getter: &Getter) -> Result<Vec<Cell<'a>>, WireError> {
    let mut cells = Vec::new();
    any::each(span.message, 0x5a, |message| {
        let mut event = Reader::new(message);
        let (mut time, mut name, mut found) = (0, &[][..], None);
        while let Some(key) = event.key()? {
            match key {
                0x09 => time = event.fixed64()?,
                0x12 => name = event.bytes()?,
                0x1a => look(getter, event.bytes()?, &mut found)?,
                _ => event.skip(key, GROUP_DEPTH)?,
            }
        }
        cells.push(match getter {
            Getter::EventName => Cell::Str(name),
            Getter::EventSince => Cell::Int(time.wrapping_sub(span.start).cast_signed()),
            _ => attribute(found)?,
        });
        Ok(())
    })?;
    Ok(cells)
}

/// One value for each link of the span; ids as text.
pub(super) fn per_link<'a>(span: &SpanView<'a>, getter: &Getter) -> Result<Vec<Cell<'a>>, WireError> {
    let mut cells = Vec::new();
    any::each(span.message, 0x6a, |message| {
        let mut link = Reader::new(message);
        let (mut trace, mut id, mut found) = (&[][..], &[][..], None);
        while let Some(key) = link.key()? {
            match key {
                0x0a => trace = link.bytes()?,
                0x12 => id = link.bytes()?,
                0x22 => look(getter, link.bytes()?, &mut found)?,
                _ => link.skip(key, GROUP_DEPTH)?,
            }
        }
        cells.push(match getter {
            // A list of one stands for its item, which lets an owned text pass.
            Getter::LinkTrace => Cell::List(vec![Value::str(&short_hex(trace))]),
            Getter::LinkSpan => Cell::List(vec![hex(&id8(id))]),
            _ => attribute(found)?,
        });
        Ok(())
    })?;
    Ok(cells)
}

/// Lower-case hex without leading zeros.
pub(crate) fn short_hex(id: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(id.len() * 2);
    for byte in id {
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok(), "writing to a string succeeds");
    }
    let zeros = text.len() - text.trim_start_matches('0').len();
    text.split_off(zeros)
}

fn look<'a>(getter: &Getter, message: &'a [u8], found: &mut Option<&'a [u8]>) -> Result<(), WireError> {
    let (Getter::EventAttr(wanted) | Getter::LinkAttr(wanted)) = getter else { return Ok(()) };
    let (name, value) = any::key_value(message)?;
    if *name == **wanted {
        found.get_or_insert(value);
    }
    Ok(())
}
