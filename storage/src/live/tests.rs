//! Live traces against the reference source of the query engine, over the same spans.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prost::Message;
use vivace_protocol::{
    TraceId,
    otlp::{
        collector::ExportTraceServiceRequest,
        common::{AnyValue, KeyValue, any_value},
        trace::TracesData,
    },
};
use vivace_traceql::{
    CompareOp, Condition, Cursor, FetchSpec, Field, Intrinsic, Kind, Level, LoadSpec, MemorySource, Pattern, Predicate,
    Scope, Source, Status, Test, TraceFields, Value,
    memory::{MemoryEvent, MemoryLink, MemorySpan, MemoryTrace},
};

use super::*;

fn value(any: Option<&AnyValue>) -> Value {
    match any.and_then(|any| any.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => Value::str(text),
        Some(any_value::Value::BoolValue(value)) => Value::Bool(*value),
        Some(any_value::Value::IntValue(value)) => Value::Int(*value),
        Some(any_value::Value::DoubleValue(value)) => Value::Float(*value),
        Some(any_value::Value::ArrayValue(list)) => {
            let items: Vec<Value> = list.values.iter().map(|item| value(Some(item))).collect();
            let mixed = items.iter().any(|item| item.is_nil() || item.type_of() != items[0].type_of());
            let nested = items.iter().any(|item| matches!(item, Value::List(_)));
            if mixed || nested { Value::Nil } else { Value::list(items) }
        }
        _ => Value::Nil,
    }
}

fn attributes(list: &[KeyValue]) -> Vec<(Arc<str>, Value)> {
    list.iter().map(|attribute| (attribute.key.as_str().into(), value(attribute.value.as_ref()))).collect()
}

fn id8(bytes: &[u8]) -> [u8; 8] {
    bytes.try_into().unwrap_or_default()
}

/// The trace as the reference source takes it.
pub(crate) fn memory_trace(id: TraceId, trace: &[u8]) -> MemoryTrace {
    let mut spans = Vec::new();
    for batch in TracesData::decode(trace).unwrap().resource_spans {
        let resource = Arc::new(attributes(&batch.resource.unwrap_or_default().attributes));
        for scoped in batch.scope_spans {
            let scope = scoped.scope.unwrap_or_default();
            for span in scoped.spans {
                let status = span.status.clone().unwrap_or_default();
                spans.push(MemorySpan {
                    id: id8(&span.span_id),
                    parent_id: id8(&span.parent_span_id),
                    name: span.name.as_str().into(),
                    kind: Kind::from_code(u8::try_from(span.kind).unwrap()),
                    status: Status::from_code(u8::try_from(status.code).unwrap()),
                    status_message: status.message.as_str().into(),
                    start_ns: span.start_time_unix_nano,
                    duration_ns: span.end_time_unix_nano - span.start_time_unix_nano,
                    attributes: attributes(&span.attributes),
                    resource: resource.clone(),
                    scope_name: scope.name.as_str().into(),
                    scope_version: scope.version.as_str().into(),
                    scope_attributes: attributes(&scope.attributes),
                    events: span
                        .events
                        .iter()
                        .map(|event| MemoryEvent {
                            time_ns: event.time_unix_nano,
                            name: event.name.as_str().into(),
                            attributes: attributes(&event.attributes),
                        })
                        .collect(),
                    links: span
                        .links
                        .iter()
                        .map(|link| MemoryLink {
                            trace_id: link.trace_id.as_slice().try_into().unwrap_or_default(),
                            span_id: id8(&link.span_id),
                            attributes: attributes(&link.attributes),
                        })
                        .collect(),
                });
            }
        }
    }
    MemoryTrace { id: id.0, spans }
}

/// All traces of the fixture block, reassembled.
pub(crate) fn stored() -> Vec<(TraceId, Bytes)> {
    crate::read::rows(&crate::read::tests::open_v5()).map(Result::unwrap).collect()
}

pub(crate) fn memory(traces: &[(TraceId, Bytes)]) -> MemorySource {
    MemorySource::new(traces.iter().map(|(id, trace)| memory_trace(*id, trace)).collect(), 10)
}

