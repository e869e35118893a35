//! Queriers that are told what to answer, and a query-frontend before them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::HeaderMap;
use parking_lot::Mutex;
use prost::Message;
use tonic::Status;
use tower::ServiceExt;
use uuid::Uuid;
use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span};
use vivace_protocol::tempopb::{SearchMetrics, SearchTagsV2Scope, SpanSet, TagValue, Trace, TraceSearchMetadata};
use vivace_protocol::vivace::find_trace_request::From;
use vivace_protocol::vivace::{
    BlockListReply, BlockListRequest, Coverage, FindTraceBatch, FindTraceRequest, MetricsBatch, MetricsJob,
    SearchBatch, SearchJob, Skipped, TagNamesJob, TagNamesReply, TagValuesJob, TagValuesReply,
};
use vivace_protocol::{BlockEntry, TenantId, TraceId, service};
use vivace_runtime::contract::Linking;
use vivace_runtime::{
    Bounds, Child, Cx, Endpoint, EndpointRouter, FakeClock, Links, Part, Placement, Replies, Reply, Serve,
    StreamEndpoint, Supervisor,
};

use crate::{Config, Limits, Queriers, RecentData, Served, Setup, add};

/// The time of all tests.
pub(super) const NOW: u64 = 1_700_000_000;
pub(super) const LONG: Duration = Duration::from_secs(60);
const SECOND: u64 = 1_000_000_000;

/// One source: recent data, or a block.
#[derive(Clone, Default)]
pub(super) struct Source {
    /// Ids and starts in seconds.
    pub(super) traces: Vec<(u8, u64)>,
    /// Fails with this.
    pub(super) broken: Option<&'static str>,
    /// Never answers.
    pub(super) hangs: bool,
    /// Holds more for the answer than the query may.
    pub(super) over: bool,
    /// Names in the scope of spans, which are values as well.
    pub(super) names: Vec<&'static str>,
    /// When it ends, in seconds.
    pub(super) end: u64,
    /// How much it has of each of its traces, for large ones.
    pub(super) megabytes: u32,
    /// Fails with this after that much.
    pub(super) breaks: Option<&'static str>,
    /// Has its traces only for who waits until it has caught up.
    pub(super) late: bool,
    /// Fails with this when it is asked once more.
    pub(super) broken_later: Option<&'static str>,
}

/// What the queriers have.
#[derive(Default)]
pub(super) struct World {
    /// By tenant.
    pub(super) recent: BTreeMap<String, Source>,
    /// By tenant and id.
    pub(super) blocks: BTreeMap<(String, Uuid), Source>,
    /// Requests in the order in which they came.
    pub(super) asked: Vec<String>,
    /// Passes with every job.
    pub(super) clock: Option<(FakeClock, Duration)>,
    /// Streams of answers that were dropped.
    pub(super) dropped: usize,
    /// The limit of a trace in an answer.
    pub(super) max_bytes: usize,
    /// Parts of large traces that are in memory.
    pub(super) live: Live,
}

/// Counts parts of a mebibyte that are in memory, now and at most.
#[derive(Clone, Default)]
pub(super) struct Live(Arc<(AtomicUsize, AtomicUsize)>);

impl Live {
    pub(super) fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    fn part(&self, bytes: Vec<u8>) -> Bytes {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        Bytes::from_owner(Tracked(bytes, self.clone()))
    }
}

/// A part that is in memory.
struct Tracked(Vec<u8>, Live);

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.1.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Spans in a part of a large trace.
pub(super) const SPANS_OF_A_PART: u32 = 8;

/// A part of a mebibyte of a large trace, made when it is asked for.
fn large(live: &Live, n: u8, part: u32) -> FindTraceBatch {
    let span = |at: u32| Span {
        trace_id: vec![n; 16],
        span_id: u64::from(part * SPANS_OF_A_PART + at + 1).to_be_bytes().to_vec(),
        name: "n".repeat((1 << 20) / usize::try_from(SPANS_OF_A_PART).unwrap() - 64),
        start_time_unix_nano: 1,
        ..Span::default()
    };
    let scope = ScopeSpans { spans: (0..SPANS_OF_A_PART).map(span).collect(), ..ScopeSpans::default() };
    let spans = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
    let bytes = Trace { resource_spans: vec![spans] }.encode_to_vec();
    FindTraceBatch { parts: vec![live.part(bytes)], inspected_bytes: 1 << 20, ..FindTraceBatch::default() }
}

pub(super) type Shared = Arc<Mutex<World>>;

pub(super) fn block_id(n: u8) -> Uuid {
    Uuid::from_bytes([n; 16])
}

