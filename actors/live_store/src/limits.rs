//! The per-tenant limits that the live-store asks for.

use vivace_protocol::TenantId;

/// Answers from the configuration in force; asked for every record, so it must be quick.
pub trait Limits: Send + Sync {
    /// Bytes of one trace that are held between two cuts; 0 is no limit. Key `global.max_bytes_per_trace`.
    fn max_bytes_per_trace(&self, tenant: &TenantId) -> usize;

    /// Traces of the tenant that may grow at once; 0 is no limit. Key `ingestion.max_traces_per_user`.
    fn max_live_traces(&self, tenant: &TenantId) -> usize;

    /// The tenant's dedicated columns. Key `storage.parquet_dedicated_columns`, else `storage.trace.block`'s.
    fn dedicated_columns(&self, tenant: &TenantId) -> Vec<vivace_storage::DedicatedColumn>;
}
