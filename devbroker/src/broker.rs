//! What all connections share, and what they ask it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;
use uuid::Uuid;

use vivace_runtime::Clock;

use crate::faults::Faults;
use crate::groups::Groups;
use crate::options::Options;
use crate::topic_settings::TopicSettings;
use crate::topics::{Topic, Topics};

/// This broker's number in its cluster of one.
pub(crate) const NODE: i32 = 1;
/// Bytes of requests that are read or carried out, over all connections.
const REQUEST_BYTES: usize = 256 << 20;
/// Permits are for so many bytes, because a semaphore counts to less than the bytes could be.
const PERMIT_BYTES: usize = 1 << 10;

pub(crate) struct Broker {
    pub(crate) topics: Topics,
    pub(crate) groups: Groups,
    pub(crate) faults: Faults,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    /// Parsed from the options.
    pub(crate) advertise: Option<(String, u16)>,
    request_bytes: Arc<Semaphore>,
}

/// Who asks what, for handlers.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) broker: &'a Broker,
    pub(crate) key: i16,
    pub(crate) version: i16,
    pub(crate) client_id: &'a str,
    /// This broker's address on the connection.
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
}

impl Broker {
    pub(crate) fn new(
        topics: Topics,
        groups: Groups,
        faults: Faults,
        options: Options,
        advertise: Option<(String, u16)>,
    ) -> Self {
        let clock = Arc::clone(&options.clock);
        let request_bytes = Arc::new(Semaphore::new(REQUEST_BYTES / PERMIT_BYTES));
        Self { topics, groups, faults, clock, options, advertise, request_bytes }
    }

    /// Waits until there is room for a request of so many bytes; the room is given back with the permit.
    pub(crate) async fn room_for(&self, bytes: usize) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let wanted = (bytes / PERMIT_BYTES + 1).min(REQUEST_BYTES / PERMIT_BYTES);
        let permits = u32::try_from(wanted).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        Arc::clone(&self.request_bytes).acquire_many_owned(permits).await.ok()
    }

    /// The topic by name, made now if it is missing and that is permitted.
    pub(crate) async fn topic_or_new(&self, name: &str, may_create: bool) -> Option<Arc<Topic>> {
        if let Some(topic) = self.topics.get(name) {
            return Some(topic);
        }
        if !may_create || !self.options.auto_create {
            return None;
        }
        match self.topics.create(name, self.options.default_partitions, TopicSettings::default(), false).await {
            Ok(topic) => topic,
            Err(reason) => {
                tracing::warn!(topic = name, %reason, "create topic that a client asked for");
                // Somebody else may have been quicker.
                self.topics.get(name)
            }
        }
    }

    /// Removes segments that retention no longer keeps.
    pub(crate) async fn expire(&self) {
        let of = |setting: Option<i64>, default: Option<u64>| setting.map_or(default, |set| u64::try_from(set).ok());
        let default_ms = self.options.retention.map(|keep| u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
        for topic in self.topics.list() {
            let keep_ms = of(topic.settings.retention_ms, default_ms);
            let keep_bytes = of(topic.settings.retention_bytes, self.options.retention_bytes);
            if keep_ms.is_none() && keep_bytes.is_none() {
                continue;
            }
            for slot in &topic.slots {
                if let Err(error) = slot.expire(keep_ms, keep_bytes).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, topic = topic.name, partition = slot.number, "remove what is too old");
                }
            }
        }
    }
}

impl Call<'_> {
    /// Where clients of this connection find the broker.
    pub(crate) fn advertised(&self) -> (String, u16) {
        let here = || (self.local.ip().to_canonical().to_string(), self.local.port());
        self.broker.advertise.clone().unwrap_or_else(here)
    }

    /// Whether this broker, as reached by this connection, leads the partition.
    pub(crate) fn leads(&self, topic: &str, partition: i32) -> bool {
        let other = self.broker.faults.leader(topic, partition);
        other.is_none_or(|other| other.port == self.local.port())
    }

    /// A topic by id or, where requests have none, by name. `None` in place of the id means that the version has names.
    pub(crate) fn topic(&self, id: Option<Uuid>, name: &str) -> Option<Arc<Topic>> {
        match id {
            Some(id) => self.broker.topics.by_id(id),
            None => self.broker.topics.get(name),
        }
    }
}
