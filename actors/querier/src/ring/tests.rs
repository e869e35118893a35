//! The router against live-stores of this process over real gRPC on loopback ports.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use vivace_protocol::tempopb::{SearchTagsV2Scope, TagValue, TraceSearchMetadata};
use vivace_runtime::contract::expose;
use vivace_runtime::{
    Bounds, Child, Cx, Endpoint, EndpointRouter, FakeClock, Part, Placement, Replies, Reply, Serve, Server,
    StreamEndpoint, Supervisor, SystemClock,
};

use super::*;
use crate::config::{Config, LiveStoreClientConfig};
use crate::live_stores::{Owner, PartitionUse};

mod busy;
mod doubt;

const LONG: Duration = Duration::from_secs(30);

/// How a live-store answers.
#[derive(Debug, Clone, PartialEq)]
enum Manner {
    Whole,
    /// It has this to say about what it lacks.
    Lacks(&'static str),
    Fails(Code),
    Hangs,
    /// A large trace, of which this many batches come before it fails.
    Breaks(usize),
}

#[derive(Clone)]
struct Store {
    name: &'static str,
    manner: Manner,
    asked: Arc<Mutex<Vec<&'static str>>>,
}

impl Part for Store {}

impl Store {
    async fn answer<R>(
        self,
        what: &'static str,
        reply: impl FnOnce(&'static str, Option<Coverage>) -> R,
    ) -> Result<R, Status> {
        self.asked.lock().push(what);
        match self.manner {
            Manner::Whole | Manner::Breaks(_) => {
                Ok(reply(self.name, Some(Coverage { total: 1, read: 1, ..Coverage::default() })))
            }
            Manner::Lacks(reason) => Ok(reply(self.name, Some(missed("partition", reason)))),
            Manner::Fails(code) => Err(Status::new(code, format!("{} fails", self.name))),
            Manner::Hangs => std::future::pending().await,
        }
    }
}

fn once<T: Send + 'static>(item: T) -> Replies<T> {
    stream::iter([Ok(item)]).boxed()
}

impl Serve<FindTraceRequest> for Store {
    type Reply = Replies<FindTraceBatch>;

    fn serve(&mut self, _request: FindTraceRequest, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        let store = self.clone();
        Reply::later(async move {
            let large = match store.manner {
                Manner::Breaks(batches) => Some(batches),
                _ => None,
            };
            let batch = store.answer("find", |name, coverage| FindTraceBatch {
                parts: vec![Bytes::from_static(name.as_bytes())],
                coverage,
                ..FindTraceBatch::default()
            });
            let batch = batch.await?;
            let Some(batches) = large else { return Ok(once(batch)) };
            let part = FindTraceBatch { parts: vec![vec![0; 5 << 20].into()], ..FindTraceBatch::default() };
            let parts = stream::iter(std::iter::repeat_n(Ok(part), batches));
            Ok(parts.chain(stream::iter([Err(Status::unavailable("it ends in the middle"))])).boxed())
        })
    }
}

impl Serve<SearchJob> for Store {
    type Reply = Replies<SearchBatch>;

    fn serve(&mut self, _job: SearchJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        let answer = self.clone().answer("search", |name, coverage| SearchBatch {
            traces: vec![TraceSearchMetadata { root_service_name: name.to_owned(), ..TraceSearchMetadata::default() }],
            coverage,
            ..SearchBatch::default()
        });
        Reply::later(async move { answer.await.map(once) })
    }
}

impl Serve<MetricsJob> for Store {
    type Reply = Replies<MetricsBatch>;

    fn serve(&mut self, _job: MetricsJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        let answer = self.clone().answer("metrics", |name, coverage| MetricsBatch {
            held_block_ids: vec![name.to_owned()],
            coverage,
            ..MetricsBatch::default()
        });
        Reply::later(async move { answer.await.map(once) })
    }
}

impl Serve<TagNamesJob> for Store {
    type Reply = TagNamesReply;

    fn serve(&mut self, _job: TagNamesJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        Reply::later(self.clone().answer("names", |name, coverage| {
            let scopes = vec![SearchTagsV2Scope { name: "span".to_owned(), tags: vec![name.to_owned()] }];
            TagNamesReply { scopes, coverage, ..TagNamesReply::default() }
        }))
    }
}

impl Serve<TagValuesJob> for Store {
    type Reply = TagValuesReply;

