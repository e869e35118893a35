//! The verdict on a process in membership, from evidence alone.

use super::evidence::{Checked, ClusterMember, Contact, Path};
use super::finding::{Code, Finding, Severity};
use super::words::{ago, listed};
use crate::ring::Standing;

/// Judges one process. `gossip` is what came of calling its gossip port just now; empty while nobody called.
#[must_use]
pub fn judge_process(member: &ClusterMember, gossip: &[Checked]) -> Finding {
    match member.standing {
        Standing::Left => Finding::new(Code::Left, Severity::Ok, &member.name, "left the cluster by itself")
            .evidence(format!("It said so {}.", ago(member.since)))
            .forget(true, "it is gone on purpose"),
        Standing::Alive | Standing::Suspect if member.name_taken_twice => duplicate_name(member),
        Standing::Suspect if !member.shares_family && member.via.is_none() => no_shared_family(member),
        Standing::Suspect => suspected(member, gossip),
        Standing::Down | Standing::Unknown if !member.shares_family && member.via.is_none() => no_shared_family(member),
        Standing::Down | Standing::Unknown => down(member, gossip),
        Standing::Alive => alive(member),
    }
}

fn alive(member: &ClusterMember) -> Finding {
    let paths = &member.paths;
    let name = &member.name;
    let broken: Vec<&Path> = paths.iter().filter(|path| path.stream == Some(false)).collect();
    let works = |path: &&Path| path.stream == Some(true) || (path.stream.is_none() && path.datagram == Some(true));
    if !member.shares_family {
        return relayed(member);
    }
    if !broken.is_empty() && broken.len() == paths.len() {
        let ports = listed(broken.iter().map(|path| path.endpoint.to_string()));
        return Finding::new(Code::OneWay, Severity::Warning, name, "can be heard, but not called, from here")
            .evidence(format!("Connections over TCP to {ports} fail from here."))
            .evidence(heard(member))
            .effect("Gossip goes by the connections that it opens, or through others; if those fail as well it will look dead.")
            .action(format!("Look for a firewall or network policy between this process and {ports} (TCP)."))
            .forget(false, "it is alive");
    }
    if let (Some(dead), Some(good)) = (broken.first(), paths.iter().find(works)) {
        return Finding::new(
            Code::FamilyDown,
            Severity::Warning,
            name,
            format!("is reached over {} only; {} does not work", good.family, dead.family),
        )
        .evidence(ways_work(good))
        .evidence(match dead.datagram {
            Some(false) => format!("Neither TCP nor UDP to {} works from here.", dead.endpoint),
            Some(true) => format!("TCP to {} fails from here, though UDP works.", dead.endpoint),
            None => format!("TCP to {} fails from here.", dead.endpoint),
        })
        .effect(format!("Nothing suffers while {} works; there is no second way.", good.family))
        .action(format!("Look for what drops {} between this host and {}.", dead.family, dead.endpoint.ip()))
        .forget(false, "it is alive");
    }
    let told = paths.iter().filter(|path| path.datagram.is_some());
    let no_datagrams = told.clone().count() > 0 && told.clone().all(|path| path.datagram == Some(false));
    if no_datagrams && paths.iter().any(|path| path.stream == Some(true)) {
        let ports = listed(told.map(|path| path.endpoint.to_string()));
        return Finding::new(
            Code::DatagramsBlocked,
            Severity::Note,
            name,
            "is healthy; UDP to it is blocked, TCP is used",
        )
        .evidence(format!("Datagrams to {ports} are not answered; TCP works."))
        .effect("None, except a little more traffic.")
        .action("Nothing must be done. Let UDP through on the gossip port if you want it.")
        .forget(false, "it is alive");
    }
    Finding::new(Code::Healthy, Severity::Ok, name, "is healthy").evidence(heard(member)).forget(false, "it is alive")
}

fn ways_work(path: &Path) -> String {
    let ways = match (path.stream, path.datagram) {
        (Some(true), Some(true)) => "TCP and UDP to {} work.",
        (Some(true), _) => "TCP to {} works.",
        _ => "UDP to {} works.",
    };
    ways.replace("{}", &path.endpoint.to_string())
}

fn relayed(member: &ClusterMember) -> Finding {
    let families = listed(member.paths.iter().map(|path| path.family.to_owned()));
    let by = member.via.clone().unwrap_or_else(|| "another member".to_owned());
    Finding::new(
        Code::Relayed,
        Severity::Note,
        &member.name,
        format!("is alive; it speaks {families}, this process does not"),
    )
    .evidence(format!("Messages between the two are passed on by {by}."))
    .effect("Gossip works. Calls between the two do not, unless the ring has a proxy address that both can reach.")
    .action("Give one of the two an address of the other family, or set instance_addr to a proxy that has both.")
    .forget(false, "it is alive")
}

