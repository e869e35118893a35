//! From what the host published to what a page shows: verdicts, other members' views, and which rings are there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::caller::{Caller, Port};
use super::cluster_verdict::{judge_address, judge_cluster};
use super::evidence::{Checked, Cluster, ClusterMember, Contact};
use super::finding::{Code, Finding, Forget, Severity};
use super::member_verdict::{MemberEvidence, RingKind, deaf, judge_member};
use super::memberlist_page::MemberlistPageView;
use super::partition_page::{PartitionPageView, PartitionRow, judge_partition};
use super::process_verdict::judge_process;
use super::ring_page::{Coverage, MemberRow, RingPageView};
use super::shared::differences;
use super::words::listed;
use crate::board::Board;
use crate::ring::{RingEntry, RingView, Rings, Standing, instance_tokens};

/// One ring's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingPage {
    /// What it is for, which also decides its path.
    pub kind: RingKind,
    /// The whole key of the ring.
    pub ring: String,
    /// Whether this process uses the ring.
    pub used: bool,
    /// Why, or why not, as a sentence.
    pub why: String,
}

impl RingPage {
    /// The path of the page.
    #[must_use]
    pub fn path(&self) -> &'static str {
        match self.kind {
            RingKind::LiveStore => "/live-store/ring",
            RingKind::Distributor => "/distributor/ring",
            RingKind::BackendWorker => "/backend-worker/ring",
            RingKind::MetricsGenerator => "/metrics-generator/ring",
        }
    }

    fn title(&self) -> &'static str {
        match self.kind {
            RingKind::LiveStore => "Live-store ring",
            RingKind::Distributor => "Distributor ring",
            RingKind::BackendWorker => "Backend-worker ring",
            RingKind::MetricsGenerator => "Metrics-generator ring",
        }
    }
}

/// Which pages there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The rings of instances.
    pub rings: Vec<RingPage>,
    /// The whole key of the ring of partitions.
    pub partition_ring: String,
    /// Whether this process uses it.
    pub partitions_used: bool,
    /// Why, or why not.
    pub partitions_why: String,
}

pub(super) const PARTITIONS: &str = "/partition-ring";
pub(super) const MEMBERLIST: &str = "/memberlist";

impl Layout {
    fn links(&self) -> Vec<(String, String)> {
        let rings = self.rings.iter().map(|page| (page.path().to_owned(), page.title().to_owned()));
        let others = [(PARTITIONS, "Partitions"), (MEMBERLIST, "Memberlist"), ("/status/listeners", "Listeners")];
        rings.chain(others.map(|(path, name)| (path.to_owned(), name.to_owned()))).collect()
    }

    fn coverage(&self, boards: &Boards) -> Vec<Coverage> {
        let mut coverage: Vec<Coverage> = self
            .rings
            .iter()
            .map(|page| Coverage {
                path: page.path().to_owned(),
                ring: page.ring.clone(),
                shown: page.used && boards.of(&page.ring).rings().rings.contains_key(&page.ring),
                why: page.why.clone(),
            })
            .collect();
        coverage.push(Coverage {
            path: PARTITIONS.to_owned(),
            ring: self.partition_ring.clone(),
            shown: self.partitions_used && boards.of_partitions().rings().partitions.is_some(),
            why: self.partitions_why.clone(),
        });
        coverage
    }
}

/// The hosts of this process's rings: one where nothing is shared, or gossip, or both.
#[derive(Debug, Clone)]
pub(super) struct Boards {
    /// The host of the rings that are not in gossip, or of all.
    pub(super) first: Board,
    /// Gossip, where it is another.
    pub(super) gossip: Option<Board>,
}

impl Boards {
    /// The host of a ring; the first for a ring that nobody has.
    pub(super) fn of(&self, ring: &str) -> &Board {
        self.gossip.as_ref().filter(|board| board.rings().rings.contains_key(ring)).unwrap_or(&self.first)
    }

    /// The host of the ring of partitions.
    pub(super) fn of_partitions(&self) -> &Board {
        self.gossip.as_ref().filter(|board| board.rings().partitions.is_some()).unwrap_or(&self.first)
    }

    /// The host that knows members.
    pub(super) fn of_members(&self) -> &Board {
        self.gossip.as_ref().unwrap_or(&self.first)
    }
}

/// Everything that was published at one moment, with the verdicts on processes.
struct Moment {
    rings: Arc<Rings>,
    cluster: Option<Arc<Cluster>>,
    processes: HashMap<u64, Finding>,
    services: HashMap<(Port, String), Checked>,
    findings: Vec<Finding>,
    peers: Vec<super::shared::PeerView>,
}

impl Moment {
    /// What came of calling the addresses of a member.
    fn services_of(&self, entry: &RingEntry) -> Vec<Checked> {
        let addresses = entry.instance.addresses.iter().map(|address| (Port::Service, address.to_string()));
        addresses.filter_map(|key| self.services.get(&key).cloned()).collect()
    }

