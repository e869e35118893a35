//! Sections that their key alone switches on.

use serde::{Deserialize, Serialize};

use super::shape::{Described, Shape};

/// A section that is on when its key stands in the file, even without a value (`grpc:`), and off when it does not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Presence<T>(pub Option<T>);

impl<T> Presence<T> {
    /// Switched off.
    pub const fn absent() -> Self {
        Self(None)
    }

    /// The section, when it is on.
    pub fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T> Default for Presence<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Described> Described for Presence<T> {
    fn shape() -> Shape {
        Shape::Presence(Box::new(T::shape()))
    }
}
