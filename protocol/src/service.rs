//! The names under which components answer each other's messages: `/<name>/<message>` on the wire. A process that has several
//! components serves each under its own name, and proxies can tell them apart by path.

/// Recent data of one partition.
pub const LIVE_STORE: &str = "vivace.v1.LiveStore";
/// Jobs of queries.
pub const QUERIER: &str = "vivace.v1.Querier";
