//! The rules of the live-store as plain structs: no clock, no IO, no actor types.
//!
//! [`Partition`] holds what one partition of the log has delivered and no durable block covers yet. It says when a
//! cut is due and what is in it ([`Cut`]); [`Ledger`] is what must be remembered on disk so that a restart makes the
//! same cuts again and replays nothing that a block covers. [`Lag`] says what may be said of an answer, [`begin`] where a
//! live-store of its own process begins to read, [`Copies`] which records a producer wrote twice, [`Parked`] who waits until it
//! has caught up.

mod copies;
mod cut;
mod groups;
mod head;
mod lag;
mod ledger;
#[cfg(test)]
mod local_tests;
mod noted;
mod parked;
mod partition;
mod snapshot;
mod start;
#[cfg(test)]
mod tests;

pub(crate) use copies::Copies;
pub(crate) use cut::{Cut, CutId, TenantCut, TraceParts};
pub(crate) use groups::GroupRules;
pub(crate) use lag::{Lag, Verdict};
pub(crate) use ledger::{Ledger, Loss, PendingCut, Shelved};
pub(crate) use noted::Pieces;
#[cfg(test)]
pub(crate) use parked::MOST as MOST_PARKED;
pub(crate) use parked::Parked;
pub(crate) use partition::{Applied, Partition, Rules, TraceLimits};
pub(crate) use snapshot::Snapshot;
pub(crate) use start::{Known, Origin, begin};
