//! Where blocks live: one bucket or folder, laid out as Tempo lays it out.
//!
//! ```text
//! <prefix>/<name>                            objects of the whole bucket (commits, work lists)
//! <prefix>/<tenant>/index.pb.zst             objects of a tenant
//! <prefix>/<tenant>/<block id>/data.parquet  objects of a block
//! ```
//! The trait below is `object_store`'s: local disk, memory, S3 and (later) GCS and Azure differ only in how a [`Backend`] is
//! made. On local disk a call that returned has been synced, file and folders; a deletion may come back after a power
//! cut, which every caller has to expect anyway. A block exists once `meta.json` does, so that object is written last.

mod block_listing;
mod commits;
mod s3;
mod staged;
mod upload;

use std::{collections::BTreeSet, fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, local::LocalFileSystem,
    memory::InMemory, path::Path,
};
use uuid::Uuid;

use crate::{
    commit,
    config::TraceConfig,
    index::INDEX,
    meta::{self, BlockMeta, CompactedBlockMeta, META, META_COMPACTED, Timestamp},
    tenant_index::{self, INDEX_JSON, INDEX_PROTO, TenantIndex},
    write::FinishedBlock,
};
pub use block_listing::BlockListing;
pub use commits::BlockState;
pub use s3::{Environment, OpenError};
pub use upload::Upload;

/// Name of the object that holds a block's rows.
pub(crate) const DATA: &str = "data.parquet";
/// Name of the object whose presence keeps a block from being compacted.
pub(crate) const NO_COMPACT: &str = "nocompact.flg";

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Expected while blocks are deleted by others. Nothing changed; asking again gives the same answer.
    #[error("{0} does not exist")]
    NotFound(String),
    /// A tenant or object name that no path can be made of. Nothing changed; a bug or a bad request.
    #[error("{0:?} can't be part of an object's name")]
    Name(String),
    /// The store failed or could not be reached; a write may or may not have happened. A retry is safe: every write
    /// here is idempotent, [`Backend::create`] tells by reading back.
    #[error("{action} {path}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// On which object or prefix.
        path: String,
        /// The store's own words.
        #[source]
        source: StoreWords,
    },
    /// The local folder can't be used.
    #[error("{action} {path}")]
    Folder {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: String,
        /// The system's own words.
        #[source]
        source: std::io::Error,
    },
    /// The bucket could not be looked at when the process started: a wrong address, bucket or credentials, or the server
    /// is not there (yet).
    #[error("{section}: the store does not answer as it should ({store}); {remedy}")]
    Start {
        /// The section of the configuration.
        section: &'static str,
        /// Where it is and who we are there.
        store: Arc<str>,
        /// What to look at.
        remedy: &'static str,
        /// The store's own words.
        #[source]
        source: StoreWords,
    },
    /// No bucket can be made of the configuration.
    #[error("open the object store")]
    Open(#[from] OpenError),
    /// A block's metadata is damaged or lies in a foreign folder.
    #[error("metadata of block {block}")]
    Meta {
        /// The block.
        block: BlockKey,
        /// What is wrong with it.
        #[source]
        source: meta::Error,
    },
    /// A commit object is damaged, or lies under a foreign name. Nothing may be built on it: someone has to look.
    #[error("commit object {name}")]
    Commit {
        /// Name of the object.
        name: String,
        /// What is wrong with it.
        #[source]
        source: commit::Error,
    },
    /// A tenant's index is damaged; the next build replaces it.
    #[error("index of tenant {tenant}")]
    TenantIndex {
        /// The tenant.
        tenant: String,
        /// What is wrong with it.
        #[source]
        source: tenant_index::Error,
    },
}

impl Error {
    fn store(action: &'static str, path: &Path, source: object_store::Error) -> Self {
        match source {
            object_store::Error::NotFound { .. } => Self::NotFound(path.to_string()),
            source => Self::Store { action, path: path.to_string(), source: StoreWords(source) },
        }
    }

