//! IPv4 alone, IPv6 alone and both, in one cluster of real processes.

use std::time::{Duration, Instant};

use serde_json::json;

use super::lab::{Host, Lab, Stack};
use super::member::{GOSSIP, Member, Start, active, ids, rings_are, within};
use super::verdicts::{Named, named, says};

#[test]
fn nine_members_of_three_kinds_have_nine_complete_rings_and_dual_ones_do_not_mind_the_loss_of_ipv6() {
    let Some(lab) = Lab::new("nine") else { return };
    let kinds = [("dual", Stack::Dual), ("four", Stack::V4), ("six", Stack::V6)];
    let hosts: Vec<(String, Host)> =
        (0..3).flat_map(|n| kinds.map(|(kind, stack)| (format!("{kind}-{n}"), lab.host(stack)))).collect();
    // One seed for all, by both of its addresses.
    let join = hosts[0].1.endpoints(GOSSIP);
    let members: Vec<Member> = hosts
        .iter()
        .zip(["::", "[::]", "::0"].iter().cycle())
        .map(|((id, host), bind)| Start { bind, ..Start::new(id, &join) }.on(&lab, host))
        .collect();
    let begun = Instant::now();
    rings_are(Duration::from_secs(10), &members, &ids(&members));
    println!("nine complete rings after {:?}", begun.elapsed());

    // All IPv6 is gone, silently.
    let (six, others): (Vec<&Member>, Vec<&Member>) = members.iter().partition(|member| member.id.starts_with("six"));
    let dual: Vec<&Member> = others.iter().copied().filter(|member| member.id.starts_with("dual")).collect();
    let downs = |member: &Member| {
        let named = |line: &String| others.iter().any(|other| line.contains(&format!("member={}#", other.name)));
        let log = member.node.log();
        log.into_iter().filter(|line| line.contains("member is down") && named(line)).collect::<Vec<_>>()
    };
    hosts.iter().for_each(|(_, host)| host.drop_ipv6());
    let lost = Instant::now();
    while lost.elapsed() < Duration::from_secs(13) {
        for member in &others {
            let shown = active(&member.ring());
            let missing: Vec<_> = others.iter().filter(|other| !shown.contains(&other.id)).collect();
            assert!(missing.is_empty(), "{} lost {missing:?} with IPv6", member.id);
        }
        std::thread::park_timeout(Duration::from_millis(500));
    }
    for member in &others {
        assert_eq!(downs(member), Vec::<String>::new(), "{}", member.id);
    }
    // Each dual member says of each other one which family is lost. Whoever has IPv4 alone has nothing to say about them.
    for member in &others {
        let lost = dual.iter().filter(|other| member.id.starts_with("dual") && other.id != member.id);
        let lost: Vec<Named> =
            lost.map(|other| named(&other.id, "family_down", false, &[&other.host.v6.unwrap().to_string()])).collect();
        within(Duration::from_secs(5), "the lost family is named", || {
            let shards = member.ring()["shards"].as_array().cloned().unwrap_or_default();
            let others =
                shards.into_iter().filter(|shard| !shard["id"].as_str().is_some_and(|id| id.starts_with("six")));
            says(&json!({ "shards": others.collect::<Vec<_>>() }), &lost)
        });
    }

    hosts.iter().for_each(|(_, host)| host.open());
    let healed = rings_are(Duration::from_secs(20), others.iter().copied().chain(six), &ids(&members));
    println!("whole again {healed:?} after IPv6 came back");
}
