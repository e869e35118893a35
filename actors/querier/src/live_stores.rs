//! Who has recent data: what the router asks of the rings.

/// The rings as they are at this moment, by whoever follows them.
pub trait LiveStores: Send + Sync + 'static {
    /// All partitions of the ring, whatever their state. None: the ring is empty or not known yet.
    fn partitions(&self) -> Vec<Partition>;
}

/// A partition and who owns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub id: u32,
    /// Its state.
    pub used: PartitionUse,
    /// The live-stores that hold it, each with all of its recent data.
    pub owners: Vec<Owner>,
}

/// What a partition is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionUse {
    /// Nothing was written to it yet.
    Pending,
    /// It is written to.
    Active,
    /// It is written to no more.
    Inactive {
        /// Since when.
        since_unix_secs: i64,
    },
}

/// A live-store that owns a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its name in the ring.
    pub id: String,
    /// Its availability zone.
    pub zone: String,
    /// `host:port` as the ring advertises it, the best first: a proxy before it gets the calls. Empty when this process shares no
    /// address family with it.
    pub addresses: Vec<String>,
    /// Alive as membership sees it. Orders whom to ask first, no more.
    pub healthy: bool,
    /// In a state in which it answers questions.
    pub ready: bool,
}
