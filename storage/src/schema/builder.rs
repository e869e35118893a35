//! Builds the tree of Parquet types and the table of leaves in one pass, so that both always agree.

use std::sync::Arc;

use parquet::{
    basic::{Compression, ConvertedType, Encoding, LogicalType, Repetition},
    schema::types::{Type, TypePtr},
};

use super::{
    AttrLeaves, Columns, DedicatedLeaf, EventColumns, Leaf, LeafType, LinkColumns, ResourceColumns, ScopeColumns,
    SpanColumns, StatsColumns, TraceColumns, zstd,
};
use crate::{
    dedicated::{Assignment, DedicatedColumns, STRINGS_V4, Scope, Spare, ValueType},
    meta::Version,
};

const NONE: Compression = Compression::UNCOMPRESSED;
const SNAPPY: Compression = Compression::SNAPPY;
const DICT: Encoding = Encoding::RLE_DICTIONARY;
const PLAIN: Encoding = Encoding::PLAIN;
const DELTA: Encoding = Encoding::DELTA_BINARY_PACKED;
const LENGTHS: Encoding = Encoding::DELTA_LENGTH_BYTE_ARRAY;

/// How the codec and encoding columns of the tables below read: (type, codec, encoding).
type Shape = (LeafType, Compression, Encoding);

/// Text that repeats.
const WORDS: Shape = (LeafType::Text, SNAPPY, DICT);
/// Text that does not.
const TEXT: Shape = (LeafType::Text, SNAPPY, LENGTHS);
/// Ids.
const IDS: Shape = (LeafType::Bytes, NONE, LENGTHS);
const U64: Shape = (LeafType::U64, NONE, DELTA);
const U32: Shape = (LeafType::U32, NONE, DELTA);
const I64: Shape = (LeafType::I64, NONE, DELTA);
const I32: Shape = (LeafType::I32, NONE, DELTA);
const DROPPED: Shape = (LeafType::I32, SNAPPY, DELTA);
/// Values of attributes.
const INTS: Shape = (LeafType::I64, SNAPPY, PLAIN);
const DROPPED_PLAIN: Shape = (LeafType::I32, SNAPPY, PLAIN);

/// Names of vParquet4's fixed resource columns: leaf, attribute.
const FIXED_RESOURCE: [(&str, &str); 8] = [
    ("Cluster", "cluster"),
    ("Namespace", "namespace"),
    ("Pod", "pod"),
    ("Container", "container"),
    ("K8sClusterName", "k8s.cluster.name"),
    ("K8sNamespaceName", "k8s.namespace.name"),
    ("K8sPodName", "k8s.pod.name"),
    ("K8sContainerName", "k8s.container.name"),
];

/// A group under construction.
struct Group {
    name: String,
    repetition: Repetition,
    annotation: Option<LogicalType>,
    fields: Vec<TypePtr>,
}

pub(super) struct Builder {
    version: Version,
    open: Vec<Group>,
    leaves: Vec<Leaf>,
}

impl Builder {
    pub(super) fn new(version: Version) -> Self {
        let root =
            Group { name: "Trace".into(), repetition: Repetition::REQUIRED, annotation: None, fields: Vec::new() };
        Self { version, open: vec![root], leaves: Vec::new() }
    }

    pub(super) fn finish(mut self) -> (TypePtr, Vec<Leaf>) {
        let root = self.open.pop().expect("the root is opened first and closed here only");
        let root = Type::group_type_builder(&root.name).with_fields(root.fields).build();
        (Arc::new(root.expect("names are constants, so no two fields clash")), self.leaves)
    }

