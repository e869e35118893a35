//! The endpoints over a querier that holds spans in memory: whole answers, what is counted once, what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::Request as HttpRequest;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tonic::Status;
use tower::ServiceExt;
use uuid::Uuid;
use vivace_protocol::BlockEntry;
use vivace_protocol::vivace::{
    BlockListReply, BlockListRequest, Coverage, FindTraceBatch, FindTraceRequest, MetricsBatch, MetricsJob, Profile,
    ProfileColumn, SearchBatch, SearchJob, Skipped, TagNamesJob, TagNamesReply, TagValuesJob, TagValuesReply,
};
use vivace_runtime::{
    Bounds, Child, Cx, Endpoint, FakeClock, Part, Placement, Reply, Serve, StreamEndpoint, Supervisor,
};
use vivace_storage::query as engine;
use vivace_traceql::memory::{MemorySpan, MemoryTrace};
use vivace_traceql::{MemorySource, Value};

use super::*;
use crate::config::{Config, MetricsConfig};
use crate::limits::Limits;
use crate::planner::{Queriers, RecentData};
use crate::supervisor::{Setup, add};

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_700_000_000;

struct NoLimits;

impl Limits for NoLimits {
    fn max_bytes_per_trace(&self, _tenant: &TenantId) -> usize {
        0
    }

    fn max_search_duration(&self, _tenant: &TenantId) -> Duration {
        Duration::ZERO
    }

    fn max_metrics_duration(&self, tenant: &TenantId) -> Duration {
        if tenant.as_str() == "short" { Duration::from_secs(60) } else { Duration::ZERO }
    }

    fn max_bytes_per_tag_values_query(&self, _tenant: &TenantId) -> usize {
        0
    }

    fn left_pad_trace_ids(&self, _tenant: &TenantId) -> bool {
        false
    }
}

/// One trace with one span of a service.
fn span(service: &str, start: u64) -> MemoryTrace {
    let resource = vec![("service.name".into(), Value::Str(service.into()))];
    let span = MemorySpan {
        id: start.to_be_bytes(),
        start_ns: start * SECOND,
        duration_ns: SECOND / 2,
        resource: Arc::new(resource),
        ..MemorySpan::default()
    };
    let mut id = [7; 16];
    id[8..].copy_from_slice(&start.to_be_bytes());
    MemoryTrace { id, spans: vec![span] }
}

/// What the querier holds and does.
#[derive(Default)]
struct Data {
    recent: Vec<MemoryTrace>,
    /// By number, with their traces.
    blocks: Vec<(u8, Vec<MemoryTrace>)>,
    /// Blocks that the answer about recent data holds.
    held: Vec<u8>,
    /// A block that cannot be read.
    broken: Option<u8>,
    /// Metrics jobs never end; this becomes true when one is dropped.
    hangs: Option<Arc<AtomicBool>>,
    /// Metrics jobs end so.
    refuses: Option<Status>,
    jobs: Mutex<Vec<MetricsJob>>,
}

fn block_id(number: u8) -> String {
    Uuid::from_bytes([number; 16]).to_string()
}

struct Querier(Arc<Data>);

impl Part for Querier {}

struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Serve<MetricsJob> for Querier {
    type Reply = BoxStream<'static, Result<MetricsBatch, Status>>;

    fn serve(&mut self, job: MetricsJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        let data = &self.0;
        data.jobs.lock().push(job.clone());
        if let Some(flag) = &data.hangs {
            let guard = Dropped(Arc::clone(flag));
            let never = stream::pending().map(move |never| {
                let _until_the_stream_is_dropped = &guard;
                never
            });
            return Reply::ok(never.boxed());
        }
        if let Some(status) = data.refuses.clone() {
            return Reply::ok(stream::iter([Err(status)]).boxed());
        }
        let mut batches = Vec::new();
        let evaluate = |traces: &[MemoryTrace]| {
            let source = MemorySource::new(traces.to_vec(), 100);
            let mut batch = engine::metrics(&source, &job, &|| false).unwrap();
            batch.coverage = Some(Coverage { total: 1, read: 1, ..Coverage::default() });
            batch
        };
        if job.block_ids.is_empty() {
            let held_block_ids = data.held.iter().copied().map(block_id).collect();
            batches.push(Ok(MetricsBatch { held_block_ids, ..evaluate(&data.recent) }));
        }
        for (number, traces) in data.blocks.iter().filter(|(number, _)| job.block_ids.contains(&block_id(*number))) {
            if data.broken == Some(*number) {
                let skipped = vec![Skipped { what: format!("block {number}"), reason: "gone".to_owned() }];
                let coverage = Some(Coverage { total: 1, skipped, ..Coverage::default() });
                batches.push(Ok(MetricsBatch { coverage, ..MetricsBatch::default() }));
                continue;
            }
            let column = ProfileColumn { path: "rs.x".to_owned(), bytes: 5, ..ProfileColumn::default() };
            let profile = Profile { columns: vec![column], blocks_opened: 1, ..Profile::default() };
            batches.push(Ok(MetricsBatch { profile: job.explain.then_some(profile), ..evaluate(traces) }));
        }
        Reply::ok(stream::iter(batches).boxed())
    }
}

