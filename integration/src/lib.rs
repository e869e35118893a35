//! Whole-process tests of Vivace: the real binary, driven over its network interfaces.
//!
//! [`process`] starts, kills and stops nodes; [`http`] is the client; [`load`] generates traces whose ids follow from
//! a seed; [`ledger`] remembers what was acknowledged and asks for it back.

pub mod http;
pub mod ledger;
pub mod load;
pub mod process;
