//! Names and values of tags from several sources as one, within the memory that a job may take.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Status;
use vivace_protocol::tempopb::{SearchTagsV2Scope, TagValue};
use vivace_protocol::vivace::{TagNamesReply, TagValuesReply};
use vivace_traceql::{Budget, Held};

use super::{budget, over_budget};

/// What an entry takes beside its own bytes.
const ENTRY_BYTES: usize = 64;

/// Names by scope.
#[derive(Debug)]
pub struct TagNamesSum {
    /// 0 is any number.
    max_per_scope: usize,
    held: Held,
    scopes: BTreeMap<String, BTreeSet<String>>,
    inspected_bytes: u64,
}

/// Values with their types.
#[derive(Debug)]
pub struct TagValuesSum {
    max_values: usize,
    held: Held,
    values: BTreeSet<(String, String)>,
    inspected_bytes: u64,
}

fn held(max_bytes: u64) -> Held {
    let budget: Budget = budget(max_bytes);
    budget.hold()
}

fn size(n: u32) -> usize {
    match n {
        0 => usize::MAX,
        n => usize::try_from(n).unwrap_or(usize::MAX),
    }
}

impl TagNamesSum {
    /// At most so many names of each scope, and bytes while they are added up; 0 is any number.
    #[must_use]
    pub fn new(max_per_scope: u32, max_bytes: u64) -> Self {
        Self { max_per_scope: size(max_per_scope), held: held(max_bytes), scopes: BTreeMap::new(), inspected_bytes: 0 }
    }

    /// # Errors
    /// OUT_OF_RANGE when the names take too much memory.
    pub fn add(&mut self, reply: TagNamesReply) -> Result<(), Status> {
        self.inspected_bytes += reply.inspected_bytes;
        for scope in reply.scopes {
            let own = self.scopes.entry(scope.name).or_default();
            for tag in scope.tags {
                let bytes = tag.len() + ENTRY_BYTES;
                if own.insert(tag) {
                    self.held.add(bytes);
                }
            }
        }
        self.held.check().map_err(over_budget)
    }

    /// In order.
    #[must_use]
    pub fn finish(self) -> TagNamesReply {
        let most = self.max_per_scope;
        let scopes = self.scopes.into_iter();
        let scopes = scopes.map(|(name, tags)| SearchTagsV2Scope { name, tags: tags.into_iter().take(most).collect() });
        TagNamesReply { scopes: scopes.collect(), inspected_bytes: self.inspected_bytes, ..TagNamesReply::default() }
    }
}

impl TagValuesSum {
    /// At most so many values, and bytes while they are added up; 0 is any number.
    #[must_use]
    pub fn new(max_values: u32, max_bytes: u64) -> Self {
        Self { max_values: size(max_values), held: held(max_bytes), values: BTreeSet::new(), inspected_bytes: 0 }
    }

    /// # Errors
    /// OUT_OF_RANGE when the values take too much memory.
    pub fn add(&mut self, reply: TagValuesReply) -> Result<(), Status> {
        self.inspected_bytes += reply.inspected_bytes;
        for value in reply.values {
            let bytes = value.r#type.len() + value.value.len() + ENTRY_BYTES;
            if self.values.insert((value.r#type, value.value)) {
                self.held.add(bytes);
            }
        }
        self.held.check().map_err(over_budget)
    }

    /// In order.
    #[must_use]
    pub fn finish(self) -> TagValuesReply {
        let values = self.values.into_iter().take(self.max_values);
        TagValuesReply {
            values: values.map(|(kind, value)| TagValue { r#type: kind, value }).collect(),
            inspected_bytes: self.inspected_bytes,
            ..TagValuesReply::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tags: &[&str]) -> TagNamesReply {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        TagNamesReply {
            scopes: vec![SearchTagsV2Scope { name: "span".into(), tags }],
            inspected_bytes: 5,
            ..TagNamesReply::default()
        }
    }

    #[test]
    fn names_of_several_sources_are_counted_once_and_more_than_allowed_is_an_error() {
        let mut sum = TagNamesSum::new(2, 200);
        sum.add(names(&["b", "a"])).unwrap();
        sum.add(names(&["b"])).unwrap();
        // Three of 65 bytes fit, a fourth does not.
        sum.add(names(&["c", "a"])).unwrap();
        let error = sum.add(names(&["d"])).unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (tonic::Code::OutOfRange, "the results of the query take more than 200 bytes")
        );
        let reply = sum.finish();
        assert_eq!(
            (reply.scopes[0].tags.as_slice(), reply.inspected_bytes),
            (&["a".to_owned(), "b".to_owned()][..], 20)
        );
    }

    #[test]
    fn values_of_several_sources_are_counted_once_and_more_than_allowed_is_an_error() {
        let reply = |values: &[&str]| TagValuesReply {
            values: values.iter().map(|value| TagValue { r#type: "int".into(), value: (*value).into() }).collect(),
            ..TagValuesReply::default()
        };
        let mut sum = TagValuesSum::new(0, 150);
        sum.add(reply(&["2", "1"])).unwrap();
        sum.add(reply(&["1", "2"])).unwrap();
        assert_eq!(sum.add(reply(&["3"])).unwrap_err().code(), tonic::Code::OutOfRange);
        assert_eq!(sum.finish().values.len(), 3);
        let mut any = TagValuesSum::new(1, 0);
        any.add(reply(&["2", "1", "3"])).unwrap();
        assert_eq!(any.finish().values[0].value, "1");
    }
}
