//! The page of the ring of partitions. Pure functions of a view.

use std::time::Duration;

use serde::Serialize;

use super::finding::{Code, Finding, Severity};
use super::html::{Form, Markup, page};
use super::ring_page::{Coverage, write_coverage};
use super::shared::{Difference, write_boxes, write_differences, write_verdict, write_why};
use super::words::{listed, percent, seconds, time};
use crate::partition::{PartitionEntry, allowed_from};
use crate::ring::RingEntry;
use crate::state::{PartitionState, StateHash};

/// All that the page shows.
#[derive(Debug, Clone)]
pub(super) struct PartitionPageView {
    /// The path of the page.
    pub(super) path: String,
    /// The whole key of the ring.
    pub(super) ring: String,
    /// Why it is empty; may be empty.
    pub(super) note: String,
    /// The partitions, and those that only owners know, by number.
    pub(super) partitions: Vec<PartitionRow>,
    /// Findings about the cluster.
    pub(super) findings: Vec<Finding>,
    /// The state's hash.
    pub(super) digest: StateHash,
    /// What other members see otherwise.
    pub(super) differences: Vec<Difference>,
    /// The time here.
    pub(super) now: Duration,
    /// Paths and names of the pages of this process.
    pub(super) links: Vec<(String, String)>,
    /// Which rings this process should show, and whether it does.
    pub(super) coverage: Vec<Coverage>,
}

/// A partition and what is said of it.
#[derive(Debug, Clone)]
pub(super) struct PartitionRow {
    /// Its number.
    pub(super) id: u32,
    /// The partition; none if only owners name it.
    pub(super) entry: Option<PartitionEntry>,
    /// Its owners.
    pub(super) owners: Vec<RingEntry>,
    /// Its share of the keys, from 0 to 1.
    pub(super) ownership: f64,
    /// The verdict.
    pub(super) finding: Finding,
}

#[derive(Serialize)]
struct Json<'a> {
    partitions: Vec<Row<'a>>,
    now: String,
    ring: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    note: &'a str,
    state_hash: String,
    findings: &'a [Finding],
    differences: &'a [Difference],
    pages: &'a [Coverage],
}

#[derive(Serialize)]
struct Row<'a> {
    id: u32,
    corrupted: bool,
    state: u8,
    state_timestamp: String,
    state_change_locked: bool,
    owner_ids: Option<Vec<&'a str>>,
    tokens: usize,
    // What follows is ours.
    state_name: &'static str,
    state_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    locked_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locked_timestamp: Option<String>,
    healthy_owner_ids: Vec<&'a str>,
    ownership: f64,
    finding: &'a Finding,
}

/// Judges a partition by what is known of its owners, and by the verdicts on those of them that are up and cannot be asked.
#[must_use]
pub(super) fn judge_partition(
    id: u32,
    entry: Option<&PartitionEntry>,
    owners: &[RingEntry],
    deaf: &[Finding],
) -> Finding {
    let subject = format!("partition {id}");
    let names = listed(owners.iter().map(|owner| owner.id.to_string()));
    let up = owners.iter().filter(|owner| owner.is_healthy()).count();
    let Some(entry) = entry else {
        return Finding::new(
            Code::PartitionMissing,
            Severity::Fault,
            &subject,
            "is named by its owners and is not in the ring",
        )
        .evidence(format!("Named by {names}."))
        .effect("Nothing is written to it; what its owners hold is not asked for.")
        .action("Restart one of its owners: it creates the partition. If it was deleted on purpose, stop the owners.");
    };
    if up == 0 {
        let (severity, effect) = match entry.state() {
            PartitionState::Pending => (Severity::Warning, "Nothing is written to it yet."),
            PartitionState::Active => {
                (Severity::Fault, "It is written to, and its recent data is missing from answers, which say so.")
            }
            PartitionState::Inactive => (
                Severity::Note,
                "Nothing is written to it. It is deleted in time; until then its recent data is missing.",
            ),
            PartitionState::Deleted => (Severity::Ok, "None."),
        };
        let evidence = if owners.is_empty() {
            "No live-store names it.".to_owned()
        } else {
            format!("Its owners are down: {names}.")
        };
        return Finding::new(Code::PartitionUnowned, severity, &subject, "has no owner that is up")
            .evidence(evidence)
            .effect(effect)
            .action("Bring back a live-store whose name ends in this number, in any zone.");
    }
    if deaf.len() == up {
        return unanswered(&subject, entry.state(), deaf);
    }
    if entry.is_locked() {
        let lock = &entry.partition.lock;
        return Finding::new(Code::PartitionLocked, Severity::Note, &subject, "is locked in its state")
            .evidence(format!("Locked by {} at {}.", lock.writer, seconds(lock.changed_at)))
            .effect("Nothing changes its state, neither by itself nor by hand.")
            .action("Unlock it when that is no longer wanted.");
    }
    let words = match entry.state() {
        PartitionState::Pending => "waits until it was owned for long enough",
        PartitionState::Active => "is healthy",
        PartitionState::Inactive => "goes away: it is read, and written to no more",
        PartitionState::Deleted => "is deleted",
    };
    Finding::new(Code::Healthy, Severity::Ok, &subject, words).evidence(format!("Owners: {names}, {up} of them up."))
}

/// Its owners live, and nobody who asks them for recent data gets an answer.
fn unanswered(subject: &str, state: PartitionState, deaf: &[Finding]) -> Finding {
    let effect = match state {
        PartitionState::Active => "It is written to; its recent data is missing from answers, which say so.",
        PartitionState::Pending | PartitionState::Inactive | PartitionState::Deleted => {
            "Nothing is written to it; what it holds and blocks do not is missing from answers, which say so."
        }
    };
    // An owner that starts says so, and soon will answer.
    let worst = deaf.iter().map(|owner| owner.severity).max().unwrap_or(Severity::Warning);
    let verdict = "has owners that are up, and none that can be asked from here";
    let mut finding = Finding::new(Code::PartitionUnanswered, worst, subject, verdict);
    for owner in deaf {
        finding = finding.evidence(format!("{} {}.", owner.subject, owner.verdict));
    }
    finding.effect(effect).action("See what is said of these owners at /live-store/ring.")
}

