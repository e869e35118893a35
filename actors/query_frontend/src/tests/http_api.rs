use std::io::Read;
use std::time::Duration;

use futures::FutureExt;
use prost::Message;
use serde_json::json;
use vivace_protocol::vivace::{BlockListReply, BlockListRequest};
use vivace_protocol::{BlockEntry, tempopb};
use vivace_runtime::contract::each_form;
use vivace_runtime::{Bounds, Child, Cx, Endpoint, Part, Placement, Reply, Serve, Supervisor, SystemClock};

use super::fake::{LONG, NOW, Source, World, block_id, frontend};
use crate::Config;

fn source(traces: &[(u8, u64)], end: u64) -> Source {
    Source { traces: traces.to_vec(), end, ..Source::default() }
}

/// Recent data and three blocks, from the newest on.
fn world(world: &mut World) {
    world.recent("single-tenant", Source { names: vec!["b", "a"], ..source(&[(9, NOW - 10)], 0) });
    world.block("single-tenant", 1, Source { names: vec!["a", "c"], ..source(&[(8, NOW - 100)], NOW - 90) });
    world.block("single-tenant", 2, Source { names: vec!["d"], ..source(&[(7, NOW - 200)], NOW - 190) });
    world.block("single-tenant", 3, source(&[(6, NOW - 300)], NOW - 290));
}

/// One block a job, one job at a time.
fn one_by_one() -> Config {
    let mut config = Config::default();
    config.search.target_bytes_per_job = 1;
    config.search.concurrent_jobs = 1;
    config
}

fn range() -> String {
    format!("start={}&end={NOW}", NOW - 1000)
}

fn ids(answer: &serde_json::Value) -> Vec<String> {
    let traces = answer["traces"].as_array().unwrap();
    traces.iter().map(|trace| trace["traceID"].as_str().unwrap()[..1].to_owned()).collect()
}

#[actix::test]
async fn a_search_ends_when_nothing_older_can_change_the_answer() {
    let frontend = frontend(one_by_one(), false, world);
    let answer = frontend.get(&format!("/api/search?q=%7B%7D&limit=2&{}", range())).await;
    assert_eq!(ids(&answer.json()), ["9", "8"]);
    assert_eq!(answer.coverage(), "read=2/2");
    assert_eq!(
        answer.json()["metrics"],
        json!({
            "inspectedTraces": 2, "totalBlocks": 3, "completedJobs": 2, "totalJobs": 4, "totalBlockBytes": "3000",
        })
    );
    let asked = frontend.asked();
    assert_eq!(asked[0], "search single-tenant recent");
    assert_eq!(asked[1], "list single-tenant nothing known", "the list comes after recent data");
    assert_eq!(asked[2], format!("search single-tenant {}", block_id(1)));
    assert_eq!(asked.len(), 3, "{asked:?}");
    let all = frontend.get(&format!("/api/search?q=%7B%7D&{}", range())).await;
    assert_eq!(ids(&all.json()), ["9", "8", "7", "6"]);
    assert!(frontend.asked().contains(&"list single-tenant a version known".to_owned()));
    frontend.end().await;
}

#[actix::test]
async fn older_searches_have_no_spans() {
    let frontend = frontend(Config::default(), false, world);
    let answer = frontend.get(&format!("/api/search?tags=a%3Db&{}", range())).await.json();
    assert_eq!(ids(&answer).len(), 4);
    assert!(answer["traces"][0].get("spanSets").is_none() && answer["traces"][0].get("spanSet").is_none());
    let traceql = frontend.get(&format!("/api/search?q=%7B%7D&{}", range())).await.json();
    assert_eq!(traceql["traces"][0]["spanSets"], json!([{ "matched": 1 }]));
    frontend.end().await;
}

