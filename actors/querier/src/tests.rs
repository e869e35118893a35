//! Every message of the querier in every form: in the process, over gRPC, over links. Same replies, same errors.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use vivace_protocol::vivace::{
    BlockListReply, BlockListRequest, BlockPublished, BlocksReplaced, Coverage, FindTraceBatch, FindTraceRequest,
    MetricsBatch, MetricsJob, SearchBatch, SearchJob, TagNamesJob, TagNamesReply, TagValuesJob, TagValuesReply,
};
use vivace_runtime::contract::{alike, alike_stream, expose};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{
    Bounds, Child, Compute, Cx, Endpoint, Links, Part, Placement, Replies, Reply, Rng, Serve, Server, StreamEndpoint,
    Supervisor, SystemClock,
};
use vivace_storage::{Backend, BlockMeta, OpenBlock, ReadError};

use crate::{Config, Frontends, LiveStore, News, OpenBlocks, Plan, Querier, Setup};

mod blocks;

const LONG: Duration = Duration::from_secs(30);

/// There are none in these tests.
struct NoBlocks;

impl OpenBlocks for NoBlocks {
    fn open(&self, _meta: &BlockMeta) -> Result<OpenBlock, ReadError> {
        Err(ReadError::Missing("data.parquet".to_owned()))
    }
}

/// A live-store that answers with what it was asked, and refuses the tenant `refused`.
struct Echo;

impl Part for Echo {}

fn refuses(tenant: &str) -> Result<Option<Coverage>, Status> {
    match tenant {
        "refused" => {
            let mut status = Status::with_details(Code::InvalidArgument, "refused: ü", vec![1, 2].into());
            status.metadata_mut().insert("x-reason", "because".parse().unwrap());
            Err(status)
        }
        _ => Ok(Some(Coverage { total: 1, read: 1, newest_applied_unix_nano: 7, ..Coverage::default() })),
    }
}

fn some<T: Send + 'static>(items: Vec<T>) -> Replies<T> {
    futures::stream::iter(items.into_iter().map(Ok)).boxed()
}

impl Serve<FindTraceRequest> for Echo {
    type Reply = Replies<FindTraceBatch>;

    fn serve(&mut self, request: FindTraceRequest, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        let part = FindTraceBatch { parts: vec![request.trace_id.into()], ..FindTraceBatch::default() };
        let answer = refuses(&request.tenant)
            .map(|coverage| some(vec![part.clone(), FindTraceBatch { coverage, inspected_bytes: 16, ..part }]));
        answer.into()
    }
}

impl Serve<SearchJob> for Echo {
    type Reply = Replies<SearchBatch>;

    fn serve(&mut self, job: SearchJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        refuses(&job.tenant).map(|coverage| some(vec![SearchBatch { coverage, ..SearchBatch::default() }; 3])).into()
    }
}

impl Serve<MetricsJob> for Echo {
    type Reply = Replies<MetricsBatch>;

    fn serve(&mut self, job: MetricsJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        let held_block_ids = vec!["a".to_owned()];
        let batch = |coverage| MetricsBatch { coverage, held_block_ids, ..MetricsBatch::default() };
        refuses(&job.tenant).map(|coverage| some(vec![batch(coverage)])).into()
    }
}

impl Serve<TagNamesJob> for Echo {
    type Reply = TagNamesReply;

    fn serve(&mut self, job: TagNamesJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        refuses(&job.tenant).map(|coverage| TagNamesReply { coverage, inspected_bytes: 5, ..Default::default() }).into()
    }
}

impl Serve<TagValuesJob> for Echo {
    type Reply = TagValuesReply;

    fn serve(&mut self, job: TagValuesJob, _cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        refuses(&job.tenant)
            .map(|coverage| TagValuesReply { coverage, inspected_bytes: 6, ..Default::default() })
            .into()
    }
}

fn echo(root: &Supervisor) -> LiveStore {
    let echo = Child::<Echo>::new("echo", Bounds::messages(16));
    let live = LiveStore {
        find: StreamEndpoint::local(echo.mailbox()),
        search: StreamEndpoint::local(echo.mailbox()),
        tag_names: Endpoint::local(echo.mailbox()),
        tag_values: Endpoint::local(echo.mailbox()),
        metrics: StreamEndpoint::local(echo.mailbox()),
    };
    root.add(echo, |_| Ok(Echo));
    live
}

struct World {
    root: Supervisor,
    querier: Querier,
    news: News,
    _bucket: tempfile::TempDir,
}

fn world() -> World {
    let bucket = tempfile::tempdir().unwrap();
    let root = Supervisor::root("root", Arc::new(SystemClock), Placement::Here);
    let live = echo(&root);
    let (plan, news) = Plan::new(Setup {
        config: Config::default(),
        poll_period: LONG,
        backend: Backend::local(bucket.path()).unwrap(),
        opener: Arc::new(NoBlocks),
        compute: Compute::inline(),
        metrics: Registry::new(),
    });
    let querier = plan.add(&root, live, Placement::Here);
    root.start();
    World { root, querier, news, _bucket: bucket }
}

