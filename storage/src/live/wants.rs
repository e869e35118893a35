//! What a fetch needs of each span, worked out once: attribute names become slots, conditions become a tree over getters.

use vivace_traceql::{Condition, FetchSpec, Field, Intrinsic, Level, LoadSpec, Predicate, Scope, TraceFields};

use super::sieve::Sieve;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Getter {
    Name,
    Status,
    StatusMessage,
    Kind,
    SpanId,
    ParentId,
    ChildCount,
    Duration,
    Start,
    Left,
    Right,
    Parent,
    ScopeName,
    ScopeVersion,
    SpanAttr(usize),
    ResourceAttr(usize),
    ScopeAttr(usize),
    /// The span's value, or where the span lacks the key that of the resource: slots of both.
    AnyAttr(usize, usize),
    EventName,
    EventSince,
    EventAttr(Box<[u8]>),
    LinkTrace,
    LinkSpan,
    LinkAttr(Box<[u8]>),
    TraceDuration,
    RootName,
    RootService,
    TraceId,
    /// Has no value.
    Nothing,
}

/// A predicate over getters.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    Always,
    Never,
    Is(Getter, Level, Condition),
    All(Vec<Tree>),
    AnyOf(Vec<Tree>),
}

/// Attribute names by slot, and which derived facts are needed.
#[derive(Debug, Default)]
pub(super) struct Wants {
    pub(super) span_keys: Vec<Box<[u8]>>,
    pub(super) resource_keys: Vec<Box<[u8]>>,
    pub(super) scope_keys: Vec<Box<[u8]>>,
    pub(super) positions: bool,
    pub(super) trace: TraceFields,
    /// Name or version of instrumentation scopes.
    instrumentation: bool,
    /// Every attribute.
    everything: bool,
}

fn slot(keys: &mut Vec<Box<[u8]>>, name: &str) -> usize {
    let name = name.as_bytes();
    keys.iter().position(|key| **key == *name).unwrap_or_else(|| {
        keys.push(name.into());
        keys.len() - 1
    })
}

impl Wants {
    /// Whether anything of resources is wanted.
    pub(super) fn resources(&self) -> bool {
        self.everything || self.trace.root || self.trace.service_stats || !self.resource_keys.is_empty()
    }

    /// Whether anything of instrumentation scopes is wanted.
    pub(super) fn scopes(&self) -> bool {
        self.everything || self.instrumentation || !self.scope_keys.is_empty()
    }

    pub(super) fn getter(&mut self, field: &Field) -> Getter {
        match field {
            Field::Attribute { parent: true, .. } => Getter::Nothing,
            Field::Attribute { scope, name, .. } => match scope {
                Scope::Span => Getter::SpanAttr(slot(&mut self.span_keys, name)),
                Scope::Resource => Getter::ResourceAttr(slot(&mut self.resource_keys, name)),
                Scope::Instrumentation => Getter::ScopeAttr(slot(&mut self.scope_keys, name)),
                Scope::Any => Getter::AnyAttr(slot(&mut self.span_keys, name), slot(&mut self.resource_keys, name)),
                Scope::Event => Getter::EventAttr(name.as_bytes().into()),
                Scope::Link => Getter::LinkAttr(name.as_bytes().into()),
            },
            Field::Intrinsic(intrinsic) => self.intrinsic(*intrinsic),
        }
    }

