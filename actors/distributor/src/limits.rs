//! Where the limits of tenants come from.

use std::sync::Arc;

use vivace_protocol::TenantId;
use vivace_runtime::config::Limits;

/// What tells the limits of a tenant at this moment. Asked for every request: it must be quick and must not block.
///
/// Every `Fn(&TenantId) -> Arc<Limits>` is one.
pub trait TenantLimits: Send + Sync + 'static {
    /// The effective limits: the tenant's entry, or the defaults.
    fn limits(&self, tenant: &TenantId) -> Arc<Limits>;

    /// Healthy distributors in the ring, this one included: the divisor of the strategy `global`. 0 divides by nothing.
    fn distributors(&self) -> u64 {
        1
    }
}

impl<F: Fn(&TenantId) -> Arc<Limits> + Send + Sync + 'static> TenantLimits for F {
    fn limits(&self, tenant: &TenantId) -> Arc<Limits> {
        self(tenant)
    }
}
