//! Limits of a tenant.

use std::collections::BTreeMap;

use super::{DedicatedColumn, DimensionMapping, FilterPolicy, GoDuration, PromDuration};

crate::config_struct! {
    /// Limits of a tenant. Under `overrides.defaults` they are those of every tenant without an entry of its own. Entries
    /// of the per-tenant file do not inherit from them: what an entry leaves out is zero there, see [`Limits::zero`].
    pub struct Limits {
        /// What a tenant may send.
        pub ingestion: IngestionLimits = IngestionLimits::default(),
        /// What a tenant may ask.
        pub read: ReadLimits = ReadLimits::default(),
        /// Compaction and retention of a tenant's blocks.
        pub compaction: CompactionLimits = CompactionLimits::default(),
        /// Metrics generated from a tenant's spans.
        pub metrics_generator: GeneratorLimits = GeneratorLimits::default(),
        /// Names from `distributor.forwarders` to which a tenant's spans are sent on.
        pub forwarders: Vec<String> = Vec::new(),
        /// What holds everywhere.
        pub global: GlobalLimits = GlobalLimits::default(),
        /// Form of a tenant's blocks.
        pub storage: StorageLimits = StorageLimits::default(),
        /// Attribution of cost.
        pub cost_attribution: CostAttributionLimits = CostAttributionLimits::default(),
    }
}

crate::config_struct! {
    /// What a tenant may send.
    pub struct IngestionLimits {
        /// `local`: each distributor allows the whole rate. `global`: the rate is divided by the number of distributors.
        /// Read from the defaults only.
        pub rate_strategy: String = "local".into(),
        /// Bytes a second of the requests' protobuf form. What is above is refused, with a hint when to come again.
        pub rate_limit_bytes: u64 = 30_000_000,
        /// Bytes at once. A single request that is larger is always refused.
        pub burst_size_bytes: u64 = 30_000_000,
        /// Live traces in one live-store: traces that got spans within `live_store.max_trace_idle` and are younger than
        /// `live_store.max_trace_live`. Spans of further traces are dropped and counted as `live_traces_exceeded`, after
        /// they have been acknowledged; so there is no limit, which 0 means, unless one is set.
        pub max_traces_per_user: u64 = 0,
        /// Live traces in the whole cluster. Accepted, not enforced.
        pub max_global_traces_per_user: u64 = 0,
        /// Partitions over which a tenant is spread; 0 means all. Fewer keep tenants apart, more spread the load.
        pub tenant_shard_size: u64 = 0,
        /// Bytes after which keys and values of attributes are cut; 0 means `distributor.max_attribute_bytes`.
        pub max_attribute_bytes: u64 = 0,
        /// Least duration of a request, for tests. Absent: `distributor.artificial_delay`.
        pub artificial_delay: Option<GoDuration> = None,
        /// Send the hint when to come again with a refusal.
        pub retry_info_enabled: Option<bool> = Some(true),
    }
}

crate::config_struct! {
    /// What a tenant may ask.
    pub struct ReadLimits {
        /// Bytes of values in the answer to one tag-values query; 0 means without limit.
        pub max_bytes_per_tag_values_query: u64 = 1_000_000,
        /// Blocks read for one tag-values query; 0 means without limit.
        pub max_blocks_per_tag_values_query: u64 = 0,
        /// Groups of conditions of a tag-values query that are used as a filter. Read from the defaults only.
        pub max_condition_groups_per_tag_query: u64 = 100,
        /// Longest time range of a search; 0 means `query_frontend.search.max_duration`.
        pub max_search_duration: PromDuration = PromDuration::ZERO,
        /// Longest time range of a metrics query; 0 means `query_frontend.metrics.max_duration`.
        pub max_metrics_duration: PromDuration = PromDuration::ZERO,
        /// Allow hints in queries that can be costly.
        pub unsafe_query_hints: bool = false,
        /// Print trace ids with leading zeros.
        pub left_pad_trace_ids: bool = false,
        /// Answer metrics queries from spans alone. Absent: decided by the query.
        pub metrics_spanonly_fetch: Option<bool> = None,
        /// Count the bytes that a query reads in its engine.
        pub engine_bytes_tracking: Option<bool> = None,
        /// Leave out spans that a trace's reader does not need.
        pub span_pruning_enabled: Option<bool> = None,
        /// Tell readers which spans were left out.
        pub span_pruning_awareness: bool = false,
    }
}

crate::config_struct! {
    /// Compaction and retention of a tenant's blocks.
    pub struct CompactionLimits {
        /// Age at which blocks are deleted; 0 means `backend_worker.compaction.block_retention`.
        pub block_retention: PromDuration = PromDuration::ZERO,
        /// Blocks within one window are merged; 0 means the global window.
        pub compaction_window: PromDuration = PromDuration::ZERO,
        /// Do not merge this tenant's blocks.
        pub compaction_disabled: bool = false,
    }
}

