//! Every message of the live-store in every form: in the process, over gRPC, over links. Same replies, same errors.

use vivace_protocol::vivace::{TagNamesJob, TagValuesJob};
use vivace_runtime::contract::{alike, alike_stream};

use super::*;

#[test]
fn every_message_of_the_live_store_is_answered_alike_in_every_form() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let world = World::start(dir.path().into(), log(), Backend::memory(), None);
        for n in 1..4 {
            world.append(n).await;
        }
        let tenant = || "single-tenant".to_owned();
        let (live, bad) = (&world.live, || "no tenant!".to_owned());
        let find = |tenant, n| FindTraceRequest { tenant, trace_id: vec![2; n], ..FindTraceRequest::default() };
        let seen = alike_stream(&live.find, &[find(tenant(), 16), find(tenant(), 3), find(bad(), 16)]).await.unwrap();
        assert!(seen[0].contains("parts") && seen[1].starts_with("InvalidArgument"), "{seen:?}");
        let search = |tenant, query: &str| SearchJob {
            tenant,
            query: query.to_owned(),
            limit: 20,
            spans_per_span_set: 3,
            ..SearchJob::default()
        };
        let narrow = SearchJob { max_bytes: 10, ..search(tenant(), "{}") };
        let searches = [search(tenant(), "{}"), search(tenant(), "{"), search(bad(), "{}"), narrow];
        let seen = alike_stream(&live.search, &searches).await.unwrap();
        assert!(seen[0].contains("span 2") && seen[1].starts_with("InvalidArgument"), "{seen:?}");
        assert!(seen[3].starts_with("OutOfRange") && seen[3].contains("more than 10 bytes"), "{seen:?}");
        let metrics = |tenant, query: &str| MetricsJob {
            tenant,
            query: query.to_owned(),
            start_unix_nano: 0,
            end_unix_nano: 10_000,
            step_nanos: 10_000,
            ..MetricsJob::default()
        };
        alike_stream(&live.metrics, &[metrics(tenant(), "{} | rate()"), metrics(tenant(), "{"), metrics(bad(), "{}")])
            .await
            .unwrap();
        let names = |tenant, query: &str| TagNamesJob { tenant, query: query.to_owned(), ..TagNamesJob::default() };
        alike(&live.tag_names, &[names(tenant(), ""), names(tenant(), "{"), names(bad(), "")]).await.unwrap();
        let values = |tenant, tag: &str| TagValuesJob { tenant, tag: tag.to_owned(), ..TagValuesJob::default() };
        let narrow = TagValuesJob { max_bytes: 10, ..values(tenant(), "name") };
        let asked = [values(tenant(), "name"), values(tenant(), "{"), values(bad(), "name"), narrow];
        let seen = alike(&live.tag_values, &asked).await.unwrap();
        assert!(seen[0].contains("span 2") && seen[3].starts_with("OutOfRange"), "{seen:?}");
        let early = |job: TagValuesJob| TagValuesJob { start_unix_nano: 1, end_unix_nano: 1, ..job };
        let names_early = TagNamesJob { start_unix_nano: 1, end_unix_nano: 1, ..names(tenant(), "") };
        let none = live.tag_values.call(early(values(tenant(), "name")), LONG).await.unwrap();
        assert_eq!(none.values, [], "no trace is as old as that");
        assert_eq!(live.tag_names.call(names_early, LONG).await.unwrap().scopes, []);
        let served = format!("{:?}", live.router().answers());
        for message in ["FindTraceRequest", "SearchJob", "MetricsJob", "TagNamesJob", "TagValuesJob"] {
            assert!(served.contains(&format!("/vivace.v1.LiveStore/{message}")), "{message}: {served}");
        }
        assert!(world.root.drain(LONG).await);
    });
}
