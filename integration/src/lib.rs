//! Whole-process tests of Vivace: the real binary, driven over its network interfaces.
//!
//! [`process`] starts, kills and stops nodes; [`cluster`] does so with a process for each role; [`http`] is the client;
//! [`load`] generates traces whose ids follow from a seed, [`traffic`] sends them from several connections; [`ledger`]
//! remembers what was acknowledged and asks for it back; [`s3`] starts an S3 server; [`metrics`] reads a node's own figures;
//! [`watch`] asks all the time for what was acknowledged and judges the answers; [`kafka`] runs real Apache Kafka; [`skip`] is for
//! tests that cannot run on some machine.

pub mod cluster;
pub mod http;
pub mod kafka;
pub mod ledger;
pub mod load;
pub mod metrics;
pub mod process;
pub mod s3;
pub mod skip;
pub mod traffic;
pub mod watch;
