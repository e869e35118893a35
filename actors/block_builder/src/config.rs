//! Configuration: `block_builder`.

use std::collections::BTreeMap;

use vivace_runtime::config::{GoDuration, WalConfig};

vivace_runtime::config_struct! {
    /// The block-builder: blocks in object storage, from the log. Not part of target `all`.
    pub struct Config {
        /// Name of this process; its number is what stands after the last `-`. Empty: the host name.
        pub instance_id: String = String::new(),
        /// Partitions per name. Wins over `partitions_per_instance`.
        pub assigned_partitions: BTreeMap<String, Vec<i64>> = BTreeMap::new(),
        /// Partitions of each process, counted by its number: number n takes n·k up to n·k+k-1.
        pub partitions_per_instance: u64 = 0,
        /// Time between two cycles over the partitions. Longer makes fewer and larger blocks and delays them.
        pub consume_cycle_duration: GoDuration = GoDuration::minutes(5),
        /// Bytes consumed in one cycle; 0 means without limit.
        pub max_consuming_bytes: u64 = 5_000_000_000,
        /// Blocks.
        pub block: BlockConfig = BlockConfig::default(),
        /// Directory of blocks in the making.
        pub wal: WalConfig = WalConfig::at("/var/tempo/block-builder/traces"),
    }
}

vivace_runtime::config_struct! {
    /// Blocks of the block-builder.
    pub struct BlockConfig {
        /// Bytes at which a block is closed. Larger takes more memory, smaller leaves more to compact.
        pub max_block_bytes: u64 = 20_971_520,
    }
}