#[actix::test]
async fn what_was_not_read_is_said_in_the_header_and_on_request_in_the_body() {
    let broken = |world_: &mut World| {
        world(world_);
        world_.block("single-tenant", 2, Source { broken: Some("connection refused"), ..source(&[], NOW - 190) });
    };
    let found = frontend(Config::default(), false, broken);
    let search = format!("/api/search?q=%7B%7D&{}", range());
    let answer = found.get(&search).await;
    assert_eq!(ids(&answer.json()), ["9", "8", "6"]);
    let what = format!("block {}", block_id(2));
    assert_eq!(answer.coverage(), format!("read=3/4; skipped=\"{what}: connection refused\""));
    assert!(answer.json().get("coverage").is_none(), "clients decode strictly");
    let told = found.get(&format!("{search}&coverage=true")).await.json();
    let coverage = json!({ "total": 4, "read": 3, "skipped": [{ "what": what, "reason": "connection refused" }] });
    assert_eq!(told["coverage"], coverage);
    let protobuf = found.get_with(&format!("{search}&coverage=true"), &[("accept", "application/protobuf")]).await;
    assert_eq!(protobuf.status, 400);
    for tags in ["/api/v2/search/tags", "/api/search/tags", "/api/v2/search/tag/.x/values", "/api/search/tag/x/values"]
    {
        let told = found.get(&format!("{tags}?coverage=true&{}", range())).await;
        assert_eq!(told.json()["coverage"], coverage, "{tags}");
    }

    let id = "07".repeat(16);
    let v1 = found.get(&format!("/api/traces/{id}")).await;
    assert_eq!(v1.status, 503, "not found is said only when everything was asked");
    assert_eq!(v1.headers["retry-after"], "1");
    assert!(v1.coverage().starts_with("read=3/4; skipped="), "{}", v1.coverage());
    let absent = found.get(&format!("/api/traces/{}?mode=ingesters", "01".repeat(16))).await;
    assert_eq!((absent.status, absent.coverage()), (404, "read=1/1"));
    let explained = found.get(&format!("/api/traces/{}?mode=ingesters&explain=true", "09".repeat(16))).await.json();
    assert_eq!(explained["batches"][0]["scopeSpans"][0]["spans"][0]["name"], "span 9");
    assert_eq!(explained["explain"]["kind"], "trace");
    let v2 = found.get(&format!("/api/v2/traces/{id}")).await.json();
    assert_eq!(v2["status"], "PARTIAL");
    assert!(v2["message"].as_str().unwrap().contains("connection refused"), "{v2}");
    found.end().await;

    let strict = frontend(Config { require_complete: true, ..Config::default() }, false, broken);
    for path in ["/api/search?q=%7B%7D&", "/api/v2/search/tags?", "/api/v2/search/tag/.x/values?"] {
        let answer = strict.get(&format!("{path}{}", range())).await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.text().contains("connection refused"));
    }
    assert_eq!(strict.get(&format!("/api/v2/traces/{id}")).await.status, 503);
    strict.end().await;
}

