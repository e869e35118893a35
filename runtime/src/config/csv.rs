//! Lists that are written as one comma-separated string.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::shape::{Described, Shape};

/// A comma-separated string, as Tempo has it in a few places where a list would be expected. Spaces around items go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Csv(pub Vec<String>);

impl Deref for Csv {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl From<String> for Csv {
    fn from(text: String) -> Self {
        Self(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }
}

impl From<Csv> for String {
    fn from(csv: Csv) -> Self {
        csv.0.join(",")
    }
}

impl Described for Csv {
    fn shape() -> Shape {
        Shape::Csv
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_split_trimmed_and_joined() {
        let csv: Csv = serde_json::from_str("\"a, b,,c\"").unwrap();
        assert_eq!(&*csv, ["a", "b", "c"]);
        assert_eq!(serde_json::to_string(&csv).unwrap(), "\"a,b,c\"");
    }
}
