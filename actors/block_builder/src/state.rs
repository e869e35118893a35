//! The rules of the block-builder: plain state, no clock, no IO.
//!
//! ```text
//! Cycle      which partition next, or how long to wait
//! Start      where the chain of commit objects of a partition ends: there the next section begins
//! Section    the records of [first, end), by tenant and trace
//! Attempt    from written blocks to a commit object that counts, ours or another builder's
//! ```

mod attempt;
mod chunks;
mod cycle;
mod section;
mod start;
#[cfg(test)]
mod tests;

pub(crate) use attempt::{Attempt, AttemptStep, Created, Outcome, block_id};
pub(crate) use cycle::{Cycle, Next, Visit};
pub(crate) use section::{Rules, Section, TenantSection};
pub(crate) use start::{Begin, Start, StartStep};
