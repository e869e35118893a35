//! Directories for data that is not yet in a block.

use super::GoDuration;

crate::config_struct! {
    /// A directory for data that is not yet in a block.
    pub struct WalConfig {
        /// Directory; it must be on a disk that survives a restart.
        pub path: String = "/var/tempo/wal".into(),
        /// Span times outside now ± this do not widen the time range of a block. Larger values make blocks that more
        /// queries must look into; smaller ones hide late spans from searches by time.
        pub ingestion_time_range_slack: GoDuration = GoDuration::minutes(2),
    }
}

impl WalConfig {
    /// The block with the directory of its section.
    pub fn at(path: &str) -> Self {
        Self { path: path.into(), ..Self::default() }
    }
}