impl World {
    pub(super) fn recent(&mut self, tenant: &str, source: Source) {
        self.recent.insert(tenant.to_owned(), source);
    }

    pub(super) fn block(&mut self, tenant: &str, n: u8, source: Source) {
        self.blocks.insert((tenant.to_owned(), block_id(n)), source);
    }

    fn sources(&mut self, what: &str, tenant: &str, ids: &[String]) -> Vec<(String, Source)> {
        self.asked
            .push(format!("{what} {tenant} {}", if ids.is_empty() { "recent".to_owned() } else { ids.join(" ") }));
        if let Some((clock, by)) = &self.clock {
            clock.advance(*by);
        }
        if ids.is_empty() {
            return vec![("live-store".to_owned(), self.recent.get(tenant).cloned().unwrap_or_default())];
        }
        let source = |id: &String| {
            let block = self.blocks.get(&(tenant.to_owned(), id.parse().unwrap())).cloned().unwrap_or_default();
            (format!("block {id}"), block)
        };
        ids.iter().map(source).collect()
    }
}

/// Says what was read, and hangs if a source does.
fn read(sources: Vec<(String, Source)>) -> (Vec<Source>, Coverage, bool) {
    let mut coverage = Coverage::default();
    let mut whole = Vec::new();
    let hangs = sources.iter().any(|(_, source)| source.hangs);
    for (what, source) in sources {
        coverage.total += 1;
        match source.broken {
            Some(reason) => coverage.skipped.push(Skipped { what, reason: reason.to_owned() }),
            None => {
                coverage.read += 1;
                whole.push(source);
            }
        }
    }
    (whole, coverage, hangs)
}

async fn maybe_hang(hangs: bool) {
    if hangs {
        std::future::pending::<()>().await;
    }
}

#[derive(Clone)]
struct Fake(Shared);

impl Part for Fake {}

fn encoded(n: u8) -> Bytes {
    let span = Span {
        trace_id: vec![n; 16],
        span_id: vec![n; 8],
        name: format!("span {n}"),
        start_time_unix_nano: 1,
        end_time_unix_nano: 2,
        ..Span::default()
    };
    let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
    let spans = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
    Trace { resource_spans: vec![spans] }.encode_to_vec().into()
}

impl Serve<FindTraceRequest> for Fake {
    type Reply = Replies<FindTraceBatch>;

    fn serve(&mut self, request: FindTraceRequest, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        let bound = |bytes: &[u8]| u128::from_be_bytes(bytes.try_into().unwrap());
        let range = bound(&request.block_start)..=bound(&request.block_end);
        let mut world = self.0.lock();
        let ids: Vec<String> = world
            .blocks
            .iter()
            .filter(|((tenant, id), _)| *tenant == request.tenant && range.contains(&id.as_u128()))
            .filter(|(_, source)| source.end * SECOND >= request.start_unix_nano)
            .map(|((_, id), _)| id.to_string())
            .collect();
        let mut sources = match request.from() {
            From::Recent if request.caught_up => world.sources("find once more", &request.tenant, &[]),
            From::Recent => world.sources("find", &request.tenant, &[]),
            From::Blocks if ids.is_empty() => Vec::new(),
            From::Blocks => world.sources("find", &request.tenant, &ids),
            From::Everything => return Reply::err(Status::unimplemented("planned in parts")),
        };
        for (_, source) in sources.iter_mut().filter(|_| request.caught_up) {
            (source.late, source.broken) = (false, source.broken.or(source.broken_later));
        }
        let (sources, coverage, hangs) = read(sources);
        let id = request.trace_id.first().copied().unwrap_or_default();
        let large_ones = sources.iter().filter(|source| source.megabytes > 0);
        let (mut megabytes, mut breaks) = (0, None);
        for source in large_ones.filter(|source| source.traces.iter().any(|(n, _)| *n == id)) {
            (megabytes, breaks) = (source.megabytes, source.breaks.or(breaks));
        }
        let live = world.live.clone();
        let rest = stream::iter(0..megabytes).map(move |part| Ok(large(&live, id, part)));
        let rest = rest.chain(stream::iter(breaks.map(|why| Err(Status::internal(why)))));
        let found = sources
            .iter()
            .filter(|source| source.megabytes == 0 && !source.late)
            .flat_map(|source| &source.traces)
            .filter(|(n, _)| [*n; 16] == *request.trace_id);
        let parts = found.map(|(n, _)| encoded(*n)).collect();
        Reply::later(async move {
            maybe_hang(hangs).await;
            let found =
                FindTraceBatch { parts, coverage: Some(coverage), inspected_bytes: 10, ..FindTraceBatch::default() };
            Ok(stream::iter([Ok(found)]).chain(rest).boxed())
        })
    }
}

