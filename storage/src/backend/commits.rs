//! Commit objects in the root of a bucket, and what they promise about blocks.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use uuid::Uuid;

use super::{Backend, BlockKey, DATA, Error, Place};
use crate::{
    commit::{ChainStart, Commit, CommitName},
    meta::{BlockMeta, META, META_COMPACTED, Timestamp},
};

/// What there is of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockState {
    /// It has its metadata.
    Live,
    /// It was merged into others, or is past retention.
    Compacted,
    /// Its data is there and says nothing: the metadata was never written.
    WithoutMeta,
    /// Nothing is left.
    Gone,
}

impl Backend {
    /// The commit object of a section, if there is one.
    pub async fn read_commit(&self, name: &CommitName) -> Result<Option<Commit>, Error> {
        let object = name.object();
        match self.get(Place::Root(&object)).await {
            Ok(json) => {
                Commit::from_json(name, &json).map(Some).map_err(|source| Error::Commit { name: object, source })
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates the commit object unless the section has one; of several writers exactly one gets `true`. After an error it may
    /// exist: read it back and compare the nonce.
    pub async fn create_commit(&self, commit: &Commit) -> Result<bool, Error> {
        let object = commit.name().object();
        self.create(Place::Root(&object), Bytes::from(commit.to_json())).await
    }

    /// Agrees on where the chain of a partition without sections begins: at `name.first`, unless that was said before. Returns where.
    pub async fn begin_chain(&self, name: &CommitName) -> Result<u64, Error> {
        let object = name.chain_object();
        match self.create(Place::Root(&object), Bytes::from(ChainStart::at(name.first).to_json())).await {
            Ok(true) => Ok(name.first),
            // Also when the answer was unclear: what stands there counts.
            Ok(false) | Err(Error::Store { .. }) => {
                let json = self.get(Place::Root(&object)).await?;
                ChainStart::from_json(&json).map_err(|source| Error::Commit { name: object, source })
            }
            Err(error) => Err(error),
        }
    }

    /// Where the chain of a partition begins, if that was said.
    pub async fn chain_start(&self, name: &CommitName) -> Result<Option<u64>, Error> {
        let object = name.chain_object();
        match self.get(Place::Root(&object)).await {
            Ok(json) => ChainStart::from_json(&json).map(Some).map_err(|source| Error::Commit { name: object, source }),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of all commit objects, and when each was written.
    pub async fn list_commits(&self) -> Result<BTreeMap<CommitName, Timestamp>, Error> {
        let objects = self.list_level().await?.1;
        let named = objects.into_iter().filter_map(|(name, modified)| Some((CommitName::parse(&name)?, modified)));
        Ok(named.collect())
    }

    /// What there is of a block, by at most three look-ups.
    pub async fn block_state(&self, key: &BlockKey) -> Result<BlockState, Error> {
        for (object, state) in
            [(META, BlockState::Live), (META_COMPACTED, BlockState::Compacted), (DATA, BlockState::WithoutMeta)]
        {
            match self.head(Place::Block(key, object)).await {
                Ok(_) => return Ok(state),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(BlockState::Gone)
    }

    /// Puts the metadata of a committed block if it was never written; repeating it is safe. Returns what there was of it.
    pub async fn restore_meta(&self, meta: &BlockMeta) -> Result<BlockState, Error> {
        let state = self.block_state(&BlockKey::new(meta.tenant_id.as_str(), meta.block_id)).await?;
        if state == BlockState::WithoutMeta {
            self.put_meta(meta).await?;
        }
        Ok(state)
    }

    /// Those of `blocks` that a commit object written at or after `since` names: they count although they have no metadata, so
    /// whoever cleans up must put it and not delete the data.
    pub async fn committed(&self, blocks: &BTreeSet<Uuid>, since: Timestamp) -> Result<Vec<BlockMeta>, Error> {
        let mut found = Vec::new();
        if blocks.is_empty() {
            return Ok(found);
        }
        for (name, modified) in self.list_commits().await? {
            if modified < since {
                continue;
            }
            let commit = self.read_commit(&name).await?;
            let metas = commit.into_iter().flat_map(|commit| commit.blocks);
            found.extend(metas.filter(|meta| blocks.contains(&meta.block_id)));
        }
        Ok(found)
    }
}
