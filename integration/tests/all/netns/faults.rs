//! Twelve faults of real processes: the pages of the healthy members name whom, what, how they know it and whether forgetting
//! is safe, within fifteen seconds, and say nothing of the others. Faults that do not disturb each other happen together.

use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::lab::{Host, Lab, Stack};
use super::member::{GOSSIP, GRPC, Member, Start, ids, rings_are};
use super::verdicts::{Named, named, named_by};

/// Until a cluster that was started at once is whole.
const WHOLE: Duration = Duration::from_secs(15);

/// A key of encryption; the second one is another.
const KEYS: [&str; 2] =
    ["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "/////////////////////////////////////////wA="];

/// Members on hosts of their own, all with the first one as their seed.
fn cluster(lab: &Lab, stack: Stack, names: &[&str], start: impl Fn(Start) -> Start) -> Vec<Member> {
    let hosts: Vec<Host> = names.iter().map(|_| lab.host(stack)).collect();
    let join = hosts[0].endpoints(GOSSIP);
    let members: Vec<Member> =
        names.iter().zip(&hosts).map(|(name, host)| start(Start::new(name, &join)).on(lab, host)).collect();
    rings_are(WHOLE, &members, &ids(&members));
    members
}

#[test]
fn faults_1_2_3_and_5_a_death_a_stop_and_ways_that_are_blocked_are_told_apart() {
    let Some(lab) = Lab::new("ways") else { return };
    let names = ["well-0", "well-1", "killed", "stopped", "no-udp", "no-ipv6"];
    let mut members = cluster(&lab, Stack::Dual, &names, |start| start);
    let [killed, stopped, no_udp, no_ipv6] = <[Member; 4]>::try_from(members.split_off(2)).unwrap();
    let gossip_of_killed = v4(&killed, GOSSIP);
    killed.node.kill().unwrap();
    stopped.node.signal("STOP").unwrap();
    no_udp.host.firewall(&["udp dport 7946 drop"], &[]);
    no_ipv6.host.drop_ipv6();
    let v6 = |member: &Member| format!("[{}]:{GOSSIP}", member.host.v6.unwrap());
    let wanted = [
        named("killed", "dead", true, &[&gossip_of_killed, "refuses connections", "Declared dead"]),
        named("stopped", "hangs", false, &[&v6(&stopped), "accepts connections and says nothing"]),
        named("no-udp", "datagrams_blocked", false, &[&v4(&no_udp, GOSSIP), "Datagrams", "TCP works"]),
        named(
            "no-ipv6",
            "family_down",
            false,
            &[&format!("TCP and UDP to {} work.", v4(&no_ipv6, GOSSIP)), &v6(&no_ipv6), "Neither TCP nor UDP"],
        ),
    ];
    named_by("faults 1, 2, 3 and 5", &members, &wanted, &wanted);
    stopped.node.signal("CONT").unwrap();
}

#[test]
fn fault_4_a_member_that_nobody_can_call_is_heard_and_named_and_never_taken_for_dead() {
    let Some(lab) = Lab::new("oneway") else { return };
    let mut members = cluster(&lab, Stack::Dual, &["well-0", "well-1", "well-2", "one-way"], |start| start);
    let one_way = members.pop().unwrap();
    one_way.host.firewall(&["tcp dport 7946 drop"], &[]);
    let wanted = [named("one-way", "one_way", false, &[&v4(&one_way, GOSSIP), "TCP", "fail from here", "Last heard"])];
    named_by("fault 4", &members, &wanted, &wanted);
    for member in members.iter().chain([&one_way]) {
        let down = |line: &String| line.contains("member is down") || line.contains("taken for dead");
        assert_eq!(member.node.log().into_iter().find(down), None, "{}", member.id);
    }
}

fn v4(member: &Member, port: u16) -> String {
    format!("{}:{port}", member.host.v4.unwrap())
}

#[test]
fn fault_6_when_the_last_dual_member_goes_each_family_says_that_the_other_is_cut_off() {
    let Some(lab) = Lab::new("last") else { return };
    let hosts = [Stack::Dual, Stack::V4, Stack::V4, Stack::V6, Stack::V6].map(|stack| lab.host(stack));
    let join = hosts[0].endpoints(GOSSIP);
    let names = ["dual", "four-0", "four-1", "six-0", "six-1"];
    let mut members: Vec<Member> =
        names.iter().zip(&hosts).map(|(name, host)| Start::new(name, &join).on(&lab, host)).collect();
    rings_are(WHOLE, &members, &ids(&members));
    let dual = members.remove(0);
    let (dual_v4, dual_v6) = (dual.host.endpoints(GOSSIP)[0].clone(), dual.host.endpoints(GOSSIP)[1].clone());
    // A crash of its host: nobody is told, and nothing refuses.
    dual.host.firewall(&["drop"], &["drop"]);
    dual.node.kill().unwrap();
    let (four, six) = members.split_at(2);
    for (here, there, address) in [(four, six, dual_v4), (six, four, dual_v6)] {
        let mut wanted = vec![named("dual", "unreachable", false, &[&address, "cannot be reached", "Declared dead"])];
        wanted.extend(there.iter().map(|member| {
            named(&member.id, "no_shared_family", false, &[&member.host.endpoints(GOSSIP)[0], "No living member"])
        }));
        named_by("fault 6", here, &wanted, &wanted);
    }
}

#[test]
fn faults_7_to_12_dead_ports_doubled_ids_strangers_and_wrong_names_are_told_apart() {
    let Some(lab) = Lab::new("ports") else { return };
    let key = |key: &str| format!("encryption_keys: '{key}'");
    let members = cluster(&lab, Stack::V4, &["well-0", "well-1", "no-grpc", "sidecar", "twin"], |mut start| {
        if start.id.starts_with("well") {
            // Fault 12: one name that nobody has, and one address where nobody is.
            start.join.extend(["dns+nowhere.invalid:7946".to_owned(), "10.77.0.200:7946".to_owned()]);
        }
        let start = if start.id == "sidecar" { start.ring(&format!("instance_port: {SIDECAR}")) } else { start };
        start.memberlist(&key(KEYS[0]))
    });
    let [well_0, well_1, no_grpc, sidecar, twin] = <[Member; 5]>::try_from(members).unwrap();
    let well = [&well_0, &well_1];
    let proxy = Proxy::before(&sidecar.host);
    let names = [
        named("dns+nowhere.invalid:7946", "seed_unresolved", false, &["nowhere.invalid"]),
        named("10.77.0.200:7946", "seed_stale", false, &["10.77.0.200:7946"]),
    ];
    // The proxy passes calls on: nothing is the matter with its member.
    named_by("fault 12", well, &names, &names);

    no_grpc.host.firewall(&["tcp dport 9095 reject with tcp reset"], &[]);
    drop(proxy);
    let call = well.iter().flat_map(|member| member.host.endpoints(GOSSIP)).collect::<Vec<_>>();
    let stranger = |id: &str, line: &str, label: &str| {
        let host = lab.host(Stack::V4);
        Start::new(id, &call).memberlist(&key(line)).memberlist(&format!("cluster_label: '{label}'")).on(&lab, &host)
    };
    let other_twin = Start { name: Some("other-twin".into()), ..Start::new("twin", &call) };
    let other_twin = other_twin.memberlist(&key(KEYS[0])).on(&lab, &lab.host(Stack::V4));
    let foreign = stranger("foreign", KEYS[0], "another");
    let wrong_key = stranger("wrong-key", KEYS[1], "");
    let address = |member: &Member| member.host.v4.unwrap().to_string();
    let strangers = [
        named(&address(&foreign), "foreign_label", false, &["another cluster label"]),
        named(&address(&wrong_key), "wrong_key", false, &["a key that is not known here"]),
    ];
    let at = |member: &Member, port: u16| format!("{}:{port}", address(member));
    let mut on_ring = vec![
        named("no-grpc", "service_dead", false, &[&format!("{} refuses connections", at(&no_grpc, GRPC))]),
        named(
            "sidecar",
            "proxy_dead",
            false,
            &[
                &format!("{} refuses connections", at(&sidecar, SIDECAR)),
                &format!("{}, the process itself, answers", at(&sidecar, GRPC)),
            ],
        ),
        named(
            "twin",
            "duplicate_id",
            false,
            &["twin (process", "other-twin (process", &address(&twin), &address(&other_twin)],
        ),
    ];
    let on_members: Vec<Named> = names.iter().chain(&strangers).cloned().collect();
    on_ring.extend(on_members.clone());
    named_by("faults 7 to 11", well, &on_ring, &on_members);

    // The two that stay outside name those that refuse them, whoever called whom.
    for (outside, code) in [(&foreign, "foreign_label"), (&wrong_key, "wrong_key")] {
        let wanted: Vec<Named> =
            well.iter().map(|member| named(&address(member), code, false, &["frames from it"])).collect();
        named_by("the other side of faults 10 and 11", [outside], &wanted, &wanted);
    }
}

/// The port of the proxy before a member.
const SIDECAR: u16 = 12345;

/// A proxy beside a process, which passes on what comes until it is dropped.
struct Proxy {
    going: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    fn before(host: &Host) -> Self {
        let listener = host.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, SIDECAR)).unwrap());
        listener.set_nonblocking(true).unwrap();
        let going = Arc::new(AtomicBool::new(true));
        let (until, host) = (Arc::clone(&going), host.clone());
        let thread = std::thread::spawn(move || {
            while until.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => pass_on(&host, stream),
                    Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
                }
            }
        });
        Self { going, thread: Some(thread) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.going.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Both ways, until either side ends.
fn pass_on(host: &Host, outer: TcpStream) {
    outer.set_nonblocking(false).unwrap();
    let Ok(inner) = host.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, GRPC))) else { return };
    for (from, to) in [(&outer, &inner), (&inner, &outer)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        std::thread::spawn(move || {
            std::io::copy(&mut from, &mut to).ok();
            to.shutdown(Shutdown::Both).ok();
        });
    }
}
