//! Values of a field on the spans that a query selects.

use std::collections::BTreeSet;

use tonic::Status;
use vivace_protocol::vivace::TagValuesJob;
use vivace_traceql::{Cursor, Field, Level, LoadSpec, Query, Scope, SearchPlan, Source, TimeRange, TraceFields};

use super::unavailable;
use crate::tags::{TagSet, TagValue, add_loaded, has_values};

/// Adds the values of spans that the query selects, with their events, links, resources, scopes and traces. Of these spans only
/// the field is read.
pub(super) fn selected_values(
    source: &impl Source,
    field: &Field,
    job: &TagValuesJob,
    window: Option<TimeRange>,
    values: &mut TagSet<TagValue>,
) -> Result<(), Status> {
    let invalid = |error: &dyn std::error::Error| Status::invalid_argument(error.to_string());
    // What spans cannot be selected by is refused as in a search.
    let query = Query::parse(&format!("{} | select({})", job.query, job.tag)).map_err(|error| invalid(&error))?;
    let plan = SearchPlan::new(&query).map_err(|error| invalid(&error))?;
    if !has_values(field) {
        return Ok(());
    }
    let of_trace = field.level() == Level::Trace;
    let load = LoadSpec {
        fields: if of_trace { Vec::new() } else { stands_in(field) },
        trace_fields: TraceFields { root: of_trace, ..TraceFields::default() },
    };
    let mut cursor = source.fetch(&plan.spec(window)).map_err(|error| unavailable(&error))?;
    let mut evaluator = plan.evaluator();
    while !values.is_full()
        && let Some(batch) = cursor.next().map_err(|error| unavailable(&error))?
    {
        let survivors = evaluator.evaluate(&batch).map_err(|error| invalid(&error))?;
        if survivors.is_empty() {
            continue;
        }
        let traces: Vec<u32> = survivors.iter().map(|survivor| survivor.trace).collect();
        let sets = survivors.iter().flat_map(|survivor| &survivor.sets);
        let rows: BTreeSet<u32> = sets.flat_map(|set| set.rows.iter().copied()).collect();
        let spans: Vec<_> = rows.iter().map(|row| batch.handles[*row as usize]).collect();
        let spans = if of_trace { &[][..] } else { &spans[..] };
        let loaded = cursor.load(&traces, spans, &load).map_err(|error| unavailable(&error))?;
        add_loaded(&loaded, field, values);
    }
    Ok(())
}

/// The fields that have the values of `field`: of an attribute without scope those of spans and of resources, as without a query.
fn stands_in(field: &Field) -> Vec<Field> {
    match field {
        Field::Attribute { parent: false, scope: Scope::Any, name } => {
            [Scope::Span, Scope::Resource].map(|scope| Field::attribute(scope, name)).to_vec()
        }
        _ => vec![field.clone()],
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vivace_protocol::vivace::TagValuesReply;
    use vivace_traceql::{CompareOp, Condition, Intrinsic, Predicate, Status as SpanStatus, Test, Value};

    use super::super::{parse_field, tag_values_of};
    use super::*;
    use crate::live::tests::{all_fields, stored};
    use crate::tags::{TagLimits, TagSource, tag_values};
    use crate::{BlockSource, LiveSource, read};

    fn told(source: &impl TagSource, tag: &str, query: &str) -> TagValuesReply {
        let job = TagValuesJob { tag: tag.into(), query: query.into(), ..TagValuesJob::default() };
        tag_values_of(source, &job).unwrap()
    }

    #[test]
    fn values_of_selected_spans_are_those_of_a_fetch_of_these() {
        let live = LiveSource::new(stored().into_iter().map(|(id, trace)| (id, vec![trace])));
        let block = BlockSource::new(Arc::new(read::tests::open_v5()));
        let test = Test::Compare(CompareOp::Eq, Value::Status(SpanStatus::Error));
        let failed = Predicate::Is(Condition { field: Intrinsic::Status.into(), test });
        let mut fields = all_fields(&stored());
        fields.extend([Intrinsic::RootName.into(), Intrinsic::RootServiceName.into()]);
        let unscoped = fields.iter().filter_map(|field| match field {
            Field::Attribute { scope: Scope::Span | Scope::Resource, name, .. } => {
                Some(Field::attribute(Scope::Any, name))
            }
            _ => None,
        });
        fields.extend(unscoped.collect::<Vec<_>>());
        let words = [Intrinsic::Status, Intrinsic::Kind].map(Field::from);
        let named = |field: &&Field| !words.contains(*field) && parse_field(&field.to_string()).is_ok();
        let mut some = 0;
        for field in fields.iter().filter(named) {
            let mut due = TagSet::new(TagLimits::default());
            stands_in(field).iter().for_each(|field| tag_values(&live, field, &failed, None, &mut due).unwrap());
            let due: Vec<String> = due.into_entries().into_iter().map(|value| value.value).collect();
            let (of_live, of_block) = (
                told(&live, &field.to_string(), "{ status = error }"),
                told(&block, &field.to_string(), "{ status = error }"),
            );
            assert_eq!(of_live, of_block, "{field}");
            assert_eq!(of_live.values.into_iter().map(|value| value.value).collect::<Vec<_>>(), due, "{field}");
            some += usize::from(!due.is_empty());
        }
        assert!(some > 10, "{some} fields have values");
    }

    #[test]
    fn attributes_that_the_query_tests_are_not_taken_for_the_field() {
        let live = LiveSource::new(stored().into_iter().map(|(id, trace)| (id, vec![trace])));
        let query = "{ resource.service.name != nil || span.service.name != nil }";
        assert_eq!(told(&live, "span.service.name", query), told(&live, "span.service.name", ""));
        assert!(!told(&live, "resource.service.name", query).values.is_empty());
    }
}
