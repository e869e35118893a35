//! The block lists of tenants, kept between queries: every query asks whether its list has changed, and gets it only then.
//!
//! A querier is asked, also from another process: queriers poll the store anyway, so a query-frontend needs neither access to
//! the store nor memory for what is in it beside these lists. Queriers that have polled at different times may answer with
//! different lists; a querier that is asked for a block it has not heard of reads its meta then.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tonic::Status;
use vivace_protocol::vivace::BlockListRequest;
use vivace_protocol::{BlockEntry, TenantId};
use vivace_runtime::Deadline;

use super::Planner;

/// Blocks kept over all tenants, about 64 bytes each. Above, all but the list at hand are forgotten and asked for again.
const KEPT_BLOCKS: usize = 1 << 20;

/// The blocks of one tenant at one time.
#[derive(Debug)]
pub(crate) struct BlockList {
    version: u64,
    /// By their ends, the newest first; ties by id.
    pub(crate) blocks: Vec<BlockEntry>,
}

/// The lists known here.
#[derive(Debug, Default)]
pub(crate) struct BlockLists(Mutex<HashMap<TenantId, Arc<BlockList>>>);

impl BlockLists {
    fn get(&self, tenant: &TenantId) -> Option<Arc<BlockList>> {
        self.0.lock().get(tenant).cloned()
    }

    fn put(&self, tenant: &TenantId, list: &Arc<BlockList>) {
        let mut lists = self.0.lock();
        lists.remove(tenant);
        let kept: usize = lists.values().map(|list| list.blocks.len() + 1).sum();
        if kept + list.blocks.len() > KEPT_BLOCKS {
            lists.clear();
        }
        lists.insert(tenant.clone(), Arc::clone(list));
    }
}

impl Planner {
    /// The tenant's blocks as a querier knows them now.
    pub(super) async fn block_list(&self, tenant: &TenantId, deadline: Deadline) -> Result<Arc<BlockList>, Status> {
        let known = self.block_lists.get(tenant);
        let known_version = known.as_ref().map_or(0, |list| list.version);
        let request = BlockListRequest { tenant: tenant.to_string(), known_version };
        // In turn, because over links a question takes the place of a job.
        let reply = self.attempt(tenant, deadline, || self.queriers.blocks.call(request.clone(), deadline)).await?;
        if let Some(known) = known
            && reply.unchanged
            && reply.version == known_version
        {
            return Ok(known);
        }
        let mut blocks = reply.entries().map_err(|error| Status::internal(error.to_string()))?;
        blocks.sort_by(|a, b| b.end_unix_nano.cmp(&a.end_unix_nano).then_with(|| a.id.cmp(&b.id)));
        let list = Arc::new(BlockList { version: reply.version, blocks });
        self.block_lists.put(tenant, &list);
        Ok(list)
    }
}

impl Planner {
    /// Blocks of all tenants together.
    pub(super) async fn listed(&self, tenants: &[TenantId], deadline: Deadline) -> Result<u64, Status> {
        let mut listed = 0;
        for tenant in tenants {
            listed += self.block_list(tenant, deadline).await?.blocks.len() as u64;
        }
        Ok(listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stays_bounded() {
        let lists = BlockLists::default();
        let entry = BlockEntry {
            id: [0; 16],
            start_unix_nano: 0,
            end_unix_nano: 0,
            size_bytes: 0,
            objects: 0,
            row_groups: 0,
            replication_factor: 1,
        };
        let list = Arc::new(BlockList { version: 1, blocks: vec![entry; KEPT_BLOCKS / 4] });
        for i in 0..10 {
            let tenant = TenantId::parse(&format!("tenant-{i}")).unwrap();
            lists.put(&tenant, &list);
            assert!(lists.get(&tenant).is_some());
            assert!(lists.0.lock().len() <= 4);
        }
    }
}
