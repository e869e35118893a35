//! Series from spans, in mergeable parts.
//!
//! ```text
//! Query ─▶ MetricsPlan ─▶ observe(source, window) ─▶ MetricsPartial ─┐
//!                    └──▶ observe(source, window) ─▶ MetricsPartial ─┴ merge ─▶ finish ─▶ MetricsResult
//! ```
//!
//! Whoever holds spans observes; the parts are added up in any order and anywhere; only `finish` computes quantiles, means,
//! second stages and arithmetic. So a part never has to be exact about anything but sums.

mod compare;
mod exemplar;
mod finish;
mod groups;
mod measure;
mod numbers;
mod observe;
mod partial;
mod plan;
mod quantile;
mod request;
mod second;
mod series;
#[cfg(test)]
mod tests;

pub use exemplar::Exemplar;
pub use partial::{Cells, Group, MetricsError, MetricsPartial, PartialLeaf};
pub use plan::MetricsPlan;
pub use request::{MetricsRequest, Window};
pub use series::{Label, MetricsExemplar, MetricsResult, MetricsSeries};
