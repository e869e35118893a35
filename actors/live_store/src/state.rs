//! The rules of the live-store as plain structs: no clock, no IO, no actor types.
//!
//! [`Partition`] holds what one partition of the log has delivered and no durable block covers yet. It says when a
//! cut is due and what is in it ([`Cut`]); [`Ledger`] is what must be remembered on disk so that a restart makes the
//! same cuts again and replays nothing that a block covers.

mod cut;
mod ledger;
mod partition;
#[cfg(test)]
mod tests;

pub(crate) use cut::{Cut, CutId, TenantCut, TraceParts};
pub(crate) use ledger::{Ledger, PendingCut};
pub(crate) use partition::{Applied, Partition, Rules, Snapshot, TraceLimits};
