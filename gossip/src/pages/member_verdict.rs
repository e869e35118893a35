//! The verdict on a member of a ring: that on its process, and what the ring adds to it.

use super::evidence::{Checked, Contact};
use super::finding::{Code, Finding, Severity};
use super::words::{ago, listed};
use crate::ring::{RingEntry, Standing};
use crate::state::{InstanceState, Via};

/// What a ring is for: decides what follows from a missing member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingKind {
    /// Live-stores: recent data.
    LiveStore,
    /// Distributors: the global rate limit.
    Distributor,
    /// Backend-workers: tenant indexes.
    BackendWorker,
    /// Metrics-generators.
    MetricsGenerator,
}

impl RingKind {
    fn member(self) -> &'static str {
        match self {
            Self::LiveStore => "live-store",
            Self::Distributor => "distributor",
            Self::BackendWorker => "backend-worker",
            Self::MetricsGenerator => "metrics-generator",
        }
    }
}

/// What is known about one member of a ring.
#[derive(Debug, Clone, Copy)]
pub struct MemberEvidence<'a> {
    /// The ring.
    pub kind: RingKind,
    /// Its record, and how membership sees its process.
    pub entry: &'a RingEntry,
    /// The verdict on its process; none when membership does not know it, or is not used.
    pub process: Option<&'a Finding>,
    /// Living processes that have the same instance id.
    pub rivals: &'a [&'a RingEntry],
    /// What came of calling its addresses just now; empty while nobody called.
    pub services: &'a [Checked],
    /// Other owners of its partition that are up.
    pub other_owners: usize,
    /// It is overdue and kept, because most of the ring is down as seen from here.
    pub held: bool,
}

/// Judges one member of a ring.
#[must_use]
pub fn judge_member(evidence: &MemberEvidence<'_>) -> Finding {
    let MemberEvidence { entry, process, .. } = *evidence;
    if !evidence.rivals.is_empty() {
        return duplicate(evidence);
    }
    if !entry.is_healthy() {
        return absent(evidence);
    }
    if let Some(service) = dead_service(evidence) {
        return match process.filter(|process| process.code == Code::OneWay) {
            Some(way) => Finding {
                subject: entry.id.to_string(),
                evidence: way.evidence.iter().chain(&service.evidence).cloned().collect(),
                ..way.clone()
            },
            None => service,
        };
    }
    match process {
        Some(process) if !process.is_quiet() => Finding { subject: entry.id.to_string(), ..process.clone() },
        _ if entry.instance.state == InstanceState::Leaving => {
            Finding::new(Code::Leaving, Severity::Note, &entry.id, "is stopping, as it should")
                .evidence("It said LEAVING and is still alive.")
                .effect("It takes nothing new and still answers.")
                .action("Wait until it is gone.")
                .forget(false, "it is alive and leaves by itself")
        }
        _ if evidence.services.iter().any(|check| check.contact == Contact::NotServing) => not_serving(evidence),
        _ => Finding::new(Code::Healthy, Severity::Ok, &entry.id, "is healthy")
            .evidence("Its process answers in membership.")
            .forget(false, "it is alive and would register again at once"),
    }
}

fn duplicate(evidence: &MemberEvidence<'_>) -> Finding {
    let entry = evidence.entry;
    let describe = |entry: &RingEntry| {
        format!(
            "{} (process {:016x}) at {}",
            entry.instance.member,
            entry.nonce,
            listed(entry.instance.addresses.iter().map(ToString::to_string))
        )
    };
    let both = std::iter::once(entry).chain(evidence.rivals.iter().copied()).map(describe);
    Finding::new(
        Code::DuplicateId,
        Severity::Fault,
        &entry.id,
        format!("{} living processes have the instance id {:?}", evidence.rivals.len() + 1, entry.id),
    )
    .evidence(format!("They are {}.", listed(both)))
    .effect(format!("Calls go to {} only; what the others hold is not asked for.", entry.instance.member))
    .action(format!("Stop all but one, or give each its own {}.", "instance_id"))
    .forget(false, "it is alive, and so is the other one")
}

fn absent(evidence: &MemberEvidence<'_>) -> Finding {
    let entry = evidence.entry;
    let mut finding = match evidence.process {
        Some(process) => Finding { subject: entry.id.to_string(), ..process.clone() },
        None => unknown(entry),
    };
    finding.severity = Severity::Fault;
    if finding.code == Code::Left {
        finding.verdict = "stopped, and keeps its place".to_owned();
        finding.severity = Severity::Note;
    }
    finding.effect = match (evidence.kind, entry.instance.partition) {
        (RingKind::LiveStore, Some(partition)) => without(partition, evidence.other_owners),
        (RingKind::Distributor, _) => "The global rate limit is shared by one distributor less.".to_owned(),
        (RingKind::BackendWorker, _) => "Other workers build its tenant indexes.".to_owned(),
        (RingKind::MetricsGenerator, _) | (RingKind::LiveStore, None) => finding.effect,
    };
    if evidence.held {
        finding = finding.evidence("It would be forgotten by now, but most of the ring is down as seen from here.");
    }
    let last_owner =
        entry.instance.partition.filter(|_| evidence.kind == RingKind::LiveStore && evidence.other_owners == 0);
    match (last_owner, &mut finding.forget) {
        (Some(partition), Some(forget)) if forget.safe => {
            forget.safe = false;
            forget.why = format!(
                "it is the last owner of partition {partition}: forgotten, nobody is asked for that partition's recent data"
            );
        }
        _ => {}
    }
    finding
}