    /// Why an owner of a partition that is up cannot be asked from here, if so.
    fn deaf(&self, owner: &RingEntry) -> Option<Finding> {
        deaf(&MemberEvidence {
            kind: RingKind::LiveStore,
            entry: owner,
            process: self.processes.get(&owner.nonce),
            rivals: &[],
            services: &self.services_of(owner),
            other_owners: 0,
            held: false,
        })
    }
}

/// How long other members may take to say what they hold, whatever the host does.
const PEERS_PATIENCE: Duration = Duration::from_millis(1200);

async fn moment(board: &Board, caller: &Caller, members: &[&RingEntry]) -> Moment {
    let (rings, mut cluster) = (board.rings(), board.cluster());
    let mut calls = cluster.as_deref().map(gossip_calls).unwrap_or_default();
    for entry in members.iter().filter(|entry| entry.is_healthy()) {
        let addresses = entry.instance.addresses.iter().filter(|address| address.port != 0);
        calls.extend(addresses.map(|address| (Port::Service, address.to_string())));
    }
    let asked = async { tokio::time::timeout(PEERS_PATIENCE, board.peers()).await.unwrap_or_default() };
    let (services, peers) = futures::future::join(caller.call(calls), asked).await;
    let mut processes = HashMap::new();
    if let Some(cluster) = &mut cluster {
        let cluster = Arc::make_mut(cluster);
        cluster.members.iter_mut().for_each(|member| take_contacts(member, &services));
        for member in &cluster.members {
            let called =
                member.paths.iter().filter_map(|path| services.get(&(Port::Gossip, path.endpoint.to_string())));
            let finding = judge_process(member, &called.cloned().collect::<Vec<Checked>>());
            processes.insert(member.process, judge_address(cluster, member, finding));
        }
    }
    let findings = cluster.as_deref().map(judge_cluster).unwrap_or_default();
    Moment { rings, cluster, processes, services, findings, peers }
}

/// The gossip ports of all others that have not left, over the families that this process has.
fn gossip_calls(cluster: &Cluster) -> Vec<(Port, String)> {
    let me = cluster.members.iter().find(|member| member.process == cluster.me);
    let own: Vec<&str> = me.map(|me| me.paths.iter().map(|path| path.family).collect()).unwrap_or_default();
    let others = cluster.members.iter().filter(|member| member.process != cluster.me);
    let called = others.filter(|member| member.standing != Standing::Left).flat_map(|member| &member.paths);
    let called = called.filter(|path| own.is_empty() || own.contains(&path.family));
    called.map(|path| (Port::Gossip, path.endpoint.to_string())).collect()
}

/// What came of a call just now counts more than what gossip remembers of its streams.
fn take_contacts(member: &mut ClusterMember, called: &HashMap<(Port, String), Checked>) {
    for path in &mut member.paths {
        match called.get(&(Port::Gossip, path.endpoint.to_string())).map(|check| check.contact) {
            Some(Contact::Answers) => path.stream = Some(true),
            Some(Contact::Refused | Contact::Unreachable) => path.stream = Some(false),
            // Whether it hangs, membership says. The others are said of gRPC ports alone.
            Some(Contact::Silent | Contact::NotServing | Contact::NothingBehind) | None => {}
        }
    }
}

pub(super) async fn ring_page(
    boards: &Boards,
    caller: &Caller,
    layout: &Layout,
    page: &RingPage,
    now: Duration,
) -> RingPageView {
    let board = boards.of(&page.ring);
    let view = board.rings().rings.get(&page.ring).cloned().unwrap_or_default();
    let members: Vec<&RingEntry> = view.entries().iter().collect();
    let moment = moment(board, caller, &members).await;
    let held = moment.rings.held.get(&page.ring).cloned().unwrap_or_default();
    let mut findings = moment.findings.clone();
    if !held.is_empty() {
        findings.push(held_finding(&held));
    }
    RingPageView {
        title: page.title().to_owned(),
        path: page.path().to_owned(),
        ring: page.ring.clone(),
        kind: page.kind,
        note: if page.used { String::new() } else { page.why.clone() },
        members: rows(&view, page.kind, &moment, &held),
        findings,
        digest: moment.rings.digest,
        differences: differences(&moment.rings.records, &moment.peers, |ring| ring == page.ring),
        now,
        links: layout.links(),
        coverage: layout.coverage(boards),
    }
}

fn rows(view: &RingView, kind: RingKind, moment: &Moment, held: &[String]) -> Vec<MemberRow> {
    let shares = view.ownership();
    let row = |(entry, ownership): (&RingEntry, f64)| {
        let rivals: Vec<&RingEntry> = view.rivals_of(&entry.id).collect();
        let services = moment.services_of(entry);
        let partition = entry.instance.partition;
        let owns = |other: &&RingEntry| other.id != entry.id && other.is_healthy();
        let other_owners = view.entries().iter().filter(owns).filter(|other| other.instance.partition == partition);
        let finding = judge_member(&MemberEvidence {
            kind,
            entry,
            process: moment.processes.get(&entry.nonce),
            rivals: &rivals,
            services: &services,
            other_owners: if partition.is_some() { other_owners.count() } else { 0 },
            held: held.iter().any(|id| **id == *entry.id),
        });
        MemberRow {
            entry: entry.clone(),
            tokens: instance_tokens(&entry.id, entry.instance.tokens),
            ownership,
            finding,
        }
    };
    view.entries().iter().zip(shares).map(row).collect()
}