crate::config_struct! {
    /// What holds everywhere.
    pub struct GlobalLimits {
        /// Bytes of one trace; 0 means without limit. Spans beyond are refused, and such a trace is not compacted further.
        pub max_bytes_per_trace: u64 = 5_000_000,
    }
}

crate::config_struct! {
    /// Form of a tenant's blocks.
    pub struct StorageLimits {
        /// Attributes with a column of their own; replaces `storage.trace.block.parquet_dedicated_columns`.
        pub parquet_dedicated_columns: Option<Vec<DedicatedColumn>> = None,
    }
}

crate::config_struct! {
    /// Attribution of cost.
    pub struct CostAttributionLimits {
        /// Combinations of labels; 0 means `distributor.usage.cost_attribution.max_cardinality`.
        pub max_cardinality: u64 = 0,
        /// Attribute to label; an empty label means the attribute's own name.
        pub dimensions: BTreeMap<String, String> = BTreeMap::new(),
    }
}

crate::config_struct! {
    /// Metrics generated from a tenant's spans.
    pub struct GeneratorLimits {
        /// Size of the tenant's ring. Accepted, not used.
        pub ring_size: u64 = 0,
        /// Processors to run: `span-metrics`, `service-graphs`, `host-info`, or a part such as `span-metrics-latency`. None
        /// by default.
        pub processors: Vec<String> = Vec::new(),
        /// Active series; 0 means without limit.
        pub max_active_series: u32 = 0,
        /// Active entities; 0 means without limit.
        pub max_active_entities: u32 = 0,
        /// Time between two collections; 0 means `metrics_generator.registry.collection_interval`.
        pub collection_interval: GoDuration = GoDuration::ZERO,
        /// Process spans but collect nothing.
        pub disable_collection: bool = false,
        /// Histograms to make: `classic`, `native` or `both`.
        pub generate_native_histograms: String = "classic".into(),
        /// Name of the label with the trace id in exemplars; empty means `traceID`.
        pub trace_id_label_name: String = String::new(),
        /// Headers of remote write.
        pub remote_write_headers: BTreeMap<String, String> = BTreeMap::new(),
        /// Forwarding from distributors.
        pub forwarder: ForwarderLimits = ForwarderLimits::default(),
        /// Settings per processor.
        pub processor: ProcessorLimits = ProcessorLimits::default(),
        /// Spans older than this are left out; 0 means `metrics_generator.metrics_ingestion_time_range_slack`.
        pub ingestion_time_range_slack: GoDuration = GoDuration::ZERO,
        /// Factor between the buckets of native histograms; above 1.
        pub native_histogram_bucket_factor: f64 = 1.1,
        /// Buckets of a native histogram.
        pub native_histogram_max_bucket_number: u32 = 100,
        /// Least time between resets of a native histogram.
        pub native_histogram_min_reset_duration: GoDuration = GoDuration::minutes(15),
        /// Replace ids in span names: empty, `dry_run` or `enabled`.
        pub span_name_sanitization: String = String::new(),
        /// Values of one label; 0 means without limit.
        pub max_cardinality_per_label: u64 = 0,
    }
}

crate::config_struct! {
    /// Forwarding from distributors.
    pub struct ForwarderLimits {
        /// Requests waiting; 0 means 100.
        pub queue_size: u64 = 0,
        /// Workers; 0 means 2.
        pub workers: u64 = 0,
    }
}

crate::config_struct! {
    /// Settings per processor.
    pub struct ProcessorLimits {
        /// Service graphs.
        pub service_graphs: ServiceGraphsLimits = ServiceGraphsLimits::default(),
        /// Span metrics.
        pub span_metrics: SpanMetricsLimits = SpanMetricsLimits::default(),
        /// Host info.
        pub host_info: HostInfoLimits = HostInfoLimits::default(),
    }
}

crate::config_struct! {
    /// Service graphs; what is absent is taken from `metrics_generator.processor.service_graphs`.
    pub struct ServiceGraphsLimits {
        /// Upper bounds of buckets, in seconds, ascending.
        pub histogram_buckets: Option<Vec<f64>> = None,
        /// Attributes that become labels.
        pub dimensions: Option<Vec<String>> = None,
        /// Attributes that name the peer of a span without a partner.
        pub peer_attributes: Option<Vec<String>> = None,
        /// Which spans count.
        pub filter_policies: Option<Vec<FilterPolicy>> = None,
        /// Prefix labels by `client_` and `server_`.
        pub enable_client_server_prefix: Option<bool> = None,
        /// Measure the time in messaging systems.
        pub enable_messaging_system_latency_histogram: Option<bool> = None,
        /// Label edges to nodes without spans.
        pub enable_virtual_node_label: Option<bool> = None,
        /// Attribute with the number of spans that one stands for.
        pub span_multiplier_key: Option<String> = None,
        /// Take that number from the tracestate.
        pub enable_tracestate_span_multiplier: Option<bool> = None,
    }
}

