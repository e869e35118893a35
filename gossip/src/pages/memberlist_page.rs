//! The page of membership: JSON with Tempo's keys and ours behind them, HTML for people. Pure functions of a view.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::evidence::{Cluster, ClusterMember, Message, Path};
use super::finding::{Finding, Severity};
use super::html::{Markup, page};
use super::ring_page::{Coverage, write_coverage};
use super::shared::{Difference, class, write_boxes, write_differences, write_verdict, write_why};
use super::words::{ago, time};
use crate::ring::Standing;
use crate::state::{RingFigures, StateHash};

/// All that the page shows.
#[derive(Debug, Clone)]
pub(super) struct MemberlistPageView {
    /// Membership.
    pub(super) cluster: Cluster,
    /// The verdict on each member, in the same order.
    pub(super) verdicts: Vec<Finding>,
    /// Findings about the cluster.
    pub(super) findings: Vec<Finding>,
    /// What each ring holds here.
    pub(super) store: BTreeMap<String, RingFigures>,
    /// Keys of the rings of partitions among them.
    pub(super) partition_rings: Vec<String>,
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

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Json<'a> {
    now: String,
    memberlist: BTreeMap<(), ()>,
    sorted_members: Vec<Member<'a>>,
    store: BTreeMap<&'a str, Stored>,
    store_sizes: BTreeMap<&'a str, usize>,
    total_store_size: usize,
    message_history_buffer_bytes: u64,
    sent_messages: Option<Vec<&'a Message>>,
    received_messages: Option<Vec<&'a Message>>,
    zone_aware_routing: Zones,
    // What follows is ours.
    cluster_label: &'a str,
    state_hash: String,
    health_score: usize,
    refused_frames: BTreeMap<&'a str, u64>,
    relayed_messages: u64,
    findings: &'a [Finding],
    differences: &'a [Difference],
    pages: &'a [Coverage],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Member<'a> {
    name: &'a str,
    addr: String,
    port: u16,
    meta: Option<()>,
    state: u8,
    p_min: u8,
    p_max: u8,
    p_cur: u8,
    d_min: u8,
    d_max: u8,
    d_cur: u8,
    // What follows is ours.
    process: String,
    standing: &'static str,
    since_seconds: u64,
    heard_seconds: Option<u64>,
    paths: &'a [Path],
    via: Option<&'a str>,
    finding: &'a Finding,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Stored {
    version: u64,
    #[serde(rename = "CodecID")]
    codec_id: &'static str,
    deleted: bool,
    update_time: &'static str,
    records: usize,
    graves: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Zones {
    enabled: bool,
    zone: &'static str,
    role: &'static str,
}

impl MemberlistPageView {
    /// The JSON form.
    #[must_use]
    pub(super) fn json(&self) -> String {
        let history = |sent: bool| {
            let kept = self.cluster.messages.iter().filter(|message| message.sent == sent).collect();
            (self.cluster.history_bytes > 0).then_some(kept)
        };
        let json = Json {
            now: time(self.now),
            memberlist: BTreeMap::new(),
            sorted_members: self.cluster.members.iter().zip(&self.verdicts).map(|(m, v)| member(m, v)).collect(),
            store: self.store.iter().map(|(ring, figures)| (ring.as_str(), self.stored(ring, figures))).collect(),
            store_sizes: self.store.iter().map(|(ring, figures)| (ring.as_str(), figures.bytes)).collect(),
            total_store_size: self.store.values().map(|figures| figures.bytes).sum(),
            message_history_buffer_bytes: self.cluster.history_bytes,
            sent_messages: history(true),
            received_messages: history(false),
            zone_aware_routing: Zones { enabled: false, zone: "", role: "member" },
            cluster_label: &self.cluster.label,
            state_hash: self.digest.to_string(),
            health_score: self.health_score(),
            refused_frames: self.cluster.refused.iter().map(|(reason, count)| (*reason, *count)).collect(),
            relayed_messages: self.cluster.relayed,
            findings: &self.findings,
            differences: &self.differences,
            pages: &self.coverage,
        };
        serde_json::to_string(&json).unwrap_or_default()
    }

    /// 0 is healthy: the number of warnings and faults.
    fn health_score(&self) -> usize {
        self.verdicts.iter().chain(&self.findings).filter(|finding| finding.severity >= Severity::Warning).count()
    }

    fn stored(&self, ring: &str, figures: &RingFigures) -> Stored {
        let partitions = self.partition_rings.iter().any(|known| known == ring);
        Stored {
            version: figures.changes,
            codec_id: if partitions { "partitionRingDesc" } else { "ringDesc" },
            deleted: false,
            update_time: "0001-01-01T00:00:00Z",
            records: figures.records,
            graves: figures.graves,
        }
    }

    /// The page.
    #[must_use]
    pub(super) fn html(&self) -> String {
        let mut out = Markup::default();
        let up = self.cluster.members.iter().filter(|member| member.standing.is_up()).count();
        out.raw("<p>").number(up).raw(" of ").number(self.cluster.members.len()).raw(" members are up. Health score ");
        out.number(self.health_score()).raw(" (0 = healthy). Cluster label: ");
        match self.cluster.label.as_str() {
            "" => out.raw("none"),
            label => out.element("code", label),
        };
        out.raw(". Current time: ").text(&time(self.now)).raw("</p>");
        write_boxes(&mut out, &self.findings);
        self.members(&mut out);
        self.key_values(&mut out);
        write_differences(&mut out, self.digest, &self.differences);
        self.traffic(&mut out);
        write_coverage(&mut out, &self.coverage);
        page("Memberlist: Vivace", &self.links, &out)
    }

    fn members(&self, out: &mut Markup) {
        const COLUMNS: [&str; 9] = ["Name", "State", "Verdict", "Address", "TCP", "UDP", "Via", "Last heard", "Since"];
        out.raw("<h2>Members</h2>").table(&COLUMNS);
        for (member, verdict) in self.cluster.members.iter().zip(&self.verdicts) {
            out.raw("<tr><td>").text(&member.name);
            out.raw(if member.process == self.cluster.me {
                " <small>(this process)</small></td><td>"
            } else {
                "</td><td>"
            });
            out.raw(class(verdict.severity)).text(member.standing.word()).raw("</span></td><td>");
            write_verdict(out, verdict);
            out.raw("</td><td>");
            for path in &member.paths {
                out.raw("<code>").text(&path.endpoint.to_string()).raw("</code><br>");
            }
            let own = member.process == self.cluster.me;
            for ways in [|path: &Path| path.stream, |path: &Path| path.datagram] {
                out.raw("</td><td>");
                for path in &member.paths {
                    out.raw(match ways(path) {
                        _ if own => "<span class=\"dim\">–</span><br>",
                        Some(true) => "<span class=\"ok\">works</span><br>",
                        Some(false) => "<span class=\"warning\">fails</span><br>",
                        None => "<span class=\"dim\">not tried lately</span><br>",
                    });
                }
            }
            let via = member.via.as_deref().filter(|_| member.standing.is_up());
            out.raw("</td>").element("td", via.unwrap_or_default());
            let heard = member.heard.map_or_else(|| "never".to_owned(), ago);
            out.element("td", if own { "" } else { &heard }).element("td", &ago(member.since)).raw("</tr>");
            write_why(out, verdict, COLUMNS.len());
        }
        out.end_table();
    }

    fn key_values(&self, out: &mut Markup) {
        out.raw("<h2>KV store</h2>").table(&["Key", "Codec", "#Version", "#Records", "#Tombstones", "#Bytes", "View"]);
        for (ring, figures) in &self.store {
            out.raw("<tr><td><code>").text(ring).raw("</code></td>").element("td", self.stored(ring, figures).codec_id);
            for number in [figures.changes, figures.records as u64, figures.graves as u64, figures.bytes as u64] {
                out.raw("<td class=\"n\">").number(number).raw("</td>");
            }
            out.raw("<td>");
            for format in ["json-pretty", "json"] {
                out.raw("<a href=\"?viewKey=").text(&encoded(ring)).raw("&amp;format=").text(format).raw("\">");
                out.text(format).raw("</a> ");
            }
            out.raw("<a href=\"?downloadKey=").text(&encoded(ring)).raw("\">download</a></td></tr>");
        }
        out.end_table();
    }

    fn traffic(&self, out: &mut Markup) {
        out.raw("<h2>Refused frames</h2><p>");
        if self.cluster.refused.iter().all(|(_, count)| *count == 0) {
            out.raw("None since this process started.");
        }
        for (reason, count) in self.cluster.refused.iter().filter(|(_, count)| *count > 0) {
            out.text(reason).raw(": ").number(count).raw(". ");
        }
        out.raw("</p>");
        if self.cluster.history_bytes == 0 {
            return;
        }
        out.raw("<h2>Recent messages</h2>").table(&[
            "#ID",
            "Time",
            "Way",
            "Key",
            "#Bytes",
            "#Version after",
            "Changes",
        ]);
        for message in &self.cluster.messages {
            out.raw("<tr>").element("td class=\"n\"", &message.id.to_string()).element("td", &message.time);
            out.element("td", if message.sent { "sent" } else { "received" }).element("td", &message.key);
            out.element("td class=\"n\"", &message.size.to_string());
            out.element("td class=\"n\"", &message.version.to_string());
            out.element("td", &message.changes.join(", ")).raw("</tr>");
        }
        out.end_table().raw("<p><a href=\"?deleteMessages=true\">Clear</a></p>");
    }
}

fn member<'a>(member: &'a ClusterMember, finding: &'a Finding) -> Member<'a> {
    let first = member.paths.first().map(|path| path.endpoint);
    Member {
        name: &member.name,
        addr: first.map(|endpoint| endpoint.ip().to_string()).unwrap_or_default(),
        port: first.map_or(0, |endpoint| endpoint.port()),
        meta: None,
        state: match member.standing {
            Standing::Alive | Standing::Unknown => 0,
            Standing::Suspect => 1,
            Standing::Down => 2,
            Standing::Left => 3,
        },
        // Versions of another library's protocol: constants that its readers expect.
        p_min: 1,
        p_max: 5,
        p_cur: 2,
        d_min: 0,
        d_max: 0,
        d_cur: 0,
        process: format!("{:016x}", member.process),
        standing: member.standing.word(),
        since_seconds: member.since.as_secs(),
        heard_seconds: member.heard.map(|age| age.as_secs()),
        paths: &member.paths,
        via: member.via.as_deref(),
        finding,
    }
}

/// A text as a value in a query.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
