//! The twelve faults: each is named with its verdict, its evidence and whether forgetting is safe, and nobody else is.

use std::net::SocketAddr;
use std::time::Duration;

use super::cluster_verdict::{judge_address, judge_cluster};
use super::evidence::{Checked, Cluster, ClusterMember, Contact, Path, Seed, Stranger, StrangerReason};
use super::finding::{Code, Finding};
use super::member_verdict::{MemberEvidence, RingKind, judge_member};
use super::process_verdict::judge_process;
use crate::ring::testing::{Crowd, crowd};
use crate::ring::{RingEntry, Standing};
use crate::state::{Address, Via};

/// Four live-stores `live-store-0` … `live-store-3`, the processes with the same numbers; 0 and 1 own partition 0. Faults
/// are done to number 3.
struct Scene {
    crowd: Crowd,
    cluster: Cluster,
    gossip: Vec<Vec<Checked>>,
    services: Vec<Vec<Checked>>,
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn endpoint(host: usize, v6: bool) -> SocketAddr {
    let text = if v6 { format!("[2001:db8::{}]:7946", host + 1) } else { format!("10.0.0.{}:7946", host + 1) };
    text.parse().unwrap()
}

fn scene() -> Scene {
    let member = |n: usize| ClusterMember {
        process: n as u64,
        name: format!("process-{n}"),
        standing: Standing::Alive,
        since: seconds(100),
        heard: Some(seconds(1)),
        paths: [(false, "IPv4"), (true, "IPv6")]
            .map(|(v6, family)| Path { family, endpoint: endpoint(n, v6), stream: Some(true), datagram: Some(true) })
            .to_vec(),
        shares_family: true,
        via: None,
        name_taken_twice: false,
    };
    let seed = Seed {
        entry: "dns+gossip-ring:7946".into(),
        addresses: (0..4).map(|n| endpoint(n, false)).collect(),
        error: None,
        since: seconds(100),
    };
    let answers = |n: usize| vec![Checked { address: format!("10.0.0.{}:9095", n + 1), contact: Contact::Answers }];
    Scene {
        crowd: crowd(4),
        cluster: Cluster {
            members: (0..4).map(member).collect(),
            seeds: vec![seed],
            label: "prod".into(),
            ..Cluster::default()
        },
        gossip: vec![Vec::new(); 4],
        services: (0..4).map(answers).collect(),
    }
}

impl Scene {
    fn member(&mut self) -> &mut ClusterMember {
        &mut self.cluster.members[3]
    }

    /// Number 3 was declared dead, and calling its gossip port just now did this.
    fn declared_dead(&mut self, contact: Contact) {
        self.crowd.kill(3);
        self.member().standing = Standing::Down;
        self.member().heard = Some(seconds(12));
        self.gossip[3] = vec![Checked { address: endpoint(3, false).to_string(), contact }];
        self.services[3] = vec![Checked { address: "10.0.0.4:9095".into(), contact }];
    }

