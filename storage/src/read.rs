//! Reads blocks: footer, pages, predicates, whole traces.
