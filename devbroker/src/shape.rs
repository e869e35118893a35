//! What requests look like: each is walked by its own table before it is decoded. See [`vivace_log::kafka::shape`].

pub(crate) use vivace_log::kafka::shape::{BadShape, Shape};

pub(crate) mod requests;

/// Elements of all arrays and tagged fields of one request.
pub(crate) const MAX_ELEMENTS: usize = 100_000;

#[cfg(test)]
mod tests;