    /// The verdicts on processes and on ring members, and those on the whole cluster.
    fn judge(&self) -> (Vec<Finding>, Vec<Finding>, Vec<Finding>) {
        let processes: Vec<Finding> = self
            .cluster
            .members
            .iter()
            .zip(&self.gossip)
            .map(|(member, gossip)| judge_process(member, gossip))
            .collect();
        let view = self.crowd.view();
        let members = view.entries().iter().enumerate().map(|(n, entry)| {
            let rivals: Vec<&RingEntry> = view.rivals_of(&entry.id).collect();
            let partition = entry.instance.partition;
            let others = |other: &&RingEntry| {
                other.id != entry.id && other.instance.partition == partition && other.is_healthy()
            };
            judge_member(&MemberEvidence {
                kind: RingKind::LiveStore,
                entry,
                process: Some(&processes[n]),
                rivals: &rivals,
                services: &self.services[n],
                other_owners: view.entries().iter().filter(others).count(),
                held: false,
            })
        });
        let members = members.collect();
        (processes, members, judge_cluster(&self.cluster))
    }
}

/// The finding on ring member 3 when the fault is one of a member; nothing else may be found.
fn only_member_three(scene: &Scene) -> Finding {
    let (processes, members, cluster) = scene.judge();
    assert!(cluster.is_empty(), "{cluster:?}");
    for n in 0..3 {
        assert_eq!(members[n].code, Code::Healthy, "{:?}", members[n]);
        assert_eq!(processes[n].code, Code::Healthy, "{:?}", processes[n]);
    }
    explained(&members[3], "live-store-3");
    members[3].clone()
}

/// The one finding on the cluster; all members are well.
fn only_cluster(scene: &Scene) -> Finding {
    let (processes, members, mut cluster) = scene.judge();
    assert!(processes.iter().chain(&members).all(Finding::is_quiet), "{members:?}");
    assert_eq!(cluster.len(), 1, "{cluster:?}");
    cluster.remove(0)
}

fn explained(finding: &Finding, subject: &str) {
    assert!(finding.subject.contains(subject), "{finding:?}");
    assert!(!finding.evidence.is_empty() && !finding.effect.is_empty() && !finding.action.is_empty(), "{finding:?}");
    assert!(finding.forget.as_ref().is_some_and(|forget| !forget.why.is_empty()), "{finding:?}");
}

fn safe(finding: &Finding) -> bool {
    finding.forget.as_ref().unwrap().safe
}

#[test]
fn nothing_is_said_of_a_healthy_cluster() {
    let (processes, members, cluster) = scene().judge();
    assert!(processes.iter().chain(&members).chain(&cluster).all(|finding| finding.code == Code::Healthy));
    assert!(members.iter().all(|finding| !safe(finding)));
}

#[test]
fn fault_1_a_killed_member_is_dead_and_can_be_forgotten_while_another_owns_its_partition() {
    let mut scene = scene();
    scene.declared_dead(Contact::Refused);
    let finding = only_member_three(&scene);
    assert_eq!(finding.code, Code::Dead);
    assert!(safe(&finding) && finding.effect.contains("1 other owner"), "{finding:?}");
    assert!(finding.evidence.iter().any(|sentence| sentence.contains("10.0.0.4:7946 refuses")), "{finding:?}");
    // The last owner of a partition is not.
    scene.crowd.change(2, |instance| instance.partition = None);
    let (_, members, _) = scene.judge();
    assert!(!safe(&members[3]) && members[3].forget.as_ref().unwrap().why.contains("partition 1"), "{members:?}");
}

#[test]
fn fault_2_a_stopped_process_hangs_and_must_not_be_forgotten() {
    let mut scene = scene();
    scene.declared_dead(Contact::Silent);
    let finding = only_member_three(&scene);
    assert_eq!(finding.code, Code::Hangs);
    assert!(!safe(&finding) && finding.action.contains("SIGSTOP"));
}

#[test]
fn fault_3_blocked_datagrams_are_a_note() {
    let mut scene = scene();
    for path in &mut scene.member().paths {
        path.datagram = Some(false);
    }
    let finding = only_member_three(&scene);
    assert_eq!((finding.code, safe(&finding)), (Code::DatagramsBlocked, false));
}

#[test]
fn fault_4_a_port_that_is_blocked_one_way_is_told_from_death() {
    let mut scene = scene();
    for path in &mut scene.member().paths {
        (path.stream, path.datagram) = (Some(false), None);
    }
    let finding = only_member_three(&scene);
    assert_eq!((finding.code, safe(&finding)), (Code::OneWay, false));
    assert!(finding.evidence[0].contains("10.0.0.4:7946"), "{finding:?}");
    // Where its service port fails as well, it is the way that is blocked, or a death that membership has yet to notice.
    scene.services[3][0].contact = Contact::Refused;
    let finding = only_member_three(&scene);
    assert_eq!((finding.code, safe(&finding)), (Code::OneWay, false));
    assert!(finding.evidence.iter().any(|it| it.contains("10.0.0.4:9095 refuses")), "{finding:?}");
}

#[test]
fn fault_5_a_family_that_died_between_dual_members_is_named() {
    let mut scene = scene();
    scene.member().paths[1].stream = Some(false);
    scene.member().paths[1].datagram = Some(false);
    let finding = only_member_three(&scene);
    assert_eq!((finding.code, safe(&finding)), (Code::FamilyDown, false));
    assert!(finding.verdict.contains("IPv4 only") && finding.verdict.contains("IPv6 does not"), "{finding:?}");
    assert!(finding.evidence[1].contains("Neither TCP nor UDP to [2001:db8::4]:7946"), "{finding:?}");
    // UDP alone tells that the other family works, where no stream was opened over it.
    (scene.member().paths[0].stream, scene.member().paths[0].datagram) = (None, Some(true));
    assert!(only_member_three(&scene).evidence[0].starts_with("UDP to 10.0.0.4:7946 works"));
}

#[test]
fn fault_6_without_a_dual_member_the_other_family_is_cut_off_and_probably_alive() {
    let mut scene = scene();
    scene.declared_dead(Contact::Unreachable);
    scene.gossip[3].clear();
    scene.member().shares_family = false;
    scene.member().paths.remove(0);
    let finding = only_member_three(&scene);
    assert_eq!((finding.code, safe(&finding)), (Code::NoSharedFamily, false));
    // While a dual member is left, it is only worth a note.
    let member = scene.member();
    (member.standing, member.via) = (Standing::Alive, Some("process-1".to_owned()));
    scene.crowd.revive(3);
    // Its address is of the family that this process lacks.
    scene.services[3][0].contact = Contact::Unreachable;
    assert_eq!(only_member_three(&scene).code, Code::Relayed);
}

#[test]
fn fault_7_a_dead_service_port_behind_a_living_process_is_named() {
    for contact in [Contact::Refused, Contact::Silent, Contact::Unreachable] {
        let mut scene = scene();
        scene.services[3][0].contact = contact;
        let finding = only_member_three(&scene);
        assert_eq!((finding.code, safe(&finding)), (Code::ServiceDead, false));
        assert!(finding.evidence[0].contains("10.0.0.4:9095"), "{finding:?}");
    }
}

#[test]
fn fault_8_a_dead_sidecar_is_told_from_a_dead_process() {
    let mut scene = scene();
    scene.crowd.change(3, |instance| {
        instance.addresses.insert(0, Address { via: Via::Proxy, host: "10.0.0.4".into(), port: 12345 });
    });
    scene.services[3].push(Checked { address: "10.0.0.4:12345".into(), contact: Contact::Refused });
    let finding = only_member_three(&scene);
    assert_eq!((finding.code, safe(&finding)), (Code::ProxyDead, false));
    assert!(
        finding.evidence[0].contains(":12345 refuses") && finding.evidence[1].contains("the process itself, answers")
    );
    // Both dead: it is the process.
    scene.services[3][0].contact = Contact::Refused;
    assert_eq!(only_member_three(&scene).code, Code::ServiceDead);
}

#[test]
fn a_proxy_that_lost_its_process_and_a_member_that_does_not_serve_are_named() {
    let mut scene = scene();
    scene.crowd.change(3, |instance| {
        instance.addresses.insert(0, Address { via: Via::Proxy, host: "10.0.0.4".into(), port: 12345 });
    });
    scene.services[3].push(Checked { address: "10.0.0.4:12345".into(), contact: Contact::NothingBehind });
    let finding = only_member_three(&scene);
    assert_eq!((finding.code, safe(&finding)), (Code::ProxyDead, false));
    assert!(finding.evidence[0].contains("does not reach what it stands for"), "{finding:?}");
    for check in &mut scene.services[3] {
        check.contact = Contact::NotServing;
    }
    let finding = only_member_three(&scene);
    assert_eq!((finding.code, safe(&finding)), (Code::NotServing, false));
    assert!(finding.evidence[0].contains("10.0.0.4:9095 answers that it is not serving"), "{finding:?}");
    // One that leaves says so as well, and that is as it should be.
    scene.crowd.change(3, |instance| instance.state = crate::state::InstanceState::Leaving);
    assert_eq!(only_member_three(&scene).code, Code::Leaving);
}

#[test]
fn fault_9_two_processes_with_one_id_are_both_named() {
    let mut scene = scene();
    scene.crowd.add_rival(3, 77, true);
    let finding = only_member_three(&scene);
    assert_eq!((finding.code, safe(&finding)), (Code::DuplicateId, false));
    let evidence = &finding.evidence[0];
    assert!(
        evidence.contains("process-3") && evidence.contains("rival-77") && evidence.contains("10.9.9.9"),
        "{evidence}"
    );
}

#[test]
fn fault_10_a_foreign_cluster_is_named_by_its_address() {
    let mut scene = scene();
    let stranger =
        Stranger { address: "10.7.7.7".parse().unwrap(), reason: StrangerReason::Label, count: 12, last: seconds(2) };
    scene.cluster.strangers.push(stranger);
    let finding = only_cluster(&scene);
    assert_eq!((finding.code, finding.subject.as_str()), (Code::ForeignLabel, "10.7.7.7"));
    assert!(finding.action.contains("prod") && finding.evidence[0].contains("12 frames"), "{finding:?}");
    assert!(!safe(&finding) && finding.forget.as_ref().is_some_and(|it| it.why.contains("nothing to forget")));
    // What was long ago is no news.
    scene.cluster.strangers[0].last = seconds(900);
    assert!(scene.judge().2.is_empty());
}

#[test]
fn an_address_that_another_cluster_took_over_is_told_from_a_member_that_returns() {
    let mut scene = scene();
    scene.declared_dead(Contact::Answers);
    let judge = |scene: &Scene| {
        let member = &scene.cluster.members[3];
        judge_address(&scene.cluster, member, judge_process(member, &scene.gossip[3]))
    };
    assert_eq!(judge(&scene).code, Code::Returning);
    let address = endpoint(3, false).ip();
    scene.cluster.strangers.push(Stranger { address, reason: StrangerReason::Label, count: 5, last: seconds(1) });
    let finding = judge(&scene);
    explained(&finding, "process-3");
    assert_eq!((finding.code, safe(&finding)), (Code::Dead, true));
    assert!(finding.evidence.iter().any(|it| it.contains("5 frames from 10.0.0.4")), "{finding:?}");
}

#[test]
fn fault_11_a_wrong_key_is_named_with_the_member_at_that_address() {
    for reason in [StrangerReason::Key, StrangerReason::Plain] {
        let mut scene = scene();
        let address = endpoint(3, false).ip();
        scene.cluster.strangers.push(Stranger { address, reason, count: 3, last: seconds(1) });
        let finding = only_cluster(&scene);
        assert_eq!(finding.code, Code::WrongKey);
        assert_eq!(finding.subject, "10.0.0.4 (process-3)");
    }
}

#[test]
fn fault_12_a_name_that_does_not_resolve_or_leads_to_nobody_is_named() {
    let mut scene = scene();
    let unresolved = Seed {
        entry: "dns+typo:7946".into(),
        addresses: Vec::new(),
        error: Some("no such name".into()),
        since: seconds(20),
    };
    scene.cluster.seeds.push(unresolved);
    let finding = only_cluster(&scene);
    assert_eq!((finding.code, finding.subject.as_str()), (Code::SeedUnresolved, "dns+typo:7946"));
    assert!(finding.evidence[0].contains("no such name"), "{finding:?}");
    scene.cluster.seeds[1] = Seed {
        entry: "old-host:7946".into(),
        addresses: vec!["10.66.0.1:7946".parse().unwrap()],
        error: None,
        since: seconds(20),
    };
    let finding = only_cluster(&scene);
    assert_eq!(finding.code, Code::SeedStale);
    assert!(finding.evidence[0].contains("10.66.0.1:7946"), "{finding:?}");
    scene.cluster.seeds[1].since = seconds(1);
    assert!(scene.judge().2.is_empty(), "it was only just looked up");
    // A name that leads to a member which is down is no second fault.
    scene.cluster.seeds[1] = Seed { addresses: vec![endpoint(3, false)], ..scene.cluster.seeds[0].clone() };
    scene.declared_dead(Contact::Refused);
    assert_eq!(only_member_three(&scene).code, Code::Dead);
}

#[test]
fn what_the_words_call_safe_is_only_what_is_gone() {
    for (contact, code, is_safe) in [
        (Contact::Answers, Code::Returning, false),
        (Contact::Silent, Code::Hangs, false),
        (Contact::Refused, Code::Dead, true),
        (Contact::Unreachable, Code::Unreachable, false),
    ] {
        let mut scene = scene();
        scene.declared_dead(contact);
        let finding = judge_process(&scene.cluster.members[3], &scene.gossip[3]);
        assert_eq!((finding.code, safe(&finding)), (code, is_safe));
    }
}
