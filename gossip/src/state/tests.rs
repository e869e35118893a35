//! The laws of merging, and comparing by hashes, over arbitrary records.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const RING: &str = "collectors/live-store";

fn instance() -> impl Strategy<Value = Instance> {
    let state = prop_oneof![
        Just(InstanceState::Active),
        Just(InstanceState::Leaving),
        Just(InstanceState::Pending),
        Just(InstanceState::Joining)
    ];
    let address = (any::<bool>(), "[a-z0-9:.]{1,40}", any::<u16>()).prop_map(|(proxy, host, port)| Address {
        via: if proxy { Via::Proxy } else { Via::Direct },
        host,
        port,
    });
    (
        (state, "[a-z]{1,3}-[0-9]", prop::collection::vec(address, 0..4), "[a-z-]{0,8}", 0..600_u16),
        (prop::option::of(0..9_u32), any::<i64>(), any::<bool>(), any::<i64>(), "[0-9.]{0,6}"),
        prop::collection::vec(any::<u8>(), 0..6),
    )
        .prop_map(|(first, second, extra)| {
            let (state, member, addresses, zone, tokens) = first;
            let (partition, registered_at, read_only, read_only_changed_at, software) = second;
            Instance {
                state,
                member,
                addresses,
                zone,
                tokens,
                partition,
                registered_at,
                read_only,
                read_only_changed_at,
                software,
                extra,
            }
        })
}

/// Few generations, versions and nonces, so that ties are common.
fn claim() -> impl Strategy<Value = Claim> {
    let reason = prop_oneof![Just(GraveReason::Left), Just(GraveReason::Forgotten), Just(GraveReason::Expired)];
    let grave = (reason, "[ab]", 1..5_u64)
        .prop_map(|(reason, by, seconds)| Body::Grave(Grave { reason, by, remaining: Duration::from_secs(seconds) }));
    let body = prop_oneof![instance().prop_map(|instance| Body::Live(Arc::new(instance))), grave];
    (0..3_u64, 0..3_u64, 0..3_u64, body).prop_map(|(generation, version, nonce, body)| Claim {
        generation,
        version,
        nonce,
        body,
    })
}

fn partition() -> impl Strategy<Value = Partition> {
    let state = prop_oneof![
        Just(PartitionState::Pending),
        Just(PartitionState::Active),
        Just(PartitionState::Inactive),
        Just(PartitionState::Deleted)
    ];
    let state = (0..3_u64, "[ab]", state, 0..2_i64).prop_map(|(version, writer, value, changed_at)| Register {
        version,
        writer,
        value,
        changed_at,
    });
    let lock = (0..3_u64, "[ab]", any::<bool>(), 0..2_i64).prop_map(|(version, writer, value, changed_at)| Register {
        version,
        writer,
        value,
        changed_at,
    });
    (state, lock).prop_map(|(state, lock)| Partition { state, lock })
}

/// Records of very few keys, so that most meet another of their key.
fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        ("[ab]", claim()).prop_map(|(id, claim)| Record::claim(Key::instance(RING, &id), claim).unwrap()),
        (0..2_u64, claim()).prop_map(|(nonce, claim)| Record::claim(Key::rival(RING, "a", nonce), claim).unwrap()),
        (0..2_u32, partition()).prop_map(|(id, partition)| Record::partition(RING, id, partition).unwrap()),
    ]
}

