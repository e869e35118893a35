//! Merges blocks of one tenant into one, and the rules which blocks to merge and which to let go.

mod columns;
mod merge;
mod retention;
mod select;

pub use merge::{CompactSpec, Error, compact};
pub use retention::{RetentionRules, deletable, expired};
pub use select::{Job, SelectRules, select};
