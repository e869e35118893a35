//! The limits in force for a tenant, for every component that asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::TenantLimits;
use arc_swap::ArcSwap;
use vivace_protocol::TenantId;
use vivace_runtime::config::{ColumnScope, ColumnType, DedicatedColumn as ColumnConfig, Limits};
use vivace_runtime::metrics::Registry;
use vivace_storage::{DedicatedColumn, DedicatedScope, ValueType};

/// The limits of tenants. Replaced as a whole when the runtime file changes.
pub(crate) struct Overrides {
    current: ArcSwap<Current>,
    defaults: Arc<Limits>,
    block_columns: Vec<ColumnConfig>,
    /// How many distributors share the global rate limit; one, as long as nobody counts them.
    distributors: std::sync::OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>,
}

/// The entries of the runtime file.
type Current = HashMap<String, Arc<Limits>>;

impl Overrides {
    pub(crate) fn new(defaults: Limits, block_columns: Vec<ColumnConfig>) -> Self {
        Self {
            current: ArcSwap::from_pointee(Current::new()),
            defaults: Arc::new(defaults),
            block_columns,
            distributors: std::sync::OnceLock::new(),
        }
    }

    /// Counts the distributors that share the global rate limit from now on. Once for a process; later calls do nothing.
    pub(crate) fn count_distributors(&self, count: impl Fn() -> u64 + Send + Sync + 'static) {
        self.distributors.set(Box::new(count)).ok();
    }

    /// Takes over the content of the runtime file.
    pub(crate) fn replace(&self, limits: &TenantLimits) {
        let entries = limits.tenants().map(|(tenant, limits)| (tenant.to_owned(), Arc::new(limits.clone())));
        self.current.store(Arc::new(entries.collect()));
    }

    /// The tenant's own, else those of `*`, else the defaults.
    pub(crate) fn of(&self, tenant: &TenantId) -> Arc<Limits> {
        self.with_origin(tenant.as_str()).1
    }

    /// The same, and where they come from: the tenant, `*` or `default overrides`.
    pub(crate) fn with_origin<'a>(&self, tenant: &'a str) -> (&'a str, Arc<Limits>) {
        let current = self.current.load();
        if let Some(own) = current.get(tenant) {
            return (tenant, Arc::clone(own));
        }
        match current.get("*") {
            Some(shared) => ("*", Arc::clone(shared)),
            None => ("default overrides", Arc::clone(&self.defaults)),
        }
    }

    /// The entries of the runtime file, by name.
    pub(crate) fn entries(&self) -> Vec<(String, Arc<Limits>)> {
        let current = self.current.load();
        let mut entries: Vec<_> = current.iter().map(|(tenant, limits)| (tenant.clone(), Arc::clone(limits))).collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries
    }

    pub(crate) fn defaults(&self) -> &Limits {
        &self.defaults
    }

    /// Exports the limits themselves, so that dashboards show how near a tenant is to them.
    pub(crate) fn export(self: &Arc<Self>, registry: &Registry) {
        let overrides = Arc::clone(self);
        registry.collector(move |text| {
            text.family("tempo_limits_defaults", "gauge", "Limits of tenants without an entry, by limit_name.");
            let read = &overrides.defaults.read;
            let more = [
                ("max_bytes_per_tag_values_query", number(read.max_bytes_per_tag_values_query)),
                ("max_blocks_per_tag_values_query", number(read.max_blocks_per_tag_values_query)),
            ];
            for (name, value) in measured(&overrides.defaults).into_iter().chain(more) {
                text.sample("tempo_limits_defaults", "", &[("limit_name", name)], None, value);
            }
            let entries = overrides.entries();
            if entries.is_empty() {
                return;
            }
            text.family("tempo_limits_overrides", "gauge", "Limits of tenants with an entry, by limit_name and user.");
            for (tenant, limits) in &entries {
                let dry = limits.metrics_generator.disable_collection;
                let dry = dry.then_some(("metrics_generator_dry_run_enabled", 1.0));
                for (name, value) in measured(limits).into_iter().chain(dry) {
                    let labels = [("limit_name", name), ("user", tenant.as_str())];
                    text.sample("tempo_limits_overrides", "", &labels, None, value);
                }
            }
        });
    }
}

impl vivace_distributor::TenantLimits for Overrides {
    fn limits(&self, tenant: &TenantId) -> Arc<Limits> {
        self.of(tenant)
    }

    fn distributors(&self) -> u64 {
        self.distributors.get().map_or(1, |count| count())
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
fn number(limit: u64) -> f64 {
    limit as f64
}

/// The limits that are exported for the defaults and for every entry, by the names that dashboards know.
fn measured(limits: &Limits) -> [(&'static str, f64); 7] {
    let retention: Duration = limits.compaction.block_retention.into();
    [
        ("max_local_traces_per_user", number(limits.ingestion.max_traces_per_user)),
        ("max_global_traces_per_user", number(limits.ingestion.max_global_traces_per_user)),
        ("max_bytes_per_trace", number(limits.global.max_bytes_per_trace)),
        ("ingestion_rate_limit_bytes", number(limits.ingestion.rate_limit_bytes)),
        ("ingestion_burst_size_bytes", number(limits.ingestion.burst_size_bytes)),
        ("block_retention", retention.as_secs_f64()),
        ("metrics_generator_max_active_series", f64::from(limits.metrics_generator.max_active_series)),
    ]
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

    fn max_live_traces(&self, tenant: &TenantId) -> usize {
        count(self.of(tenant).ingestion.max_traces_per_user)
    }

    fn dedicated_columns(&self, tenant: &TenantId) -> Vec<DedicatedColumn> {
        let limits = self.of(tenant);
        columns(limits.storage.parquet_dedicated_columns.as_deref().unwrap_or(&self.block_columns))
    }
}

impl vivace_block_builder::Limits for Overrides {
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

    fn max_metrics_duration(&self, tenant: &TenantId) -> Duration {
        self.of(tenant).read.max_metrics_duration.into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_from_the_tenant_the_star_or_the_defaults_and_are_exported() {
        let mut defaults = Limits::default();
        defaults.read.max_blocks_per_tag_values_query = 3;
        let overrides = Arc::new(Overrides::new(defaults.clone(), Vec::new()));
        let registry = Registry::new();
        overrides.export(&registry);
        assert_eq!(overrides.with_origin("a").0, "default overrides");
        assert!(!registry.render().contains("tempo_limits_overrides"));
        let file = "overrides:\n  a: {ingestion: {max_traces_per_user: 7}}\n  '*': {metrics_generator: {disable_collection: true}}\n";
        overrides.replace(&TenantLimits::parse(file, &defaults, false).unwrap());
        assert_eq!(overrides.with_origin("a").0, "a");
        assert_eq!(overrides.with_origin("b").0, "*");
        assert_eq!(live_traces(&overrides, "a"), 7);
        let text = registry.render();
        for line in [
            "tempo_limits_defaults{limit_name=\"max_bytes_per_trace\"} 5000000",
            "tempo_limits_defaults{limit_name=\"max_blocks_per_tag_values_query\"} 3",
            "tempo_limits_overrides{limit_name=\"max_local_traces_per_user\",user=\"a\"} 7",
            "tempo_limits_overrides{limit_name=\"metrics_generator_dry_run_enabled\",user=\"*\"} 1",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
        }
        assert!(!text.contains("metrics_generator_dry_run_enabled\",user=\"a\""), "{text}");
    }

    fn live_traces(overrides: &Overrides, tenant: &str) -> usize {
        vivace_live_store::Limits::max_live_traces(overrides, &TenantId::parse(tenant).unwrap())
    }
}