    fn serve(&mut self, _job: TagValuesJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        Reply::later(self.clone().answer("values", |name, coverage| {
            let values = vec![TagValue { r#type: "string".to_owned(), value: name.to_owned() }];
            TagValuesReply { values, coverage, ..TagValuesReply::default() }
        }))
    }
}

struct Fixed(Mutex<Vec<Partition>>);

impl LiveStores for Fixed {
    fn partitions(&self) -> Vec<Partition> {
        self.0.lock().clone()
    }
}

/// Live-stores and a router to them.
struct World {
    root: Supervisor,
    stops: Vec<CancellationToken>,
    ring: Ring,
    clock: FakeClock,
    stores: Arc<Fixed>,
    asked: Arc<Mutex<Vec<&'static str>>>,
}

struct Being {
    partition: u32,
    name: &'static str,
    manner: Option<Manner>,
    healthy: bool,
}

/// An owner of a partition; one without a manner has a port that nobody listens on.
fn owner(partition: u32, name: &'static str, manner: Option<Manner>) -> Being {
    Being { partition, name, manner, healthy: true }
}

fn router(store: Store, root: &Supervisor) -> EndpointRouter {
    let child = Child::<Store>::new(store.name, Bounds::messages(100));
    let (find, search) = (StreamEndpoint::local(child.mailbox()), StreamEndpoint::local(child.mailbox()));
    let (names, values) = (Endpoint::local(child.mailbox()), Endpoint::local(child.mailbox()));
    let metrics = StreamEndpoint::local(child.mailbox::<MetricsJob>());
    root.add(child, move |_| Ok(store.clone()));
    EndpointRouter::of(vivace_protocol::service::LIVE_STORE)
        .streaming::<FindTraceRequest, FindTraceBatch>(find)
        .streaming::<SearchJob, SearchBatch>(search)
        .unary::<TagNamesJob, TagNamesReply>(names)
        .unary::<TagValuesJob, TagValuesReply>(values)
        .streaming::<MetricsJob, MetricsBatch>(metrics)
}

fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn settings(config: &Config) -> RingSettings {
    RingSettings::of(config, &LiveStoreClientConfig::default(), Duration::from_secs(900)).unwrap()
}

async fn world(config: Config, beings: Vec<Being>) -> World {
    world_of(settings(&config), beings).await
}

async fn world_of(settings: RingSettings, beings: Vec<Being>) -> World {
    let root = Supervisor::root("root", Arc::new(SystemClock), Placement::Here);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (mut stops, mut partitions) = (Vec::new(), Vec::<Partition>::new());
    for Being { partition, name, manner, healthy } in beings {
        let address = match manner {
            Some(manner) => {
                let store = Store { name, manner, asked: Arc::clone(&asked) };
                let (address, stop) = expose(router(store, &root).into_router()).await.unwrap();
                stops.push(stop);
                address
            }
            None => free_port(),
        };
        // The order of equals is by chance, that of zones is not: the first owner is the preferred one.
        let zone = if partitions.iter().any(|known| known.id == partition) { "second" } else { "first" };
        let owner =
            Owner { id: name.to_owned(), zone: zone.to_owned(), addresses: vec![address], healthy, ready: healthy };
        match partitions.iter_mut().find(|known| known.id == partition) {
            Some(known) => known.owners.push(owner),
            None => partitions.push(Partition { id: partition, used: PartitionUse::Active, owners: vec![owner] }),
        }
    }
    root.start();
    let (clock, stores) = (FakeClock::at(Duration::from_secs(1_000_000)), Arc::new(Fixed(Mutex::new(partitions))));
    let handed: Arc<dyn LiveStores> = stores.clone();
    let time = Arc::new(clock.clone());
    let ring = Ring::new(handed, settings, time, Rng::seeded(1), &Registry::new());
    World { root, stops, ring, clock, stores, asked }
}

fn config() -> Config {
    let mut config = Config::default();
    config.partition_ring.preferred_zone = "first".to_owned();
    config
}

impl World {
    /// The services that a search found, and its coverage.
    async fn search(&self) -> (BTreeSet<String>, Coverage) {
        let mut found = (BTreeSet::new(), Coverage::default());
        let mut batches = self.ring.search(&SearchJob::default(), Deadline::after(LONG));
        while let Some(batch) = batches.next().await {
            let batch = batch.unwrap();
            found.0.extend(batch.traces.into_iter().map(|trace| trace.root_service_name));
            add(&mut found.1, batch.coverage.unwrap_or_default());
        }
        found
    }

    async fn end(self) {
        self.stops.iter().for_each(CancellationToken::cancel);
        self.root.drain(Duration::ZERO).await;
    }
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn reason(coverage: &Coverage) -> String {
    coverage
        .skipped
        .iter()
        .map(|skipped| format!("{}: {}", skipped.what, skipped.reason))
        .collect::<Vec<_>>()
        .join(" | ")
}

#[actix::test]
async fn every_partition_is_asked_and_one_owner_of_each() {
    let world = world(
        config(),
        vec![
            owner(0, "a", Some(Manner::Whole)),
            owner(0, "b", Some(Manner::Whole)),
            owner(1, "c", Some(Manner::Whole)),
        ],
    )
    .await;
    let (found, coverage) = world.search().await;
    assert_eq!((found, coverage.total, coverage.read), (names(["a", "c"]), 2, 2));
    assert_eq!(*world.asked.lock(), ["search", "search"]);
    let reply = world.ring.tag_names(&TagNamesJob::default(), Deadline::after(LONG)).await.unwrap();
    assert_eq!(reply.scopes[0].tags, ["a", "c"]);
    assert_eq!(reply.coverage.unwrap().read, 2);
    let reply = world.ring.tag_values(&TagValuesJob::default(), Deadline::after(LONG)).await.unwrap();
    assert_eq!(reply.values.into_iter().map(|value| value.value).collect::<Vec<_>>(), ["a", "c"]);
    world.end().await;
}

#[actix::test]
async fn a_dead_owner_gives_its_turn_to_the_next_and_nothing_is_missing() {
    let world = world(config(), vec![owner(0, "dead", None), owner(0, "b", Some(Manner::Whole))]).await;
    let (found, coverage) = world.search().await;
    assert_eq!((found, coverage.total, coverage.read, coverage.skipped.len()), (names(["b"]), 1, 1, 0));
    world.end().await;
}

#[actix::test]
async fn an_address_where_somebody_else_listens_is_as_good_as_dead() {
    let world = world(config(), vec![owner(0, "stranger", None), owner(0, "b", Some(Manner::Whole))]).await;
    let (address, stop) = expose(EndpointRouter::of("vivace.test.Stranger").into_router()).await.unwrap();
    world.stores.0.lock()[0].owners[0].addresses = vec![address];
    let (found, coverage) = world.search().await;
    assert_eq!((found, coverage.total, coverage.read), (names(["b"]), 1, 1));
    world.stores.0.lock()[0].owners.pop();
    let (_, coverage) = world.search().await;
    assert_eq!(coverage.read, 0);
    assert!(reason(&coverage).starts_with("partition 0: stranger (127.0.0.1:"), "{}", reason(&coverage));
    stop.cancel();
    world.end().await;
}

#[actix::test]
async fn what_no_owner_answers_is_named_with_its_reasons_and_the_rest_is_there() {
    let world = world(
        config(),
        vec![
            owner(0, "a", Some(Manner::Whole)),
            owner(7, "dead", None),
            owner(7, "starting", Some(Manner::Fails(Code::Unavailable))),
        ],
    )
    .await;
    let (found, coverage) = world.search().await;
    assert_eq!((found, coverage.total, coverage.read), (names(["a"]), 2, 1));
    let text = reason(&coverage);
    assert!(text.starts_with("partition 7: ") && text.contains("dead (127.0.0.1:"), "{text}");
    assert!(text.contains("cannot be reached: Connection refused"), "{text}");
    assert!(text.contains("starting (127.0.0.1:") && text.contains("starting fails"), "{text}");
    world.end().await;
}

#[actix::test]
async fn a_hanging_owner_gets_company_after_the_delay() {
    let world = world(config(), vec![owner(0, "hangs", Some(Manner::Hangs)), owner(0, "b", Some(Manner::Whole))]).await;
    let clock = world.clock.clone();
    let search = world.search();
    let advance = async {
        while world.asked.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(3));
    };
    let ((found, coverage), ()) = futures::join!(search, advance);
    assert_eq!((found, coverage.read), (names(["b"]), 1));
    world.end().await;
}

#[actix::test]
async fn an_owner_that_hangs_alone_is_missing_at_the_deadline_and_others_are_not() {
    let world = world(config(), vec![owner(0, "hangs", Some(Manner::Hangs)), owner(1, "b", Some(Manner::Whole))]).await;
    let mut batches = world.ring.search(&SearchJob::default(), Deadline::after(Duration::from_millis(200)));
    let (mut found, mut coverage) = (0, Coverage::default());
    while let Some(batch) = batches.next().await {
        let batch = batch.unwrap();
        found += batch.traces.len();
        add(&mut coverage, batch.coverage.unwrap_or_default());
    }
    assert_eq!((found, coverage.total, coverage.read), (1, 2, 1));
    let text = reason(&coverage);
    assert!(text.starts_with("partition 0: hangs (127.0.0.1:") && text.contains("in time"), "{text}");
    world.end().await;
}

#[actix::test]
async fn an_answer_that_lacks_something_is_second_to_a_whole_one() {
    let lacking = || owner(0, "lacks", Some(Manner::Lacks("replays the log")));
    let whole = world(config(), vec![lacking(), owner(0, "b", Some(Manner::Whole))]).await;
    let (found, coverage) = whole.search().await;
    assert_eq!((found, coverage.read, coverage.skipped.len()), (names(["b"]), 1, 0));
    whole.end().await;
    let alone = world(config(), vec![lacking(), owner(0, "dead", None)]).await;
    let (found, coverage) = alone.search().await;
    assert_eq!((found, coverage.total, coverage.read), (names(["lacks"]), 1, 0));
    assert!(reason(&coverage).contains("replays the log"), "{}", reason(&coverage));
    alone.end().await;
}

#[actix::test]
async fn of_a_metrics_query_one_answer_counts_even_if_all_owners_are_asked() {
    let mut config = config();
    config.partition_ring.minimize_requests = false;
    let world = world(config, vec![owner(0, "a", Some(Manner::Whole)), owner(0, "b", Some(Manner::Whole))]).await;
    let batches: Vec<_> = world.ring.metrics(&MetricsJob::default(), Deadline::after(LONG)).collect().await;
    let held: Vec<String> = batches.into_iter().flat_map(|batch| batch.unwrap().held_block_ids).collect();
    assert_eq!(held.len(), 1, "{held:?}");
    world.end().await;
}

#[actix::test]
async fn a_wrong_query_is_an_error_and_nobody_else_is_asked() {
    let wrong = Manner::Fails(Code::InvalidArgument);
    let world = world(config(), vec![owner(0, "a", Some(wrong)), owner(0, "b", Some(Manner::Whole))]).await;
    let batches: Vec<_> = world.ring.search(&SearchJob::default(), Deadline::after(LONG)).collect().await;
    assert!(batches.iter().any(|batch| batch.as_ref().is_err_and(|status| status.code() == Code::InvalidArgument)));
    assert_eq!(world.asked.lock().len(), 1);
    world.end().await;
}

async fn found(world: &World) -> (BTreeSet<Bytes>, Coverage) {
    let mut found = (BTreeSet::new(), Coverage::default());
    let mut batches = world.ring.find(&FindTraceRequest::default(), LONG);
    while let Some(batch) = batches.next().await {
        found.0.extend(batch.parts.into_iter().filter(|part| part.len() < 100));
        add(&mut found.1, batch.coverage.unwrap_or_default());
    }
    found
}

#[actix::test]
async fn the_pieces_of_a_trace_come_from_every_partition() {
    let world = world(
        config(),
        vec![owner(0, "a", Some(Manner::Whole)), owner(1, "dead", None), owner(1, "b", Some(Manner::Whole))],
    )
    .await;
    let (parts, coverage) = found(&world).await;
    assert_eq!(parts, ["a", "b"].map(Bytes::from).into());
    assert_eq!((coverage.total, coverage.read, coverage.skipped.len()), (2, 2, 0));
    world.end().await;
}

#[actix::test]
async fn an_owner_that_breaks_off_in_a_large_trace_is_replaced_by_the_next() {
    let breaks = || owner(0, "breaks", Some(Manner::Breaks(3)));
    let both = world(config(), vec![breaks(), owner(0, "b", Some(Manner::Whole))]).await;
    let (parts, coverage) = found(&both).await;
    assert_eq!(parts, ["b"].map(Bytes::from).into());
    assert_eq!((coverage.total, coverage.read, coverage.skipped.len()), (1, 1, 0));
    both.end().await;
    let alone = world(config(), vec![breaks()]).await;
    let (_, coverage) = found(&alone).await;
    assert_eq!((coverage.total, coverage.read), (1, 0));
    assert!(reason(&coverage).ends_with("it ends in the middle"), "{}", reason(&coverage));
    alone.end().await;
}

#[actix::test]
async fn an_empty_ring_is_not_an_empty_answer() {
    let world = world(config(), Vec::new()).await;
    let (found, coverage) = world.search().await;
    assert_eq!((found.len(), coverage.total, coverage.read), (0, 1, 0));
    assert!(reason(&coverage).contains("the partition ring is empty"), "{}", reason(&coverage));
    world.end().await;
}

#[actix::test]
async fn a_querier_that_has_just_started_waits_for_news_of_the_ring_and_not_for_ever() {
    let world = world(config(), vec![owner(0, "a", Some(Manner::Whole))]).await;
    let partitions = std::mem::take(&mut *world.stores.0.lock());
    let mut waits = Box::pin(world.ring.heard());
    assert!(futures::FutureExt::now_or_never(&mut waits).is_none());
    *world.stores.0.lock() = partitions;
    world.clock.advance(LOOK);
    waits.await;
    // Once it should have heard, an empty ring is empty.
    world.stores.0.lock().clear();
    world.clock.advance(NEWS);
    world.ring.heard().await;
    world.end().await;
}

#[actix::test]
async fn an_owner_that_is_thought_dead_is_asked_when_there_is_no_other() {
    let thought_dead = Being { healthy: false, ..owner(0, "a", Some(Manner::Whole)) };
    let world = world(config(), vec![thought_dead]).await;
    let (found, coverage) = world.search().await;
    assert_eq!((found, coverage.read), (names(["a"]), 1));
    world.end().await;
}

#[actix::test]
async fn an_owner_without_an_address_says_what_would_help() {
    let world = world(config(), vec![owner(0, "a", Some(Manner::Whole))]).await;
    world.stores.0.lock()[0].owners[0].addresses.clear();
    let (found, coverage) = world.search().await;
    assert_eq!((found.len(), coverage.read), (0, 0));
    assert!(reason(&coverage).contains("a proxy address that both can reach"), "{}", reason(&coverage));
    world.end().await;
}

#[actix::test]
async fn an_owner_that_comes_back_is_asked_again_at_once_and_others_are_forgotten_with_the_ring() {
    let world = world(config(), vec![owner(0, "a", None)]).await;
    assert_eq!(world.search().await.1.read, 0);
    let address = world.stores.0.lock()[0].owners[0].addresses[0].clone();
    assert_eq!(world.ring.asker.pool.addresses(), std::slice::from_ref(&address));
    let root = Supervisor::root("back", Arc::new(SystemClock), Placement::Here);
    let store = Store { name: "a", manner: Manner::Whole, asked: Arc::clone(&world.asked) };
    let router = router(store, &root).into_router();
    root.start();
    let listener = TcpListener::bind(&address).await.unwrap();
    let stop = CancellationToken::new();
    let until = stop.clone();
    tokio::spawn(async move { Server::default().serve(listener, router, until, Duration::ZERO).await });
    let (found, coverage) = world.search().await;
    assert_eq!((found, coverage.read), (names(["a"]), 1));
    // Its health service is not there; any answer is a sign of life, so the channel stays.
    world.ring.asker.pool.check().await;
    assert_eq!(world.ring.asker.pool.addresses().len(), 1);
    stop.cancel();
    world.ring.asker.pool.keep(&addresses(&[]));
    assert!(world.ring.asker.pool.addresses().is_empty());
    root.drain(Duration::ZERO).await;
    world.end().await;
}

#[actix::test]
async fn a_peer_that_does_not_answer_health_checks_loses_its_channel() {
    let world = world(config(), vec![owner(0, "a", None)]).await;
    world.search().await;
    world.ring.asker.pool.check().await;
    assert!(world.ring.asker.pool.addresses().is_empty());
    world.end().await;
}