/// Counts when it is dropped.
struct Guard(Shared);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.lock().dropped += 1;
    }
}

impl Serve<SearchJob> for Fake {
    type Reply = Replies<SearchBatch>;

    fn serve(&mut self, job: SearchJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        let (sources, coverage, hangs) = read(self.0.lock().sources("search", &job.tenant, &job.block_ids));
        if sources.iter().any(|source| source.over) {
            let text = format!("the results of the query take more than {} bytes", job.max_bytes);
            return Reply::err(tonic::Status::out_of_range(text));
        }
        let trace = |(n, start): &(u8, u64)| TraceSearchMetadata {
            trace_id: TraceId([*n; 16]).to_string(),
            root_service_name: "shop".to_owned(),
            root_trace_name: "GET /".to_owned(),
            start_time_unix_nano: start * SECOND,
            span_sets: vec![SpanSet { matched: 1, ..SpanSet::default() }],
            ..TraceSearchMetadata::default()
        };
        let batch = SearchBatch {
            traces: sources.iter().flat_map(|source| &source.traces).map(trace).collect(),
            metrics: Some(SearchMetrics { inspected_traces: 1, ..SearchMetrics::default() }),
            coverage: Some(coverage),
            profile: None,
        };
        let guard = Guard(Arc::clone(&self.0));
        let answer: BoxStream<'static, _> = stream::once(async move {
            maybe_hang(hangs).await;
            drop(guard);
            Ok(batch)
        })
        .boxed();
        Reply::ok(answer)
    }
}

impl Serve<TagNamesJob> for Fake {
    type Reply = TagNamesReply;

    fn serve(&mut self, job: TagNamesJob, _cx: &mut Cx<Self>) -> Reply<TagNamesReply> {
        let what = if job.query.is_empty() { "names".to_owned() } else { format!("names of {}", job.query) };
        let (sources, coverage, hangs) = read(self.0.lock().sources(&what, &job.tenant, &job.block_ids));
        let tags: Vec<String> =
            sources.iter().flat_map(|source| &source.names).map(|name| (*name).to_owned()).collect();
        let scopes = vec![SearchTagsV2Scope { name: "span".to_owned(), tags }];
        Reply::later(async move {
            maybe_hang(hangs).await;
            Ok(TagNamesReply { scopes, inspected_bytes: 5, coverage: Some(coverage) })
        })
    }
}

impl Serve<TagValuesJob> for Fake {
    type Reply = TagValuesReply;

    fn serve(&mut self, job: TagValuesJob, _cx: &mut Cx<Self>) -> Reply<TagValuesReply> {
        let what = format!("values of {}", job.tag);
        let (sources, coverage, hangs) = read(self.0.lock().sources(&what, &job.tenant, &job.block_ids));
        let value = |name: &&str| TagValue { r#type: "string".to_owned(), value: (*name).to_owned() };
        let values = sources.iter().flat_map(|source| &source.names).map(value).collect();
        Reply::later(async move {
            maybe_hang(hangs).await;
            Ok(TagValuesReply { values, inspected_bytes: 5, coverage: Some(coverage) })
        })
    }
}

impl Serve<MetricsJob> for Fake {
    type Reply = Replies<MetricsBatch>;

    fn serve(&mut self, _job: MetricsJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        Reply::ok(stream::empty().boxed())
    }
}

impl Serve<BlockListRequest> for Fake {
    type Reply = BlockListReply;

    fn serve(&mut self, request: BlockListRequest, _cx: &mut Cx<Self>) -> Reply<BlockListReply> {
        let mut world = self.0.lock();
        let known = if request.known_version == 0 { "nothing known" } else { "a version known" };
        world.asked.push(format!("list {} {known}", request.tenant));
        let blocks = world.blocks.iter().filter(|((tenant, _), _)| *tenant == request.tenant);
        let entries = blocks.map(|((_, id), source)| BlockEntry {
            id: id.into_bytes(),
            start_unix_nano: 0,
            end_unix_nano: source.end * SECOND,
            size_bytes: 1000,
            objects: 1,
            row_groups: 1,
            replication_factor: 1,
        });
        let list = BlockListReply::of(entries, true);
        Reply::ok(if list.version == request.known_version { list.unchanged() } else { list })
    }
}

struct OfWorld(Shared);

impl Limits for OfWorld {
    fn max_bytes_per_trace(&self, _tenant: &TenantId) -> usize {
        self.0.lock().max_bytes
    }

    fn max_search_duration(&self, _tenant: &TenantId) -> Duration {
        Duration::ZERO
    }

    fn max_metrics_duration(&self, _tenant: &TenantId) -> Duration {
        Duration::ZERO
    }

