//! One process in all its rings.

use vivace_runtime::config::{DistributorRingConfig, RingConfig};

use super::super::settings::Host;
use super::super::{Sight, Standing};
use super::*;
use crate::partition::{Change, PartitionTimings};

const LIVE: &str = "collectors/live-store";
const PARTITIONS: &str = "collectors/livestore-partitions";

fn at(seconds: u64) -> Now {
    Now { monotonic: Duration::from_secs(seconds), unix: Duration::from_secs(1_700_000_000 + seconds) }
}

fn keeper(process: u64) -> Keeper {
    let host = Host { name: "ignored", grpc_port: 9095 };
    let config = RingConfig { instance_id: format!("live-store-{process}"), ..RingConfig::default() };
    let live = RingSettings::live_store(&config, host).unwrap();
    let distributor = RingSettings::distributor(&DistributorRingConfig::default(), "distributor", host).unwrap();
    let identity = Identity { process, name: format!("process-{process}"), software: "0.1.0".into() };
    let own = live.partition().unwrap();
    let lifecycle = PartitionLifecycle::new(PARTITIONS, &live, own, PartitionTimings::default()).unwrap();
    let mut keeper = Keeper::new(&identity.name);
    keeper.join(&live, &identity, Vec::new(), Some(own)).unwrap();
    let distributor = RingSettings { instance_id: format!("distributor-{process}"), ..distributor };
    keeper.join(&distributor, &identity, Vec::new(), None).unwrap();
    keeper.partitions(PARTITIONS, LIVE, Some(lifecycle));
    keeper
}

fn alive(processes: &[u64]) -> Liveness {
    Liveness::new(processes.iter().map(|process| (*process, Sight::ALIVE)))
}

#[test]
fn a_process_registers_in_its_rings_and_its_partition_becomes_active() {
    let (mut keeper, mut state, liveness) = (keeper(0), State::new(), alive(&[0]));
    assert!(keeper.tick(&mut state, &liveness, at(0)).is_empty() && state.is_empty(), "not before the start");
    keeper.start(&mut state, at(0));
    let events: Vec<KeeperEvent> = (0..15).flat_map(|second| keeper.tick(&mut state, &liveness, at(second))).collect();
    assert_eq!(events, [KeeperEvent::Partition(0, PartitionState::Active)]);
    let rings = keeper.rings(&state, &liveness);
    assert_eq!(rings.rings.keys().collect::<Vec<_>>(), ["collectors/distributor", LIVE]);
    let (_, partitions) = rings.partitions.unwrap();
    assert_eq!(partitions.get(0).unwrap().owners.len(), 1);
    assert_eq!(rings.digest, state.digest());
    keeper.leave(&mut state);
    keeper.stop(&mut state);
    let rings = keeper.rings(&state, &liveness);
    assert!(rings.rings.values().all(|ring| ring.entries().is_empty()));
    assert_eq!(rings.partitions.unwrap().1.get(0).unwrap().owners.len(), 0, "the partition stays, without owner");
}

#[test]
fn an_owner_that_keeps_its_partition_stays_as_leaving() {
    let (mut keeper, mut state, liveness) = (keeper(0), State::new(), alive(&[0]));
    keeper.set_removes_owner(false);
    keeper.start(&mut state, at(0));
    keeper.leave(&mut state);
    keeper.stop(&mut state);
    let rings = keeper.rings(&state, &liveness);
    assert_eq!(rings.rings[LIVE].entries()[0].instance.state, InstanceState::Leaving);
    assert!(rings.rings["collectors/distributor"].entries().is_empty());
}

#[test]
fn who_is_told_to_leave_is_out_of_its_rings_at_once_and_does_not_come_back() {
    let (mut keeper, mut state, liveness) = (keeper(0), State::new(), alive(&[0]));
    keeper.start(&mut state, at(0));
    keeper.command(&mut state, &liveness, Command::Leave, at(1)).unwrap();
    for second in 1..60 {
        keeper.tick(&mut state, &liveness, at(second));
        let rings = keeper.rings(&state, &liveness);
        assert!(rings.rings.values().all(|ring| ring.entries().is_empty()), "{second}");
    }
    // What a stop does otherwise was done.
    let before = state.digest();
    keeper.leave(&mut state);
    keeper.stop(&mut state);
    assert_eq!(state.digest(), before);
}

#[test]
fn commands_change_what_they_name_and_nothing_else() {
    let mut state = State::new();
    keeper(1).start(&mut state, at(0));
    let mut keeper = keeper(0);
    keeper.start(&mut state, at(0));
    let liveness =
        Liveness::new([(0, Sight::ALIVE), (1, Sight { standing: Standing::Down, silent_for: Duration::from_secs(9) })]);
    let forget = |id: &str| Command::Forget { ring: LIVE.into(), id: id.into() };
    keeper.command(&mut state, &liveness, forget("live-store-1"), at(1)).unwrap();
    let view = RingView::new(&state, LIVE, &liveness);
    assert_eq!(view.entries().iter().map(|entry| &*entry.id).collect::<Vec<_>>(), ["live-store-0"]);
    let error = keeper.command(&mut state, &liveness, forget("live-store-1"), at(1)).unwrap_err().to_string();
    assert!(error.contains("live-store-1") && error.contains("not in the ring"), "{error}");
    let lock = Command::Partition { id: 0, change: Change::Lock(true) };
    keeper.command(&mut state, &liveness, lock, at(1)).unwrap();
    assert!(keeper.rings(&state, &liveness).partitions.unwrap().1.get(0).unwrap().is_locked());
    let absent = Command::Partition { id: 9, change: Change::Lock(true) };
    assert!(keeper.command(&mut state, &liveness, absent, at(1)).is_err());
    let mut none = Keeper::new("n");
    let lock = Command::Partition { id: 0, change: Change::Lock(false) };
    assert_eq!(none.command(&mut state, &liveness, lock, at(1)), Err(CommandError::NoPartitions));
}