impl Serve<BlockListRequest> for Querier {
    type Reply = BlockListReply;

    fn serve(&mut self, _request: BlockListRequest, _cx: &mut Cx<Self>) -> Reply<BlockListReply> {
        let entries = self.0.blocks.iter().map(|(number, traces)| {
            let starts = traces.iter().flat_map(|trace| &trace.spans).map(|span| span.start_ns);
            BlockEntry {
                id: [*number; 16],
                start_unix_nano: starts.clone().min().unwrap_or(0),
                end_unix_nano: starts.max().unwrap_or(0),
                size_bytes: 10,
                objects: 1,
                row_groups: 1,
                // Blocks above 100 were written several times.
                replication_factor: if *number > 100 { 3 } else { 1 },
            }
        });
        Reply::ok(BlockListReply::of(entries.collect::<Vec<_>>(), true))
    }
}

macro_rules! not_asked {
    ($($message:ty => $reply:ty),*) => {
        $(impl Serve<$message> for Querier {
            type Reply = $reply;

            fn serve(&mut self, _message: $message, _cx: &mut Cx<Self>) -> Reply<$reply> {
                Reply::err(Status::unimplemented("these tests ask for metrics only"))
            }
        })*
    };
}

not_asked!(
    FindTraceRequest => BoxStream<'static, Result<FindTraceBatch, Status>>,
    SearchJob => BoxStream<'static, Result<SearchBatch, Status>>,
    TagNamesJob => TagNamesReply,
    TagValuesJob => TagValuesReply
);

struct World {
    router: axum::Router,
    data: Arc<Data>,
    root: Supervisor,
}

struct Told {
    status: u16,
    headers: http::HeaderMap,
    body: String,
}

impl World {
    fn start(data: Data, config: Config, multitenancy: bool) -> Self {
        Self::sharing(data, config, multitenancy, RecentData::HandedOver)
    }

    fn sharing(data: Data, config: Config, multitenancy: bool, recent: RecentData) -> Self {
        let clock = Arc::new(FakeClock::at(Duration::from_secs(NOW)));
        let root = Supervisor::root("root", clock.clone(), Placement::Here);
        let querier = Child::<Querier>::new("querier", Bounds::messages(64));
        let queriers = Queriers {
            find: StreamEndpoint::local(querier.mailbox()),
            search: StreamEndpoint::local(querier.mailbox()),
            tag_names: Endpoint::local(querier.mailbox()),
            tag_values: Endpoint::local(querier.mailbox()),
            metrics: StreamEndpoint::local(querier.mailbox()),
            blocks: Endpoint::local(querier.mailbox()),
        };
        let data = Arc::new(data);
        let held = Arc::clone(&data);
        root.add(querier, move |_| Ok(Querier(Arc::clone(&held))));
        let setup = Setup {
            config,
            multitenancy,
            prefix: String::new(),
            max_running: 20,
            links: None,
            recent,
            limits: Arc::new(NoLimits),
            queriers,
            clock,
        };
        let served = add(&root, setup, Placement::Here).unwrap();
        root.start();
        Self { router: served.http, data, root }
    }

