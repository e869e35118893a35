//! Admission: who may send how much. Owns the token buckets of all tenants.
//! Consumes `Admit`, answers at once with yes or the refusal. Mailbox 4096: a message is a name and a number; who finds it full
//! tells its client to try again, because a receiver never waits here.
//! On restart: every bucket is full again, so that a tenant may send one burst more than its limit; nothing acknowledged is held here.

use std::sync::Arc;

use vivace_protocol::TenantId;
use vivace_runtime::{Cx, Part, Reply, Serve};

use crate::limiter::{Limiter, RateLimited, RateLimits};
use crate::limits::TenantLimits;

/// Messages that may wait.
pub(crate) const MAILBOX: usize = 4096;

/// May this tenant send a request of so many bytes now?
#[derive(Debug)]
pub(crate) struct Admit {
    pub(crate) tenant: TenantId,
    pub(crate) bytes: u64,
}

/// The part.
pub(crate) struct Admission {
    limiter: Limiter,
    limits: Arc<dyn TenantLimits>,
}

impl Admission {
    pub(crate) fn new(limits: Arc<dyn TenantLimits>, now: std::time::Instant) -> Self {
        Self { limiter: Limiter::new(now), limits }
    }
}

impl Part for Admission {
    fn observe(&self) -> serde_json::Value {
        serde_json::json!({ "tenants": self.limiter.tenants() })
    }
}

impl Serve<Admit> for Admission {
    type Reply = Result<(), RateLimited>;

    fn serve(&mut self, Admit { tenant, bytes }: Admit, cx: &mut Cx<Self>) -> Reply<Self::Reply> {
        let limits = &self.limits;
        let look_up = |tenant: &TenantId| RateLimits::of(&limits.limits(tenant), limits.distributors());
        Reply::ok(self.limiter.admit(&tenant, bytes, cx.now(), look_up))
    }
}
