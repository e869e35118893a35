//! Who may hold how much of the byte budget when it becomes scarce: no tenant can shut the others out.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use vivace_protocol::TenantId;

/// What the tenants' requests hold, from their first byte until they are answered.
#[derive(Debug, Default)]
pub(crate) struct FairShares {
    /// Only tenants that hold something.
    held_bytes: Mutex<HashMap<TenantId, usize>>,
}

/// What one request holds, given back on drop.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<FairShares>,
    tenant: TenantId,
    bytes: usize,
}

impl FairShares {
    /// A share of nothing.
    pub(crate) fn share(self: &Arc<Self>, tenant: TenantId) -> Share {
        Share { shares: Arc::clone(self), tenant, bytes: 0 }
    }
}

impl Share {
    /// Takes `bytes` more of a budget of which `used_bytes` are in use, or says that this would be unfair.
    pub(crate) fn grow(&mut self, bytes: usize, used_bytes: usize, limit_bytes: usize) -> bool {
        let mut held = self.shares.held_bytes.lock();
        let own = held.get(&self.tenant).copied().unwrap_or(0);
        let tenants = held.len() + usize::from(own == 0);
        if !is_fair(bytes, own, tenants, used_bytes, limit_bytes) {
            return false;
        }
        *held.entry(self.tenant.clone()).or_default() += bytes;
        self.bytes += bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut held = self.shares.held_bytes.lock();
        if let Some(own) = held.get_mut(&self.tenant) {
            *own = own.saturating_sub(self.bytes);
            if *own == 0 {
                held.remove(&self.tenant);
            }
        }
    }
}

/// Below half of the budget everybody may take what is there. Above it a tenant may hold an equal part among those that hold
/// something, and at least one request, however large: whether that fits is for the budget to say.
fn is_fair(wanted: usize, own: usize, tenants: usize, used: usize, limit: usize) -> bool {
    own == 0 || used.saturating_add(wanted) <= limit / 2 || own.saturating_add(wanted) <= limit / tenants.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_alone_may_use_everything() {
        assert!(is_fair(100, 900, 1, 900, 1000));
    }

    #[test]
    fn when_room_is_scarce_a_tenant_is_held_to_its_part_and_a_newcomer_is_let_in() {
        let shares = Arc::new(FairShares::default());
        let (a, b) = (TenantId::parse("a").unwrap(), TenantId::parse("b").unwrap());
        let mut greedy = shares.share(a.clone());
        assert!(greedy.grow(700, 0, 1000));
        let mut newcomer = shares.share(b);
        assert!(newcomer.grow(100, 700, 1000));
        assert!(!shares.share(a.clone()).grow(100, 800, 1000), "a holds more than a half already");
        assert!(newcomer.grow(100, 800, 1000));
        assert!(shares.share(a.clone()).grow(10, 100, 1000), "nothing is scarce");
        drop(newcomer);
        assert!(shares.share(a).grow(100, 700, 1000), "alone again");
        drop(greedy);
        assert!(shares.held_bytes.lock().is_empty());
    }
}