    async fn get(&self, path: &str, tenant: Option<&str>) -> Told {
        let mut request = HttpRequest::get(path);
        if let Some(tenant) = tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Told { status, headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    async fn json(&self, path: &str) -> Json {
        let told = self.get(path, None).await;
        assert_eq!(told.status, 200, "{}", told.body);
        assert_eq!(told.headers["content-type"], "application/json");
        serde_json::from_str(&told.body).unwrap()
    }
}

fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
}

/// Spans of the cart at seconds 5 and 25, of the shop at second 15 and long before. The cart's second one is in the recent
/// data and in block 3, which has just been written from it.
fn shop() -> Data {
    Data {
        recent: vec![span("cart", 1_699_990_025)],
        blocks: vec![
            (1, vec![span("cart", 1_699_990_005)]),
            (2, vec![span("shop", 1_699_990_015)]),
            (3, vec![span("cart", 1_699_990_025)]),
            (4, vec![span("shop", 1_699_000_000)]),
            (101, vec![span("shop", 1_699_990_016)]),
        ],
        held: vec![3],
        ..Data::default()
    }
}

const COUNTS: &str = "/api/metrics/query_range?q=%7B%7D%7Ccount_over_time()by(resource.service.name)with(exemplars%3Dfalse)\
                      &start=1699990000&end=1699990030&step=10";
const COUNT: &str =
    "/api/metrics/query?q=%7B%7D%7Ccount_over_time()by(resource.service.name)&start=1699990000&end=1699990030";

#[test]
fn a_span_that_is_in_recent_data_and_in_blocks_counts_once_wherever_the_cut_falls() {
    run(async {
        let spans = || vec![span("cart", 1_699_990_005), span("shop", 1_699_990_015), span("cart", 1_699_990_025)];
        let alone = Data { recent: spans(), ..Data::default() };
        let alone = World::start(alone, Config::default(), false);
        let (ranged, instant) = (alone.json(COUNTS).await["series"].clone(), alone.json(COUNT).await["series"].clone());
        // Before the range, on a span, between spans, on the end of the range, after it.
        for cut in [1_699_980_000, 1_699_990_000, 1_699_990_015, 1_699_990_020, 1_699_990_030, 1_699_999_990] {
            let data = Data { recent: spans(), blocks: vec![(1, spans())], ..Data::default() };
            let age = format!("{}s", NOW - cut);
            let metrics = MetricsConfig { query_backend_after: age.parse().unwrap(), ..MetricsConfig::default() };
            let config = Config { metrics, ..Config::default() };
            let world = World::sharing(data, config, false, RecentData::Shared);
            assert_eq!(world.json(COUNTS).await["series"], ranged, "{cut}");
            assert_eq!(world.json(COUNT).await["series"], instant, "{cut}");
            world.root.drain(Duration::ZERO).await;
        }
        alone.root.drain(Duration::ZERO).await;
    });
}

#[test]
fn every_span_counts_once_wherever_it_lies() {
    run(async {
        let world = World::start(shop(), Config::default(), false);
        let answer = world.json(COUNTS).await;
        let series = json!([
            {
                "labels": [{"key": "resource.service.name", "value": {"stringValue": "cart"}}],
                "samples": [
                    {"timestampMs": "1699990000000"},
                    {"timestampMs": "1699990010000", "value": 1},
                    {"timestampMs": "1699990020000"},
                    {"timestampMs": "1699990030000", "value": 1},
                ],
            },
            {
                "labels": [{"key": "resource.service.name", "value": {"stringValue": "shop"}}],
                "samples": [
                    {"timestampMs": "1699990000000"},
                    {"timestampMs": "1699990010000"},
                    {"timestampMs": "1699990020000", "value": 1},
                    {"timestampMs": "1699990030000"},
                ],
            },
        ]);
        assert_eq!(answer["series"], series);
        let metrics = &answer["metrics"];
        // The held block, the one written several times and the one of another time were not read.
        assert_eq!(
            (&metrics["totalBlocks"], &metrics["totalJobs"], &metrics["completedJobs"]),
            (&json!(2), &json!(2), &json!(2))
        );
        let fields: Vec<&String> = answer.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["series", "metrics"]);
        let asked: Vec<Vec<String>> = world.data.jobs.lock().iter().map(|job| job.block_ids.clone()).collect();
        assert_eq!(asked, [vec![], vec![block_id(2), block_id(1)]]);
        assert!(world.root.drain(Duration::from_secs(10)).await);
    });
}

