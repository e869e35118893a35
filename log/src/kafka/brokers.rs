//! The way to the brokers: one rskafka client, made anew from the list of brokers when what it knows leads nowhere any more.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rskafka::BackoffConfig;
use rskafka::client::{Client, ClientBuilder};
use tokio::net::TcpStream;
use vivace_runtime::{Clock, Rng};

use super::failure::Failure;
use super::metrics::Metrics;
use super::settings::{Settings, is_literal_ipv6, tls_to_ipv6};
use super::wire::Wire;

/// One answer may hold as much as two fetches ask for.
const MESSAGE_BYTES_MAX: usize = 200 << 20;

/// Shared by everything of one `KafkaLog`.
pub(crate) struct Brokers {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    state: Mutex<State>,
    /// Held while a client is made, so that all who need one wait for the same.
    building: tokio::sync::Mutex<()>,
}

struct State {
    client: Option<Arc<Client>>,
    generation: u64,
    /// Where in the list the next attempt starts.
    next: usize,
    rng: Rng,
}

/// A client and its generation, by which it is given back when it leads nowhere.
pub(crate) struct Current {
    pub(crate) client: Arc<Client>,
    pub(crate) generation: u64,
}

impl Brokers {
    pub(crate) fn new(settings: Settings, clock: Arc<dyn Clock>, mut rng: Rng, metrics: Metrics) -> Self {
        let next = rng.index(settings.brokers.len());
        let state = State { client: None, generation: 0, next, rng };
        Self { settings, clock, metrics, state: Mutex::new(state), building: tokio::sync::Mutex::default() }
    }

