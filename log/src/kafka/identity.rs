//! Which topic this log was opened with, and whether the name still means that one.

use std::sync::OnceLock;

use super::metrics::Role;
use super::topic::Topic;
use crate::error::Error;
use crate::log_id::LogId;

pub(crate) struct Identity {
    topic: String,
    id: LogId,
    role: Role,
    found: OnceLock<LogId>,
}

impl Identity {
    pub(crate) fn new(topic: &str, id: LogId, role: Role) -> Self {
        Self { topic: topic.to_owned(), id, role, found: OnceLock::new() }
    }

    pub(crate) fn id(&self) -> LogId {
        self.id
    }

    /// Compares with what a broker says now. A topic that has changed stays changed: nobody knows what was read or written between.
    pub(crate) fn compare(&self, now: &Topic) {
        if now.id != self.id && self.found.set(now.id).is_ok() {
            tracing::error!(
                topic = self.topic, expected = %self.id, found = %now.id,
                "the Kafka topic was created again; {}", what_follows(self.role)
            );
        }
    }

    /// The error of every call once the topic has changed.
    pub(crate) fn replaced(&self) -> Option<Error> {
        let found = *self.found.get()?;
        Some(Error::TopicReplaced { topic: self.topic.clone(), expected: self.id, found })
    }
}

/// What becomes of a process with the role when the topic is another one.
fn what_follows(role: Role) -> &'static str {
    match role {
        Role::Producer => "nothing is written before this process is restarted",
        Role::Consumer(_) => "this process follows the new one",
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
        let identity = Identity::new("t", LogId::from_bytes([1; 16]), Role::Producer);
        identity.compare(&topic(1));
        assert!(identity.replaced().is_none());
        identity.compare(&topic(2));
        let error = identity.replaced().unwrap();
        assert!(!error.is_retryable() && error.to_string().contains("topic t was created again"), "{error}");
        identity.compare(&topic(1));
        assert!(identity.replaced().is_some());
    }

    #[test]
    fn only_who_writes_is_to_be_restarted() {
        assert!(what_follows(Role::Producer).contains("restarted"));
        assert!(what_follows(Role::Consumer("live-store")).contains("follows the new one"));
    }
}