    /// Whether the object is certainly absent.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

/// What a store says. Its text names all causes, so it has none of its own, or a printed chain would repeat them.
#[derive(Debug)]
pub struct StoreWords(object_store::Error);

impl fmt::Display for StoreWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for StoreWords {}

/// A block of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockKey {
    /// Tenant id, also the name of its folder.
    pub tenant: Arc<str>,
    /// Block id, also the name of its folder (lower case, with hyphens).
    pub block: Uuid,
}

impl BlockKey {
    /// The block `block` of `tenant`.
    pub fn new(tenant: impl Into<Arc<str>>, block: Uuid) -> Self {
        Self { tenant: tenant.into(), block }
    }
}

impl fmt::Display for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.block)
    }
}

/// An object's place in the layout; the last part is its name.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// In the root of the bucket (below the prefix).
    Root(&'a str),
    /// Directly in a tenant's folder.
    Tenant(&'a str, &'a str),
    /// In a block's folder.
    Block(&'a BlockKey, &'a str),
}

/// What a store knows of an object without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Length in bytes.
    pub size: u64,
    /// Last change.
    pub modified: Timestamp,
}

/// A bucket or folder. Cheap to clone; all clones share one store.
#[derive(Debug, Clone)]
pub struct Backend {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Root of a local store: files of interrupted writes are visible only there.
    local: Option<Arc<std::path::Path>>,
    remote: Option<Arc<Remote>>,
}

/// What is known of a store over the network.
#[derive(Debug)]
struct Remote {
    /// Gives up at the first failure.
    impatient: Arc<dyn ObjectStore>,
    dress: s3::Dress,
    part_bytes: usize,
    section: &'static str,
    description: Arc<str>,
}

/// Parts of an upload to a store that has no say in it.
const PART_BYTES: usize = 5 << 20;

impl Backend {
    /// A folder on local disk, created if absent. Writes are synced, file and folders, before they return.
    pub fn local(root: impl AsRef<std::path::Path>) -> Result<Self, Error> {
        let root = root.as_ref();
        let path = || root.display().to_string();
        std::fs::create_dir_all(root).map_err(|source| Error::Folder { action: "create", path: path(), source })?;
        let store = LocalFileSystem::new_with_prefix(root)
            .map_err(|source| Error::Store { action: "open", path: path(), source: StoreWords(source) })?
            .with_fsync(true);
        Ok(Self { store: Arc::new(store), prefix: Path::default(), local: Some(root.into()), remote: None })
    }

    /// A store that lives as long as its clones; for tests.
    pub fn memory() -> Self {
        Self { store: Arc::new(InMemory::new()), prefix: Path::default(), local: None, remote: None }
    }

