//! Conditions on the spans and resources of a walked trace.

use vivace_protocol::wire::WireError;
use vivace_traceql::{Condition, Kind, Level, Status, Value};

use super::{
    values::{attribute, get, hex, is_duration, per_event, per_link},
    walk::{ResourceView, id8},
    walked::Walked,
    wants::{Getter, Tree},
};
use crate::read::cells::{Cell, lossy};

/// Whether the spans of a resource may be of use.
pub(super) fn all_hold(trees: &[Tree], resource: &ResourceView<'_>) -> Result<bool, WireError> {
    for tree in trees {
        if !resource_holds(tree, resource)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn resource_holds(tree: &Tree, resource: &ResourceView<'_>) -> Result<bool, WireError> {
    Ok(match tree {
        Tree::Is(getter @ Getter::ResourceAttr(slot), _, condition) => {
            accepts(condition, getter, &attribute(resource.values.get(*slot).copied().flatten())?)
        }
        Tree::Always | Tree::Is(..) => true,
        Tree::Never => false,
        Tree::All(parts) => all_hold(parts, resource)?,
        Tree::AnyOf(parts) => {
            for part in parts {
                if resource_holds(part, resource)? {
                    return Ok(true);
                }
            }
            false
        }
    })
}

/// Whether the span can satisfy the tree.
pub(super) fn test(tree: &Tree, walked: &Walked<'_>, row: usize) -> Result<bool, WireError> {
    Ok(match tree {
        Tree::Always => true,
        Tree::Never => false,
        Tree::Is(getter, level, condition) => holds(getter, *level, condition, walked, row)?,
        Tree::All(parts) => {
            for part in parts {
                if !test(part, walked, row)? {
                    return Ok(false);
                }
            }
            true
        }
        Tree::AnyOf(parts) => {
            for part in parts {
                if test(part, walked, row)? {
                    return Ok(true);
                }
            }
            false
        }
    })
}

fn holds(
    getter: &Getter,
    level: Level,
    condition: &Condition,
    walked: &Walked<'_>,
    row: usize,
) -> Result<bool, WireError> {
    let span = &walked.view.spans[row];
    match level {
        Level::Event => Ok(per_event(span, getter)?.iter().any(|cell| accepts(condition, getter, cell))),
        Level::Link => Ok(per_link(span, getter)?.iter().any(|cell| accepts(condition, getter, cell))),
        Level::Span | Level::Trace => match getter {
            Getter::Status => Ok(condition.matches(&Value::Status(Status::from_code(span.status)))),
            Getter::Kind => Ok(condition.matches(&Value::Kind(Kind::from_code(span.kind)))),
            Getter::SpanId => Ok(condition.matches(&hex(&id8(span.id)))),
            Getter::ParentId => Ok(condition.matches(&hex(&id8(span.parent)))),
            Getter::TraceId => {
                let text = format!("{:x}", u128::from_be_bytes(walked.info.id));
                Ok(condition.matches(&Value::str(if text == "0" { "" } else { &text })))
            }
            _ => Ok(accepts(condition, getter, &get(getter, walked, row)?)),
        },
    }
}

fn accepts(condition: &Condition, getter: &Getter, cell: &Cell<'_>) -> bool {
    match cell {
        Cell::Str(text) => condition.matches_str(&lossy(text)),
        Cell::Int(value) if is_duration(getter) => condition.matches(&Value::Duration(*value)),
        other => condition.matches(&other.value()),
    }
}
