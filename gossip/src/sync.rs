//! Anti-entropy: two members compare sums, then what stands in the buckets whose sums differ, then exchange only that.

mod of_state;
mod replicated;

pub use replicated::{BUCKETS, Replicated};
