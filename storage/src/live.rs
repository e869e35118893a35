//! Live traces as a source of spans for queries.
