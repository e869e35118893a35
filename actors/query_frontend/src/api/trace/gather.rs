//! Gathers a trace from its parts: a small one as a whole, and of a large one as much as is held at once.

use http::StatusCode;
use vivace_protocol::TenantId;
use vivace_protocol::combine::{Combine, Combined, Combiner};

use super::{Api, broken};
use crate::planner::{TracePlan, TraceSearch};
use crate::respond::Refusal;

/// A trace up to this size is gathered before it is answered: sorted as a whole, and with a status that says how it ended.
pub(super) const HELD: usize = 16 << 20;
/// What is done with a trace as a whole is done up to this size.
pub(super) const WHOLE: usize = 128 << 20;

/// A trace on its way.
pub(super) struct Gathering {
    pub(super) search: TraceSearch,
    pub(super) combiner: Combiner,
}

/// A trace that is there.
pub(crate) struct Gathered {
    /// Where its parts came from, all of them or as many as the limit let through.
    pub(crate) search: TraceSearch,
    pub(crate) combined: Combined,
}

impl Gathering {
    pub(super) fn new(api: &Api, tenants: &[TenantId], plan: &TracePlan, combine: Combine) -> Self {
        Self { search: api.planner.find_trace(tenants, plan), combiner: combine.begin() }
    }

    /// Gathers until more than `bytes` are held; true when everything is there, or as much as may be.
    pub(super) async fn hold(&mut self, bytes: usize) -> Result<bool, Refusal> {
        while !self.combiner.is_full() {
            if self.combiner.held_bytes() > bytes {
                return Ok(false);
            }
            let Some(parts) = self.search.next().await? else { return Ok(true) };
            for part in parts {
                self.combiner.add(&part).map_err(|error| broken(&error))?;
                if self.combiner.is_full() {
                    break;
                }
            }
        }
        Ok(true)
    }

    /// What is held as the trace, with what it was read from.
    pub(super) fn end(self) -> Gathered {
        Gathered { search: self.search, combined: self.combiner.finish() }
    }

    /// All of it, or as much as `max_bytes` lets through.
    ///
    /// # Errors
    /// It is larger than anything is done with as a whole.
    pub(super) async fn whole(mut self) -> Result<Gathered, Refusal> {
        if self.hold(WHOLE).await? {
            return Ok(self.end());
        }
        let text = format!(
            "the trace is larger than {} MiB, which is too large for this kind of answer: ask /api/v2/traces for it without \
             filter, pruning, explain and in JSON or protobuf, or set the tenant's limit max_bytes_per_trace",
            WHOLE >> 20
        );
        Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, text))
    }
}

/// All of a trace; see [`Gathering::whole`].
pub(crate) async fn whole(
    api: &Api,
    tenants: &[TenantId],
    plan: &TracePlan,
    combine: Combine,
) -> Result<Gathered, Refusal> {
    Gathering::new(api, tenants, plan, combine).whole().await
}