fn no_shared_family(member: &ClusterMember) -> Finding {
    let families = listed(member.paths.iter().map(|path| path.family.to_owned()));
    Finding::new(
        Code::NoSharedFamily,
        Severity::Fault,
        &member.name,
        format!("cannot be reached: it speaks {families}, this process does not, and no member with both is left"),
    )
    .evidence(format!("It tells {}.", listed(member.paths.iter().map(|path| path.endpoint.to_string()))))
    .evidence("No living member can pass messages on.")
    .evidence(heard(member))
    .effect("The cluster is split by family. The member may well be alive, and counts as down here.")
    .action("Start a member that has both families, or give this host the other one.")
    .forget(false, "it is probably alive on the other side")
}

fn suspected(member: &ClusterMember, gossip: &[Checked]) -> Finding {
    checked(
        Finding::new(
            Code::Suspected,
            Severity::Note,
            &member.name,
            "did not answer lately and is being asked by others",
        ),
        gossip,
    )
    .evidence(heard(member))
    .effect("None yet: it counts as healthy until it is declared dead.")
    .action("Wait a few seconds.")
    .forget(false, "it may still answer")
}

fn down(member: &ClusterMember, gossip: &[Checked]) -> Finding {
    let name = &member.name;
    let any = |contact: Contact| gossip.iter().any(|check| check.contact == contact);
    let lost = format!("Declared dead {}; {}", ago(member.since), heard_after(member));
    if any(Contact::Answers) {
        return checked(
            Finding::new(Code::Returning, Severity::Warning, name, "was declared dead, but its gossip port answers again"),
            gossip,
        )
        .evidence(lost)
        .effect("It counts as down until it has said itself that it is back.")
        .action("Wait half a minute. If it stays so, it belongs to another cluster or uses another key: see the findings above.")
        .forget(false, "a process answers at its address");
    }
    if any(Contact::Silent) {
        return checked(
            Finding::new(Code::Hangs, Severity::Fault, name, "hangs: the process is there and does nothing"),
            gossip,
        )
        .evidence(lost)
        .effect("It does no work and holds what it owns.")
        .action("It is stopped (SIGSTOP), starved of CPU or deadlocked: let it go on, or restart it.")
        .forget(false, "the process still exists and would come back as it was");
    }
    if any(Contact::Refused) {
        return checked(
            Finding::new(Code::Dead, Severity::Fault, name, "is dead: its host answers, the process is gone"),
            gossip,
        )
        .evidence(lost)
        .effect("Its work is done by others where there are others.")
        .action("Restart it, or forget it if it will not come back.")
        .forget(true, "nothing listens at its address any more; should it return, it registers anew");
    }
    checked(
        Finding::new(Code::Unreachable, Severity::Fault, name, "does not answer: it is dead, or cut off from here"),
        gossip,
    )
    .evidence(lost)
    .effect("It counts as down here. If only the network is cut, others may see it otherwise.")
    .action("See whether its host is up and what lies between; compare the views of other members.")
    .forget(false, "it may be alive behind a cut network; when you know that it is gone, forgetting is harmless")
}

fn duplicate_name(member: &ClusterMember) -> Finding {
    Finding::new(
        Code::DuplicateName,
        Severity::Warning,
        &member.name,
        "has the same member name as another living process",
    )
    .evidence(format!(
        "Process {:016x} tells {}.",
        member.process,
        listed(member.paths.iter().map(|path| path.endpoint.to_string()))
    ))
    .effect("Gossip tells them apart; people and dashboards do not.")
    .action("Give each its own memberlist.node_name, or leave randomize_node_name on.")
    .forget(false, "it is alive")
}

fn checked(mut finding: Finding, gossip: &[Checked]) -> Finding {
    for check in gossip {
        finding = finding.evidence(format!("Gossip port {} {}.", check.address, check.contact.words()));
    }
    finding
}

fn heard(member: &ClusterMember) -> String {
    match member.heard {
        Some(age) => format!("Last heard {}.", ago(age)),
        None => "Known from others; nothing came from it directly.".to_owned(),
    }
}

fn heard_after(member: &ClusterMember) -> String {
    match member.heard {
        Some(age) => format!("last heard {}.", ago(age)),
        None => "this process never heard it itself.".to_owned(),
    }
}
