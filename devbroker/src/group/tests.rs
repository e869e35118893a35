use proptest::prelude::*;

use super::*;

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

fn start() -> Instant {
    use vivace_runtime::Clock as _;
    vivace_runtime::FakeClock::default().now()
}

fn joining(member_id: &str, protocols: &[&str]) -> Join {
    let said = |name: &&str| ((*name).to_owned(), Bytes::from(format!("{member_id}:{name}")));
    Join {
        member_id: member_id.to_owned(),
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session: SESSION,
        rebalance: REBALANCE,
        protocol_type: "consumer".to_owned(),
        protocols: protocols.iter().map(said).collect(),
    }
}

fn join(group: &mut Group, member_id: &str, now: Instant) {
    if !group.members.contains_key(member_id) {
        group.promise(member_id.to_owned(), now, SESSION).unwrap();
    }
    group.join(joining(member_id, &["range"]), now).unwrap();
}

/// Two members in generation 2 with their shares.
fn stable(now: Instant) -> Group {
    let mut group = Group::default();
    join(&mut group, "a", now);
    assert_eq!(group.joined("a").unwrap().unwrap().generation, 1);
    join(&mut group, "b", now);
    assert_eq!(group.joined("b"), Ok(None), "a has not heard of it yet");
    assert_eq!(group.heartbeat("a", 1, now), Err(code::REBALANCE_IN_PROGRESS));
    join(&mut group, "a", now);
    let joined = group.joined("a").unwrap().unwrap();
    assert_eq!((joined.generation, joined.leader.as_str(), joined.members.len()), (2, "a", 2));
    assert!(group.joined("b").unwrap().unwrap().members.is_empty(), "only the leader shares out");
    assert_eq!(group.synced("b", 2), Ok(None));
    let shares = vec![("a".to_owned(), Bytes::from_static(b"0")), ("b".to_owned(), Bytes::from_static(b"1"))];
    group.sync("a", 2, shares, now).unwrap();
    assert_eq!(group.synced("b", 2).unwrap().unwrap(), "1");
    assert_eq!(group.state(), "Stable");
    group
}

#[test]
fn two_members_come_to_one_generation_and_get_what_the_leader_shares_out() {
    stable(start());
}

#[test]
fn who_falls_silent_is_out_and_the_others_are_told() {
    let now = start();
    let mut group = stable(now);
    let later = now + SESSION - Duration::from_secs(1);
    group.heartbeat("a", 2, later).unwrap();
    assert!(!group.tick(later));
    assert!(group.tick(now + SESSION));
    assert_eq!(group.heartbeat("b", 2, now + SESSION), Err(code::UNKNOWN_MEMBER_ID));
    assert_eq!(group.heartbeat("a", 2, now + SESSION), Err(code::REBALANCE_IN_PROGRESS));
    join(&mut group, "a", now + SESSION);
    assert_eq!(group.joined("a").unwrap().unwrap().generation, 3);
}

#[test]
fn a_round_ends_without_those_who_do_not_come() {
    let now = start();
    let mut group = stable(now);
    join(&mut group, "c", now);
    // `a` and `b` send heartbeats but do not join again.
    for second in 0..60 {
        let then = now + Duration::from_secs(second);
        assert_eq!(group.heartbeat("a", 2, then), Err(code::REBALANCE_IN_PROGRESS));
        assert_eq!(group.heartbeat("b", 2, then), Err(code::REBALANCE_IN_PROGRESS));
        group.tick(then);
        assert_eq!(group.joined("c"), Ok(None));
    }
    assert!(group.tick(now + REBALANCE));
    let joined = group.joined("c").unwrap().unwrap();
    assert_eq!((joined.leader.as_str(), joined.members.len()), ("c", 1));
}

#[test]
fn a_member_that_still_waits_is_part_of_the_next_round_too() {
    let now = start();
    let mut group = Group::default();
    join(&mut group, "a", now);
    // `a` has not been answered when `b` comes.
    join(&mut group, "b", now);
    let (a, b) = (group.joined("a").unwrap().unwrap(), group.joined("b").unwrap().unwrap());
    assert_eq!((a.generation, b.generation), (2, 2));
}

#[test]
fn the_last_one_leaves_an_empty_group() {
    let now = start();
    let mut group = stable(now);
    group.leave("a", now).unwrap();
    assert_eq!(group.state(), "PreparingRebalance");
    group.leave("b", now).unwrap();
    assert_eq!((group.state(), group.is_deserted()), ("Empty", true));
    assert_eq!(group.leave("b", now), Err(code::UNKNOWN_MEMBER_ID));
}