fn same_key() -> impl Strategy<Value = [Record; 3]> {
    let claims = [claim(), claim(), claim()]
        .prop_map(|claims| claims.map(|claim| Record::claim(Key::instance(RING, "a"), claim).unwrap()));
    let partitions = [partition(), partition(), partition()]
        .prop_map(|all| all.map(|partition| Record::partition(RING, 0, partition).unwrap()));
    prop_oneof![claims, partitions]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn merging_is_commutative([a, b, _] in same_key()) {
        prop_assert_eq!(a.merge(&b), b.merge(&a));
    }

    #[test]
    fn merging_is_associative([a, b, c] in same_key()) {
        prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
    }

    #[test]
    fn merging_is_idempotent([a, b, _] in same_key()) {
        prop_assert_eq!(a.merge(&a), a.clone());
        let both = a.merge(&b);
        prop_assert_eq!(both.merge(&a), both.clone());
        prop_assert_eq!(both.merge(&b), both);
    }

    #[test]
    fn an_encoding_is_read_back_and_is_the_only_one(record in record(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let bytes = record.encode();
        prop_assert!(bytes.len() <= RECORD_BYTES_MAX);
        prop_assert_eq!(Record::decode(&bytes).unwrap(), record);
        // Whatever else decodes, encodes to itself: equal records have equal stamps.
        let mut other = bytes.clone();
        other[at.index(bytes.len())] = byte;
        if let Ok(read) = Record::decode(&other) {
            prop_assert_eq!(read.encode(), other);
        }
        let short = &bytes[..at.index(bytes.len())];
        if let Ok(read) = Record::decode(short) {
            prop_assert_eq!(read.encode(), short);
        }
    }

    #[test]
    fn garbage_is_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..1300)) {
        if let Ok(read) = Record::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes.clone());
        }
        if let Ok(key) = Key::decode(&bytes) {
            prop_assert_eq!(key.encode(), bytes);
        }
    }

    #[test]
    fn states_agree_whatever_the_order_and_the_repetitions(
        records in prop::collection::vec(record(), 0..24),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..48),
    ) {
        let mut straight = State::new();
        straight.apply(records.clone());
        let mut mixed = State::new();
        for index in order.iter().filter(|_| !records.is_empty()) {
            mixed.apply(vec![records[index.index(records.len())].clone()]);
        }
        mixed.apply(records.iter().rev().cloned().collect());
        prop_assert_eq!(straight.digest(), mixed.digest());
        prop_assert_eq!(straight.bucket_hashes(), mixed.bucket_hashes());
        prop_assert!(straight.records().eq(mixed.records()));
        prop_assert_eq!(recomputed(&straight), recomputed(&mixed));
    }

    #[test]
    fn two_states_become_one_by_exchanging_what_differs(
        mine in prop::collection::vec(record(), 0..16),
        theirs in prop::collection::vec(record(), 0..16),
    ) {
        let (mut a, mut b) = (State::new(), State::new());
        a.apply(mine);
        b.apply(theirs);
        exchange(&mut a, &mut b);
        prop_assert_eq!(a.digest(), b.digest());
        prop_assert!(a.records().map(Record::stamp).eq(b.records().map(Record::stamp)));
        // A second round finds nothing.
        prop_assert_eq!(exchange(&mut a, &mut b), 0);
    }
}

/// What two members do after a probe told them that their hashes differ. Returns how many records travelled.
fn exchange(a: &mut State, b: &mut State) -> usize {
    let mut sent = 0;
    let differing: Vec<usize> =
        (0..BUCKETS).filter(|bucket| a.bucket_hashes()[*bucket] != b.bucket_hashes()[*bucket]).collect();
    for bucket in differing {
        let (of_a, of_b) = (a.digests(bucket), b.digests(bucket));
        let to_b = a.get(&b.missing(&of_a));
        let to_a = b.get(&a.missing(&of_b));
        sent += to_a.len() + to_b.len();
        let carry = |records: Vec<Record>| records.iter().map(|r| Record::decode(&r.encode()).unwrap()).collect();
        a.apply(carry(to_a));
        b.apply(carry(to_b));
    }
    sent
}

fn recomputed(state: &State) -> BTreeMap<Key, Stamp> {
    let stamps: BTreeMap<Key, Stamp> = state.records().map(|record| (record.key().clone(), record.stamp())).collect();
    let listed: BTreeMap<Key, Stamp> = (0..BUCKETS).flat_map(|bucket| state.digests(bucket)).collect();
    assert_eq!(stamps, listed, "every record is in one bucket, with its stamp");
    let mut fresh = State::new();
    fresh.apply(state.records().cloned().collect());
    assert_eq!(fresh.digest(), state.digest(), "the running hash is the hash of what is there");
    stamps
}