    fn group<T>(
        &mut self,
        name: &str,
        repetition: Repetition,
        annotation: Option<LogicalType>,
        fill: impl FnOnce(&mut Self) -> T,
    ) -> T {
        self.open.push(Group { name: name.to_owned(), repetition, annotation, fields: Vec::new() });
        let filled = fill(self);
        let group = self.open.pop().expect("pushed above");
        let built = Type::group_type_builder(&group.name)
            .with_repetition(group.repetition)
            .with_logical_type(group.annotation)
            .with_fields(group.fields)
            .build()
            .expect("names are constants, so no two fields clash");
        self.add(Arc::new(built));
        filled
    }

    fn add(&mut self, field: TypePtr) {
        self.open.last_mut().expect("the root stays open until the end").fields.push(field);
    }

    fn required<T>(&mut self, name: &str, fill: impl FnOnce(&mut Self) -> T) -> T {
        self.group(name, Repetition::REQUIRED, None, fill)
    }

    /// A list of groups: bare in vParquet5, in three levels in vParquet4.
    fn list<T>(&mut self, name: &str, fill: impl FnOnce(&mut Self) -> T) -> T {
        if self.version == Version::V5 {
            return self.group(name, Repetition::REPEATED, None, fill);
        }
        self.group(name, Repetition::REQUIRED, Some(LogicalType::List), |list| {
            list.group("list", Repetition::REPEATED, None, |element| element.required("element", fill))
        })
    }

    fn leaf_with(&mut self, name: &str, (leaf_type, codec, encoding): Shape, repetition: Repetition) -> usize {
        let logical = match leaf_type {
            LeafType::Text => Some(LogicalType::String),
            LeafType::U64 => Some(LogicalType::integer(64, false)),
            LeafType::U32 => Some(LogicalType::integer(32, false)),
            LeafType::I64 => Some(LogicalType::integer(64, true)),
            LeafType::I32 => Some(LogicalType::integer(32, true)),
            LeafType::Bytes | LeafType::Double | LeafType::Bool => None,
        };
        let built = Type::primitive_type_builder(name, leaf_type.physical())
            .with_repetition(repetition)
            .with_converted_type(ConvertedType::NONE)
            .with_logical_type(logical)
            .build()
            .expect("annotation and physical type are paired in LeafType");
        self.add(Arc::new(built));
        let repeated = |r: Repetition| i16::from(r == Repetition::REPEATED);
        let max_rep = self.open.iter().map(|group| repeated(group.repetition)).sum::<i16>() + repeated(repetition);
        let max_def = max_rep + i16::from(repetition == Repetition::OPTIONAL);
        let parents = self.open[1..].iter().map(|group| group.name.as_str());
        let path = parents.chain([name]).collect::<Vec<_>>().join(".");
        self.leaves.push(Leaf { path, leaf_type, max_def, max_rep, codec, encoding });
        self.leaves.len() - 1
    }

    fn leaf(&mut self, name: &str, shape: Shape) -> usize {
        self.leaf_with(name, shape, Repetition::REQUIRED)
    }

    fn optional(&mut self, name: &str, shape: Shape) -> usize {
        self.leaf_with(name, shape, Repetition::OPTIONAL)
    }

    /// A list of plain values.
    fn values(&mut self, name: &str, shape: Shape) -> usize {
        if self.version == Version::V5 {
            return self.leaf_with(name, shape, Repetition::REPEATED);
        }
        self.group(name, Repetition::REQUIRED, Some(LogicalType::List), |list| {
            list.group("list", Repetition::REPEATED, None, |element| element.leaf("element", shape))
        })
    }

    fn attrs(&mut self) -> AttrLeaves {
        self.list("Attrs", |b| AttrLeaves {
            key: b.leaf("Key", WORDS),
            is_array: b.leaf("IsArray", (LeafType::Bool, SNAPPY, PLAIN)),
            value: b.values("Value", WORDS),
            value_int: b.values("ValueInt", INTS),
            value_double: b.values("ValueDouble", (LeafType::Double, SNAPPY, PLAIN)),
            value_bool: b.values("ValueBool", (LeafType::Bool, SNAPPY, PLAIN)),
            unsupported: b.optional("ValueUnsupported", TEXT),
        })
    }

