//! The per-tenant limits that the block-builder asks for.

use vivace_protocol::TenantId;

/// Answers from the configuration in force.
pub trait Limits: Send + Sync {
    /// Bytes of one trace within a section; 0 is no limit. Key `global.max_bytes_per_trace`.
    fn max_bytes_per_trace(&self, tenant: &TenantId) -> usize;

    /// The tenant's dedicated columns. Key `storage.parquet_dedicated_columns`, else `storage.trace.block`'s.
    fn dedicated_columns(&self, tenant: &TenantId) -> Vec<vivace_storage::DedicatedColumn>;
}