#[test]
fn an_instant_query_has_one_value_a_series_and_leaves_out_an_empty_list() {
    run(async {
        let world = World::start(shop(), Config::default(), false);
        let answer = world.json(COUNT).await;
        assert_eq!(
            answer["series"],
            json!([
                {"labels": [{"key": "resource.service.name", "value": {"stringValue": "cart"}}], "value": 2},
                {"labels": [{"key": "resource.service.name", "value": {"stringValue": "shop"}}], "value": 1},
            ])
        );
        let none = world
            .json("/api/metrics/query?q=%7B.a%3D1%7D%7Ccount_over_time()by(.b)&start=1699990000&end=1699990030")
            .await;
        assert!(none.get("series").is_none(), "{none}");
        assert!(world.root.drain(Duration::from_secs(10)).await);
    });
}

#[test]
fn what_no_span_can_match_asks_nobody() {
    run(async {
        let world = World::start(shop(), Config::default(), false);
        let told =
            world.get("/api/metrics/query_range?q=%7Bfalse%7D%7Crate()&start=1699990000&end=1699990030", None).await;
        assert_eq!(told.body, "{\"series\":[],\"metrics\":{}}");
        assert!(world.data.jobs.lock().is_empty());
        assert!(world.root.drain(Duration::from_secs(10)).await);
    });
}

#[test]
fn an_incomplete_answer_says_so_in_status_message_and_header() {
    run(async {
        let world = World::start(Data { broken: Some(2), ..shop() }, Config::default(), false);
        let told = world.get(COUNTS, None).await;
        let answer: Json = serde_json::from_str(&told.body).unwrap();
        assert_eq!((told.status, answer["status"].as_str()), (200, Some("PARTIAL")));
        assert_eq!(answer["message"], "1 of 3 sources were not read; block 2: gone");
        assert_eq!(answer["series"].as_array().unwrap().len(), 1);
        assert!(told.headers["x-vivace-coverage"].to_str().unwrap().starts_with("read=2/3"));
        assert!(world.root.drain(Duration::from_secs(10)).await);
        let strict = Config { require_complete: true, ..Config::default() };
        let world = World::start(Data { broken: Some(2), ..shop() }, strict, false);
        assert_eq!(world.get(COUNTS, None).await.status, 503);
        assert!(world.root.drain(Duration::from_secs(10)).await);
    });
}

#[test]
fn too_many_series_are_cut_with_tempos_words() {
    run(async {
        let world = World::start(shop(), Config::default(), false);
        let answer = world.json(&format!("{COUNTS}&maxSeries=1")).await;
        assert_eq!(answer["series"].as_array().unwrap().len(), 1);
        assert_eq!(answer["status"], "PARTIAL");
        assert_eq!(
            answer["message"],
            "Response exceeds maximum series limit of 1, a partial response is returned. Warning: the accuracy of each \
             individual value is not guaranteed."
        );
        assert!(world.root.drain(Duration::from_secs(10)).await);
    });
}

#[test]
fn a_query_over_its_memory_stops_and_names_the_limit() {
    run(async {
        let metrics = MetricsConfig { max_series_bytes: 200, ..MetricsConfig::default() };
        let world = World::start(shop(), Config { metrics, ..Config::default() }, false);
        let told = world.get(COUNTS, None).await;
        assert_eq!(told.status, 400, "{}", told.body);
        assert!(
            told.body.contains("more than 200 bytes (limit query_frontend.metrics.max_series_bytes)"),
            "{}",
            told.body
        );
        assert!(told.body.contains("use fewer by()"), "{}", told.body);
        assert!(world.root.drain(Duration::from_secs(10)).await);
    });
}

#[test]
fn a_full_queue_asks_for_another_attempt_and_series_too_large_for_a_job_do_not() {
    run(async {
        let busy = Status::resource_exhausted("the queue of compute is full");
        let large = Status::out_of_range("the series take too much memory");
        for (refusal, code, again) in [(busy, 429, Some("1")), (large, 400, None)] {
            let world = World::start(Data { refuses: Some(refusal.clone()), ..shop() }, Config::default(), false);
            let told = world.get(COUNTS, None).await;
            assert_eq!((told.status, told.body.as_str()), (code, refusal.message()));
            assert_eq!(told.headers.get("retry-after").map(|after| after.to_str().unwrap()), again);
            assert!(world.root.drain(Duration::from_secs(10)).await);
        }
    });
}