    /// vParquet5's spares: only assigned ones, strings before integers; no group without any.
    fn spares(&mut self, dedicated: &DedicatedColumns, scope: Scope) -> Vec<DedicatedLeaf> {
        let assigned = dedicated.assign_v5(scope);
        if assigned.is_empty() {
            return Vec::new();
        }
        let mut leaves = self.required("DedicatedAttributes", |b| {
            let mut leaves = Vec::new();
            for value_type in [ValueType::String, ValueType::Int] {
                let of_type = |assignment: &&Assignment| assignment.spare.value_type == value_type;
                for &Assignment { position, spare } in assigned.iter().filter(of_type) {
                    let shape = match (value_type, spare.blob) {
                        (ValueType::Int, _) => INTS,
                        (ValueType::String, false) => WORDS,
                        (ValueType::String, true) => (LeafType::Text, zstd(), LENGTHS),
                    };
                    leaves.push(DedicatedLeaf { position, spare, leaf: b.values(&spare.leaf_name(), shape) });
                }
            }
            leaves
        });
        leaves.sort_by_key(|leaf| leaf.position);
        leaves
    }

    /// vParquet4's spares: all of them, assigned or not.
    fn spares_v4(&mut self, dedicated: &DedicatedColumns, scope: Scope) -> Vec<DedicatedLeaf> {
        let assigned = dedicated.assign_v4(scope);
        self.required("DedicatedAttributes", |b| {
            let mut leaves = Vec::new();
            for number in 1..=STRINGS_V4 {
                let spare = Spare { value_type: ValueType::String, number, blob: false };
                let leaf = b.optional(&spare.leaf_name(), WORDS);
                if let Some(Assignment { position, .. }) = assigned.get(number - 1) {
                    leaves.push(DedicatedLeaf { position: *position, spare, leaf });
                }
            }
            leaves
        })
    }

    fn trace(&mut self) -> TraceColumns {
        TraceColumns {
            trace_id: self.leaf("TraceID", IDS),
            trace_id_text: self.leaf("TraceIDText", TEXT),
            start: self.leaf("StartTimeUnixNano", U64),
            end: self.leaf("EndTimeUnixNano", U64),
            duration: self.leaf("DurationNano", U64),
            root_service: self.leaf("RootServiceName", (LeafType::Text, NONE, DICT)),
            root_name: self.leaf("RootSpanName", (LeafType::Text, NONE, DICT)),
        }
    }

    pub(super) fn v5(&mut self, dedicated: &DedicatedColumns) -> Columns {
        let trace = self.trace();
        let stats = self.list("ServiceStats", |b| StatsColumns {
            service: b.leaf("ServiceName", WORDS),
            spans: b.leaf("SpanCount", U32),
            errors: b.leaf("ErrorCount", U32),
        });
        self.list("rs", |b| {
            let resource = b.required("Resource", |b| ResourceColumns {
                service: b.leaf("ServiceName", WORDS),
                attrs: b.attrs(),
                dropped: b.leaf("DroppedAttributesCount", DROPPED),
                dedicated: b.spares(dedicated, Scope::Resource),
                fixed: Vec::new(),
            });
            b.list("ss", |b| {
                let mut scope = b.scope();
                let span = b.list("Spans", |b| b.span(dedicated));
                scope.span_count = Some(b.leaf("SpanCount", I32));
                Columns { trace, stats, resource, scope, span }
            })
        })
    }