#[actix::test]
async fn a_trace_is_looked_for_in_recent_data_and_then_in_ranges_of_blocks() {
    let mut config = Config::default();
    config.trace_by_id.blocks_per_shard = 1;
    let frontend = frontend(config, false, world);
    let id = "07".repeat(16);
    let answer = frontend.get(&format!("/api/v2/traces/{id}")).await;
    assert_eq!(answer.json()["trace"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"], "span 7");
    assert_eq!(answer.coverage(), "read=4/4");
    let asked = frontend.asked();
    assert_eq!(asked[..2], ["find single-tenant recent", "list single-tenant nothing known"]);
    let mut blocks: Vec<&str> = asked[2..].iter().flat_map(|a| a.split(' ').skip(2)).collect();
    blocks.sort_unstable();
    assert_eq!(blocks, [1, 2, 3].map(|n| block_id(n).to_string()), "each block once");

    let found = |answer: &super::fake::Answer| answer.status;
    assert_eq!(found(&frontend.get(&format!("/api/traces/{id}?mode=ingesters")).await), 404);
    assert_eq!(frontend.asked(), ["find single-tenant recent"]);
    assert_eq!(found(&frontend.get(&format!("/api/traces/{id}?mode=blocks")).await), 200);
    assert!(!frontend.asked().contains(&"find single-tenant recent".to_owned()));
    let other = format!("/api/traces/{id}?mode=blocks&blockStart={}", block_id(3));
    assert_eq!(found(&frontend.get(&other).await), 404);
    assert_eq!(found(&frontend.get(&format!("/api/traces/{id}?mode=external")).await), 500);
    frontend.end().await;
}

#[actix::test]
async fn one_end_of_a_range_alone_is_no_range() {
    let frontend = frontend(Config::default(), false, world);
    let trace = format!("/api/traces/{}", "06".repeat(16));
    assert_eq!(frontend.get(&format!("{trace}?start={NOW}")).await.status, 200);
    assert_eq!(frontend.get(&format!("{trace}?start={}&end={NOW}", NOW - 1)).await.status, 404);
    frontend.end().await;
}

#[actix::test]
async fn a_trace_has_the_form_that_was_asked_for() {
    let frontend = frontend(Config::default(), false, world);
    let id = "09".repeat(16);
    let (v1, v2) = (format!("/api/traces/{id}"), format!("/api/v2/traces/{id}"));
    let json = frontend.get(&v1).await;
    assert_eq!(json.headers["content-type"], "application/json");
    assert_eq!(json.headers["vary"], "Accept-Encoding");
    assert!(json.text().starts_with("{\"batches\":[{\"resource\":{},"), "{}", json.text());
    let protobuf = [("accept", "application/protobuf")];
    let answer = frontend.get_with(&v1, &protobuf).await;
    assert_eq!(answer.headers["content-type"], "application/protobuf");
    assert_eq!(tempopb::Trace::decode(answer.body).unwrap().resource_spans.len(), 1);
    let answer = tempopb::TraceByIdResponse::decode(frontend.get_with(&v2, &protobuf).await.body).unwrap();
    assert_eq!(answer.trace.unwrap().resource_spans.len(), 1);
    let models = frontend.get_with(&v2, &[("accept", "application/vnd.grafana.llm")]).await;
    assert_eq!(models.headers["content-type"], "application/vnd.grafana.llm+json");
    assert_eq!(models.json()["trace"]["traceId"], id);
    assert_eq!(models.json()["status"], "COMPLETE");

    let missing = "/api/v2/traces/1";
    assert_eq!(frontend.get(missing).await.text(), "{\"trace\":{},\"metrics\":{\"inspectedBytes\":\"20\"}}");
    let answer = tempopb::TraceByIdResponse::decode(frontend.get_with(missing, &protobuf).await.body).unwrap();
    assert_eq!(answer.trace, Some(tempopb::Trace::default()));
    let v1 = frontend.get("/api/traces/1").await;
    assert_eq!((v1.status, v1.text(), v1.headers.get("content-type")), (404, "", None));
    frontend.end().await;
}

#[actix::test]
async fn a_filter_keeps_matching_spans_and_says_so() {
    let frontend = frontend(Config::default(), false, world);
    let id = "09".repeat(16);
    let kept = frontend.get(&format!("/api/v2/traces/{id}?q=%7Bname%3D%22span%209%22%7D")).await.json();
    assert!(kept.get("status").is_none(), "{kept}");
    let dropped = frontend.get(&format!("/api/v2/traces/{id}?q=%7Bname%3D%22other%22%7D")).await.json();
    assert_eq!(dropped["trace"], json!({}));
    assert_eq!(dropped["status"], "PARTIAL");
    assert_eq!(dropped["message"], "Trace filtered, only a subset of spans matching the filter is returned");
    let bad = frontend.get(&format!("/api/v2/traces/{id}?q=%7B%7D%20%7C%20rate()")).await;
    assert_eq!(bad.status, 400);
    frontend.end().await;
}

#[actix::test]
async fn names_come_by_scope_sorted_within_the_limit() {
    let frontend = frontend(one_by_one(), false, world);
    let names = frontend.get(&format!("/api/v2/search/tags?{}", range())).await.json();
    let scopes = names["scopes"].as_array().unwrap();
    assert_eq!(scopes.iter().map(|s| s["name"].as_str().unwrap()).collect::<Vec<_>>(), ["intrinsic", "span"]);
    assert_eq!(scopes[0]["tags"].as_array().unwrap().len(), 25);
    assert_eq!(scopes[1]["tags"], json!(["a", "b", "c", "d"]));
    assert_eq!(names["metrics"]["completedJobs"], 4);
    frontend.asked();

    let few = frontend.get(&format!("/api/v2/search/tags?scope=span&limit=2&{}", range())).await.json();
    assert_eq!(few["scopes"], json!([{ "name": "span", "tags": ["a", "b"] }]));
    assert_eq!(frontend.asked(), ["names single-tenant recent"], "full, so that no block is asked");
    let stale = frontend.get(&format!("/api/v2/search/tags?scope=span&maxStaleValues=1&{}", range())).await.json();
    assert_eq!(stale["scopes"], json!([{ "name": "span", "tags": ["a", "b"] }]));

    let v1 = frontend.get(&format!("/api/search/tags?{}", range())).await.json();
    assert_eq!(v1["tagNames"], json!(["a", "b", "c", "d"]));
    frontend.asked();
    let intrinsics = frontend.get(&format!("/api/v2/search/tags?scope=intrinsic&{}", range())).await.json();
    assert_eq!(intrinsics["scopes"].as_array().unwrap().len(), 1);
    assert_eq!(frontend.asked(), Vec::<String>::new(), "nobody has to be asked for these");
    assert_eq!(
        frontend.get(&format!("/api/search/tags?scope=intrinsic&{}", range())).await.json()["tagNames"]
            .as_array()
            .unwrap()
            .len(),
        25
    );
    frontend.get(&format!("/api/v2/search/tags?q=%7B%20.a%20%3D%201%20%26%26%20.b%20%3D%20%7D&{}", range())).await;
    assert_eq!(frontend.asked()[0], "names of { .a = 1 } single-tenant recent", "the unfinished condition is left out");
    frontend.end().await;
}

#[actix::test]
async fn values_come_with_their_types_and_without_in_the_first_version() {
    let frontend = frontend(Config::default(), false, world);
    let v2 = format!("/api/v2/search/tag/resource.service.name/values?{}", range());
    let values = frontend.get(&v2).await.json();
    assert_eq!(values["tagValues"][0], json!({ "type": "string", "value": "a" }));
    assert_eq!(values["tagValues"].as_array().unwrap().len(), 4);
    assert_eq!(frontend.asked()[0], "values of resource.service.name single-tenant recent");
    let models = frontend.get_with(&v2, &[("accept", "application/vnd.grafana.llm")]).await;
    assert_eq!(models.json()["tagValues"], json!({ "string": ["a", "b", "c", "d"] }));
    let twice = frontend.get(&format!("/api/v2/search/tag/span.%2522with%2520space%2522/values?{}", range())).await;
    assert_eq!(twice.status, 200, "{}", twice.text());
    assert!(frontend.asked().contains(&"values of span.\"with space\" single-tenant recent".to_owned()));

    let v1 = frontend.get(&format!("/api/search/tag/a/b.c/values?{}", range())).await.json();
    assert_eq!(v1["tagValues"], json!(["a", "b", "c", "d"]));
    assert_eq!(frontend.asked()[0], "values of .\"a/b.c\" single-tenant recent");
    let status = frontend.get(&format!("/api/search/tag/status.code/values?{}", range())).await.json();
    assert_eq!(status["tagValues"], json!(["error", "ok", "unset"]));
    let error = frontend.get(&format!("/api/search/tag/error/values?{}", range())).await.json();
    assert_eq!(error["tagValues"], json!(["true"]));
    frontend.end().await;
}

#[actix::test]
async fn bad_requests_are_refused_with_the_words_that_clients_know() {
    let config = Config {
        max_query_expression_size_bytes: 50,
        url_deny_list: vec!["limit=66+".to_owned()],
        ..Config::default()
    };
    let frontend = frontend(config, false, world);
    let cases = [
        ("/api/traces/xyz", "trace IDs can only contain hex characters: invalid character 'x' at position 1"),
        ("/api/traces/1?mode=foo", "invalid value for mode foo"),
        ("/api/v2/traces/1?start=5&end=4", "http parameter start must be before end. received start=5 end=4"),
        ("/api/traces/1?start=5&end=0", "http parameter start must be before end. received start=5 end=0"),
        ("/api/search?q=%7B%7D&tags=a%3Db", "invalid request: can't specify tags and q in the same query"),
        ("/api/search?tags=x%3D1%20x%3D2", "invalid tags: tag x has been set twice"),
        ("/api/search?limit=0", "invalid limit: must be a positive number"),
        ("/api/search?limit=300000", "limit 300000 exceeds max limit 262144"),
        ("/api/search?spss=101", "spans per span set exceeds 100. received 101"),
        ("/api/search?start=5&end=1", "http parameter start must be before end. received start=5 end=1"),
        (
            "/api/search?end=5",
            "error parsing date range: only one of start and end provided: must provide both or neither",
        ),
        ("/api/search/tags?scope=foo", "invalid scope: foo"),
        ("/api/v2/search/tag//values", "please provide a non-empty tagName"),
        ("/api/search?coverage=maybe", "invalid coverage: strconv.ParseBool: parsing \"maybe\": invalid syntax"),
    ];
    for (uri, text) in cases {
        let answer = frontend.get(uri).await;
        assert_eq!((answer.status, answer.text()), (400, text), "{uri}");
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    }
    let starts = [
        ("/api/search?q=%7B", "invalid TraceQL query: parse error at line 1, col 2"),
        (
            "/api/v2/search/tag/foo%20bar/values",
            "please provide a valid tagName: failed to parse identifier foo bar: parse",
        ),
        ("/api/v2/search/tags?start=20&end=10", "http parameter start must be before end"),
    ];
    for (uri, text) in starts {
        let answer = frontend.get(uri).await;
        assert_eq!(answer.status, 400, "{uri}");
        assert!(answer.text().starts_with(text), "{uri}: {}", answer.text());
    }
    let long = frontend.get(&format!("/api/search?q=%7B{}%7D", "+".repeat(60))).await;
    assert!(long.text().starts_with("TraceQL expression exceeds the configured maximum size of 50 bytes"));
    let denied = frontend.get("/api/search?limit=6666").await;
    assert_eq!(denied.status, 400);
    assert!(denied.text().ends_with("/api/search?limit=6666"), "{}", denied.text());
    assert_eq!(frontend.get("/api/echo").await.text(), "echo\n");
    frontend.end().await;
}

#[actix::test]
async fn two_traces_are_compared() {
    let frontend = frontend(Config::default(), false, world);
    let post = async |method: &str, body: serde_json::Value| {
        let (status, text) = frontend.send(method, "/api/v2/traces/diff", body.to_string()).await;
        (status, text)
    };
    let side = |n: &str| json!({ "traceId": n.repeat(16) });
    let (status, text) = post("POST", json!({ "base": side("09"), "compare": side("08") })).await;
    assert_eq!(status, 200, "{text}");
    let patch: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(patch["version"], "trace-patch-v0");
    assert_eq!((&patch["stats"]["addedSpans"], &patch["stats"]["removedSpans"]), (&json!(1), &json!(1)));
    let told = [
        (json!({}), 400, "base.traceId is required"),
        (
            json!({ "base": side("09"), "compare": { "traceId": "x" } }),
            400,
            "invalid compare.traceId: trace IDs can only",
        ),
        (json!({ "base": side("09"), "compare": side("aa") }), 404, "Not Found"),
        (json!({ "base": side("09"), "compare": 1 }), 400, "invalid trace diff request body: "),
        (json!({ "base": side("09"), "of a later version": 1 }), 400, "compare.traceId is required"),
        (json!({ "format": "x" }), 400, "invalid format \"x\": must be one of "),
        (
            json!({ "base": { "traceId": "1", "start": 5, "end": 4 }, "compare": side("08") }),
            400,
            "base.start must be before base.end. received start=5 end=4",
        ),
    ];
    for (body, due, start) in told {
        let (status, text) = post("POST", body.clone()).await;
        assert_eq!(status, due, "{body}");
        assert!(text.starts_with(start), "{body}: {text}");
    }
    assert_eq!(post("GET", json!({})).await, (405, "Method Not Allowed".to_owned()));
    frontend.end().await;

    let partial = super::fake::frontend(Config::default(), false, |world_| {
        world(world_);
        world_.block("single-tenant", 2, Source { broken: Some("gone"), ..Source::default() });
    });
    let body = json!({ "base": side("09"), "compare": side("08") });
    let (status, text) = partial.send("POST", "/api/v2/traces/diff", body.to_string()).await;
    assert_eq!(status, 422);
    assert!(text.ends_with("partial traces cannot be diffed"), "{text}");
    partial.end().await;
}

/// Recorded from Tempo (main, 2026-08-21).
#[actix::test]
async fn queries_that_are_wrong_are_refused_word_by_word_as_tempo_does() {
    let frontend = frontend(Config::default(), false, world);
    let told = [
        ("{", "parse error at line 1, col 2: syntax error: unexpected $end"),
        ("{ foo = }", "parse error at line 1, col 3: unknown identifier: foo"),
        ("{ span.a = 1 } | rat()", "parse error at line 1, col 18: syntax error: unexpected IDENTIFIER"),
        ("{ duration > \"x\" }", "binary operations must operate on the same type: duration > `x`"),
        ("{ .a =~ \"(\" }", "invalid regex: `(`"),
        ("{ status = purple }", "parse error at line 1, col 12: unknown identifier: purple"),
        ("{} | topk(3)", "parse error at line 1, col 6: syntax error: unexpected topk"),
        ("{ span.a + 1 }", "span filter field expressions must resolve to a boolean: { span.a + 1 }"),
    ];
    for (query, text) in told {
        let encoded: String = query.bytes().map(|b| format!("%{b:02X}")).collect();
        let answer = frontend.get(&format!("/api/search?q={encoded}&{}", range())).await;
        assert_eq!((answer.status, answer.text()), (400, &*format!("invalid TraceQL query: {text}")), "{query}");
    }
    assert_eq!(frontend.asked(), Vec::<String>::new());
    frontend.end().await;
}

#[actix::test]
async fn tenants_are_kept_apart_and_joined_on_request() {
    let frontend = frontend(Config::default(), true, |world| {
        world.recent("a", source(&[(1, NOW - 10)], 0));
        world.recent("b", source(&[(2, NOW - 20)], 0));
        world.block("b", 3, source(&[(3, NOW - 5)], NOW));
    });
    let uri = format!("/api/search?q=%7B%7D&{}", range());
    let of = async |tenant: &str| frontend.get_with(&uri, &[("x-scope-orgid", tenant)]).await;
    assert_eq!(ids(&of("a").await.json()), ["1"]);
    assert_eq!(ids(&of("b|a|b").await.json()), ["3", "1", "2"]);
    assert_eq!(ids(&of("c").await.json()), Vec::<String>::new());
    let missing = frontend.get(&uri).await;
    assert_eq!((missing.status, missing.text()), (401, "no org id\n"));
    let bad = of("a b").await;
    assert_eq!((bad.status, bad.text()), (400, "tenant ID 'a b' contains unsupported character ' '"));
    frontend.end().await;
}

#[actix::test]
async fn a_query_that_takes_too_long_is_ended() {
    let config = Config { api_timeout: "5s".parse().unwrap(), ..Config::default() };
    let frontend = frontend(config, false, |world| {
        world.recent("single-tenant", Source { hangs: true, ..Source::default() });
    });
    let uri = format!("/api/search?q=%7B%7D&{}", range());
    let mut running = Box::pin(frontend.get(&uri));
    while frontend.clock.sleepers() == 0 {
        assert!((&mut running).now_or_never().is_none());
    }
    frontend.clock.advance(Duration::from_secs(5));
    let answer = running.await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.text(), "unable to process request in the configured timeout");
    frontend.end().await;
}

#[actix::test]
async fn a_search_over_its_time_says_which_limit_and_what_would_help() {
    let mut config = Config::default();
    config.search.timeout = "20ms".parse().unwrap();
    let frontend = frontend(config, false, |world| {
        world.recent("single-tenant", Source { hangs: true, ..Source::default() });
    });
    for path in ["/api/search?q=%7B%7D&", "/api/v2/search/tags?", "/api/v2/search/tag/.x/values?"] {
        let answer = frontend.get(&format!("{path}{}", range())).await;
        assert_eq!(answer.status, 504, "{path}");
        assert!(
            answer.text().contains("took longer than 20ms (limit query_frontend.search.timeout)"),
            "{}",
            answer.text()
        );
    }
    frontend.end().await;
}

#[actix::test]
async fn large_answers_are_compressed_for_who_takes_it() {
    let frontend = frontend(Config::default(), false, |world| {
        let traces: Vec<_> = (0..20).map(|n| (n, NOW - 10)).collect();
        world.recent("single-tenant", source(&traces, 0));
    });
    let uri = format!("/api/search?q=%7B%7D&{}", range());
    let plain = frontend.get(&uri).await;
    assert!(plain.headers.get("content-encoding").is_none());
    let packed = frontend.get_with(&uri, &[("accept-encoding", "deflate, gzip;q=1.0")]).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.len() < plain.body.len());
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&*packed.body).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    frontend.end().await;
}