    fn max_bytes_per_tag_values_query(&self, _tenant: &TenantId) -> usize {
        0
    }

    fn left_pad_trace_ids(&self, _tenant: &TenantId) -> bool {
        false
    }
}

/// A query-frontend before fake queriers.
pub(super) struct Frontend {
    pub(super) world: Shared,
    pub(super) clock: FakeClock,
    pub(super) served: Served,
    /// What the fake answers.
    pub(super) router: EndpointRouter,
    root: Supervisor,
}

pub(super) fn frontend(config: Config, multitenancy: bool, fill: impl FnOnce(&mut World)) -> Frontend {
    let (root, world, clock) = beginning(fill);
    let (router, queriers) = fake(&root, &world);
    started((root, world, clock), (config, RecentData::HandedOver), multitenancy, (router, queriers), None)
}

/// A query-frontend whose live-stores and block-builders read the same log.
pub(super) fn sharing(config: Config, fill: impl FnOnce(&mut World)) -> Frontend {
    let (root, world, clock) = beginning(fill);
    let (router, queriers) = fake(&root, &world);
    started((root, world, clock), (config, RecentData::Shared), false, (router, queriers), None)
}

/// A query-frontend that asks the same fake over links, which the fake opens.
pub(super) async fn linked(config: Config, links: usize, fill: impl FnOnce(&mut World)) -> (Frontend, Linking) {
    let (root, world, clock) = beginning(fill);
    let (router, _) = fake(&root, &world);
    let linking = Linking::to(&router, links).await.unwrap();
    let queriers = Queriers::linked(&linking.links);
    let links = Some(linking.links.clone());
    (started((root, world, clock), (config, RecentData::HandedOver), false, (router, queriers), links), linking)
}

fn beginning(fill: impl FnOnce(&mut World)) -> (Supervisor, Shared, FakeClock) {
    let clock = FakeClock::at(Duration::from_secs(NOW));
    let world = Shared::default();
    fill(&mut world.lock());
    (Supervisor::root("test", Arc::new(clock.clone()), Placement::Here), world, clock)
}

fn fake(root: &Supervisor, world: &Shared) -> (EndpointRouter, Queriers) {
    let child = Child::<Fake>::new("fake", Bounds::messages(1000));
    let queriers = Queriers {
        find: StreamEndpoint::local(child.mailbox()),
        search: StreamEndpoint::local(child.mailbox()),
        tag_names: Endpoint::local(child.mailbox()),
        tag_values: Endpoint::local(child.mailbox()),
        metrics: StreamEndpoint::local(child.mailbox()),
        blocks: Endpoint::local(child.mailbox()),
    };
    let fake = Fake(Arc::clone(world));
    root.add(child, move |_| Ok(fake.clone()));
    let router = EndpointRouter::of(service::QUERIER)
        .streaming(queriers.find.clone())
        .streaming(queriers.search.clone())
        .unary(queriers.tag_names.clone())
        .unary(queriers.tag_values.clone())
        .streaming(queriers.metrics.clone())
        .unary(queriers.blocks.clone());
    (router, queriers)
}

fn started(
    (root, world, clock): (Supervisor, Shared, FakeClock),
    (config, recent): (Config, RecentData),
    multitenancy: bool,
    (router, queriers): (EndpointRouter, Queriers),
    links: Option<Links>,
) -> Frontend {
    let setup = Setup {
        config,
        multitenancy,
        prefix: String::new(),
        max_running: 20,
        links,
        recent,
        limits: Arc::new(OfWorld(Arc::clone(&world))),
        queriers,
        clock: Arc::new(clock.clone()),
    };
    let served = add(&root, setup, Placement::Here).unwrap();
    root.start();
    Frontend { world, clock, served, router, root }
}

/// An answer over HTTP.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        assert_eq!(self.status, 200, "{}", self.text());
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn coverage(&self) -> &str {
        self.headers["x-vivace-coverage"].to_str().unwrap()
    }
}

impl Frontend {
    pub(super) async fn get_with(&self, uri: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response: Response = self.served.http.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// The answer as it comes, piece by piece.
    pub(super) async fn open(&self, uri: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.served.http.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    pub(super) async fn send(&self, method: &str, uri: &str, body: String) -> (u16, String) {
        let request = http::Request::builder().method(method).uri(uri).body(Body::from(body)).unwrap();
        let response: Response = self.served.http.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (parts.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    }

    pub(super) async fn get(&self, uri: &str) -> Answer {
        self.get_with(uri, &[]).await
    }

    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.world.lock().asked)
    }

    pub(super) async fn end(self) {
        self.root.drain(Duration::ZERO).await;
    }
}
