//! Which topic this log was opened with, and whether the name still means that one.

use std::sync::OnceLock;

use super::topic::Topic;
use crate::error::Error;
use crate::log_id::LogId;

pub(crate) struct Identity {
    topic: String,
    id: LogId,
    found: OnceLock<LogId>,
}

impl Identity {
    pub(crate) fn new(topic: &str, id: LogId) -> Self {
        Self { topic: topic.to_owned(), id, found: OnceLock::new() }
    }

    pub(crate) fn id(&self) -> LogId {
        self.id
    }

    /// Compares with what a broker says now. A topic that has changed stays changed: nobody knows what was read or written between.
    pub(crate) fn compare(&self, now: &Topic) {
        if now.id != self.id && self.found.set(now.id).is_ok() {
            tracing::error!(
                topic = self.topic, expected = %self.id, found = %now.id,
                "the Kafka topic was created again; restart this process to go on with the new one"
            );
        }
    }

    /// The error of every call once the topic has changed.
    pub(crate) fn replaced(&self) -> Option<Error> {
        let found = *self.found.get()?;
        Some(Error::TopicReplaced { topic: self.topic.clone(), expected: self.id, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(id: u8) -> Topic {
        Topic { id: LogId::from_bytes([id; 16]), has_own_id: true, partitions: 1, is_ready: true }
    }

    #[test]
    fn a_topic_that_was_created_again_is_never_taken_for_the_old_one() {
        let identity = Identity::new("t", LogId::from_bytes([1; 16]));
        identity.compare(&topic(1));
        assert!(identity.replaced().is_none());
        identity.compare(&topic(2));
        let error = identity.replaced().unwrap();
        assert!(!error.is_retryable() && error.to_string().contains("restart this process"), "{error}");
        identity.compare(&topic(1));
        assert!(identity.replaced().is_some());
    }
}