#[test]
fn a_live_store_that_was_told_to_go_registers_once_somebody_made_its_partition() {
    let (mut state, liveness) = (State::new(), alive(&[0, 1]));
    let mut waiting = keeper(0);
    if let Some(partitions) = &mut waiting.partitions
        && let Some(lifecycle) = &mut partitions.lifecycle
    {
        lifecycle.set_create_on_start(false);
    }
    waiting.start(&mut state, at(0));
    waiting.tick(&mut state, &liveness, at(1));
    assert!(waiting.rings(&state, &liveness).rings[LIVE].entries().is_empty());
    let mut maker = keeper(0);
    maker.start(&mut state, at(2));
    maker.stop(&mut state);
    for second in 2..8 {
        waiting.tick(&mut state, &liveness, at(second));
    }
    assert_eq!(waiting.rings(&state, &liveness).rings[LIVE].entries().len(), 1);
}

#[test]
fn a_live_store_is_read_only_while_its_partition_is_inactive() {
    let (mut keeper, mut state, liveness) = (keeper(0), State::new(), alive(&[0]));
    keeper.start(&mut state, at(0));
    let run = |keeper: &mut Keeper, state: &mut State, seconds: std::ops::Range<u64>| {
        for second in seconds {
            keeper.tick(state, &liveness, at(second));
        }
        let entry = keeper.rings(state, &liveness).rings[LIVE].entries()[0].clone();
        (entry.instance.read_only, entry.instance.read_only_changed_at)
    };
    assert_eq!(run(&mut keeper, &mut state, 0..20), (false, 0));
    let change = |to| Command::Partition { id: 0, change: Change::State(to) };
    keeper.command(&mut state, &alive(&[0]), change(PartitionState::Inactive), at(20)).unwrap();
    let (read_only, since) = run(&mut keeper, &mut state, 20..40);
    assert!(read_only && (1_700_000_020..=1_700_000_025).contains(&since), "{since}");
    keeper.command(&mut state, &alive(&[0]), change(PartitionState::Active), at(40)).unwrap();
    let (read_only, since) = run(&mut keeper, &mut state, 40..50);
    assert!(!read_only && since >= 1_700_000_040, "{since}");
    let distributors = keeper.rings(&state, &alive(&[0])).rings["collectors/distributor"].entries()[0].clone();
    assert!(!distributors.instance.read_only, "it has no partition");
}

#[test]
fn a_wall_clock_that_steps_by_an_hour_forgets_nobody_and_changes_no_partition() {
    let (mut state, liveness) = (State::new(), alive(&[0, 1]));
    let mut keepers = [keeper(0), keeper(1)];
    let mut changes = Vec::new();
    for second in 0..400_u64 {
        // The monotonic clock goes on; that of the wall steps ahead, back over where it was, and to the right time.
        let step = [0_i64, 3600, -3600, 0][usize::try_from(second / 100).unwrap()];
        let unix = Duration::from_secs(1_700_000_000_u64.saturating_add_signed(step) + second);
        let now = Now { monotonic: Duration::from_secs(second), unix };
        for keeper in &mut keepers {
            if second == 0 {
                keeper.start(&mut state, now);
            }
            changes.extend(keeper.tick(&mut state, &liveness, now));
        }
        if second > 0 {
            let rings = keepers[0].rings(&state, &liveness);
            assert!(rings.rings.values().all(|ring| ring.entries().len() == 2), "at {second}");
        }
    }
    let active = |id| KeeperEvent::Partition(id, PartitionState::Active);
    assert_eq!(changes, [active(0), active(1)]);
}

#[test]
fn nobody_is_forgotten_by_a_process_that_sees_most_of_the_ring_down() {
    let mut state = State::new();
    for process in 0..3 {
        keeper(process).start(&mut state, at(0));
    }
    let (mut own, liveness) = (keeper(0), alive(&[0]));
    own.start(&mut state, at(0));
    own.tick(&mut state, &liveness, at(0));
    own.tick(&mut state, &liveness, at(3600));
    let rings = own.rings(&state, &liveness);
    assert_eq!(rings.rings[LIVE].entries().len(), 3);
    assert_eq!(rings.held[LIVE], ["live-store-1", "live-store-2"]);
    let mostly = alive(&[0, 1]);
    own.tick(&mut state, &mostly, at(3601));
    assert_eq!(own.rings(&state, &mostly).rings[LIVE].entries().len(), 2);
}