fn held_finding(held: &[String]) -> Finding {
    Finding::new(
        Code::ForgettingHeld,
        Severity::Warning,
        &listed(held.iter().cloned()),
        "would be forgotten by now, and are kept",
    )
    .evidence("More members of this ring are down than up, as seen from here.")
    .effect("Nobody is forgotten by this process while that is so: it is more likely cut off than alone.")
    .action("Look at this process's network first. If the members are really gone, forget them by hand.")
}

pub(super) async fn partition_page(
    boards: &Boards,
    caller: &Caller,
    layout: &Layout,
    now: Duration,
) -> PartitionPageView {
    let board = boards.of_partitions();
    let rings = board.rings();
    // Within one process nobody calls an address.
    let shared = rings.partitions.as_ref().filter(|_| board.cluster().is_some());
    let owners: Vec<&RingEntry> =
        shared.iter().flat_map(|(_, view)| view.entries()).flat_map(|entry| &entry.owners).collect();
    let moment = moment(board, caller, &owners).await;
    let live_stores: Vec<&str> =
        layout.rings.iter().filter(|page| page.kind == RingKind::LiveStore).map(|page| page.ring.as_str()).collect();
    let mut partitions = Vec::new();
    if let Some((_, view)) = &moment.rings.partitions {
        for (entry, ownership) in view.entries().iter().zip(view.ownership()) {
            let up = entry.owners.iter().filter(|owner| owner.is_healthy());
            let deaf: Vec<Finding> = up.filter_map(|owner| moment.deaf(owner)).collect();
            let finding = judge_partition(entry.id, Some(entry), &entry.owners, &deaf);
            let (owners, entry) = (entry.owners.clone(), entry.clone());
            partitions.push(PartitionRow { id: entry.id, entry: Some(entry), owners, ownership, finding });
        }
        for (id, owners) in view.orphans() {
            let finding = judge_partition(*id, None, owners, &[]);
            partitions.push(PartitionRow { id: *id, entry: None, owners: owners.clone(), ownership: 0.0, finding });
        }
        partitions.sort_by_key(|row| row.id);
    }
    let ours = |ring: &str| ring == layout.partition_ring || live_stores.contains(&ring);
    PartitionPageView {
        path: PARTITIONS.to_owned(),
        ring: layout.partition_ring.clone(),
        note: if layout.partitions_used { String::new() } else { layout.partitions_why.clone() },
        partitions,
        findings: moment.findings,
        digest: moment.rings.digest,
        differences: differences(&moment.rings.records, &moment.peers, ours),
        now,
        links: layout.links(),
        coverage: layout.coverage(boards),
    }
}

/// Why records of processes should not be forgotten, as far as rings say so.
fn needed_in_rings(layout: &Layout, moment: &Moment) -> HashMap<u64, String> {
    let mut needed = HashMap::new();
    for page in &layout.rings {
        let Some(view) = moment.rings.rings.get(&page.ring) else { continue };
        for row in rows(view, page.kind, moment, &[]) {
            if let Some(forget) = row.finding.forget.filter(|forget| !forget.safe) {
                needed.entry(row.entry.nonce).or_insert(forget.why);
            }
        }
    }
    needed
}

/// None where gossip is not used.
pub(super) async fn memberlist_page(
    boards: &Boards,
    caller: &Caller,
    layout: &Layout,
    now: Duration,
) -> Option<MemberlistPageView> {
    let mut moment = moment(boards.of_members(), caller, &[]).await;
    let cluster = moment.cluster.as_deref()?.clone();
    let needed = needed_in_rings(layout, &moment);
    let verdict = |member: &ClusterMember| {
        let mut finding = moment.processes.remove(&member.process).unwrap_or_else(|| judge_process(member, &[]));
        // A process may be forgotten where each of its rings can do without its record.
        if let (Some(forget), Some(why)) = (&mut finding.forget, needed.get(&member.process))
            && forget.safe
        {
            *forget = Forget { safe: false, why: why.clone() };
        }
        finding
    };
    let verdicts = cluster.members.iter().map(verdict).collect();
    Some(MemberlistPageView {
        verdicts,
        findings: moment.findings,
        store: moment.rings.figures.clone(),
        partition_rings: vec![layout.partition_ring.clone()],
        digest: moment.rings.digest,
        differences: differences(&moment.rings.records, &moment.peers, |_| true),
        now,
        links: layout.links(),
        coverage: layout.coverage(boards),
        cluster,
    })
}
