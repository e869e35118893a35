//! Upkeep: follows the ring with the channels to live-stores.
//!
//! Owns a timer (`live_store_client.pool_config.checkinterval`). Consumes nothing. On restart: looks again.

use std::sync::Arc;

use vivace_runtime::{Cx, Part};

use super::addresses;
use super::ask::Asker;
use super::pool::Pool;
use crate::live_stores::LiveStores;

/// The part.
#[derive(Clone)]
pub(crate) struct Upkeep {
    stores: Arc<dyn LiveStores>,
    pool: Arc<Pool>,
    every: std::time::Duration,
}

impl Upkeep {
    pub(super) fn new(stores: Arc<dyn LiveStores>, asker: &Asker) -> Self {
        Self { stores, pool: Arc::clone(&asker.pool), every: asker.settings.check_interval }
    }

    fn look(&mut self, cx: &mut Cx<Self>) {
        self.pool.keep(&addresses(&self.stores.partitions()));
        let pool = Arc::clone(&self.pool);
        cx.spawn(async move { pool.check().await }, |part, (), cx| {
            cx.after(part.every, Self::look);
        });
    }
}

impl Part for Upkeep {
    fn started(&mut self, cx: &mut Cx<Self>) {
        cx.after(self.every, Self::look);
    }

    fn observe(&self) -> serde_json::Value {
        let partitions = self.stores.partitions();
        let owners: usize = partitions.iter().map(|partition| partition.owners.len()).sum();
        serde_json::json!({ "partitions": partitions.len(), "owners": owners, "channels": self.pool.addresses() })
    }
}