/// What follows where an owner of a partition cannot be asked.
fn without(partition: u32, other_owners: usize) -> String {
    match other_owners {
        0 => format!(
            "Nobody else owns partition {partition}: what it holds that is not yet in blocks is missing from answers, \
             which say so."
        ),
        others => format!("Partition {partition} is answered by {others} other owner(s); nothing is missing."),
    }
}

fn unknown(entry: &RingEntry) -> Finding {
    debug_assert!(!entry.is_healthy(), "who is up is known");
    let finding = match entry.sight.standing {
        Standing::Left => Finding::new(Code::Left, Severity::Note, &entry.id, "stopped"),
        _ => Finding::new(
            Code::Unknown,
            Severity::Fault,
            &entry.id,
            format!("is in the ring, but its process {} is not in membership", entry.instance.member),
        ),
    };
    finding
        .evidence(format!("Process {:016x} is not known here; its last sign is unknown.", entry.nonce))
        .action("It is a remnant of an earlier time, or of a member that cannot be heard. Forget it if you know it is gone.")
        .forget(true, "a living process would register again")
}

fn dead_service(evidence: &MemberEvidence<'_>) -> Option<Finding> {
    let (entry, member) = (evidence.entry, evidence.kind.member());
    let checks = |via: Via| -> Vec<&Checked> {
        let addresses: Vec<String> =
            entry.instance.addresses.iter().filter(|a| a.via == via && a.port != 0).map(ToString::to_string).collect();
        evidence.services.iter().filter(|check| addresses.contains(&check.address)).collect()
    };
    let (proxies, direct) = (checks(Via::Proxy), checks(Via::Direct));
    // Where the two share no family, nobody expects that an address of the other one can be called from here.
    let apart = evidence.process.is_some_and(|process| process.code == Code::Relayed);
    let fails = |check: &&Checked| match check.contact {
        Contact::Answers | Contact::NotServing => false,
        Contact::Unreachable => !apart,
        Contact::Silent | Contact::Refused | Contact::NothingBehind => true,
    };
    let all_fail = |checks: &[&Checked]| !checks.is_empty() && checks.iter().all(fails);
    let (code, verdict, failing, action) = if all_fail(&proxies) && !all_fail(&direct) {
        let action = "Restart the proxy beside it, or see whether instance_port is the port that the proxy listens on.";
        (Code::ProxyDead, "is alive, but the proxy before it does not answer".to_owned(), &proxies, action)
    } else if all_fail(&direct) && (proxies.is_empty() || all_fail(&proxies)) {
        let action =
            "See its log: the gRPC server has ended or hangs, or a firewall blocks the port. Restart it if need be.";
        (
            Code::ServiceDead,
            format!("is alive, but the port on which this {member} is called does not answer"),
            &direct,
            action,
        )
    } else {
        return None;
    };
    let mut finding = Finding::new(code, Severity::Fault, &entry.id, verdict);
    for check in failing {
        finding = finding.evidence(format!("{} {}.", check.address, check.contact.words()));
    }
    if code == Code::ProxyDead {
        for check in &direct {
            finding = finding.evidence(format!("{}, the process itself, {}.", check.address, check.contact.words()));
        }
    }
    Some(
        finding
            .evidence("Its process answers in membership.")
            .effect(match (evidence.kind, entry.instance.partition) {
                (RingKind::LiveStore, Some(partition)) => without(partition, evidence.other_owners),
                _ => "Calls to it fail; what it does by itself goes on.".to_owned(),
            })
            .action(action)
            .forget(false, "it is alive and would register again at once"),
    )
}

/// Why a member that is up cannot be asked from here, if so.
pub(super) fn deaf(evidence: &MemberEvidence<'_>) -> Option<Finding> {
    let refuses = evidence.services.iter().any(|check| check.contact == Contact::NotServing);
    dead_service(evidence).or_else(|| refuses.then(|| not_serving(evidence)))
}

/// It starts, and will serve; or a part of it has failed.
fn not_serving(evidence: &MemberEvidence<'_>) -> Finding {
    let verdict = "is alive, and says that it does not serve yet, or no more";
    let mut finding = Finding::new(Code::NotServing, Severity::Warning, &evidence.entry.id, verdict);
    for check in evidence.services.iter().filter(|check| check.contact == Contact::NotServing) {
        finding = finding.evidence(format!("{} {}.", check.address, check.contact.words()));
    }
    finding
        .evidence("Its process answers in membership.")
        .effect("Calls to it are refused until it serves.")
        .action("While it starts, wait: /ready on it says for what. Else see its log and /status/services.")
        .forget(false, "it is alive and would register again at once")
}

/// How long ago a member was last known to live, in words.
pub(crate) fn last_sign(entry: &RingEntry) -> String {
    match entry.sight.standing {
        Standing::Alive => "now".to_owned(),
        Standing::Suspect | Standing::Down | Standing::Left => ago(entry.sight.silent_for),
        Standing::Unknown => "never".to_owned(),
    }
}