fn described(zone: &str) -> Instance {
    Instance {
        state: InstanceState::Active,
        member: "m-1".into(),
        addresses: vec![Address { via: Via::Direct, host: "10.0.0.1".into(), port: 9095 }],
        zone: zone.into(),
        tokens: 0,
        partition: Some(3),
        registered_at: 7,
        read_only: false,
        read_only_changed_at: 0,
        software: "0.1.0".into(),
        extra: Vec::new(),
    }
}

fn live(generation: u64, version: u64, zone: &str) -> Record {
    let claim = Claim { generation, version, nonce: 9, body: Body::Live(Arc::new(described(zone))) };
    Record::claim(Key::instance(RING, "a-3"), claim).unwrap()
}

fn forgotten(record: &Record) -> Record {
    let grave = record.as_claim().unwrap().buried(GraveReason::Forgotten, "admin");
    Record::claim(record.key().clone(), grave).unwrap()
}

#[test]
fn a_grave_holds_against_what_it_was_dug_for_and_against_nothing_newer() {
    let seen = live(2, 5, "z");
    let grave = forgotten(&seen);
    let mut state = State::new();
    state.apply(vec![seen.clone(), grave.clone()]);
    assert!(state.record(seen.key()).unwrap().as_claim().unwrap().live().is_none());
    for older in [live(2, 5, "z"), live(2, 4, "y"), live(1, 99, "x")] {
        assert!(state.apply(vec![older]).is_empty());
    }
    for newer in [live(2, 6, "z"), live(3, 0, "z")] {
        let mut state = state.clone();
        assert_eq!(state.apply(vec![newer.clone()]), [newer.key().clone()]);
        assert!(state.apply(vec![grave.clone()]).is_empty());
        assert_eq!(state.record(newer.key()), Some(newer));
    }
}

#[test]
fn clocks_set_back_decide_nothing() {
    let mut late = described("z");
    late.registered_at = 1_900_000_000;
    let mut early = late.clone();
    early.registered_at = 3;
    let of = |version, instance: &Instance| {
        let claim = Claim { generation: 1, version, nonce: 9, body: Body::Live(Arc::new(instance.clone())) };
        Record::claim(Key::instance(RING, "a-3"), claim).unwrap()
    };
    assert_eq!(of(1, &late).merge(&of(2, &early)), of(2, &early));
    let mut partition = Partition::pending("a-3", 1_900_000_000);
    let before = partition.clone();
    partition.state = partition.state.changed(PartitionState::Active, "a-3", 3);
    assert_eq!(before.merge(&partition), partition);
}

#[test]
fn a_grave_is_removed_after_a_day_of_its_holders_own_time_and_not_brought_back_for_another() {
    let day = GRAVE_KEPT;
    let grave = forgotten(&live(1, 1, "z"));
    let (mut first, mut second) = (State::new(), State::new());
    first.apply(vec![grave.clone()]);
    first.advance(day / 2);
    // Another member learns of it half a day later and keeps it for the other half only.
    let carried: Vec<Record> =
        first.get(&[grave.key().clone()]).iter().map(|r| Record::decode(&r.encode()).unwrap()).collect();
    second.apply(carried);
    assert_eq!(first.digest(), second.digest(), "the remaining time is no difference");
    assert!(second.advance(day / 2 - Duration::from_secs(2)).is_empty());
    assert_eq!(second.advance(day / 2), [grave.key().clone()]);
    assert_eq!(first.advance(day), [grave.key().clone()]);
    assert!(first.is_empty() && first.digest() == State::new().digest());
    // Nothing is left that could be kept.
    assert!(first.apply(vec![grave.with_remaining(Duration::ZERO)]).is_empty());
}

#[test]
fn a_partition_that_was_deleted_stays_deleted_for_ever() {
    let active = Partition::pending("a", 0);
    let deleted = Partition { state: active.state.changed(PartitionState::Deleted, "a", 1), lock: active.lock.clone() };
    let mut state = State::new();
    state.apply(vec![Record::partition(RING, 3, deleted.clone()).unwrap()]);
    assert!(state.advance(GRAVE_KEPT * 400).is_empty());
    assert!(state.apply(vec![Record::partition(RING, 3, active).unwrap()]).is_empty());
    assert_eq!(state.record(&Key::partition(RING, 3)).unwrap().as_partition(), Some(&deleted));
}

