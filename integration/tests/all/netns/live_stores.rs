//! Live-stores of their own: what the loss of one means for its partition, and one that is told to go.

use std::time::Duration;

use serde_json::Value;

use super::lab::{Lab, Stack};
use super::member::{GOSSIP, LIVE_STORE, Member, Start, ids, rings_are, within};
use super::verdicts::{PROMISED, named, named_by, says};

#[test]
fn a_dead_live_store_may_be_forgotten_while_another_owns_its_partition_and_one_that_goes_is_read_only() {
    let Some(lab) = Lab::new("stores") else { return };
    let names = ["zone-a-0", "zone-b-0", "zone-a-1", "zone-a-2"];
    let hosts = names.map(|_| lab.host(Stack::Dual));
    let join = hosts[0].endpoints(GOSSIP);
    let mut members: Vec<Member> = names
        .iter()
        .zip(&hosts)
        .map(|(name, host)| {
            let start = Start { role: LIVE_STORE, ..Start::new(name, &join) };
            start.ring(&format!("instance_zone: {}", &name[..6])).on(&lab, host)
        })
        .collect();
    rings_are(Duration::from_secs(10), &members, &ids(&members));
    let state = |page: &Value, id: u64| {
        let partitions = page["partitions"].as_array().into_iter().flatten();
        partitions.clone().find(|partition| partition["id"] == id).map(|found| found["state_name"].clone())
    };
    within(PROMISED, "all partitions are active", || {
        let page = members[0].json("/partition-ring");
        let active = (0..3).all(|id| state(&page, id).is_some_and(|state| state == "PartitionActive"));
        if active { Ok(()) } else { Err(page["partitions"].to_string()) }
    });

    let alone = members.remove(2);
    let shared = members.remove(1);
    let at = |member: &Member| member.host.endpoints(GOSSIP)[0].clone();
    let (first, second) = (at(&shared), at(&alone));
    shared.node.kill().unwrap();
    alone.node.kill().unwrap();
    let on_ring = [
        named("zone-b-0", "dead", true, &[&first, "refuses connections"]),
        named("zone-a-1", "dead", false, &[&second, "refuses connections"]),
    ];
    // The page of members says of forgetting what the rings do.
    let on_members = [named("zone-b-0", "dead", true, &[&first]), named("zone-a-1", "dead", false, &[&second])];
    named_by("a partition with another owner and one without", &members, &on_ring, &on_members);
    for member in &members {
        let ring = member.ring();
        let shards = ring["shards"].as_array().unwrap();
        let effect = |id: &str| {
            let shard = shards.iter().find(|shard| shard["id"] == id);
            shard.map(|shard| shard["finding"]["effect"].to_string()).unwrap_or_default()
        };
        assert!(effect("zone-b-0").contains("Partition 0 is answered by 1 other owner"), "{}", effect("zone-b-0"));
        assert!(effect("zone-a-1").contains("Nobody else owns partition 1"), "{}", effect("zone-a-1"));
        let partitions = member.json("/partition-ring");
        let unowned: Vec<&Value> = partitions["partitions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|partition| partition["finding"]["code"] == "partition_unowned")
            .map(|partition| &partition["id"])
            .collect();
        assert_eq!(unowned, [1], "{partitions}");
    }

    // One that is told to go takes nothing new, and all others know.
    let leaver = &members[1];
    let told = leaver.request("POST", "/live-store/prepare-partition-downscale", b"").unwrap();
    assert_eq!(told.status, 200, "{}", told.text());
    within(PROMISED, "it is read-only", || {
        let ring = members[0].ring();
        let shards = ring["shards"].as_array().cloned().unwrap_or_default();
        let shard = shards.into_iter().find(|shard| shard["id"] == "zone-a-2").unwrap_or_default();
        if shard["read_only"] == true { Ok(()) } else { Err(shard.to_string()) }
    });
    says(&members[0].members(), &on_members).unwrap();
}