    fn intrinsic(&mut self, intrinsic: Intrinsic) -> Getter {
        let getter = match intrinsic {
            Intrinsic::Duration => Getter::Duration,
            Intrinsic::Name => Getter::Name,
            Intrinsic::Status => Getter::Status,
            Intrinsic::StatusMessage => Getter::StatusMessage,
            Intrinsic::Kind => Getter::Kind,
            Intrinsic::SpanId => Getter::SpanId,
            Intrinsic::ParentId => Getter::ParentId,
            Intrinsic::ChildCount => Getter::ChildCount,
            Intrinsic::NestedSetLeft => Getter::Left,
            Intrinsic::NestedSetRight => Getter::Right,
            Intrinsic::NestedSetParent => Getter::Parent,
            Intrinsic::StartTime => Getter::Start,
            Intrinsic::InstrumentationName => Getter::ScopeName,
            Intrinsic::InstrumentationVersion => Getter::ScopeVersion,
            Intrinsic::EventName => Getter::EventName,
            Intrinsic::EventTimeSinceStart => Getter::EventSince,
            Intrinsic::LinkTraceId => Getter::LinkTrace,
            Intrinsic::LinkSpanId => Getter::LinkSpan,
            Intrinsic::TraceDuration => Getter::TraceDuration,
            Intrinsic::RootName => Getter::RootName,
            Intrinsic::RootServiceName => Getter::RootService,
            Intrinsic::TraceId => Getter::TraceId,
            _ => Getter::Nothing,
        };
        self.positions |= matches!(getter, Getter::ChildCount | Getter::Left | Getter::Right | Getter::Parent);
        self.instrumentation |= matches!(getter, Getter::ScopeName | Getter::ScopeVersion);
        self.trace.times |= getter == Getter::TraceDuration;
        self.trace.root |= matches!(getter, Getter::RootName | Getter::RootService);
        getter
    }

    pub(super) fn tree(&mut self, predicate: &Predicate) -> Tree {
        match predicate {
            Predicate::Always => Tree::Always,
            Predicate::Never => Tree::Never,
            Predicate::Is(condition) => {
                let level = condition.field.level();
                Tree::Is(self.getter(&condition.field), level, condition.clone())
            }
            Predicate::All(parts) => Tree::All(parts.iter().map(|part| self.tree(part)).collect()),
            Predicate::AnyOf(parts) => Tree::AnyOf(parts.iter().map(|part| self.tree(part)).collect()),
        }
    }
}

/// A fetch or load, ready to run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) wants: Wants,
    pub(super) fields: Vec<(Getter, Level)>,
    pub(super) spans: Tree,
    pub(super) traces: Vec<Tree>,
    /// What the resource of a span has to meet, where a span that does not is of no use for anything.
    pub(super) resources: Vec<Tree>,
    pub(super) sieve: Sieve,
}

impl Tree {
    /// Whether only resources are asked.
    fn is_of_resource(&self) -> bool {
        match self {
            Self::Always | Self::Never => true,
            Self::Is(getter, ..) => matches!(getter, Getter::ResourceAttr(_)),
            Self::All(parts) | Self::AnyOf(parts) => parts.iter().all(Self::is_of_resource),
        }
    }
}

impl Plan {
    pub(super) fn of_fetch(spec: &FetchSpec) -> Self {
        let mut wants = Wants {
            positions: spec.structure || spec.select_all,
            trace: spec.trace_fields,
            everything: spec.select_all,
            ..Wants::default()
        };
        wants.trace.times |= spec.window.is_some();
        let fields = spec.fields.iter().map(|field| (wants.getter(field), field.level())).collect();
        let spans = wants.tree(&spec.spans);
        let traces: Vec<Tree> = spec.traces.iter().map(|predicate| wants.tree(predicate)).collect();
        let whole = wants.positions || wants.trace.root || wants.trace.service_stats || !traces.is_empty();
        let resources = match &spans {
            _ if whole => Vec::new(),
            Tree::All(parts) => parts.iter().filter(|part| part.is_of_resource()).cloned().collect(),
            Tree::Is(..) | Tree::AnyOf(_) if spans.is_of_resource() => vec![spans.clone()],
            _ => Vec::new(),
        };
        let sieve = Sieve::of(spec, !resources.is_empty());
        Self { wants, fields, spans, traces, resources, sieve }
    }

    /// Whether no condition leaves out a span.
    pub(super) fn keeps_all(&self) -> bool {
        matches!(self.spans, Tree::Always)
    }

    pub(super) fn of_load(spec: &LoadSpec) -> Self {
        let mut wants = Wants { trace: spec.trace_fields, ..Wants::default() };
        let fields = spec.fields.iter().map(|field| (wants.getter(field), field.level())).collect();
        let sieve = Sieve::open();
        Self { wants, fields, spans: Tree::Always, traces: Vec::new(), resources: Vec::new(), sieve }
    }
}