    /// Runs `call`, at most for `limit`.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            result = call => result,
            () = self.clock.sleep(limit) => Err(Failure::Timeout(limit)),
        }
    }

    /// The client, made if there is none. To be called under a time limit.
    pub(crate) async fn client(&self) -> Result<Current, Failure> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let _alone = self.building.lock().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let client = Arc::new(self.build().await?);
        let mut state = self.state.lock();
        state.client = Some(Arc::clone(&client));
        state.generation += 1;
        self.metrics.client_built();
        Ok(Current { client, generation: state.generation })
    }

    fn current(&self) -> Option<Current> {
        let state = self.state.lock();
        state.client.as_ref().map(|client| Current { client: Arc::clone(client), generation: state.generation })
    }

    /// The client of this generation leads nowhere: the next one is made from the list of brokers. Who still uses it keeps it.
    pub(crate) fn forget(&self, generation: u64) {
        let mut state = self.state.lock();
        if state.generation == generation && state.client.take().is_some() {
            tracing::info!("forget what is known of the Kafka cluster and start from the list of brokers");
        }
    }

    async fn build(&self) -> Result<Client, Failure> {
        let broker = self.reachable().await?;
        // One attempt and no back-off of its own: what to do about a failure is decided here.
        let once = BackoffConfig {
            init_backoff: Duration::from_millis(1),
            max_backoff: Duration::from_millis(1),
            base: 2.0,
            deadline: Some(Duration::ZERO),
        };
        let mut builder = ClientBuilder::new(vec![broker])
            .client_id(self.settings.client_id.as_str())
            .max_message_size(MESSAGE_BYTES_MAX)
            .backoff_config(once);
        if let Some(tls) = &self.settings.tls {
            builder = builder.tls_config(tls.config().await.map_err(|error| Failure::Unreachable(error.to_string()))?);
        }
        if let Some(sasl) = &self.settings.sasl {
            builder = builder.sasl_config(sasl.to_client().await.map_err(Failure::Refused)?);
        }
        builder.build().await.map_err(|error| Failure::of_client(&error))
    }

    /// The first of the brokers that takes a connection, so that one which is gone does not hold up the rest.
    async fn reachable(&self) -> Result<String, Failure> {
        let brokers = &self.settings.brokers;
        let mut failures = Vec::new();
        for broker in self.in_turn() {
            let dial =
                async { TcpStream::connect(&broker).await.map_err(|error| Failure::Unreachable(error.to_string())) };
            match self.within(self.settings.dial_timeout, dial).await {
                Ok(_) => return Ok(broker),
                Err(failure) => failures.push(format!("{broker}: {failure}")),
            }
        }
        let all = if brokers.len() > 1 { "none of the brokers takes a connection: " } else { "" };
        Err(Failure::Unreachable(format!("{all}{}", failures.join("; "))))
    }

    fn in_turn(&self) -> Vec<String> {
        let brokers = &self.settings.brokers;
        let mut state = self.state.lock();
        let first = state.next;
        state.next = (first + 1) % brokers.len();
        brokers.iter().cycle().skip(first).take(brokers.len()).cloned().collect()
    }

    /// A connection of our own to one of the brokers of the list.
    pub(crate) async fn wire(&self) -> Result<Wire, Failure> {
        let broker = self.reachable().await?;
        self.wire_to(&broker).await
    }

    /// A connection of our own to this very broker.
    pub(crate) async fn wire_to(&self, broker: &str) -> Result<Wire, Failure> {
        let nonce = {
            let mut state = self.state.lock();
            u128::from(state.rng.next()) << 64 | u128::from(state.rng.next())
        };
        self.within(self.settings.dial_timeout * 2, Wire::connect(broker, &self.settings, nonce)).await
    }

    /// The address of a broker as it is advertised, in the form that is dialled.
    pub(crate) fn advertised(&self, host: &str, port: i32) -> Result<String, Failure> {
        match is_literal_ipv6(host) {
            true if self.settings.tls.is_some() => Err(Failure::Refused(tls_to_ipv6(host))),
            true if !host.starts_with('[') => Ok(format!("[{host}]:{port}")),
            _ => Ok(format!("{host}:{port}")),
        }
    }

    /// The wait before attempt number `attempt`, from 0: doubling from 50 ms to 2 s, with jitter, so that many clients do not come
    /// back together.
    pub(crate) fn back_off(&self, attempt: u32) -> Duration {
        let longest = Duration::from_millis(50).saturating_mul(1 << attempt.min(6)).min(Duration::from_secs(2));
        longest.mul_f64(0.5 + self.state.lock().rng.unit() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use vivace_runtime::FakeClock;
    use vivace_runtime::metrics::Registry;

    use super::*;
    use crate::config::KafkaConfig;
    use crate::kafka::Role;

    fn brokers(config: &KafkaConfig) -> Brokers {
        let settings = Settings::new(&KafkaConfig { topic: "t".into(), ..config.clone() }).unwrap();
        let metrics = Metrics::new(&Registry::new(), Role::Producer);
        Brokers::new(settings, Arc::new(FakeClock::default()), Rng::seeded(1), metrics)
    }

    #[test]
    fn advertised_addresses_are_dialled_in_brackets_and_refused_where_tls_cannot_name_them() {
        let plain = brokers(&KafkaConfig::default());
        assert_eq!(plain.advertised("2001:db8::1", 9092).unwrap(), "[2001:db8::1]:9092");
        assert_eq!(plain.advertised("kafka-0.kafka", 9092).unwrap(), "kafka-0.kafka:9092");
        let tls = KafkaConfig { tls_enabled: true, tls_insecure_skip_verify: true, ..KafkaConfig::default() };
        let told = brokers(&tls).advertised("2001:db8::1", 9093).unwrap_err();
        assert!(!told.is_retryable() && told.to_string().contains("advertised.listeners"), "{told}");
        assert_eq!(brokers(&tls).advertised("10.0.0.1", 9093).unwrap(), "10.0.0.1:9093");
    }

    #[test]
    fn the_list_of_brokers_is_gone_through_in_turn() {
        let brokers = brokers(&KafkaConfig { address: "a:1,b:2,c:3".into(), ..KafkaConfig::default() });
        let firsts: Vec<_> = (0..6).map(|_| brokers.in_turn().remove(0)).collect();
        assert_eq!(firsts[..3], firsts[3..]);
        let mut all = brokers.in_turn();
        all.sort_unstable();
        assert_eq!(all, ["a:1", "b:2", "c:3"]);
    }

    #[test]
    fn back_off_grows_stays_bounded_and_differs() {
        let brokers = brokers(&KafkaConfig::default());
        let waits: Vec<_> = (0..40).map(|attempt| brokers.back_off(attempt)).collect();
        assert!(waits[0] <= Duration::from_millis(50) && waits[0] >= Duration::from_millis(25));
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(2)));
        assert!(waits[20..].iter().all(|wait| *wait >= Duration::from_secs(1)));
        assert_ne!(waits[30], waits[31]);
    }
}
