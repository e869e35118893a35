//! The block list: which blocks each tenant has, as last polled, with the changes made here since.
//!
//! A compactor's own changes count at once. A poll that started before them must not undo them, so they are applied
//! again over exactly one following poll; the poll after that has seen them in the store.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use uuid::Uuid;

use crate::meta::{BlockMeta, CompactedBlockMeta};

/// The blocks of one tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantBlocks {
    /// Blocks for every kind of query.
    pub live: Vec<Arc<BlockMeta>>,
    /// Blocks that are still asked for traces by id for a while.
    pub compacted: Vec<Arc<CompactedBlockMeta>>,
}

#[derive(Debug, Clone, Default)]
struct Changes {
    added: Vec<Arc<BlockMeta>>,
    removed: HashSet<Uuid>,
    compacted: Vec<Arc<CompactedBlockMeta>>,
    uncompacted: HashSet<Uuid>,
}

impl Changes {
    fn apply(&self, blocks: &mut TenantBlocks) {
        blocks.live.retain(|meta| !self.removed.contains(&meta.block_id));
        for meta in &self.added {
            let gone = self.removed.contains(&meta.block_id);
            if !gone && !blocks.live.iter().any(|other| other.block_id == meta.block_id) {
                blocks.live.push(meta.clone());
            }
        }
        for compacted in &self.compacted {
            if !blocks.compacted.iter().any(|other| other.meta.block_id == compacted.meta.block_id) {
                blocks.compacted.push(compacted.clone());
            }
        }
        blocks.compacted.retain(|block| !self.uncompacted.contains(&block.meta.block_id));
    }

    fn join(&mut self, other: &Self) {
        self.added.extend(other.added.iter().cloned());
        self.removed.extend(&other.removed);
        self.compacted.extend(other.compacted.iter().cloned());
        self.uncompacted.extend(&other.uncompacted);
    }
}

/// Every tenant's blocks. A plain value: its owner serialises access.
#[derive(Debug, Clone, Default)]
pub struct Blocklist {
    tenants: HashMap<Arc<str>, TenantBlocks>,
    /// Made since the last poll was applied.
    pending: HashMap<Arc<str>, Changes>,
}

impl Blocklist {
    /// The blocks of a tenant, none if it is unknown.
    pub fn get(&self, tenant: &str) -> Option<&TenantBlocks> {
        self.tenants.get(tenant)
    }

    /// Known tenants, in no particular order.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<str>> {
        self.tenants.keys()
    }

    /// Takes over the result of a poll: tenants absent from it are forgotten, changes made since the last poll are
    /// applied once more. A tenant whose poll failed should be passed with its previous blocks.
    pub fn apply_poll(&mut self, polled: HashMap<Arc<str>, TenantBlocks>) {
        self.tenants = polled;
        for (tenant, changes) in std::mem::take(&mut self.pending) {
            changes.apply(self.tenants.entry(tenant).or_default());
        }
        self.tenants.retain(|_, blocks| !blocks.live.is_empty() || !blocks.compacted.is_empty());
    }

    /// Notes what a compaction, a retention or a flush here did: new live blocks, blocks no longer live, newly compacted
    /// blocks, compacted blocks deleted.
    pub fn update(
        &mut self,
        tenant: &Arc<str>,
        added: Vec<Arc<BlockMeta>>,
        removed: impl IntoIterator<Item = Uuid>,
        compacted: Vec<Arc<CompactedBlockMeta>>,
        deleted: impl IntoIterator<Item = Uuid>,
    ) {
        let changes = Changes {
            added,
            removed: removed.into_iter().collect(),
            compacted,
            uncompacted: deleted.into_iter().collect(),
        };
        changes.apply(self.tenants.entry(tenant.clone()).or_default());
        self.pending.entry(tenant.clone()).or_default().join(&changes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Timestamp;

    fn meta(n: u128) -> Arc<BlockMeta> {
        let text =
            include_str!("../tests/fixtures/vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41/meta.json");
        Arc::new(BlockMeta { block_id: Uuid::from_u128(n), ..BlockMeta::from_json(text.as_bytes()).unwrap() })
    }

    fn polled(live: &[u128]) -> HashMap<Arc<str>, TenantBlocks> {
        let live = live.iter().map(|&n| meta(n)).collect();
        HashMap::from([("t".into(), TenantBlocks { live, compacted: Vec::new() })])
    }

    fn ids(list: &Blocklist) -> Vec<u128> {
        let mut ids: Vec<u128> = list.get("t").unwrap().live.iter().map(|meta| meta.block_id.as_u128()).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_change_survives_one_poll_that_began_before_it() {
        let mut list = Blocklist::default();
        list.apply_poll(polled(&[1, 2]));
        let compacted = CompactedBlockMeta { meta: (*meta(1)).clone(), compacted_time: Timestamp(1) };
        list.update(&"t".into(), vec![meta(3)], [Uuid::from_u128(1), Uuid::from_u128(2)], vec![compacted.into()], []);
        assert_eq!(ids(&list), [3]);
        list.apply_poll(polled(&[1, 2]));
        assert_eq!(ids(&list), [3]);
        assert_eq!(list.get("t").unwrap().compacted.len(), 1);
        list.apply_poll(polled(&[1, 2, 3]));
        assert_eq!(ids(&list), [1, 2, 3]);
    }

    #[test]
    fn tenants_without_blocks_are_forgotten() {
        let mut list = Blocklist::default();
        list.apply_poll(polled(&[1]));
        list.apply_poll(polled(&[]));
        assert!(list.get("t").is_none());
    }
}
