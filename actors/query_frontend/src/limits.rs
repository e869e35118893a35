//! The per-tenant limits that the query-frontend asks for.

use std::time::Duration;

use vivace_protocol::TenantId;

/// Answers from the configuration in force.
pub trait Limits: Send + Sync {
    /// Bytes of a trace in an answer; 0 is no limit. Key `global.max_bytes_per_trace`.
    fn max_bytes_per_trace(&self, tenant: &TenantId) -> usize;

    /// Longest time range of a search; zero means that the process's own applies. Key `read.max_search_duration`.
    fn max_search_duration(&self, tenant: &TenantId) -> Duration;

    /// Longest time range of a metrics query; zero means that the process's own applies. Key `read.max_metrics_duration`.
    fn max_metrics_duration(&self, tenant: &TenantId) -> Duration;

    /// Bytes of an answer of tag names or values; 0 is no limit. Key `read.max_bytes_per_tag_values_query`.
    fn max_bytes_per_tag_values_query(&self, tenant: &TenantId) -> usize;

    /// Whether trace ids in search answers have 32 digits. Key `read.left_pad_trace_ids`.
    fn left_pad_trace_ids(&self, tenant: &TenantId) -> bool;
}