crate::config_struct! {
    /// Span metrics; what is absent is taken from `metrics_generator.processor.span_metrics`.
    pub struct SpanMetricsLimits {
        /// Upper bounds of buckets, in seconds, ascending.
        pub histogram_buckets: Option<Vec<f64>> = None,
        /// Attributes that become labels.
        pub dimensions: Option<Vec<String>> = None,
        /// Intrinsics that become labels, by name.
        pub intrinsic_dimensions: Option<BTreeMap<String, bool>> = None,
        /// Which spans count.
        pub filter_policies: Option<Vec<FilterPolicy>> = None,
        /// Labels made of several attributes.
        pub dimension_mappings: Option<Vec<DimensionMapping>> = None,
        /// Export `target_info`.
        pub enable_target_info: Option<bool> = None,
        /// Attributes left out of `target_info`.
        pub target_info_excluded_dimensions: Option<Vec<String>> = None,
        /// Label series by the instance of the resource.
        pub enable_instance_label: Option<bool> = None,
        /// Attribute with the number of spans that one stands for.
        pub span_multiplier_key: Option<String> = None,
        /// Take that number from the tracestate.
        pub enable_tracestate_span_multiplier: Option<bool> = None,
    }
}

crate::config_struct! {
    /// Host info; what is absent is taken from `metrics_generator.processor.host_info`.
    pub struct HostInfoLimits {
        /// Resource attributes that identify a host, in order of preference.
        pub host_identifiers: Option<Vec<String>> = None,
        /// Name of the metric.
        pub metric_name: Option<String> = None,
    }
}

impl Limits {
    /// Limits in which nothing is set: where a tenant's entry in the per-tenant file starts from. A limit of zero bytes a
    /// second refuses every span; most other zeros mean "without limit".
    pub fn zero() -> Self {
        Self {
            ingestion: IngestionLimits {
                rate_strategy: String::new(),
                rate_limit_bytes: 0,
                burst_size_bytes: 0,
                retry_info_enabled: None,
                ..IngestionLimits::default()
            },
            read: ReadLimits {
                max_bytes_per_tag_values_query: 0,
                max_condition_groups_per_tag_query: 0,
                ..ReadLimits::default()
            },
            metrics_generator: GeneratorLimits {
                generate_native_histograms: String::new(),
                native_histogram_bucket_factor: 0.0,
                native_histogram_max_bucket_number: 0,
                native_histogram_min_reset_duration: GoDuration::ZERO,
                ..GeneratorLimits::default()
            },
            global: GlobalLimits { max_bytes_per_trace: 0 },
            ..Self::default()
        }
    }

    /// Fills what a tenant's entry takes from the defaults although entries do not inherit.
    #[must_use]
    pub fn with_fallbacks(mut self, defaults: &Self) -> Self {
        self.ingestion.rate_strategy.clone_from(&defaults.ingestion.rate_strategy);
        self.read.max_condition_groups_per_tag_query = defaults.read.max_condition_groups_per_tag_query;
        self.ingestion.retry_info_enabled = self.ingestion.retry_info_enabled.or(defaults.ingestion.retry_info_enabled);
        self.read.engine_bytes_tracking = self.read.engine_bytes_tracking.or(defaults.read.engine_bytes_tracking);
        let (own, shared) = (&mut self.metrics_generator, &defaults.metrics_generator);
        if own.generate_native_histograms.is_empty() {
            own.generate_native_histograms = "classic".into();
        }
        if own.native_histogram_bucket_factor == 0.0 {
            own.native_histogram_bucket_factor = shared.native_histogram_bucket_factor;
        }
        if own.native_histogram_max_bucket_number == 0 {
            own.native_histogram_max_bucket_number = shared.native_histogram_max_bucket_number;
        }
        if own.native_histogram_min_reset_duration == GoDuration::ZERO {
            own.native_histogram_min_reset_duration = shared.native_histogram_min_reset_duration;
        }
        if own.span_name_sanitization.is_empty() {
            own.span_name_sanitization.clone_from(&shared.span_name_sanitization);
        }
        self
    }

    /// Whether refusals carry the hint when to come again.
    pub fn retry_info_enabled(&self) -> bool {
        self.ingestion.retry_info_enabled.unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_starts_from_zero_and_takes_few_things_from_the_defaults() {
        let entry = Limits::zero().with_fallbacks(&Limits::default());
        assert_eq!(entry.ingestion.rate_limit_bytes, 0);
        assert_eq!(entry.global.max_bytes_per_trace, 0);
        assert_eq!(entry.ingestion.rate_strategy, "local");
        assert!(entry.retry_info_enabled());
        assert_eq!(entry.metrics_generator.native_histogram_max_bucket_number, 100);
        assert_eq!(entry.read.max_condition_groups_per_tag_query, 100);
    }
}