#[actix::test]
async fn every_message_of_the_querier_is_answered_alike_in_every_form() {
    let World { root, querier, news, _bucket } = world();
    let unknown = || vec!["7f9a2c7e-0000-4000-8000-000000000001".to_owned()];
    let find = |tenant: &str, id: Vec<u8>| FindTraceRequest {
        tenant: tenant.to_owned(),
        trace_id: id,
        ..FindTraceRequest::default()
    };
    alike_stream(&querier.find, &[find("a", vec![1; 16]), find("refused", vec![1; 16]), find("a", vec![1; 3])])
        .await
        .unwrap();
    let search = |tenant: &str, block_ids| SearchJob { tenant: tenant.to_owned(), block_ids, ..SearchJob::default() };
    let searches =
        vec![search("a", vec![]), search("refused", vec![]), search("a", unknown()), search("a", vec!["no".into()])];
    alike_stream(&querier.search, &searches).await.unwrap();
    let metrics =
        |tenant: &str, block_ids| MetricsJob { tenant: tenant.to_owned(), block_ids, ..MetricsJob::default() };
    alike_stream(&querier.metrics, &[metrics("a", vec![]), metrics("refused", vec![]), metrics("a", unknown())])
        .await
        .unwrap();
    let names =
        |tenant: &str, block_ids| TagNamesJob { tenant: tenant.to_owned(), block_ids, ..TagNamesJob::default() };
    alike(&querier.tag_names, &[names("a", vec![]), names("refused", vec![]), names("a", unknown())]).await.unwrap();
    let values =
        |tenant: &str, block_ids| TagValuesJob { tenant: tenant.to_owned(), block_ids, ..TagValuesJob::default() };
    alike(&querier.tag_values, &[values("a", vec![]), values("refused", vec![]), values("a", unknown())])
        .await
        .unwrap();
    alike(&querier.blocks, &[BlockListRequest { tenant: "a".to_owned(), known_version: 0 }]).await.unwrap();
    let published = BlockPublished { tenant: "a".to_owned(), meta_json: b"{".as_slice().into() };
    alike(&news.published, &[published]).await.unwrap();
    let replaced = |ids: Vec<String>| BlocksReplaced {
        tenant: "a".to_owned(),
        removed_block_ids: ids,
        ..BlocksReplaced::default()
    };
    alike(&news.replaced, &[replaced(unknown()), replaced(vec!["no".to_owned()])]).await.unwrap();
    root.drain(LONG).await;
}

#[actix::test]
async fn what_a_router_serves_is_all_that_the_querier_has() {
    let World { root, querier, .. } = world();
    let linking = vivace_runtime::contract::Linking::to(&querier.router(), 2).await.unwrap();
    let blocks =
        Endpoint::<BlockListRequest, BlockListReply>::linked(&linking.links, vivace_protocol::service::QUERIER);
    assert!(blocks.call(BlockListRequest { tenant: "a".to_owned(), known_version: 0 }, LONG).await.unwrap().complete);
    let served = format!("{:?}", querier.router().answers());
    for message in ["FindTraceRequest", "SearchJob", "MetricsJob", "TagNamesJob", "TagValuesJob", "BlockListRequest"] {
        assert!(served.contains(&format!("/vivace.v1.Querier/{message}")), "{message}: {served}");
    }
    linking.end();
    root.drain(LONG).await;
}

#[actix::test]
async fn links_to_a_query_frontend_are_opened_again_when_they_break_and_end_with_the_querier() {
    let World { root, querier, _bucket, .. } = world();
    let links = Links::new("queriers");
    let (address, server) = expose(links.router()).await.unwrap();
    let mut config = Config { max_concurrent_queries: 3, ..Config::default() };
    config.frontend_worker.frontend_address.clone_from(&address);
    let own = Supervisor::root("own", Arc::new(SystemClock), Placement::Here);
    let (clock, mut rng) = (Arc::new(SystemClock), Rng::seeded(1));
    Frontends::add(&own, &config, &querier.router(), "host", clock, &mut rng, Placement::Here).unwrap();
    own.start();
    let mut connected = links.watch();
    connected.wait_for(|connected| *connected == 3).await.unwrap();
    let blocks = Endpoint::<BlockListRequest, BlockListReply>::linked(&links, vivace_protocol::service::QUERIER);
    assert!(blocks.call(BlockListRequest::default(), LONG).await.unwrap().complete);

    // The query-frontend goes and comes back at the same address, as another process would.
    links.close();
    server.cancel();
    connected.wait_for(|connected| *connected == 0).await.unwrap();
    let (links, stop) = (Links::new("queriers"), CancellationToken::new());
    let (router, until) = (links.router(), stop.clone());
    let listener = loop {
        // Until the first server has let go of the port.
        match tokio::net::TcpListener::bind(&address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    tokio::spawn(async move { Server::default().serve(listener, router, until, Duration::ZERO).await });
    let mut connected = links.watch();
    connected.wait_for(|connected| *connected == 3).await.unwrap();

    assert!(own.drain(LONG).await);
    connected.wait_for(|connected| *connected == 0).await.unwrap();
    stop.cancel();
    root.drain(LONG).await;
}
