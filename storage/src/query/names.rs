//! Names of the attributes of the spans that a query selects.

use std::collections::BTreeMap;

use tonic::Status;
use vivace_protocol::vivace::TagNamesJob;
use vivace_traceql::{Cursor, Field, LoadSpec, Query, Scope, SearchPlan, TimeRange};

use super::unavailable;
use crate::tags::{TagLimits, TagNames, TagSource};

/// Spans looked at in one go. The first usually show most of the names, and what is known is not looked for again.
const SPANS_AT_ONCE: usize = 512;

/// Adds the names that stand on at least one span that the query selects, with its events, links, resource and scope.
///
/// The source says which names there are at all; only these are read, and of the selected spans only.
pub(super) fn selected_names(
    source: &impl TagSource,
    job: &TagNamesJob,
    scope: Option<Scope>,
    window: Option<TimeRange>,
    names: &mut TagNames,
) -> Result<(), Status> {
    let invalid = |error: &dyn std::error::Error| Status::invalid_argument(error.to_string());
    let query = Query::parse(&job.query).map_err(|error| invalid(&error))?;
    let plan = SearchPlan::new(&query).map_err(|error| invalid(&error))?;
    let mut known = TagNames::new(TagLimits::default());
    source.tag_names(scope, &mut known).map_err(|error| unavailable(&error))?;
    let mut missing: Vec<(Scope, String)> = known
        .into_scopes()
        .into_iter()
        .flat_map(|(scope, names)| names.into_iter().map(move |name| (scope, name)))
        .collect();
    let mut cursor = source.fetch(&plan.spec(window)).map_err(|error| unavailable(&error))?;
    let mut evaluator = plan.evaluator();
    while !missing.is_empty()
        && !names.is_full()
        && let Some(batch) = cursor.next().map_err(|error| unavailable(&error))?
    {
        let survivors = evaluator.evaluate(&batch).map_err(|error| invalid(&error))?;
        // By span, the trace that it belongs to.
        let rows: BTreeMap<u32, u32> = survivors
            .iter()
            .flat_map(|survivor| survivor.sets.iter().flat_map(|set| &set.rows).map(|row| (*row, survivor.trace)))
            .collect();
        let rows: Vec<(u32, u32)> = rows.into_iter().collect();
        for chunk in rows.chunks(SPANS_AT_ONCE) {
            if missing.is_empty() || names.is_full() {
                break;
            }
            let handles: Vec<_> = chunk.iter().map(|(row, _)| batch.handles[*row as usize]).collect();
            let mut traces: Vec<u32> = chunk.iter().map(|(_, trace)| *trace).collect();
            traces.dedup();
            let fields = missing.iter().map(|(scope, name)| Field::attribute(*scope, name)).collect();
            let spec = LoadSpec { fields, ..LoadSpec::default() };
            let loaded = cursor.load(&traces, &handles, &spec).map_err(|error| unavailable(&error))?;
            let mut columns = loaded.columns.iter();
            missing.retain(|(scope, name)| {
                let there =
                    columns.next().is_some_and(|column| column.rows().is_some_and(|rows| column.presence(rows).any()));
                if there {
                    names.insert(*scope, name);
                }
                !there
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vivace_protocol::vivace::TagNamesReply;

    use super::super::tag_names;
    use super::*;
    use crate::live::tests::stored;
    use crate::{BlockSource, LiveSource, read};

    fn names(source: &impl TagSource, query: &str) -> TagNamesReply {
        let job = TagNamesJob { query: query.to_owned(), ..TagNamesJob::default() };
        tag_names(source, &job).unwrap()
    }

    fn named<'r>(reply: &'r TagNamesReply, scope: &str) -> Vec<&'r str> {
        let scopes = reply.scopes.iter().filter(|s| s.name == scope);
        scopes.flat_map(|s| &s.tags).map(String::as_str).collect()
    }

    #[test]
    fn names_are_those_of_the_selected_spans_in_blocks_and_live_traces() {
        let live = LiveSource::new(stored().into_iter().map(|(id, trace)| (id, vec![trace])));
        let block = BlockSource::new(Arc::new(read::tests::open_v5()));
        let queries =
            ["{ span.db.system != nil }", "{ event:name = \"exception\" }", "{ status = error } >> { kind = client }"];
        for query in queries {
            let (of_live, of_block) = (names(&live, query), names(&block, query));
            assert_eq!(of_live, of_block, "{query}");
            assert!(!of_live.scopes.is_empty(), "{query}");
        }
        let databases = names(&live, "{ span.db.system != nil }");
        assert_ne!(databases, names(&live, ""));
        assert!(named(&databases, "span").contains(&"db.system"));
        assert!(!named(&databases, "span").contains(&"http.route"), "{:?}", named(&databases, "span"));
        assert!(named(&databases, "resource").contains(&"service.name"));
        assert_eq!(names(&block, "{ span.nobody.has = 1 }").scopes, []);
    }

    #[test]
    fn every_name_is_on_some_span() {
        let block = BlockSource::new(Arc::new(read::tests::open_v5()));
        let (all, selected) = (names(&block, ""), names(&block, "{ }"));
        for scope in ["span", "resource", "event", "instrumentation"] {
            assert_eq!(named(&selected, scope), named(&all, scope), "{scope}");
        }
    }
}
