//! Blocklist: which blocks each tenant has.
//!
//! Owns the list. Polls the object store (`storage.trace.blocklist_poll`), takes news at once from the processes beside it
//! (`BlockPublished`, `BlocksReplaced`) and answers `BlockListRequest`. Mailbox 256: a message is one block's meta.
//! On restart: the first poll is made before anything is answered, so a missing list is never taken for an empty one.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use tonic::Status;
use uuid::Uuid;
use vivace_protocol::BlockEntry;
use vivace_protocol::vivace::{
    BlockListReply, BlockListRequest, BlockPublished, BlockPublishedReply, BlocksReplaced, BlocksReplacedReply,
};
use vivace_runtime::{Cx, Failure, Part, Reply, Serve};
use vivace_storage::{
    Backend, BackendError, BlockKey, BlockMeta, Blocklist as List, CompactedBlockMeta, TenantBlocks, Timestamp,
};

use crate::blocks::Blocks;
use crate::metrics::Metrics;

/// Metadata of blocks read at once: each costs a round trip to a remote store.
const REQUESTS: usize = 32;

/// The part.
pub(crate) struct Blocklist {
    backend: Backend,
    period: Duration,
    list: List,
    /// The list as messages, made when asked for the first time after a change.
    messages: HashMap<String, BlockListReply>,
    metrics: Metrics,
    last_error: Option<String>,
    open: Arc<Blocks>,
}

impl Blocklist {
    /// Polls once and is then complete.
    pub(crate) async fn build(
        backend: Backend,
        period: Duration,
        metrics: Metrics,
        open: Arc<Blocks>,
    ) -> Result<Self, Failure> {
        let mut list = List::default();
        list.apply_poll(poll(&backend, &HashMap::new()).await?);
        let blocklist = Self { backend, period, list, messages: HashMap::new(), metrics, last_error: None, open };
        blocklist.count();
        Ok(blocklist)
    }

    fn known(&self) -> HashMap<Uuid, Arc<BlockMeta>> {
        let tenants = self.list.tenants().filter_map(|tenant| self.list.get(tenant));
        let mut known = HashMap::new();
        for blocks in tenants {
            known.extend(blocks.compacted.iter().map(|block| (block.meta.block_id, Arc::new(block.meta.clone()))));
            known.extend(blocks.live.iter().map(|meta| (meta.block_id, Arc::clone(meta))));
        }
        known
    }

    fn count(&self) {
        for tenant in self.list.tenants() {
            let blocks = self.list.get(tenant);
            self.metrics.blocklist(tenant, blocks.map_or(0, |b| b.live.len()), blocks.map_or(0, |b| b.compacted.len()));
        }
    }

    fn changed(&mut self) {
        self.messages.clear();
        self.count();
        let tenants = self.list.tenants().filter_map(|tenant| self.list.get(tenant));
        let live: HashSet<Uuid> = tenants.flat_map(|blocks| &blocks.live).map(|meta| meta.block_id).collect();
        self.open.retain(|id| live.contains(id));
    }

    fn refresh(&mut self, cx: &mut Cx<Self>) {
        let (backend, known) = (self.backend.clone(), self.known());
        cx.spawn(async move { poll(&backend, &known).await }, |part, polled, cx| {
            match polled {
                Ok(polled) => {
                    part.list.apply_poll(polled);
                    part.last_error = None;
                    part.changed();
                }
                Err(error) => {
                    // The list of the last poll stays in use.
                    tracing::error!(%error, "poll the blocklist");
                    part.metrics.poll_failed();
                    part.last_error = Some(error.to_string());
                }
            }
            cx.after(part.period, Self::refresh);
        });
    }
}

/// Reads what the store has. Metas that are known already are not read again: a published block never changes.
async fn poll(
    backend: &Backend,
    known: &HashMap<Uuid, Arc<BlockMeta>>,
) -> Result<HashMap<Arc<str>, TenantBlocks>, BackendError> {
    let mut tenants = HashMap::new();
    for tenant in backend.list_tenants().await? {
        let tenant: Arc<str> = tenant.into();
        let listing = backend.list_blocks(&tenant).await?;
        let key = |id| BlockKey::new(Arc::clone(&tenant), id);
        let live = listing.live.into_iter().map(|id| async move {
            match known.get(&id) {
                Some(meta) => Ok(Arc::clone(meta)),
                None => backend.read_meta(&key(id)).await.map(Arc::new),
            }
        });
        let compacted = listing.compacted.into_iter().map(|(id, compacted_time)| async move {
            match known.get(&id) {
                Some(meta) => Ok(CompactedBlockMeta { meta: (**meta).clone(), compacted_time }),
                None => backend.read_compacted_meta(&key(id)).await,
            }
        });
        let blocks = TenantBlocks {
            live: present(live).await?,
            compacted: present(compacted).await?.into_iter().map(Arc::new).collect(),
        };
        tenants.insert(tenant, blocks);
    }
    Ok(tenants)
}

