//! Pages that explain: rings, partitions and membership, as HTML for people and as JSON by `Accept`.
//!
//! What a page shows is a view, a plain value; its two forms are pure functions of it, and text becomes HTML in one place.
//! Verdicts are pure functions of evidence. Routes, calls to members and other members' views stand around that.
//!
//! ```text
//! Board (snapshots) ─┐
//! Caller (ports) ────┼─> compose ─> evidence ─> verdicts ─> views ─> JSON, HTML
//! Peers (their views)┘
//! ```

mod caller;
mod cluster_verdict;
mod compose;
mod csrf;
mod evidence;
mod finding;
mod form;
mod html;
mod live_store;
mod member_verdict;
mod memberlist_page;
mod partition_page;
mod process_verdict;
mod ring_page;
mod routes;
mod shared;
mod store_view;
mod words;

#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod verdict_tests;

pub use cluster_verdict::judge_cluster;
pub use compose::{Layout, RingPage};
pub use evidence::{Checked, Cluster, ClusterMember, Contact, Message, Path, Seed, Stranger, StrangerReason};
pub use finding::{Code, Finding, Forget, Severity};
pub use live_store::LiveStoreDownscale;
pub use member_verdict::{MemberEvidence, RingKind, judge_member};
pub use process_verdict::judge_process;
pub use routes::{Downscale, Setup, router};
pub use shared::PeerView;