impl PartitionPageView {
    /// The JSON form.
    #[must_use]
    pub(super) fn json(&self) -> String {
        let json = Json {
            partitions: self.partitions.iter().map(row).collect(),
            now: time(self.now),
            ring: &self.ring,
            note: &self.note,
            state_hash: self.digest.to_string(),
            findings: &self.findings,
            differences: &self.differences,
            pages: &self.coverage,
        };
        serde_json::to_string(&json).unwrap_or_default()
    }

    /// The page.
    #[must_use]
    pub(super) fn html(&self, token: &str) -> String {
        let mut out = Markup::default();
        let count = self.partitions.len();
        out.raw("<p>").number(count).raw(if count == 1 { " partition" } else { " partitions" });
        out.raw(". Ring <code>").text(&self.ring);
        out.raw("</code>. Current time: ").text(&time(self.now)).raw("</p>");
        if !self.note.is_empty() {
            out.element("p class=\"box note\"", &self.note);
        }
        write_boxes(&mut out, &self.findings);
        if !self.partitions.is_empty() {
            self.table(&mut out, token);
        }
        write_differences(&mut out, self.digest, &self.differences);
        write_coverage(&mut out, &self.coverage);
        page("Partitions", &self.links, &out)
    }

    fn table(&self, out: &mut Markup, token: &str) {
        const COLUMNS: [&str; 9] = [
            "#Partition ID",
            "State",
            "Verdict",
            "State updated at",
            "Lock",
            "Owners",
            "#Tokens",
            "#Ownership",
            "Actions",
        ];
        out.table(&COLUMNS);
        for row in &self.partitions {
            let register = row.entry.as_ref().map(|entry| &entry.partition.state);
            out.raw("<tr>").element("td class=\"n\"", &row.id.to_string());
            out.element("td", register.map_or("Corrupt", |state| state.value.title())).raw("<td>");
            write_verdict(out, &row.finding);
            let updated = register.map(|state| format!("{} by {}", seconds(state.changed_at), state.writer));
            out.raw("</td>").element("td", &updated.unwrap_or_default());
            let lock = row.entry.as_ref().map(|entry| &entry.partition.lock).filter(|lock| lock.value);
            let lock = lock.map(|lock| format!("locked by {} at {}", lock.writer, seconds(lock.changed_at)));
            out.element("td", &lock.unwrap_or_default()).raw("<td>");
            for owner in &row.owners {
                out.raw(if owner.is_healthy() { "<span>" } else { "<span class=\"fault\">" }).text(&owner.id);
                out.raw(if owner.is_healthy() { "</span><br>" } else { " (down)</span><br>" });
            }
            let tokens = row.entry.as_ref().and_then(|entry| entry.tokens.as_ref()).map_or(0, |tokens| tokens.len());
            out.raw("</td>").element("td class=\"n\"", &tokens.to_string());
            out.element("td class=\"n\"", &percent(row.ownership)).raw("<td>");
            self.actions(out, row, token);
            out.raw("</td></tr>");
            write_why(out, &row.finding, COLUMNS.len());
        }
        out.end_table();
    }

    fn actions(&self, out: &mut Markup, row: &PartitionRow, token: &str) {
        let Some(entry) = &row.entry else { return };
        let form = Form { action: &self.path, token };
        let id = row.id.to_string();
        if entry.is_locked() {
            let fields = [("action", "state_change_lock"), ("partition_id", &*id), ("locked", "false")];
            out.button(&form, "Unlock", &fields);
            return;
        }
        for to in allowed_from(entry.state()) {
            for (action, words) in [("change_state", ""), ("change_state_and_lock", " and lock")] {
                let fields = [("action", action), ("partition_id", &*id), ("partition_state", to.enum_name())];
                out.button(&form, &format!("Make {}{words}", to.title()), &fields);
            }
        }
        let fields = [("action", "state_change_lock"), ("partition_id", &*id), ("locked", "true")];
        out.button(&form, "Lock", &fields);
    }
}

fn row(row: &PartitionRow) -> Row<'_> {
    let entry = row.entry.as_ref();
    let lock = entry.map(|entry| &entry.partition.lock).filter(|lock| lock.value);
    let owners: Vec<&str> = row.owners.iter().map(|owner| &*owner.id).collect();
    Row {
        id: row.id,
        corrupted: entry.is_none(),
        state: entry.map_or(0, |entry| entry.state().number()),
        state_timestamp: seconds(entry.map_or(0, |entry| entry.partition.state.changed_at)),
        state_change_locked: lock.is_some(),
        // As a Go program writes an empty list.
        owner_ids: Some(owners).filter(|owners| !owners.is_empty()),
        tokens: entry.and_then(|entry| entry.tokens.as_ref()).map_or(0, |tokens| tokens.len()),
        state_name: entry.map_or("PartitionUnknown", |entry| entry.state().enum_name()),
        state_by: entry.map_or("", |entry| &entry.partition.state.writer),
        locked_by: lock.map(|lock| lock.writer.as_str()),
        locked_timestamp: lock.map(|lock| seconds(lock.changed_at)),
        healthy_owner_ids: row.owners.iter().filter(|owner| owner.is_healthy()).map(|owner| &*owner.id).collect(),
        ownership: row.ownership,
        finding: &row.finding,
    }
}
