//! Configuration: `block_builder`.

use std::collections::{BTreeMap, BTreeSet};

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
        /// Time between two cycles over the partitions, and between the first and the last record of a section. Longer makes fewer and
        /// larger blocks and delays them.
        pub consume_cycle_duration: GoDuration = GoDuration::minutes(5),
        /// Bytes of records at which a section ends; 0 means that `block.max_block_bytes` alone decides.
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
        /// About the size at which a block is closed: a section ends when its records, which shrink to a third or less in a block,
        /// have three times as many bytes. That many are in memory, of one partition at a time. Larger takes more memory, smaller
        /// leaves more to compact.
        pub max_block_bytes: u64 = 20_971_520,
    }
}

/// Encoded traces become blocks of a third of their size or less; what is more is memory.
const SHRINKAGE: u64 = 3;
/// Below this, blocks would be too many to be of use.
const MIN_SECTION: u64 = 1 << 20;

/// Why the partitions of a process are not known. Expected: a wrong configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Nothing says which partitions are read.
    #[error(
        "block_builder: at least one of assigned_partitions and partitions_per_instance must be set, or no partition is read"
    )]
    NoAssignment,
    /// The name of the process has no number.
    #[error(
        "block_builder.instance_id (here {instance:?}) must end in a number, such as block-builder-0, because \
         partitions_per_instance counts by it"
    )]
    NoOrdinal {
        /// The name.
        instance: String,
    },
    /// The list of partitions has no entry for this process.
    #[error(
        "block_builder.assigned_partitions has no entry for {instance:?} (block_builder.instance_id, else the host name)"
    )]
    NotListed {
        /// The name.
        instance: String,
    },
    /// Not a partition.
    #[error("block_builder: there is no partition {0}")]
    Partition(i128),
}

impl Config {
    /// The partitions that this process reads, ascending. `host` is used when there is no `instance_id`.
    ///
    /// # Errors
    /// Names the key to set.
    pub fn partitions(&self, host: &str) -> Result<Vec<i32>, ConfigError> {
        let instance = if self.instance_id.is_empty() { host } else { &self.instance_id };
        let partition =
            |number: i128| i32::try_from(number).ok().filter(|p| *p >= 0).ok_or(ConfigError::Partition(number));
        let numbers: BTreeSet<i32> = if !self.assigned_partitions.is_empty() {
            let listed = self.assigned_partitions.get(instance);
            let listed = listed.ok_or_else(|| ConfigError::NotListed { instance: instance.to_owned() })?;
            listed.iter().map(|number| partition(i128::from(*number))).collect::<Result<_, _>>()?
        } else if self.partitions_per_instance > 0 {
            let digits = instance.rsplit_once('-').map(|(_, digits)| digits);
            let ordinal = digits.and_then(|digits| digits.parse::<u32>().ok());
            let ordinal = ordinal.ok_or_else(|| ConfigError::NoOrdinal { instance: instance.to_owned() })?;
            let count = i128::from(self.partitions_per_instance);
            let first = i128::from(ordinal) * count;
            partition(first + count - 1)?;
            (first..first + count).map(partition).collect::<Result<_, _>>()?
        } else {
            return Err(ConfigError::NoAssignment);
        };
        Ok(numbers.into_iter().collect())
    }

    /// Bytes of records at which a section ends: what is in memory at a time, before it is encoded.
    pub(crate) fn section_bytes(&self) -> usize {
        let by_block = self.block.max_block_bytes.saturating_mul(SHRINKAGE).max(MIN_SECTION);
        let bytes = if self.max_consuming_bytes == 0 { by_block } else { by_block.min(self.max_consuming_bytes) };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_follow_from_the_number_in_the_name() {
        let config = Config { partitions_per_instance: 2, ..Config::default() };
        assert_eq!(config.partitions("block-builder-0"), Ok(vec![0, 1]));
        assert_eq!(config.partitions("block-builder-3"), Ok(vec![6, 7]));
        assert!(matches!(config.partitions("laptop"), Err(ConfigError::NoOrdinal { .. })));
        let named = Config { instance_id: "b-1".into(), ..config };
        assert_eq!(named.partitions("block-builder-7"), Ok(vec![2, 3]));
        let huge = Config { partitions_per_instance: 1 << 40, ..Config::default() };
        assert!(matches!(huge.partitions("b-1"), Err(ConfigError::Partition(_))));
    }

    #[test]
    fn a_list_wins_and_must_name_the_process() {
        let assigned = BTreeMap::from([("b-0".to_owned(), vec![5, 1, 5]), ("b-1".to_owned(), vec![-1])]);
        let config = Config { assigned_partitions: assigned, partitions_per_instance: 9, ..Config::default() };
        assert_eq!(config.partitions("b-0"), Ok(vec![1, 5]));
        assert_eq!(config.partitions("b-1"), Err(ConfigError::Partition(-1)));
        assert!(matches!(config.partitions("b-2"), Err(ConfigError::NotListed { .. })));
        assert_eq!(Config::default().partitions("b-0"), Err(ConfigError::NoAssignment));
    }

    #[test]
    fn a_section_is_bounded_by_the_smaller_of_two_keys() {
        let mut config = Config::default();
        assert_eq!(config.section_bytes(), 3 * 20_971_520);
        config.max_consuming_bytes = 5_000_000;
        assert_eq!(config.section_bytes(), 5_000_000);
        config.max_consuming_bytes = 0;
        config.block.max_block_bytes = 1;
        assert_eq!(config.section_bytes(), 1 << 20);
    }
}
