//! Names to join, from a real name server: one that fails, one that leads to nobody, one that changes, one that answers both
//! families, and services.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vivace_integration::skip;

use super::lab::{Host, Lab, Stack};
use super::member::{Member, Start, ids, rings_are};
use super::verdicts::{named, named_by};

/// The name server of a lab, which knows what is in one hosts file and one service.
pub(crate) struct NameServer {
    process: Child,
    hosts: PathBuf,
    address: IpAddr,
}

impl NameServer {
    /// Nothing is known at first. `_gossip._tcp.lab` is the service of `seed.lab`.
    pub(crate) fn on(lab: &Lab, host: &Host) -> Option<Self> {
        if Command::new("dnsmasq").arg("--version").stdout(Stdio::null()).status().is_err() {
            skip::skip("names from a real name server: dnsmasq is missing (Debian: dnsmasq-base)");
            return None;
        }
        let hosts = lab.dir().join("hosts");
        std::fs::write(&hosts, "").unwrap();
        let process = host
            .command("dnsmasq")
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--log-facility=-"])
            .args(["--no-resolv", "--no-hosts", "--local=/lab/", "--srv-host=_gossip._tcp.lab,seed.lab,7946"])
            .arg(format!("--addn-hosts={}", hosts.display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { process, hosts, address: host.v4.unwrap().into() })
    }

    /// From now on these names have these addresses, and no others do.
    pub(crate) fn knows(&self, names: &[(&str, Vec<IpAddr>)]) {
        let lines = names.iter().flat_map(|(name, addresses)| addresses.iter().map(move |it| format!("{it} {name}\n")));
        std::fs::write(&self.hosts, lines.collect::<String>()).unwrap();
        // It reads the file again.
        let told = Command::new("kill").args(["-HUP", &self.process.id().to_string()]).status().unwrap();
        assert!(told.success(), "dnsmasq ended");
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn names_that_fail_change_and_answer_both_families_are_followed_for_ever() {
    let Some(lab) = Lab::new("names") else { return };
    let Some(server) = NameServer::on(&lab, &lab.host(Stack::Dual)) else { return };
    let host = |stack: Stack| {
        let host = lab.host(stack);
        let server_v6: IpAddr = "fd77::1".parse().unwrap();
        host.name_server(if stack == Stack::V6 { server_v6 } else { server.address });
        host
    };
    let start = |id: &str, stack: Stack, name: &str| Start::new(id, &[name.to_owned()]).on(&lab, &host(stack));
    let (ring, nobody): (&str, IpAddr) = ("dns+ring.lab:7946", "10.77.0.200".parse().unwrap());
    let first = Start::new("first", &[]).on(&lab, &host(Stack::Dual));
    let early = start("early", Stack::Dual, ring);
    let unresolved = [named(ring, "seed_unresolved", false, &["look up ring.lab", "never led anywhere"])];
    named_by("a name that nobody has", [&early], &unresolved, &unresolved);

    server.knows(&[("ring.lab", vec![nobody])]);
    let stale = [named(ring, "seed_stale", false, &["10.77.0.200:7946", "no member"])];
    named_by("a name that leads to nobody", [&early], &stale, &stale);

    // The name changes, and answers both families. A process that looks it up by now finds the cluster by what it shares.
    let both: Vec<IpAddr> = vec![first.host.v4.unwrap().into(), first.host.v6.unwrap().into()];
    server.knows(&[("ring.lab", both.clone()), ("seed.lab", both)]);
    let members: Vec<Member> = vec![
        first,
        early,
        start("four", Stack::V4, ring),
        start("six", Stack::V6, ring),
        start("served", Stack::Dual, "dnssrv+_gossip._tcp.lab"),
        start("served-too", Stack::V6, "dnssrvnoa+_gossip._tcp.lab"),
        start("plain", Stack::V4, "ring.lab"),
    ];
    let took = rings_are(Duration::from_secs(15), &members, &ids(&members));
    println!("seven members found each other by name within {took:?}");
    assert_eq!(members[1].members()["SortedMembers"].as_array().map(Vec::len), Some(7));
    for member in &members {
        let quiet = member.members()["Findings"].as_array().cloned().unwrap_or_default();
        assert!(quiet.is_empty(), "{}: {quiet:?}", member.id);
    }
}
