//! Which changes of a partition are allowed.
//!
//! ```text
//! Pending ──> Active <──> Inactive        Pending ──> Inactive
//! ```
//!
//! Deleting is not among them: only the lifecycle of other live-stores deletes.

use crate::state::{Partition, PartitionState};

/// Why a partition was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It is not there.
    #[error("there is no partition {0} in the ring")]
    Absent(u32),
    /// Somebody locked it.
    #[error("partition state change is locked: partition {id} was locked by {by:?}; unlock it first")]
    Locked {
        /// The partition.
        id: u32,
        /// Who locked it.
        by: String,
    },
    /// No such transition.
    #[error("partition {id} is {from} and cannot become {to}", from = from.title(), to = to.title())]
    Transition {
        /// The partition.
        id: u32,
        /// What it is.
        from: PartitionState,
        /// What it should become.
        to: PartitionState,
    },
    /// The change could not be written.
    #[error("partition {id}: {reason}")]
    Write {
        /// The partition.
        id: u32,
        /// Why.
        reason: String,
    },
}

/// Who changes, and when by its clock: for people only.
#[derive(Debug, Clone, Copy)]
pub(super) struct By<'a> {
    /// Instance id or member name.
    pub(super) writer: &'a str,
    /// Seconds since the epoch.
    pub(super) at: i64,
}

/// The partition in another state. None if it is in that state already.
///
/// # Errors
/// It is locked, or the transition is not allowed.
pub(super) fn change_state(
    id: u32,
    partition: &Partition,
    to: PartitionState,
    by: By<'_>,
) -> Result<Option<Partition>, ChangeError> {
    use PartitionState::{Active, Inactive, Pending};
    let from = partition.state.value;
    if from == to {
        return Ok(None);
    }
    if partition.lock.value {
        return Err(ChangeError::Locked { id, by: partition.lock.writer.clone() });
    }
    if !matches!((from, to), (Pending, Active | Inactive) | (Active, Inactive) | (Inactive, Active)) {
        return Err(ChangeError::Transition { id, from, to });
    }
    Ok(Some(Partition { state: partition.state.changed(to, by.writer, by.at), lock: partition.lock.clone() }))
}

/// The partition with its lock set or cleared. None if it is so already.
#[must_use]
pub(super) fn change_lock(partition: &Partition, locked: bool, by: By<'_>) -> Option<Partition> {
    (partition.lock.value != locked)
        .then(|| Partition { state: partition.state.clone(), lock: partition.lock.changed(locked, by.writer, by.at) })
}

/// The states that a page offers.
#[must_use]
pub fn allowed_from(state: PartitionState) -> &'static [PartitionState] {
    use PartitionState::{Active, Deleted, Inactive, Pending};
    match state {
        Pending => &[Active, Inactive],
        Active => &[Inactive],
        Inactive => &[Active],
        Deleted => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY: By<'_> = By { writer: "admin", at: 7 };
    const ALL: [PartitionState; 4] =
        [PartitionState::Pending, PartitionState::Active, PartitionState::Inactive, PartitionState::Deleted];

    fn in_state(state: PartitionState) -> Partition {
        let pending = Partition::pending("a-0", 1);
        Partition { state: pending.state.changed(state, "a-0", 2), lock: pending.lock }
    }

    #[test]
    fn the_offered_changes_are_the_allowed_ones() {
        for from in ALL {
            for to in ALL {
                let changed = change_state(3, &in_state(from), to, BY);
                if from == to {
                    assert_eq!(changed, Ok(None));
                } else if allowed_from(from).contains(&to) {
                    let changed = changed.unwrap().unwrap();
                    assert_eq!((changed.state.value, changed.state.version, changed.state.changed_at), (to, 3, 7));
                    // Whoever still holds the old state loses against it.
                    assert_eq!(in_state(from).merge(&changed), changed);
                } else {
                    assert_eq!(changed, Err(ChangeError::Transition { id: 3, from, to }));
                }
            }
        }
    }

    #[test]
    fn a_lock_refuses_every_change_until_it_is_opened() {
        let locked = change_lock(&in_state(PartitionState::Active), true, BY).unwrap();
        assert_eq!(change_lock(&locked, true, BY), None);
        let error = change_state(3, &locked, PartitionState::Inactive, BY).unwrap_err();
        assert!(error.to_string().contains("partition state change is locked"), "{error}");
        let opened = change_lock(&locked, false, BY).unwrap();
        assert!(change_state(3, &opened, PartitionState::Inactive, BY).unwrap().is_some());
        assert_eq!(locked.merge(&opened), opened);
    }

    #[test]
    fn of_two_changes_at_once_the_same_one_wins_everywhere() {
        let start = in_state(PartitionState::Pending);
        let active = change_state(0, &start, PartitionState::Active, By { writer: "a", at: 9 }).unwrap().unwrap();
        let inactive = change_state(0, &start, PartitionState::Inactive, By { writer: "b", at: 3 }).unwrap().unwrap();
        assert_eq!(
            active.merge(&inactive).state.value,
            PartitionState::Inactive,
            "the later name, not the later clock"
        );
        assert_eq!(active.merge(&inactive), inactive.merge(&active));
    }
}