struct ManyBlocks(BlockListReply);

impl Part for ManyBlocks {}

impl Serve<BlockListRequest> for ManyBlocks {
    type Reply = BlockListReply;

    fn serve(&mut self, request: BlockListRequest, _cx: &mut Cx<Self>) -> Reply<BlockListReply> {
        let list = &self.0;
        Reply::ok(if list.version == request.known_version { list.unchanged() } else { list.clone() })
    }
}

#[actix::test]
async fn tens_of_thousands_of_blocks_are_one_answer_in_every_form() {
    let entry = |n: u32| BlockEntry {
        id: u128::from(n).to_be_bytes(),
        start_unix_nano: NOW,
        end_unix_nano: NOW + u64::from(n),
        size_bytes: 1,
        objects: 1,
        row_groups: 1,
        replication_factor: 1,
    };
    let due: Vec<_> = (0..50_000).map(entry).collect();
    let root = Supervisor::root("root", std::sync::Arc::new(SystemClock), Placement::Here);
    let child = Child::<ManyBlocks>::new("blocks", Bounds::messages(4));
    let local = Endpoint::local(child.mailbox());
    let list = BlockListReply::of(due.clone(), true);
    root.add(child, move |_| Ok(ManyBlocks(list.clone())));
    root.start();
    each_form(local, async |form, endpoint| {
        let first = endpoint.call(BlockListRequest::default(), LONG).await.unwrap();
        assert_eq!(first.entries().unwrap(), due, "{form:?}");
        let request = BlockListRequest { known_version: first.version, ..BlockListRequest::default() };
        let second = endpoint.call(request, LONG).await.unwrap();
        assert!(second.unchanged && second.ids.is_empty(), "{form:?}");
    })
    .await
    .unwrap();
    root.drain(LONG).await;
}

