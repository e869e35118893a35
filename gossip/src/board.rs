//! Where the host of the rings puts what pages and lookups read, and takes commands.
//!
//! Reading never waits for the host: a board holds the latest snapshots, and they are immutable.

use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::RwLock;

use crate::pages::{Cluster, PeerView};
use crate::ring::{Command, CommandError, Rings};

/// Carries a command to the host of the rings.
pub type Control = Arc<dyn Fn(Command) -> BoxFuture<'static, Result<(), CommandError>> + Send + Sync>;
/// Asks members whose state hash differs what they hold: at most eight of them, within a second.
pub type Peers = Arc<dyn Fn() -> BoxFuture<'static, Vec<PeerView>> + Send + Sync>;

/// A handle, cheap to clone.
#[derive(Clone)]
pub struct Board(Arc<Inner>);

struct Inner {
    rings: RwLock<Arc<Rings>>,
    cluster: RwLock<Option<Arc<Cluster>>>,
    control: Control,
    peers: Option<Peers>,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("rings", &self.rings()).finish_non_exhaustive()
    }
}

impl Board {
    /// An empty board. Without gossip there are no `peers`.
    #[must_use]
    pub fn new(control: Control, peers: Option<Peers>) -> Self {
        Self(Arc::new(Inner { rings: RwLock::default(), cluster: RwLock::default(), control, peers }))
    }

    /// The host's latest view of its rings.
    pub fn publish(&self, rings: Rings) {
        *self.0.rings.write() = Arc::new(rings);
    }

    /// The host's latest view of membership.
    pub fn publish_cluster(&self, cluster: Cluster) {
        *self.0.cluster.write() = Some(Arc::new(cluster));
    }

    /// The rings.
    #[must_use]
    pub fn rings(&self) -> Arc<Rings> {
        Arc::clone(&self.0.rings.read())
    }

    /// Membership; none where gossip is not used.
    #[must_use]
    pub fn cluster(&self) -> Option<Arc<Cluster>> {
        self.0.cluster.read().clone()
    }

    /// Asks the host for a change.
    ///
    /// # Errors
    /// See [`CommandError`]; then nothing changed, unless the host did not answer in time.
    pub async fn command(&self, command: Command) -> Result<(), CommandError> {
        (self.0.control)(command).await
    }

    /// What members hold whose state hash differs.
    pub async fn peers(&self) -> Vec<PeerView> {
        match &self.0.peers {
            Some(peers) => peers().await,
            None => Vec::new(),
        }
    }
}
