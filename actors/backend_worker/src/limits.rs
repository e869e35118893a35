//! The per-tenant limits that the backend-worker asks for.

use std::time::Duration;

use vivace_protocol::TenantId;

/// Answers from the configuration in force.
pub trait Limits: Send + Sync {
    /// Age at which blocks go; zero means that the process's own applies. Key `compaction.block_retention`.
    fn block_retention(&self, tenant: &TenantId) -> Duration;

    /// Whether the tenant's blocks are neither merged nor removed. Key `compaction.compaction_disabled`.
    fn compaction_disabled(&self, tenant: &TenantId) -> bool;
}
