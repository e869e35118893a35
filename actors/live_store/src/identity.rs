//! Who a live-store of its own process is: its instance id says which partition it owns and for which group it commits.

use vivace_log::Partition;

/// Partition and consumer group of one live-store. `live-store-zone-a-3` owns partition 3 and commits for the group
/// `live-store-zone-a`: one group for each zone, one owner for each partition and zone, and zones are full replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The partition of the log, and of the partition ring.
    pub partition: Partition,
    /// The consumer group.
    pub group: String,
}

/// An instance id that names no partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The configuration has to be changed, or the host's name.
    #[error(
        "live_store.ring.instance_id (the host's name if not set) is {0:?}: it must end in a hyphen and the number of the \
         partition that this live-store owns, as in live-store-0 or live-store-zone-a-3"
    )]
    NoOrdinal(String),
    /// The number is none that a partition can have.
    #[error("live_store.ring.instance_id is {0:?}: the number at its end is above the largest partition, {max}", max = i32::MAX)]
    TooLarge(String),
}

impl Identity {
    /// What an instance id says.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn of(instance_id: &str) -> Result<Self, IdentityError> {
        let no_ordinal = || IdentityError::NoOrdinal(instance_id.to_owned());
        let (group, ordinal) = instance_id.rsplit_once('-').ok_or_else(no_ordinal)?;
        if group.is_empty() || ordinal.is_empty() || !ordinal.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(no_ordinal());
        }
        let partition = ordinal.parse().map_err(|_too_large| IdentityError::TooLarge(instance_id.to_owned()))?;
        Ok(Self { partition: Partition(partition), group: group.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_at_the_end_is_the_partition_and_the_rest_the_group() {
        for (id, partition, group) in
            [("live-store-0", 0, "live-store"), ("live-store-zone-a-3", 3, "live-store-zone-a"), ("a-007", 7, "a")]
        {
            assert_eq!(Identity::of(id), Ok(Identity { partition: Partition(partition), group: group.to_owned() }));
        }
    }

    #[test]
    fn an_id_without_a_number_is_refused_with_what_to_do() {
        for id in ["", "live-store", "live-store-", "live-store-x3", "live-store-3a", "-3", "3"] {
            let text = Identity::of(id).unwrap_err().to_string();
            assert!(text.contains("live-store-zone-a-3") && text.contains(&format!("{id:?}")), "{text}");
        }
        assert_eq!(Identity::of("a-2147483648"), Err(IdentityError::TooLarge("a-2147483648".to_owned())));
    }
}