#[actix::test]
async fn a_query_whose_results_take_too_much_memory_stops_and_names_the_limit() {
    let due = |limit: u64| {
        format!(
            "the results of the query take more than {limit} bytes (limit query_frontend.search.max_result_bytes): use a \
             smaller limit or spss, a more selective filter, fewer select() or by() fields or a shorter range, or raise the limit"
        )
    };
    let mut config = Config::default();
    config.search.max_result_bytes = 100;
    let small = frontend(config, false, world);
    for path in ["/api/search?q=%7B%7D&", "/api/v2/search/tags?", "/api/search/tags?", "/api/v2/search/tag/.x/values?"]
    {
        let answer = small.get(&format!("{path}{}", range())).await;
        assert_eq!((answer.status, answer.text()), (422, due(100).as_str()), "{path}");
    }
    small.end().await;
    // A querier that has to hold too much says so, and nobody is asked a second time.
    let full = |world_: &mut World| {
        world(world_);
        world_.block("single-tenant", 2, Source { over: true, ..source(&[], NOW - 190) });
    };
    let large = frontend(Config::default(), false, full);
    let answer = large.get(&format!("/api/search?q=%7B%7D&{}", range())).await;
    assert_eq!((answer.status, answer.text()), (422, due(268_435_456).as_str()));
    let asked = large.asked();
    assert_eq!(asked.iter().filter(|asked| asked.contains(&block_id(2).to_string())).count(), 1, "{asked:?}");
    large.end().await;
}