/// Every field that occurs in the fixture, each with a concrete scope.
pub(crate) fn all_fields(traces: &[(TraceId, Bytes)]) -> Vec<Field> {
    let mut fields: Vec<Field> = Intrinsic::ALL
        .into_iter()
        .filter(|intrinsic| intrinsic.level() != Level::Trace && !intrinsic.is_structure())
        .filter(|intrinsic| *intrinsic != Intrinsic::Parent)
        .map(Field::from)
        .collect();
    fields.push(Intrinsic::StartTime.into());
    let mut add = |scope: Scope, list: &[(Arc<str>, Value)]| {
        for (name, _) in list {
            let field = Field::attribute(scope, name);
            if !fields.contains(&field) {
                fields.push(field);
            }
        }
    };
    for trace in memory(traces).traces() {
        for span in &trace.spans {
            add(Scope::Span, &span.attributes);
            add(Scope::Resource, &span.resource);
            add(Scope::Instrumentation, &span.scope_attributes);
            span.events.iter().for_each(|event| add(Scope::Event, &event.attributes));
            span.links.iter().for_each(|link| add(Scope::Link, &link.attributes));
        }
    }
    fields.push(Field::attribute(Scope::Span, "nobody has this"));
    fields
}

/// What a fetch delivers: per trace its facts, and per span a line with all values.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Table(pub(crate) BTreeMap<String, Vec<String>>);

fn values(column: &vivace_traceql::Column, field: &Field, row: usize, offsets: Option<&Vec<u32>>) -> String {
    match offsets {
        None => format!("{:?}", column.value(row, field)),
        Some(offsets) => {
            let items = offsets[row]..offsets[row + 1];
            format!("{:?}", items.map(|item| column.value(item as usize, field)).collect::<Vec<_>>())
        }
    }
}

/// Runs a whole fetch. Service statistics are sorted, since their order is free.
pub(crate) fn table(source: &impl Source, spec: &FetchSpec, load: Option<&LoadSpec>) -> Table {
    let mut table = Table::default();
    let mut cursor = source.fetch(spec).unwrap();
    while let Some(batch) = cursor.next().unwrap() {
        let loaded = load.map(|load| {
            let traces: Vec<u32> = (0..u32::try_from(batch.traces.len()).unwrap()).collect();
            cursor.load(&traces, &batch.handles, load).unwrap()
        });
        for (number, trace) in batch.traces.iter().enumerate() {
            let mut info = trace.clone();
            if let (Some(loaded), Some(load)) = (&loaded, load)
                && load.trace_fields == TraceFields::ALL
            {
                info = loaded.traces[number].clone();
            }
            let mut stats: Vec<_> = info.service_stats.iter().map(|stat| format!("{stat:?}")).collect();
            stats.sort();
            let head = format!(
                "{:x?} {} {} {:?} {:?} {stats:?}",
                info.id, info.start_ns, info.duration_ns, info.root_name, info.root_service
            );
            let lines = table.0.entry(head).or_default();
            for row in trace.spans.start as usize..trace.spans.end as usize {
                let mut line = String::new();
                let mut add = |fields: &[Field],
                               columns: &[vivace_traceql::Column],
                               events: Option<&Vec<u32>>,
                               links: Option<&Vec<u32>>| {
                    assert_eq!(fields.len(), columns.len());
                    for (field, column) in fields.iter().zip(columns) {
                        let offsets = match field.level() {
                            Level::Event => events,
                            Level::Link => links,
                            Level::Span | Level::Trace => None,
                        };
                        line.push_str(&format!(" {field}={}", values(column, field, row, offsets)));
                    }
                };
                add(&spec.fields, &batch.columns, batch.events.as_ref(), batch.links.as_ref());
                if let (Some(loaded), Some(load)) = (&loaded, load) {
                    add(&load.fields, &loaded.columns, loaded.events.as_ref(), loaded.links.as_ref());
                }
                if let Some(structure) = &batch.structure {
                    let (left, right, parent) = (structure.left[row], structure.right[row], structure.parent[row]);
                    line.push_str(&format!(" at {left} {right} {parent}"));
                }
                lines.push(line);
            }
        }
    }
    table
}

pub(crate) fn assert_same(found: &Table, due: &Table) {
    assert_eq!(found.0.keys().collect::<Vec<_>>(), due.0.keys().collect::<Vec<_>>());
    for (head, lines) in &due.0 {
        for (found, due) in found.0[head].iter().zip(lines) {
            assert_eq!(found, due, "{head}");
        }
        assert_eq!(found.0[head].len(), lines.len(), "{head}");
    }
}