/// What the requests bring, some at a time; what was compacted or deleted since the listing is left out.
async fn present<T>(
    requests: impl Iterator<Item = impl Future<Output = Result<T, BackendError>>>,
) -> Result<Vec<T>, BackendError> {
    let mut answers = futures::stream::iter(requests).buffered(REQUESTS);
    let mut found = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(answer) => found.push(answer),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

impl Part for Blocklist {
    fn started(&mut self, cx: &mut Cx<Self>) {
        cx.after(self.period, Self::refresh);
    }

    fn observe(&self) -> serde_json::Value {
        let tenants = self.list.tenants().filter_map(|tenant| self.list.get(tenant));
        let (mut count, mut live, mut compacted) = (0, 0, 0);
        for blocks in tenants {
            count += 1;
            live += blocks.live.len();
            compacted += blocks.compacted.len();
        }
        serde_json::json!({ "tenants": count, "blocks": live, "compacted_blocks": compacted, "last_error": self.last_error })
    }
}

impl Serve<BlockPublished> for Blocklist {
    type Reply = BlockPublishedReply;

    fn serve(&mut self, news: BlockPublished, _cx: &mut Cx<Self>) -> Reply<BlockPublishedReply> {
        let meta = match parse(&news.meta_json) {
            Ok(meta) => meta,
            Err(status) => return Reply::err(status),
        };
        self.list.update(&news.tenant.into(), vec![meta], [], Vec::new(), []);
        self.changed();
        Reply::ok(BlockPublishedReply {})
    }
}

impl Serve<BlocksReplaced> for Blocklist {
    type Reply = BlocksReplacedReply;

    fn serve(&mut self, news: BlocksReplaced, cx: &mut Cx<Self>) -> Reply<BlocksReplacedReply> {
        let added: Result<Vec<_>, Status> = news.added_meta_json.iter().map(parse).collect();
        let added = match added {
            Ok(added) => added,
            Err(status) => return Reply::err(status),
        };
        let removed: Result<Vec<Uuid>, _> = news.removed_block_ids.iter().map(|id| id.parse()).collect();
        let removed = match removed {
            Ok(removed) => removed,
            Err(error) => return Reply::err(Status::invalid_argument(format!("block id: {error}"))),
        };
        let tenant: Arc<str> = news.tenant.into();
        let now = Timestamp(cx.clock().unix_nanos());
        let live = self.list.get(&tenant).map(|blocks| blocks.live.clone()).unwrap_or_default();
        let compacted = live
            .iter()
            .filter(|meta| removed.contains(&meta.block_id))
            .map(|meta| Arc::new(CompactedBlockMeta { meta: (**meta).clone(), compacted_time: now }))
            .collect();
        self.list.update(&tenant, added, removed, compacted, []);
        self.changed();
        Reply::ok(BlocksReplacedReply {})
    }
}

impl Serve<BlockListRequest> for Blocklist {
    type Reply = BlockListReply;

    fn serve(&mut self, request: BlockListRequest, _cx: &mut Cx<Self>) -> Reply<BlockListReply> {
        let complete = self.last_error.is_none();
        // Tenants without blocks are not kept: anybody can ask for any name.
        let Some(blocks) = self.list.get(&request.tenant) else { return Reply::ok(BlockListReply::of([], complete)) };
        let message = match self.messages.entry(request.tenant) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => {
                free.insert(BlockListReply::of(blocks.live.iter().map(|meta| entry(meta)), complete))
            }
        };
        message.complete = complete;
        Reply::ok(if request.known_version == message.version { message.unchanged() } else { message.clone() })
    }
}

/// The live blocks of a tenant, for jobs of this process: shared, not copied.
pub(crate) struct LiveBlocks {
    pub(crate) tenant: Arc<str>,
    /// Blocks compacted less than two polls ago are wanted too: the outputs may not be known everywhere yet.
    pub(crate) with_compacted: bool,
}

impl Serve<LiveBlocks> for Blocklist {
    type Reply = Vec<Arc<BlockMeta>>;

    fn serve(&mut self, request: LiveBlocks, cx: &mut Cx<Self>) -> Reply<Vec<Arc<BlockMeta>>> {
        let Some(blocks) = self.list.get(&request.tenant) else { return Reply::ok(Vec::new()) };
        let mut metas = blocks.live.clone();
        if request.with_compacted {
            let oldest = Timestamp(cx.clock().unix_nanos()).0;
            let keep = u64::try_from((self.period * 2).as_nanos()).unwrap_or(u64::MAX);
            let recent = blocks.compacted.iter().filter(|b| b.compacted_time.0.saturating_add(keep) >= oldest);
            metas.extend(recent.map(|b| Arc::new(b.meta.clone())));
        }
        Reply::ok(metas)
    }
}

fn entry(meta: &BlockMeta) -> BlockEntry {
    BlockEntry {
        id: meta.block_id.into_bytes(),
        start_unix_nano: meta.start_time.0,
        end_unix_nano: meta.end_time.0,
        size_bytes: meta.size,
        objects: meta.total_objects,
        row_groups: meta.total_records,
        replication_factor: meta.replication_factor,
    }
}

fn parse(json: &Bytes) -> Result<Arc<BlockMeta>, Status> {
    BlockMeta::from_json(json)
        .map(Arc::new)
        .map_err(|error| Status::invalid_argument(format!("meta of a block: {error}")))
}
