//! Whole-process tests of Vivace: the real binary, driven over its network interfaces.
//!
//! [`process`] starts, kills and stops nodes; [`http`] is the client; [`load`] generates traces whose ids follow from
//! a seed; [`ledger`] remembers what was acknowledged and asks for it back; [`metrics`] reads a node's own figures;
//! [`skip`] is for tests that cannot run on some machine.

pub mod http;
pub mod ledger;
pub mod load;
pub mod metrics;
pub mod process;
pub mod skip;
