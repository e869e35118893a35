//! A way to one partition's leader: a connection that is kept while it works.
//!
//! ```text
//! failure                 connection      client (what is known of the cluster)
//! timeout, broken         thrown away     thrown away: the next one starts from the list of brokers
//! busy, once              kept: rskafka asks the brokers anew for the leader
//! busy, again             thrown away     thrown away: what it knows may be stale for ever
//! refused, too large,     kept
//! out of range
//! ```

use std::sync::Arc;
use std::time::Duration;

use rskafka::client::error::Error as ClientError;
use rskafka::client::partition::{PartitionClient, UnknownTopicHandling};

use super::brokers::Brokers;
use super::failure::Failure;
use crate::record::Partition;

pub(crate) struct Channel {
    brokers: Arc<Brokers>,
    partition: Partition,
    held: Option<Held>,
    busy: bool,
}

struct Held {
    client: Arc<PartitionClient>,
    generation: u64,
}

impl Channel {
    pub(crate) fn new(brokers: Arc<Brokers>, partition: Partition) -> Self {
        Self { brokers, partition, held: None, busy: false }
    }

    pub(crate) fn partition(&self) -> Partition {
        self.partition
    }

    pub(crate) fn brokers(&self) -> &Brokers {
        &self.brokers
    }

    pub(crate) fn shared(&self) -> Arc<Brokers> {
        Arc::clone(&self.brokers)
    }

    /// One attempt, at most for `limit`, connecting included.
    pub(crate) async fn call<T, F>(
        &mut self,
        action: &'static str,
        limit: Duration,
        request: impl FnOnce(Arc<PartitionClient>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let brokers = Arc::clone(&self.brokers);
        let result = brokers
            .within(limit, async {
                let client = self.client(limit).await?;
                request(client).await.map_err(|error| Failure::of_client(&error))
            })
            .await;
        match &result {
            Ok(_) => self.busy = false,
            Err(failure) => {
                self.brokers.metrics.failed(action, failure);
                self.learn(failure);
            }
        }
        result
    }

    async fn client(&mut self, limit: Duration) -> Result<Arc<PartitionClient>, Failure> {
        if let Some(held) = &self.held {
            return Ok(Arc::clone(&held.client));
        }
        let current = self.brokers.client().await?;
        // Under a limit of its own: what is found out here must be learned before the outer limit drops this future.
        let topic = self.brokers.settings.topic.clone();
        let opening = async {
            current
                .client
                .partition_client(topic, self.partition.0, UnknownTopicHandling::Error)
                .await
                .map_err(|error| Failure::of_client(&error))
        };
        match self.brokers.within(limit * 3 / 4, opening).await {
            Ok(client) => {
                let client = Arc::new(client);
                self.held = Some(Held { client: Arc::clone(&client), generation: current.generation });
                Ok(client)
            }
            Err(failure) => {
                self.brokers.forget(current.generation);
                Err(match failure {
                    // Nothing was asked of the partition yet.
                    Failure::Timeout(_) | Failure::Broken(_) => Failure::Unreachable(failure.to_string()),
                    Failure::Busy { reason, .. } => Failure::Busy { reason, unknown: false },
                    other => other,
                })
            }
        }
    }

    fn learn(&mut self, failure: &Failure) {
        let busy = matches!(failure, Failure::Busy { .. });
        if failure.spoils_connection() || (busy && self.busy) {
            if let Some(held) = self.held.take() {
                self.brokers.forget(held.generation);
            }
            self.busy = false;
        } else {
            self.busy = busy;
        }
    }
}
