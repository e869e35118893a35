//! How a broker is started.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vivace_runtime::{Clock, Disk, Rng, SimDisk, StdDisk, SystemClock};

/// Everything that can be chosen. The defaults are those of `vivace devbroker`, except that ports are chosen by the system.
#[derive(Clone)]
pub struct Options {
    /// Where everything is kept; made if it is missing. One broker at a time.
    pub dir: PathBuf,
    /// The disk that the folder is on.
    pub disk: Arc<dyn Disk>,
    /// For retention and for what clients are told of time.
    pub clock: Arc<dyn Clock>,
    /// Seed of ids; `None` takes one from the system.
    pub seed: Option<u64>,
    /// `host:port`, one or several, an IPv6 address in brackets; port 0 lets the system choose.
    pub listen: Vec<String>,
    /// `host:port` that clients are told to use. `None`: the address by which the client has come, so that each stays in its own
    /// address family.
    pub advertise: Option<String>,
    /// Permit addresses that other machines can reach. The broker has neither encryption nor permissions.
    pub allow_remote: bool,
    /// `host:port` of the admin port, for faults. Loopback only, whatever else is permitted.
    pub admin: Option<String>,
    /// Topics to make at start if they are missing, with their number of partitions; fewer partitions than asked for are grown.
    pub topics: Vec<(String, i32)>,
    /// Make a topic that a client asks for and that does not exist.
    pub auto_create: bool,
    /// Partitions of topics made that way, or made without a number.
    pub default_partitions: i32,
    /// How much each partition keeps; `None` is without bound. Topics may say otherwise.
    pub retention_bytes: Option<u64>,
    /// How long records are kept; `None` is for ever. Topics may say otherwise.
    pub retention: Option<Duration>,
    /// How often that is looked at.
    pub retention_check: Duration,
    /// The longest batch, as it is sent. Topics may say otherwise. At most 32 MiB less 64 KiB, which is what the log takes.
    pub max_message_bytes: usize,
    /// Length of a segment file: what retention removes at once.
    pub segment_bytes: u64,
    /// Connections at once; more are closed at once.
    pub max_connections: usize,
    /// The longest request; a longer one ends its connection.
    pub max_request_bytes: usize,
    /// User and password. Given: clients must authenticate with SASL PLAIN.
    pub sasl_plain: Option<(String, String)>,
}

impl Options {
    /// A broker on the system's disk, at `127.0.0.1` with a free port.
    #[must_use]
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            disk: Arc::new(StdDisk),
            clock: Arc::new(SystemClock),
            seed: None,
            listen: vec!["127.0.0.1:0".to_owned()],
            advertise: None,
            allow_remote: false,
            admin: None,
            topics: Vec::new(),
            auto_create: false,
            default_partitions: 1,
            retention_bytes: None,
            retention: None,
            retention_check: Duration::from_secs(10),
            max_message_bytes: 16 << 20,
            segment_bytes: 16 << 20,
            max_connections: 1000,
            max_request_bytes: 64 << 20,
            sasl_plain: None,
        }
    }

    /// A broker whose disk is memory: for tests that need no second life, or that keep the options' disk for one.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { disk: Arc::new(SimDisk::new(1)), ..Self::in_dir("/devbroker") }
    }

    /// Adds a topic to make at start.
    #[must_use]
    pub fn topic(mut self, name: &str, partitions: i32) -> Self {
        self.topics.push((name.to_owned(), partitions));
        self
    }

    /// Adds an address to listen on; the first call replaces the default.
    #[must_use]
    pub fn listen(mut self, addresses: &[&str]) -> Self {
        self.listen = addresses.iter().map(|&address| address.to_owned()).collect();
        self
    }

    pub(crate) fn rng(&self) -> Rng {
        self.seed.map_or_else(Rng::from_system, Rng::seeded)
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("dir", &self.dir)
            .field("listen", &self.listen)
            .field("advertise", &self.advertise)
            .field("allow_remote", &self.allow_remote)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}