/// Conditions of every kind over a field of the fixture.
pub(crate) fn predicates(fields: &[Field], traces: &[(TraceId, Bytes)]) -> Vec<Predicate> {
    let reference = memory(traces);
    let mut all = Vec::new();
    for field in fields {
        let spec = FetchSpec::of(vec![field.clone()]);
        let mut seen: Vec<Value> = Vec::new();
        let mut cursor = reference.fetch(&spec).unwrap();
        while let Some(batch) = cursor.next().unwrap() {
            let rows = batch.columns[0].rows().unwrap_or(0);
            for row in 0..rows {
                let value = batch.columns[0].value(row, field);
                if !value.is_nil() && !matches!(value, Value::List(_)) && !seen.contains(&value) && seen.len() < 4 {
                    seen.push(value);
                }
            }
        }
        let is = |test: Test| Predicate::Is(Condition { field: field.clone(), test });
        all.push(is(Test::Exists));
        for value in seen {
            for op in [CompareOp::Eq, CompareOp::NotEq, CompareOp::Less, CompareOp::GreaterEq] {
                all.push(is(Test::Compare(op, value.clone())));
            }
            if let Value::Str(text) = &value {
                let pattern: Arc<Pattern> =
                    Arc::new(Pattern::new(&format!("{}.*", text.chars().next().unwrap_or('x'))).unwrap());
                all.push(is(Test::Match(pattern.clone())));
                all.push(is(Test::NotMatch(pattern)));
            }
        }
    }
    all
}

fn everything(fields: Vec<Field>) -> FetchSpec {
    FetchSpec { trace_fields: TraceFields::ALL, structure: true, ..FetchSpec::of(fields) }
}

fn live(traces: &[(TraceId, Bytes)]) -> LiveSource {
    LiveSource::new(traces.iter().map(|(id, trace)| (*id, vec![trace.clone()])))
}

#[test]
fn all_fields_and_facts_are_those_of_the_reference() {
    let traces = stored();
    let spec = everything(all_fields(&traces));
    assert_same(&table(&live(&traces), &spec, None), &table(&memory(&traces), &spec, None));
}

#[test]
fn a_second_pass_delivers_the_same_as_a_first() {
    let traces = stored();
    let load = LoadSpec { fields: all_fields(&traces), trace_fields: TraceFields::ALL };
    let spec = FetchSpec::of(vec![Intrinsic::Name.into()]);
    assert_same(&table(&live(&traces), &spec, Some(&load)), &table(&memory(&traces), &spec, Some(&load)));
}

#[test]
fn spans_that_fail_a_condition_are_left_out_as_the_reference_does() {
    let traces = stored();
    let fields = all_fields(&traces);
    for predicate in predicates(&fields, &traces) {
        let spec = FetchSpec { spans: predicate.clone(), ..FetchSpec::of(vec![Intrinsic::SpanId.into()]) };
        let (found, due) = (table(&live(&traces), &spec, None), table(&memory(&traces), &spec, None));
        assert_eq!(found, due, "{predicate:?}");
    }
}

#[test]
fn spans_sent_twice_are_seen_once() {
    let traces = stored();
    let twice = LiveSource::new(traces.iter().map(|(id, trace)| (*id, vec![trace.clone(), trace.clone()])));
    let spec = everything(vec![Intrinsic::SpanId.into()]);
    assert_same(&table(&twice, &spec, None), &table(&live(&traces), &spec, None));
}

#[test]
fn select_all_delivers_each_attribute_of_the_batch() {
    let traces = stored();
    let spec = FetchSpec { select_all: true, ..FetchSpec::of(Vec::new()) };
    let source = live(&traces);
    let batch = source.fetch(&spec).unwrap().next().unwrap().unwrap();
    for field in all_fields(&traces).iter().filter(|field| field.level() == Level::Span) {
        let alone = source.fetch(&FetchSpec::of(vec![field.clone()])).unwrap().next().unwrap().unwrap();
        let Some((_, column)) = batch.everything.iter().find(|(found, _)| found == field) else {
            assert!(alone.columns[0].rows().is_none() || *field == Intrinsic::StartTime.into(), "{field} is missing");
            continue;
        };
        for row in 0..batch.len() {
            assert_eq!(column.value(row, field), alone.columns[0].value(row, field), "{field} of {row}");
        }
    }
}

#[test]
fn damaged_bytes_are_an_error() {
    let (id, trace) = stored().swap_remove(0);
    for cut in 1..trace.len().min(400) {
        let source = LiveSource::new([(id, vec![trace.slice(..trace.len() - cut)])]);
        assert!(source.fetch(&FetchSpec::of(Vec::new())).unwrap().next().is_err());
    }
    for request in crate::read::tests::requests() {
        assert!(ExportTraceServiceRequest::decode(request).is_ok());
    }
}
