//! Where the values of a field are stored.

use vivace_traceql::{Field, Intrinsic, Scope, Type};

use super::nesting::Owner;
use crate::{
    dedicated::{Scope as DedicatedScope, ValueType},
    read::block::OpenBlock,
    schema::{AttrLeaves, DedicatedLeaf},
};

/// The list of attributes that an attribute may stand in.
#[derive(Debug, Clone)]
pub(super) struct Generic {
    pub(super) leaves: AttrLeaves,
    pub(super) name: Box<[u8]>,
    /// Level of the attributes: one below their owner.
    pub(super) level: u8,
}

/// A column of its own that an attribute has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Direct {
    pub(super) leaf: usize,
    pub(super) value_type: Type,
    /// One value for each owner, an empty text standing for none; otherwise any number.
    pub(super) required: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Place {
    /// One value a row.
    Row(usize),
    /// One value for each owner.
    Required(Owner, usize),
    /// One value for each event or link.
    Child(Owner, usize),
    /// An attribute.
    Attribute { owner: Owner, generic: Generic, direct: Option<Direct> },
    /// Not stored.
    Unknown,
}

/// Where `field` is stored; unscoped attributes are nowhere, their two scopes are.
pub(super) fn place(block: &OpenBlock, field: &Field) -> Place {
    let columns = block.schema().columns();
    match field {
        Field::Attribute { parent: true, .. } | Field::Attribute { scope: Scope::Any, .. } => Place::Unknown,
        Field::Attribute { scope, name, parent: false } => {
            let span = &columns.span;
            let (owner, leaves, direct) = match scope {
                Scope::Resource => {
                    let direct = if &**name == "service.name" {
                        let leaf = columns.resource.service;
                        Some(Direct { leaf, value_type: Type::String, required: true })
                    } else {
                        let fixed = fixed(&columns.resource.fixed, name);
                        fixed.or_else(|| dedicated(block, &columns.resource.dedicated, DedicatedScope::Resource, name))
                    };
                    (Owner::Resource, columns.resource.attrs, direct)
                }
                Scope::Span => {
                    let fixed = fixed(&span.fixed, name);
                    let direct = fixed.or_else(|| dedicated(block, &span.dedicated, DedicatedScope::Span, name));
                    (Owner::Span, span.attrs, direct)
                }
                Scope::Event => {
                    let direct = dedicated(block, &span.events.dedicated, DedicatedScope::Event, name);
                    (Owner::Event, span.events.attrs, direct)
                }
                Scope::Link => (Owner::Link, span.links.attrs, None),
                Scope::Instrumentation | Scope::Any => (Owner::Scope, columns.scope.attrs, None),
            };
            let generic = Generic { leaves, name: name.as_bytes().into(), level: owner.level() + 1 };
            Place::Attribute { owner, generic, direct }
        }
        Field::Intrinsic(intrinsic) => {
            let span = &columns.span;
            match intrinsic {
                Intrinsic::Duration => Place::Required(Owner::Span, span.duration),
                Intrinsic::Name => Place::Required(Owner::Span, span.name),
                Intrinsic::Status => Place::Required(Owner::Span, span.status),
                Intrinsic::StatusMessage => Place::Required(Owner::Span, span.status_message),
                Intrinsic::Kind => Place::Required(Owner::Span, span.kind),
                Intrinsic::SpanId => Place::Required(Owner::Span, span.span_id),
                Intrinsic::ParentId => Place::Required(Owner::Span, span.parent_span_id),
                Intrinsic::ChildCount => {
                    span.child_count.map_or(Place::Unknown, |leaf| Place::Required(Owner::Span, leaf))
                }
                Intrinsic::NestedSetLeft => Place::Required(Owner::Span, span.left),
                Intrinsic::NestedSetRight => Place::Required(Owner::Span, span.right),
                Intrinsic::NestedSetParent => Place::Required(Owner::Span, span.parent),
                Intrinsic::StartTime => Place::Required(Owner::Span, span.start),
                Intrinsic::InstrumentationName => Place::Required(Owner::Scope, columns.scope.name),
                Intrinsic::InstrumentationVersion => Place::Required(Owner::Scope, columns.scope.version),
                Intrinsic::EventName => Place::Child(Owner::Event, span.events.name),
                Intrinsic::EventTimeSinceStart => Place::Child(Owner::Event, span.events.since_start),
                Intrinsic::LinkTraceId => Place::Child(Owner::Link, span.links.trace_id),
                Intrinsic::LinkSpanId => Place::Child(Owner::Link, span.links.span_id),
                Intrinsic::TraceDuration => Place::Row(columns.trace.duration),
                Intrinsic::RootName => Place::Row(columns.trace.root_name),
                Intrinsic::RootServiceName => Place::Row(columns.trace.root_service),
                Intrinsic::TraceId => Place::Row(columns.trace.trace_id),
                _ => Place::Unknown,
            }
        }
    }
}

fn fixed(leaves: &[(&'static str, usize)], name: &str) -> Option<Direct> {
    let (name, leaf) = leaves.iter().find(|(fixed, _)| *fixed == name)?;
    let value_type = if *name == "http.status_code" { Type::Int } else { Type::String };
    Some(Direct { leaf: *leaf, value_type, required: false })
}

fn dedicated(block: &OpenBlock, leaves: &[DedicatedLeaf], scope: DedicatedScope, name: &str) -> Option<Direct> {
    let list = &block.meta().dedicated_columns.0;
    let leaf = leaves
        .iter()
        .find(|leaf| list.get(leaf.position).is_some_and(|column| column.scope == scope && column.name == name))?;
    let value_type = match leaf.spare.value_type {
        ValueType::String => Type::String,
        ValueType::Int => Type::Int,
    };
    Some(Direct { leaf: leaf.leaf, value_type, required: false })
}
