//! The page of a ring: JSON with Tempo's keys and ours behind them, HTML for people. Pure functions of a view.

use std::time::Duration;

use serde::Serialize;

use super::finding::Finding;
use super::html::{Form, Markup, page};
use super::member_verdict::{RingKind, last_sign};
use super::shared::{Difference, class, write_boxes, write_differences, write_verdict, write_why};
use super::words::{percent, seconds, span, time};
use crate::ring::RingEntry;
use crate::state::{Address, StateHash};

/// All that the page of one ring shows.
#[derive(Debug, Clone)]
pub(super) struct RingPageView {
    /// For people, for instance "Live-stores".
    pub(super) title: String,
    /// The path of the page.
    pub(super) path: String,
    /// The whole key of the ring.
    pub(super) ring: String,
    /// What it is for.
    pub(super) kind: RingKind,
    /// Why it is empty, or what it is not used for; may be empty.
    pub(super) note: String,
    /// Its members with their verdicts, by id.
    pub(super) members: Vec<MemberRow>,
    /// Findings about the cluster, or the ring as a whole.
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

/// A member and what is said of it.
#[derive(Debug, Clone)]
pub(super) struct MemberRow {
    /// Its record, and how membership sees it.
    pub(super) entry: RingEntry,
    /// The values of its tokens.
    pub(super) tokens: Vec<u32>,
    /// Its share of the keys in its zone, from 0 to 1.
    pub(super) ownership: f64,
    /// The verdict.
    pub(super) finding: Finding,
}

/// One ring, and whether this process shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Coverage {
    /// Its page.
    pub(super) path: String,
    /// Its key.
    pub(super) ring: String,
    /// Whether the process knows it.
    pub(super) shown: bool,
    /// Why, or why not.
    pub(super) why: String,
}

#[derive(Serialize)]
struct Json<'a> {
    shards: Option<Vec<Shard<'a>>>,
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
struct Shard<'a> {
    id: &'a str,
    state: &'static str,
    address: String,
    timestamp: String,
    registered_timestamp: String,
    read_only: bool,
    read_only_updated_timestamp: String,
    zone: &'a str,
    tokens: Option<&'a [u32]>,
    // What follows is ours.
    standing: &'static str,
    addresses: &'a [Address],
    ownership: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    software: &'a str,
    member: &'a str,
    process: String,
    generation: u64,
    version: u64,
    finding: &'a Finding,
}

impl RingPageView {
    /// The JSON form.
    #[must_use]
    pub(super) fn json(&self) -> String {
        let shards: Vec<Shard<'_>> = self.members.iter().map(|row| self.shard(row)).collect();
        let json = Json {
            // As a Go program writes an empty list.
            shards: Some(shards).filter(|shards| !shards.is_empty()),
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

    fn shard<'a>(&self, row: &'a MemberRow) -> Shard<'a> {
        let (entry, instance) = (&row.entry, &row.entry.instance);
        Shard {
            id: &entry.id,
            state: state(entry),
            address: entry.dial().next().map(ToString::to_string).unwrap_or_default(),
            timestamp: time(Duration::from_secs(entry.last_heartbeat(self.now).as_secs())),
            registered_timestamp: seconds(instance.registered_at),
            read_only: instance.read_only,
            read_only_updated_timestamp: seconds(instance.read_only_changed_at),
            zone: &instance.zone,
            tokens: Some(row.tokens.as_slice()).filter(|tokens| !tokens.is_empty()),
            standing: entry.sight.standing.word(),
            addresses: &instance.addresses,
            ownership: row.ownership,
            partition: instance.partition,
            software: &instance.software,
            member: &instance.member,
            process: format!("{:016x}", entry.nonce),
            generation: entry.generation,
            version: entry.version,
            finding: &row.finding,
        }
    }