#[test]
fn only_local_changes_are_spread_and_as_they_are_when_taken() {
    let mut state = State::new();
    state.apply(vec![live(1, 1, "z")]);
    assert!(state.take_broadcasts().is_empty());
    assert!(state.put(live(1, 2, "y")) && state.put(live(1, 3, "x")));
    assert!(!state.put(live(1, 3, "x")), "nothing changed");
    assert_eq!(state.take_broadcasts(), [live(1, 3, "x")]);
    assert!(state.take_broadcasts().is_empty());
}

#[test]
fn a_record_that_does_not_fit_is_an_error_that_names_it() {
    let mut instance = described("z");
    instance.zone = "z".repeat(256);
    let claim =
        |instance: Instance| Claim { generation: 1, version: 1, nonce: 1, body: Body::Live(Arc::new(instance)) };
    let error = Record::claim(Key::instance(RING, "a-3"), claim(instance)).unwrap_err().to_string();
    assert!(error.contains("collectors/live-store/a-3") && error.contains("255"), "{error}");
    let mut instance = described("z");
    instance.addresses = vec![Address { via: Via::Direct, host: "h".repeat(200), port: 1 }; ADDRESSES_MAX];
    assert!(Record::claim(Key::instance(RING, "a-3"), claim(instance)).is_err());
}

#[test]
fn fields_of_a_later_version_survive_the_way_through_this_one() {
    let mut bytes = live(1, 1, "z").encode();
    bytes.extend(b"later");
    let read = Record::decode(&bytes).unwrap();
    assert_eq!(read.encode(), bytes);
    assert_eq!(read.as_claim().unwrap().live().unwrap().extra, b"later");
    bytes[0] = 2;
    assert_eq!(Record::decode(&bytes), Err(DecodeError::Format(2)));
}

#[test]
fn counters_that_nobody_could_go_above_are_refused() {
    let claim = Claim { generation: COUNTER_MAX + 1, version: 0, nonce: 0, body: Body::Live(Arc::new(described("z"))) };
    assert!(Record::claim(Key::instance(RING, "a"), claim).is_err());
}

#[test]
fn figures_follow_what_is_there() {
    let mut state = State::new();
    state.apply(vec![live(1, 1, "z")]);
    let size = live(1, 1, "z").encode().len();
    assert_eq!(state.figures()[RING], RingFigures { changes: 1, bytes: size, records: 1, graves: 0 });
    state.apply(vec![forgotten(&live(1, 1, "z"))]);
    assert_eq!((state.figures()[RING].changes, state.figures()[RING].graves), (2, 1));
    state.advance(GRAVE_KEPT);
    assert_eq!(state.figures()[RING], RingFigures { changes: 3, bytes: 0, records: 0, graves: 0 });
}

#[test]
fn a_thousand_members_differ_by_a_small_message() {
    let of = |id: u32, version| {
        let claim = Claim { generation: 1, version, nonce: 9, body: Body::Live(Arc::new(described("z"))) };
        Record::claim(Key::instance(RING, &format!("live-store-zone-a-{id}")), claim).unwrap()
    };
    let (mut a, mut b) = (State::new(), State::new());
    a.apply((0..1000).map(|id| of(id, 1)).collect());
    b.apply((0..1000).map(|id| of(id, 1)).collect());
    b.apply(vec![of(17, 2)]);
    let differing: Vec<usize> = (0..BUCKETS).filter(|n| a.bucket_hashes()[*n] != b.bucket_hashes()[*n]).collect();
    assert_eq!(differing.len(), 1);
    let listed: usize = b.digests(differing[0]).iter().map(|(key, _)| key.encode().len() + 8).sum();
    assert!(BUCKETS * 8 + listed < 3000, "{listed} bytes of digests");
    assert_eq!(exchange(&mut a, &mut b), 2, "the old and the new record of one member");
}