#[test]
fn offsets_are_committed_by_members_or_while_there_are_none() {
    let now = start();
    let mut group = Group::default();
    assert_eq!(group.may_commit("", -1, now), Ok(()));
    let mut group = stable(now);
    assert_eq!(group.may_commit("", -1, now), Err(code::UNKNOWN_MEMBER_ID));
    assert_eq!(group.may_commit("a", 2, now), Ok(()));
    assert_eq!(group.may_commit("a", 1, now), Err(code::ILLEGAL_GENERATION));
    assert_eq!(group.may_commit("z", 2, now), Err(code::UNKNOWN_MEMBER_ID));
}

#[test]
fn only_what_all_members_know_is_chosen() {
    let now = start();
    let mut group = Group::default();
    for (id, protocols) in [("a", ["range", "sticky"]), ("b", ["sticky", "robin"])] {
        group.promise(id.to_owned(), now, SESSION).unwrap();
        group.join(joining(id, &protocols), now).unwrap();
    }
    let joined = group.joined("a").unwrap().unwrap();
    assert_eq!(joined.protocol, "sticky");
    assert_eq!(joined.members, [("a".to_owned(), Bytes::from("a:sticky")), ("b".to_owned(), Bytes::from("b:sticky"))]);
    group.promise("c".to_owned(), now, SESSION).unwrap();
    assert_eq!(group.join(joining("c", &["range"]), now), Err(code::INCONSISTENT_GROUP_PROTOCOL));
    assert_eq!(group.join(joining("d", &["sticky"]), now), Err(code::UNKNOWN_MEMBER_ID), "an id that nobody gave out");
}

/// What a member or time may do next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join(usize),
    Answer(usize),
    Sync(usize),
    Beat(usize),
    Leave(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let member = 0..4_usize;
    prop_oneof![
        3 => member.clone().prop_map(Step::Join),
        3 => member.clone().prop_map(Step::Answer),
        3 => member.clone().prop_map(Step::Sync),
        2 => member.clone().prop_map(Step::Beat),
        1 => member.prop_map(Step::Leave),
        1 => (1..15_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever members do and in whatever order: there is one generation at a time, it only grows, its leader is one of its
    /// members, and a share is given only to members of the generation that it was made for.
    #[test]
    fn members_never_disagree(steps in proptest::collection::vec(step(), 1..200)) {
        let names = ["a", "b", "c", "d"];
        let mut group = Group::default();
        let mut now = start();
        let mut known = [0; 4];
        let mut leaders: BTreeMap<i32, String> = BTreeMap::new();
        for step in steps {
            let before = group.generation;
            match step {
                Step::Join(member) => join(&mut group, names[member], now),
                Step::Answer(member) => {
                    if let Ok(Some(joined)) = group.joined(names[member]) {
                        known[member] = joined.generation;
                        let leader = leaders.entry(joined.generation).or_insert_with(|| joined.leader.clone());
                        prop_assert_eq!(&*leader, &joined.leader);
                        prop_assert!(group.members.contains_key(&joined.leader));
                        if !joined.members.is_empty() {
                            prop_assert_eq!(&joined.leader, names[member]);
                            prop_assert_eq!(joined.members.len(), group.members.len());
                        }
                    }
                }
                Step::Sync(member) => {
                    let shares = names.map(|name| (name.to_owned(), Bytes::from(known[member].to_string())));
                    let synced = group.sync(names[member], known[member], shares.to_vec(), now);
                    prop_assert_eq!(synced.is_ok(), group.check(names[member], known[member]).is_ok());
                }
                Step::Beat(member) => {
                    let alive = group.heartbeat(names[member], known[member], now).is_ok();
                    prop_assert!(!alive || known[member] == group.generation);
                }
                Step::Leave(member) => {
                    let was_in = group.members.contains_key(names[member]);
                    prop_assert_eq!(group.leave(names[member], now).is_ok(), was_in);
                }
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    group.tick(now);
                }
            }
            prop_assert!(group.generation >= before);
            for (member, name) in names.iter().enumerate() {
                if let Ok(Some(share)) = group.synced(name, known[member]) {
                    prop_assert!(share.is_empty() || share == group.generation.to_string());
                }
            }
        }
        // Then everybody comes back, and the group settles.
        for _ in 0..2 {
            names.iter().for_each(|name| join(&mut group, name, now));
        }
        let told: Vec<_> = names.iter().map(|name| group.joined(name).unwrap().map(|joined| joined.generation)).collect();
        prop_assert_eq!(told, vec![Some(group.generation); 4]);
    }
}