    /// The page. With `tokens`, every token is listed.
    #[must_use]
    pub(super) fn html(&self, token: &str, tokens: bool) -> String {
        let mut out = Markup::default();
        let up = self.members.iter().filter(|row| row.entry.is_healthy()).count();
        out.raw("<p>").number(up).raw(" of ").number(self.members.len()).raw(" members are up. Ring <code>");
        out.text(&self.ring).raw("</code>. Current time: ").text(&time(self.now)).raw("</p>");
        if !self.note.is_empty() {
            out.element("p class=\"box note\"", &self.note);
        }
        write_boxes(&mut out, &self.findings);
        if !self.members.is_empty() {
            self.table(&mut out, token);
        }
        if self.members.iter().any(|row| !row.tokens.is_empty()) && !tokens {
            out.raw("<p><a href=\"?tokens=true\">Show tokens</a></p>");
        }
        write_differences(&mut out, self.digest, &self.differences);
        write_coverage(&mut out, &self.coverage);
        if tokens {
            for row in self.members.iter().filter(|row| !row.tokens.is_empty()) {
                out.element("h2", &format!("Tokens of {}", row.entry.id));
                let list: Vec<String> = row.tokens.iter().map(ToString::to_string).collect();
                out.raw("<p><code>").text(&list.join(" ")).raw("</code></p>");
            }
        }
        page(&self.title, &self.links, &out)
    }

    fn table(&self, out: &mut Markup, token: &str) {
        let partitions = self.kind == RingKind::LiveStore;
        let mut columns = vec!["Instance ID", "Availability Zone", "State", "Verdict", "Address"];
        columns.extend(partitions.then_some("#Partition"));
        columns.extend(["Registered At", "Read-Only", "Last Heartbeat", "#Tokens", "#Ownership", "Version", "Actions"]);
        out.table(&columns);
        for row in &self.members {
            let (entry, instance) = (&row.entry, &row.entry.instance);
            out.raw("<tr><td>").text(&entry.id).raw("<br><small>").text(&instance.member).raw("</small></td>");
            out.element("td", &instance.zone).raw("<td>").raw(class(row.finding.severity)).text(state(entry));
            out.raw("</span></td><td>");
            write_verdict(out, &row.finding);
            out.raw("</td><td>");
            for address in &instance.addresses {
                out.raw("<code>").text(&address.to_string()).raw("</code>");
                out.raw(if address.via == crate::state::Via::Proxy { " <small>proxy</small><br>" } else { "<br>" });
            }
            out.raw("</td>");
            if partitions {
                out.element("td class=\"n\"", &instance.partition.map(|id| id.to_string()).unwrap_or_default());
            }
            out.element("td", &seconds(instance.registered_at));
            let read_only = match (instance.read_only, instance.read_only_changed_at) {
                (true, at) if at > 0 => format!("yes, since {}", seconds(at)),
                (true, _) => "yes".to_owned(),
                (false, _) => String::new(),
            };
            out.element("td", &read_only).element("td", &heartbeat(entry, self.now));
            out.element("td class=\"n\"", &row.tokens.len().to_string());
            out.element("td class=\"n\"", &percent(row.ownership)).element("td", &instance.software).raw("<td>");
            let form = Form { action: &self.path, token };
            out.button(&form, "Forget", &[("forget", &entry.id)]).raw("</td></tr>");
            write_why(out, &row.finding, columns.len());
        }
        out.end_table();
    }
}

/// `UNHEALTHY` is no state of a record: it is shown where membership does not see the process alive.
fn state(entry: &RingEntry) -> &'static str {
    if entry.is_healthy() { entry.instance.state.name() } else { "UNHEALTHY" }
}

fn heartbeat(entry: &RingEntry, now: Duration) -> String {
    let text = time(entry.last_heartbeat(now));
    let clock = text.split_once('T').map_or("", |(_, clock)| clock).trim_end_matches('Z');
    match last_sign(entry).as_str() {
        "never" => "never seen".to_owned(),
        "now" => format!("0 s ago ({clock})"),
        _ => format!("{} ago ({clock})", span(entry.sight.silent_for)),
    }
}

pub(super) fn write_coverage(out: &mut Markup, coverage: &[Coverage]) {
    out.raw("<h2>Rings of this process</h2>").table(&["Page", "Ring", "Shown", "Why"]);
    for one in coverage {
        out.raw("<tr><td><a href=\"").text(&one.path).raw("\">").text(&one.path).raw("</a></td><td><code>");
        out.text(&one.ring).raw("</code></td>").element("td", if one.shown { "yes" } else { "no" });
        out.element("td", &one.why).raw("</tr>");
    }
    out.end_table();
}