    /// Any other store, with a prefix that may be empty.
    pub fn over(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self, Error> {
        let prefix = Path::parse(prefix).map_err(|_part| Error::Name(prefix.to_owned()))?;
        Ok(Self { store, prefix, local: None, remote: None })
    }

    /// The store that `storage.trace` names. Nothing is asked of a server yet, see [`Self::check`]. Needs a tokio runtime with
    /// network and time, on which requests will run.
    ///
    /// # Errors
    /// A key that cannot be used, a folder that cannot be made.
    pub fn open(trace: &TraceConfig, environment: &Environment) -> Result<Self, Error> {
        match trace.backend.as_str() {
            "local" if trace.local.path.is_empty() => Err(Error::Open(OpenError::Key {
                section: "storage.trace.local".to_owned(),
                key: "path",
                why: "is empty: say where blocks are kept".to_owned(),
            })),
            "local" => Self::local(&trace.local.path),
            "s3" => Self::s3(&trace.s3, environment),
            other => Err(Error::Open(OpenError::Key {
                section: "storage.trace".to_owned(),
                key: "backend",
                why: format!("is {other:?}; this version has: local, s3"),
            })),
        }
    }

    fn s3(config: &vivace_runtime::config::S3Config, environment: &Environment) -> Result<Self, Error> {
        const SECTION: &str = "storage.trace.s3";
        let opened = s3::open(SECTION, config, environment, tokio::runtime::Handle::current())?;
        let remote = Remote {
            impatient: Arc::new(opened.impatient),
            dress: opened.dress,
            part_bytes: opened.part_bytes,
            section: SECTION,
            description: opened.description.into(),
        };
        let backend = Self::over(Arc::new(opened.store), &config.prefix)?;
        Ok(Self { remote: Some(Arc::new(remote)), ..backend })
    }

    /// Looks at the bucket once, so that a wrong address, bucket or key ends the start and not the first upload. Local stores
    /// were looked at when they were opened.
    ///
    /// # Errors
    /// [`Error::Start`], with what to look at.
    pub async fn check(&self) -> Result<(), Error> {
        let Some(remote) = &self.remote else { return Ok(()) };
        let looked = remote.impatient.list(Some(&self.prefix)).try_next().await;
        let Err(source) = looked else {
            tracing::info!(store = &*remote.description, "object store answers");
            return Ok(());
        };
        let remedy = s3::remedy(&source);
        Err(Error::Start {
            section: remote.section,
            store: Arc::clone(&remote.description),
            remedy,
            source: StoreWords(source),
        })
    }

    /// Whether every read costs a round trip over the network.
    pub fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// Root of a store on local disk.
    pub fn local_root(&self) -> Option<&Arc<std::path::Path>> {
        self.local.as_ref()
    }

    fn put_options(&self, mode: PutMode) -> PutOptions {
        let dress = self.remote.as_ref().map(|remote| remote.dress.clone()).unwrap_or_default();
        PutOptions { mode, tags: dress.tags, attributes: dress.attributes, ..PutOptions::default() }
    }

    /// The object's whole path. Tenant ids may hold characters that `Path::from` would escape, so paths are parsed.
    fn path(&self, place: Place<'_>) -> Result<Path, Error> {
        let parts = match place {
            Place::Root(name) => name.to_owned(),
            Place::Tenant(tenant, name) => format!("{}/{name}", one_part(tenant)?),
            Place::Block(key, name) => format!("{}/{}/{name}", one_part(&key.tenant)?, key.block),
        };
        self.below_prefix(&parts)
    }

    fn below_prefix(&self, parts: &str) -> Result<Path, Error> {
        let prefix = self.prefix.as_ref();
        let whole = if prefix.is_empty() { parts.to_owned() } else { format!("{prefix}/{parts}") };
        Path::parse(&whole).map_err(|_part| Error::Name(parts.to_owned()))
    }

    /// Writes or replaces an object.
    pub async fn put(&self, place: Place<'_>, content: Bytes) -> Result<(), Error> {
        let path = self.path(place)?;
        let options = self.put_options(PutMode::Overwrite);
        let put = self.store.put_opts(&path, PutPayload::from(content), options).await;
        put.map(drop).map_err(|source| Error::store("write", &path, source))
    }

    /// Writes an object unless it exists; of several writers exactly one gets `true`. After an error the object may
    /// exist with this content: read it back.
    pub async fn create(&self, place: Place<'_>, content: Bytes) -> Result<bool, Error> {
        let path = self.path(place)?;
        let options = self.put_options(PutMode::Create);
        match self.store.put_opts(&path, PutPayload::from(content), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(source) => Err(Error::store("create", &path, source)),
        }
    }

    /// Starts writing an object of unknown length; it appears only when the upload is finished.
    pub async fn upload(&self, place: Place<'_>) -> Result<Upload, Error> {
        let path = self.path(place)?;
        let options = self.put_options(PutMode::Overwrite);
        let options = PutMultipartOptions {
            tags: options.tags,
            attributes: options.attributes,
            ..PutMultipartOptions::default()
        };
        let part_bytes = self.remote.as_ref().map_or(PART_BYTES, |remote| remote.part_bytes);
        match self.store.put_multipart_opts(&path, options).await {
            Ok(upload) => Ok(Upload::new(path, upload, part_bytes)),
            Err(source) => Err(Error::store("start writing", &path, source)),
        }
    }

    /// The whole object.
    pub async fn get(&self, place: Place<'_>) -> Result<Bytes, Error> {
        let path = self.path(place)?;
        let read = async { self.store.get(&path).await?.bytes().await };
        read.await.map_err(|source| Error::store("read", &path, source))
    }

    /// Part of an object; a range past its end is an error.
    pub async fn get_range(&self, place: Place<'_>, range: Range<u64>) -> Result<Bytes, Error> {
        let path = self.path(place)?;
        self.store.get_range(&path, range).await.map_err(|source| Error::store("read", &path, source))
    }

    /// Parts of an object in the order asked; the store may join near ones into one request.
    pub async fn get_ranges(&self, place: Place<'_>, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let path = self.path(place)?;
        self.store.get_ranges(&path, ranges).await.map_err(|source| Error::store("read", &path, source))
    }

    /// Size and last change.
    pub async fn head(&self, place: Place<'_>) -> Result<ObjectInfo, Error> {
        let path = self.path(place)?;
        let meta = self.store.head(&path).await.map_err(|source| Error::store("look up", &path, source))?;
        Ok(ObjectInfo { size: meta.size, modified: modified(&meta) })
    }

    /// Removes an object; that it is absent already is no error.
    pub async fn delete(&self, place: Place<'_>) -> Result<(), Error> {
        let path = self.path(place)?;
        self.delete_path(&path).await
    }

    async fn delete_path(&self, path: &Path) -> Result<(), Error> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::store("delete", path, source)),
        }
    }

    /// Names of the objects in the root (not in folders).
    pub async fn list_root(&self) -> Result<Vec<String>, Error> {
        Ok(self.list_level().await?.1.into_iter().map(|(name, _)| name).collect())
    }

    /// The tenants: names of the folders in the root, sorted.
    pub async fn list_tenants(&self) -> Result<Vec<String>, Error> {
        Ok(self.list_level().await?.0)
    }

    /// Folders in the root, sorted, and objects there with the time of their last change.
    async fn list_level(&self) -> Result<(Vec<String>, Vec<(String, Timestamp)>), Error> {
        let listed = self.store.list_with_delimiter(Some(&self.prefix)).await;
        let listed = listed.map_err(|source| Error::store("list", &self.prefix, source))?;
        let last = |path: &Path| path.filename().map(str::to_owned);
        let mut folders: Vec<String> = listed.common_prefixes.iter().filter_map(last).collect();
        folders.sort_unstable();
        let objects = listed.objects.iter().filter_map(|object| Some((last(&object.location)?, modified(object))));
        Ok((folders, objects.collect()))
    }

    /// The blocks of a tenant. One listing, no object is read.
    pub async fn list_blocks(&self, tenant: &str) -> Result<BlockListing, Error> {
        let folder = self.below_prefix(one_part(tenant)?)?;
        let mut listing = BlockListing::default();
        let mut objects = self.store.list(Some(&folder));
        while let Some(object) = objects.try_next().await.map_err(|source| Error::store("list", &folder, source))? {
            listing.add(&folder, &object.location, modified(&object));
        }
        listing.settle();
        Ok(listing)
    }

    /// The metadata of a live block.
    pub async fn read_meta(&self, key: &BlockKey) -> Result<BlockMeta, Error> {
        let json = self.get(Place::Block(key, META)).await?;
        parse_meta(key, &json)
    }

    /// The metadata of a compacted block.
    pub async fn read_compacted_meta(&self, key: &BlockKey) -> Result<CompactedBlockMeta, Error> {
        let place = Place::Block(key, META_COMPACTED);
        let (json, info) = (self.get(place).await?, self.head(place).await?);
        Ok(CompactedBlockMeta { meta: parse_meta(key, &json)?, compacted_time: info.modified })
    }

    /// Writes everything of a block but its metadata. `data` is what the caller streamed beforehand, or all of it.
    pub async fn put_block_objects(&self, key: &BlockKey, block: &FinishedBlock) -> Result<(), Error> {
        let data = Place::Block(key, DATA);
        if let Some(remote) = &self.remote
            && block.data.iter().map(Bytes::len).sum::<usize>() <= remote.part_bytes
        {
            // One request instead of three.
            let (path, options) = (self.path(data)?, self.put_options(PutMode::Overwrite));
            let put = self.store.put_opts(&path, block.data.iter().cloned().collect(), options).await;
            put.map_err(|source| Error::store("write", &path, source))?;
            return self.put_block_sides(key, block).await;
        }
        let mut upload = self.upload(data).await?;
        for part in &block.data {
            upload.write(part.clone()).await?;
        }
        upload.finish().await?;
        self.put_block_sides(key, block).await
    }

    /// Writes blooms and index, for callers that streamed the data themselves.
    pub async fn put_block_sides(&self, key: &BlockKey, block: &FinishedBlock) -> Result<(), Error> {
        for (number, bloom) in block.blooms.iter().enumerate() {
            self.put(Place::Block(key, &format!("bloom-{number}")), bloom.clone()).await?;
        }
        self.put(Place::Block(key, INDEX), block.index.clone()).await
    }

    /// Writes `meta.json`: from now on the block exists. All its other objects must have been written.
    pub async fn put_meta(&self, meta: &BlockMeta) -> Result<(), Error> {
        let key = BlockKey::new(meta.tenant_id.as_str(), meta.block_id);
        self.put(Place::Block(&key, META), Bytes::from(meta.to_json())).await
    }

    /// Writes a whole block in the order that keeps readers from seeing half of it.
    pub async fn put_block(&self, block: &FinishedBlock) -> Result<(), Error> {
        let key = BlockKey::new(block.meta.tenant_id.as_str(), block.meta.block_id);
        self.put_block_objects(&key, block).await?;
        self.put_meta(&block.meta).await
    }

    /// Keeps compaction away from a block until the flag is deleted. To be called before [`Self::put_meta`].
    pub async fn put_no_compact(&self, key: &BlockKey) -> Result<(), Error> {
        self.put(Place::Block(key, NO_COMPACT), Bytes::new()).await
    }

    /// Turns a live block into a compacted one; repeating it is safe. Between the two steps both objects exist and the
    /// block counts as compacted. Copying, also on local disk, gives the object the time of the compaction.
    pub async fn mark_compacted(&self, key: &BlockKey) -> Result<(), Error> {
        match self.get(Place::Block(key, META)).await {
            Ok(json) => {
                self.put(Place::Block(key, META_COMPACTED), json).await?;
                self.delete(Place::Block(key, META)).await
            }
            Err(error) if error.is_not_found() => self.head(Place::Block(key, META_COMPACTED)).await.map(drop),
            Err(error) => Err(error),
        }
    }

    /// Deletes all objects of a block: `meta.json` first, so that no reader starts on it, `meta.compacted.json` last, so that data
    /// without any metadata is never what is left of a block that has been merged into others.
    pub async fn delete_block(&self, key: &BlockKey) -> Result<(), Error> {
        self.delete(Place::Block(key, META)).await?;
        let folder = self.below_prefix(&format!("{}/{}", one_part(&key.tenant)?, key.block))?;
        let objects: Vec<_> = self
            .store
            .list(Some(&folder))
            .map_ok(|object| object.location)
            .try_collect()
            .await
            .map_err(|source| Error::store("list", &folder, source))?;
        for object in objects.iter().filter(|object| object.filename() != Some(META_COMPACTED)) {
            self.delete_path(object).await?;
        }
        self.delete(Place::Block(key, META_COMPACTED)).await?;
        if let Some(root) = &self.local {
            staged::remove_empty(root, &key.tenant, key.block).await;
        }
        Ok(())
    }

    /// Replaces both forms of a tenant's index, or deletes them when there is no block.
    pub async fn put_tenant_index(&self, tenant: &str, index: &TenantIndex) -> Result<(), Error> {
        let (proto, json) = (Place::Tenant(tenant, INDEX_PROTO), Place::Tenant(tenant, INDEX_JSON));
        if index.is_empty() {
            self.delete(proto).await?;
            return self.delete(json).await;
        }
        let damaged = |source| Error::TenantIndex { tenant: tenant.to_owned(), source };
        let (proto_form, json_form) = (index.to_proto().map_err(damaged)?, index.to_json().map_err(damaged)?);
        self.put(proto, Bytes::from(proto_form)).await?;
        self.put(json, Bytes::from(json_form)).await
    }

    /// A tenant's index in the form that is there; the JSON form is asked only when the other is absent.
    pub async fn read_tenant_index(&self, tenant: &str) -> Result<TenantIndex, Error> {
        let parsed = match self.get(Place::Tenant(tenant, INDEX_PROTO)).await {
            Ok(object) => TenantIndex::from_proto(&object),
            Err(error) if error.is_not_found() => {
                TenantIndex::from_json(&self.get(Place::Tenant(tenant, INDEX_JSON)).await?)
            }
            Err(error) => return Err(error),
        };
        parsed.map_err(|source| Error::TenantIndex { tenant: tenant.to_owned(), source })
    }

    /// Deletes what interrupted writers left behind: blocks of `tenant` without any metadata whose newest object is older
    /// than `before`, unless `keep` says that they are still to be completed; on local disk also files that were never
    /// renamed to their names. A block that a commit object names is not abandoned: it gets its metadata. Returns how many blocks
    /// went.
    pub async fn sweep(&self, tenant: &str, before: Timestamp, keep: impl Fn(Uuid) -> bool) -> Result<usize, Error> {
        if let Some(root) = &self.local {
            staged::remove_older(root, one_part(tenant)?, before).await?;
        }
        let listing = self.list_blocks(tenant).await?;
        for &block in &listing.half_compacted {
            self.delete(Place::Block(&BlockKey::new(tenant, block), META)).await?;
        }
        let abandoned = listing.incomplete.iter().filter(|(block, newest)| *newest < before && !keep(*block));
        let mut abandoned: BTreeSet<Uuid> = abandoned.map(|(block, _)| *block).collect();
        // A commit is written after the objects of its blocks.
        let oldest =
            listing.incomplete.iter().filter(|(block, _)| abandoned.contains(block)).map(|(_, newest)| *newest);
        let since = oldest.min().unwrap_or_default();
        for meta in self.committed(&abandoned, since).await? {
            if meta.tenant_id == tenant && abandoned.remove(&meta.block_id) {
                tracing::warn!(tenant, block = %meta.block_id, "metadata of a committed block was never written; put it");
                self.restore_meta(&meta).await?;
            }
        }
        for block in &abandoned {
            self.delete_block(&BlockKey::new(tenant, *block)).await?;
        }
        Ok(abandoned.len())
    }
}

fn parse_meta(key: &BlockKey, json: &[u8]) -> Result<BlockMeta, Error> {
    let parsed = BlockMeta::from_json(json).and_then(|meta| {
        meta.check_place(&key.tenant, key.block)?;
        Ok(meta)
    });
    parsed.map_err(|source| Error::Meta { block: key.clone(), source })
}

/// A tenant's id names one folder: it must not lead anywhere else.
fn one_part(name: &str) -> Result<&str, Error> {
    if name.is_empty() || name.contains('/') { Err(Error::Name(name.to_owned())) } else { Ok(name) }
}

fn modified(object: &object_store::ObjectMeta) -> Timestamp {
    Timestamp::from_system(object.last_modified.into())
}

#[cfg(test)]
mod tests;