#[test]
fn a_query_over_its_time_stops_and_names_the_limit() {
    run(async {
        // The clock of the process stands still, so that what ends the query is its own deadline.
        let config = Config { api_timeout: Duration::from_millis(50).into(), ..Config::default() };
        let world = World::start(Data { hangs: Some(Arc::default()), ..shop() }, config, false);
        let told = world.get(COUNTS, None).await;
        assert_eq!(told.status, 504, "{}", told.body);
        assert_eq!(
            told.body,
            "the query took longer than 50ms (limit query_frontend.api_timeout, where 0 means 1m0s): use a shorter range, a \
             more selective filter or fewer by() fields"
        );
        assert!(world.root.drain(Duration::from_secs(10)).await);
    });
}

#[test]
fn refusals_are_plain_text_with_tempos_status() {
    run(async {
        let world = World::start(shop(), Config::default(), true);
        for (path, tenant, status, text) in [
            ("/api/metrics/query_range?q=%7B%7D", Some("a"), 400, "not a metrics query"),
            ("/api/metrics/query", Some("a"), 400, "parse error : syntax error: unexpected $end"),
            (COUNTS, None, 401, "no org id\n"),
            (
                "/api/metrics/query_range?q=%7B%7D%7Crate()&start=1699990000&end=1699990061",
                Some("a|short"),
                400,
                "metrics query time range exceeds the maximum allowed duration of 1m0s",
            ),
        ] {
            let told = world.get(path, tenant).await;
            assert_eq!((told.status, told.body.as_str()), (status, text), "{path}");
            assert_eq!(told.headers["content-type"], "text/plain; charset=utf-8");
        }
        // Two tenants add up.
        let told = world.get(COUNT, Some("a|b")).await;
        let answer: Json = serde_json::from_str(&told.body).unwrap();
        assert_eq!(answer["series"][0]["value"], 4);
        assert_eq!(world.get("/api/metrics/summary", Some("a")).await.status, 404);
        assert!(world.root.drain(Duration::from_secs(10)).await);
    });
}

#[test]
fn an_explanation_comes_on_request_only() {
    run(async {
        let world = World::start(shop(), Config::default(), false);
        let answer = world.json(&format!("{COUNTS}&explain=true")).await;
        let explained = &answer["explain"];
        assert_eq!(explained["kind"], "metrics");
        assert_eq!(explained["query"], "{ true } | count_over_time()by(resource.service.name) with(exemplars=false)");
        assert!(explained["plan"]["firstPass"].as_array().unwrap().contains(&json!("resource.service.name")));
        assert_eq!(
            explained["pruning"]["blocks"],
            json!({"listed": 5, "leftOut": 3, "notNeeded": 0, "byBloom": 0, "read": 2})
        );
        assert_eq!(explained["columns"][0]["bytes"], 10);
        assert_eq!(explained["sources"]["read"], 3);
        assert!(world.json(COUNTS).await.get("explain").is_none());
        let explained: Vec<bool> = world.data.jobs.lock().iter().map(|job| job.explain).collect();
        assert_eq!(explained, [true, true, false, false]);
        assert!(world.root.drain(Duration::from_secs(10)).await);
    });
}

#[test]
fn jobs_end_when_the_client_goes_away() {
    run(async {
        let flag = Arc::new(AtomicBool::new(false));
        let world = World::start(Data { hangs: Some(Arc::clone(&flag)), ..shop() }, Config::default(), false);
        {
            let request = world.get(COUNTS, None);
            tokio::pin!(request);
            // The request waits for its job; it is polled until the job runs.
            for _ in 0..100_000 {
                assert!(futures::poll!(&mut request).is_pending());
                if !world.data.jobs.lock().is_empty() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            assert_eq!(world.data.jobs.lock().len(), 1);
            for _ in 0..100 {
                assert!(futures::poll!(&mut request).is_pending());
                tokio::task::yield_now().await;
            }
            assert!(!flag.load(Ordering::SeqCst));
        }
        for _ in 0..100_000 {
            if flag.load(Ordering::SeqCst) {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert!(flag.load(Ordering::SeqCst));
        assert!(world.root.drain(Duration::from_secs(10)).await);
    });
}
