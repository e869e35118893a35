//! Findings about the cluster as a whole: strangers that call here, and names to join that lead nowhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::evidence::{Cluster, ClusterMember, Seed, Stranger, StrangerReason};
use super::finding::{Code, Finding, Severity};
use super::words::{ago, listed, span};

/// Older refusals say nothing about now.
const RECENT: Duration = Duration::from_secs(120);
/// A name is resolved again and its members come up; before that, nothing is said about it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing can be forgotten about a name.
const NO_RECORD: &str = "a name has no record here: there is nothing to forget";

/// Judges what is not about one member.
#[must_use]
pub fn judge_cluster(cluster: &Cluster) -> Vec<Finding> {
    let mut by_address: BTreeMap<IpAddr, Vec<&Stranger>> = BTreeMap::new();
    for stranger in cluster.strangers.iter().filter(|stranger| stranger.last <= RECENT) {
        by_address.entry(stranger.address).or_default().push(stranger);
    }
    let strangers = by_address.into_iter().map(|(address, all)| judge_stranger(cluster, address, &all));
    let seeds = cluster.seeds.iter().filter_map(|seed| judge_seed(cluster, seed));
    strangers.chain(seeds).collect()
}

/// A member that is down while its port answers: it may be another cluster's process that has its address now.
#[must_use]
pub(super) fn judge_address(cluster: &Cluster, member: &ClusterMember, finding: Finding) -> Finding {
    let foreign = |stranger: &&Stranger| {
        stranger.reason == StrangerReason::Label
            && stranger.last <= RECENT
            && member.paths.iter().any(|path| path.endpoint.ip() == stranger.address)
    };
    let Some(stranger) = cluster.strangers.iter().find(foreign).filter(|_| finding.code == Code::Returning) else {
        return finding;
    };
    let verdict = "is dead: a member of another cluster has its address now";
    let mut dead = Finding::new(Code::Dead, Severity::Fault, &member.name, verdict);
    dead.evidence = finding.evidence;
    dead.evidence(format!(
        "{} frames from {} with another cluster label, the last {}.",
        stranger.count,
        stranger.address,
        ago(stranger.last)
    ))
    .effect("Its work is done by others where there are others.")
    .action("Start it anew at another address, or forget it if it will not come back.")
    .forget(true, "what answers there is another cluster's; should the member return, it registers anew")
}

fn judge_stranger(cluster: &Cluster, address: IpAddr, all: &[&Stranger]) -> Finding {
    let known = cluster.members.iter().find(|member| member.paths.iter().any(|path| path.endpoint.ip() == address));
    let who = known.map_or_else(|| address.to_string(), |member| format!("{address} ({})", member.name));
    let labels = all.iter().any(|stranger| stranger.reason == StrangerReason::Label);
    let finding = if labels {
        let own = if cluster.label.is_empty() { "none".to_owned() } else { format!("{:?}", cluster.label) };
        Finding::new(Code::ForeignLabel, Severity::Fault, &who, "belongs to another cluster")
            .effect("Neither hears the other. If it is meant to be a member of this cluster, it is missing.")
            .action(format!(
                "The label here is {own}. Set memberlist.cluster_label there to the same, or take this cluster's addresses \
                 out of its join_members (an address may have been used again)."
            ))
    } else {
        let plain = all.iter().all(|stranger| stranger.reason == StrangerReason::Plain);
        let verdict =
            if plain { "sends without encryption, which is required here" } else { "uses another gossip key" };
        Finding::new(Code::WrongKey, Severity::Fault, &who, verdict)
            .effect("Neither hears the other: it is missing from the cluster.")
            .action("Give it one of the keys that are in use here; while keys are rotated, all members need both.")
    };
    let mut finding = finding;
    for stranger in all {
        let why = match stranger.reason {
            StrangerReason::Label => "another cluster label",
            StrangerReason::Key => "a key that is not known here",
            StrangerReason::Plain => "no encryption",
        };
        finding =
            finding.evidence(format!("{} frames from it with {why}, the last {}.", stranger.count, ago(stranger.last)));
    }
    finding.forget(false, "it is no member here: there is nothing to forget")
}

fn judge_seed(cluster: &Cluster, seed: &Seed) -> Option<Finding> {
    if seed.since < PATIENCE {
        return None;
    }
    if let Some(error) = &seed.error {
        let known = if seed.addresses.is_empty() {
            "It has never led anywhere since this process started.".to_owned()
        } else {
            format!("It led to {} before.", listed(seed.addresses.iter().map(ToString::to_string)))
        };
        return Some(
            Finding::new(Code::SeedUnresolved, Severity::Warning, &seed.entry, "cannot be resolved")
                .evidence(format!("For {}: {error}.", span(seed.since)))
                .evidence(known)
                .effect("Members that are known are still tried; new ones are not found by this name.")
                .action(
                    "Correct memberlist.join_members, or the DNS record or Service behind it. It is tried for ever.",
                )
                .forget(false, NO_RECORD),
        );
    }
    // A member that is down is named itself; that its name still leads there is no fault of the name.
    let known = seed.addresses.iter().filter(|address| {
        cluster.members.iter().any(|member| member.paths.iter().any(|path| path.endpoint == **address))
    });
    if known.count() > 0 {
        return None;
    }
    let leads = if seed.addresses.is_empty() {
        "It resolves to no address.".to_owned()
    } else {
        format!(
            "It resolves to {}, where no member is that is known here.",
            listed(seed.addresses.iter().map(ToString::to_string))
        )
    };
    Some(
        Finding::new(Code::SeedStale, Severity::Warning, &seed.entry, "leads to nobody")
            .evidence(leads)
            .evidence(format!("So for {}.", span(seed.since)))
            .effect("This process does not find the cluster by this name.")
            .action("See whether the name still stands for the members, and whether they listen on that port.")
            .forget(false, NO_RECORD),
    )
}
