//! The limits in force for a tenant, for every component that asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::TenantLimits;
use arc_swap::ArcSwap;
use vivace_protocol::TenantId;
use vivace_runtime::config::{ColumnScope, ColumnType, DedicatedColumn as ColumnConfig, Limits};
use vivace_storage::{DedicatedColumn, DedicatedScope, ValueType};

/// The limits of tenants. Replaced as a whole when the runtime file changes.
pub(crate) struct Overrides {
    current: ArcSwap<Current>,
    defaults: Arc<Limits>,
    block_columns: Vec<ColumnConfig>,
}

/// The entries of the runtime file.
type Current = HashMap<String, Arc<Limits>>;

impl Overrides {
    pub(crate) fn new(defaults: Limits, block_columns: Vec<ColumnConfig>) -> Self {
        Self { current: ArcSwap::from_pointee(Current::new()), defaults: Arc::new(defaults), block_columns }
    }

    /// Takes over the content of the runtime file.
    pub(crate) fn replace(&self, limits: &TenantLimits) {
        let entries = limits.tenants().map(|(tenant, limits)| (tenant.to_owned(), Arc::new(limits.clone())));
        self.current.store(Arc::new(entries.collect()));
    }

    /// The tenant's own, else those of `*`, else the defaults.
    pub(crate) fn of(&self, tenant: &TenantId) -> Arc<Limits> {
        let current = self.current.load();
        let own = current.get(tenant.as_str()).or_else(|| current.get("*"));
        Arc::clone(own.unwrap_or(&self.defaults))
    }
}

impl vivace_distributor::TenantLimits for Overrides {
    fn limits(&self, tenant: &TenantId) -> Arc<Limits> {
        self.of(tenant)
    }
}

fn count(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn columns(config: &[ColumnConfig]) -> Vec<DedicatedColumn> {
    config
        .iter()
        .map(|column| {
            let scope = match column.scope {
                ColumnScope::Resource => DedicatedScope::Resource,
                ColumnScope::Span => DedicatedScope::Span,
                ColumnScope::Event => DedicatedScope::Event,
            };
            let kind = match column.r#type {
                ColumnType::String => ValueType::String,
                ColumnType::Int => ValueType::Int,
            };
            let mut dedicated = DedicatedColumn::new(scope, column.name.clone(), kind);
            dedicated.options = column.options.iter().map(|option| option.as_str().to_owned()).collect();
            dedicated
        })
        .collect()
}

impl vivace_live_store::Limits for Overrides {
    fn max_bytes_per_trace(&self, tenant: &TenantId) -> usize {
        count(self.of(tenant).global.max_bytes_per_trace)
    }

    fn dedicated_columns(&self, tenant: &TenantId) -> Vec<DedicatedColumn> {
        let limits = self.of(tenant);
        columns(limits.storage.parquet_dedicated_columns.as_deref().unwrap_or(&self.block_columns))
    }
}

impl vivace_query_frontend::Limits for Overrides {
    fn max_bytes_per_trace(&self, tenant: &TenantId) -> usize {
        count(self.of(tenant).global.max_bytes_per_trace)
    }

    fn max_search_duration(&self, tenant: &TenantId) -> Duration {
        self.of(tenant).read.max_search_duration.into()
    }

    fn max_bytes_per_tag_values_query(&self, tenant: &TenantId) -> usize {
        count(self.of(tenant).read.max_bytes_per_tag_values_query)
    }

    fn left_pad_trace_ids(&self, tenant: &TenantId) -> bool {
        self.of(tenant).read.left_pad_trace_ids
    }
}

impl vivace_backend_worker::Limits for Overrides {
    fn block_retention(&self, tenant: &TenantId) -> Duration {
        self.of(tenant).compaction.block_retention.into()
    }

    fn compaction_disabled(&self, tenant: &TenantId) -> bool {
        self.of(tenant).compaction.compaction_disabled
    }
}