    pub(super) fn v4(&mut self, dedicated: &DedicatedColumns) -> Columns {
        let trace = self.trace();
        let stats = self.group("ServiceStats", Repetition::REQUIRED, Some(LogicalType::Map), |b| {
            b.group("key_value", Repetition::REPEATED, None, |b| {
                let service = b.leaf("key", (LeafType::Text, NONE, LENGTHS));
                b.required("value", |b| StatsColumns {
                    service,
                    spans: b.leaf("SpanCount", U32),
                    errors: b.leaf("ErrorCount", U32),
                })
            })
        });
        self.list("rs", |b| {
            let resource = b.required("Resource", |b| {
                let attrs = b.attrs();
                let dropped = b.leaf("DroppedAttributesCount", DROPPED);
                let service = b.leaf("ServiceName", WORDS);
                let fixed = FIXED_RESOURCE.map(|(leaf, attribute)| (attribute, b.optional(leaf, WORDS))).to_vec();
                ResourceColumns { service, attrs, dropped, fixed, dedicated: b.spares_v4(dedicated, Scope::Resource) }
            });
            b.list("ss", |b| {
                let scope = b.scope();
                let span = b.list("Spans", |b| b.span(dedicated));
                Columns { trace, stats, resource, scope, span }
            })
        })
    }

    fn scope(&mut self) -> ScopeColumns {
        self.required("Scope", |b| ScopeColumns {
            name: b.leaf("Name", WORDS),
            version: b.leaf("Version", WORDS),
            attrs: b.attrs(),
            dropped: b.leaf("DroppedAttributesCount", DROPPED),
            span_count: None,
        })
    }

    fn span(&mut self, dedicated: &DedicatedColumns) -> SpanColumns {
        let v5 = self.version == Version::V5;
        // The fields of the literal are evaluated in the order written, which is the order of the file.
        let mut span = SpanColumns {
            span_id: self.leaf("SpanID", IDS),
            parent_span_id: self.leaf("ParentSpanID", IDS),
            parent: self.leaf("ParentID", I32),
            left: self.leaf("NestedSetLeft", I32),
            right: self.leaf("NestedSetRight", I32),
            child_count: v5.then(|| self.leaf("ChildCount", I32)),
            name: self.leaf("Name", WORDS),
            kind: self.leaf("Kind", I64),
            trace_state: self.leaf("TraceState", TEXT),
            start: self.leaf("StartTimeUnixNano", U64),
            duration: self.leaf("DurationNano", U64),
            status: self.leaf("StatusCode", I64),
            status_message: self.leaf("StatusMessage", TEXT),
            attrs: self.attrs(),
            dropped: self.leaf("DroppedAttributesCount", DROPPED),
            events: self.list("Events", |b| EventColumns {
                since_start: b.leaf("TimeSinceStartNano", U64),
                name: b.leaf("Name", WORDS),
                attrs: b.attrs(),
                dropped: b.leaf("DroppedAttributesCount", DROPPED),
                dedicated: if v5 { b.spares(dedicated, Scope::Event) } else { Vec::new() },
            }),
            dropped_events: self.leaf("DroppedEventsCount", DROPPED_PLAIN),
            links: self.list("Links", |b| LinkColumns {
                trace_id: b.leaf("TraceID", IDS),
                span_id: b.leaf("SpanID", IDS),
                trace_state: b.leaf("TraceState", TEXT),
                attrs: b.attrs(),
                dropped: b.leaf("DroppedAttributesCount", DROPPED),
            }),
            dropped_links: self.leaf("DroppedLinksCount", DROPPED_PLAIN),
            dedicated: Vec::new(),
            fixed: Vec::new(),
            rounded: None,
        };
        if v5 {
            span.dedicated = self.spares(dedicated, Scope::Span);
            let rounded = ["StartTimeRounded15", "StartTimeRounded60", "StartTimeRounded300", "StartTimeRounded3600"];
            span.rounded = Some(rounded.map(|name| self.leaf(name, U32)));
        } else {
            span.fixed = vec![
                ("http.method", self.optional("HttpMethod", WORDS)),
                ("http.url", self.optional("HttpUrl", WORDS)),
                ("http.status_code", self.optional("HttpStatusCode", INTS)),
            ];
            span.dedicated = self.spares_v4(dedicated, Scope::Span);
        }
        span
    }
}
