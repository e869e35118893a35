//! What every page has: findings, and the views of other members.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::finding::{Finding, Severity};
use super::html::Markup;
use crate::state::{Key, Record, StateHash};

/// What another member holds, where its state hash differs from ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// The member's name.
    pub member: String,
    /// The stamps of all that it holds, or why it did not say.
    pub stamps: Result<Vec<(Key, u64)>, String>,
}

/// How a member's view of a ring differs from that of this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    /// The member.
    pub(super) member: String,
    /// Records that only this process has.
    pub(super) only_here: Vec<String>,
    /// Records that only the other has.
    pub(super) only_there: Vec<String>,
    /// Records of which the two have different versions.
    pub(super) other_version: Vec<String>,
    /// Why nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// The differences within the rings that `wanted` names. Members that agree about them are left out.
pub(super) fn differences(records: &[Record], peers: &[PeerView], wanted: impl Fn(&str) -> bool) -> Vec<Difference> {
    let mine: BTreeMap<&Key, u64> = records
        .iter()
        .filter(|record| wanted(record.key().ring()))
        .map(|record| (record.key(), record.stamp().0))
        .collect();
    let mut found = Vec::new();
    for peer in peers {
        let mut difference = Difference {
            member: peer.member.clone(),
            only_here: Vec::new(),
            only_there: Vec::new(),
            other_version: Vec::new(),
            error: None,
        };
        match &peer.stamps {
            Err(error) => difference.error = Some(error.clone()),
            Ok(stamps) => {
                let theirs: BTreeMap<&Key, u64> =
                    stamps.iter().filter(|(key, _)| wanted(key.ring())).map(|(key, stamp)| (key, *stamp)).collect();
                let keys: BTreeSet<&&Key> = mine.keys().chain(theirs.keys()).collect();
                for key in keys {
                    match (mine.get(*key), theirs.get(*key)) {
                        (Some(_), None) => difference.only_here.push(key.to_string()),
                        (None, _) => difference.only_there.push(key.to_string()),
                        (Some(a), Some(b)) if a != b => difference.other_version.push(key.to_string()),
                        (Some(_), Some(_)) => continue,
                    }
                }
                if difference.only_here.is_empty()
                    && difference.only_there.is_empty()
                    && difference.other_version.is_empty()
                {
                    continue;
                }
            }
        }
        found.push(difference);
    }
    found
}

pub(super) fn write_differences(out: &mut Markup, digest: StateHash, differences: &[Difference]) {
    out.raw("<h2>Views of other members</h2><p>State hash here: <code>").text(&digest.to_string()).raw("</code>. ");
    if differences.is_empty() {
        out.raw("No member that was asked sees these records otherwise.</p>");
        return;
    }
    out.raw("These members see something else; members exchange differences by themselves within seconds.</p>");
    out.table(&["Member", "Only here", "Only there", "Another version"]);
    for difference in differences {
        out.raw("<tr><td>").text(&difference.member).raw("</td>");
        if let Some(error) = &difference.error {
            out.raw("<td colspan=\"3\" class=\"dim\">").text(error).raw("</td></tr>");
            continue;
        }
        for keys in [&difference.only_here, &difference.only_there, &difference.other_version] {
            out.raw(if keys.is_empty() { "<td>" } else { "<td class=\"diff\">" });
            out.text(&keys.join(", ")).raw("</td>");
        }
        out.raw("</tr>");
    }
    out.end_table();
}

pub(super) fn class(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "<span class=\"ok\">",
        Severity::Note => "<span class=\"note\">",
        Severity::Warning => "<span class=\"warning\">",
        Severity::Fault => "<span class=\"fault\">",
    }
}

/// Findings that are not about a row of the table: each a box of its own.
pub(super) fn write_boxes(out: &mut Markup, findings: &[Finding]) {
    for finding in findings {
        out.raw(match finding.severity {
            Severity::Ok => "<div class=\"box\"><b>",
            Severity::Note => "<div class=\"box note\"><b>",
            Severity::Warning => "<div class=\"box warning\"><b>",
            Severity::Fault => "<div class=\"box fault\"><b>",
        });
        out.text(&finding.subject).raw(" ").text(&finding.verdict).raw("</b>");
        write_details(out, finding);
        out.raw("</div>");
    }
}

/// A verdict in a cell.
pub(super) fn write_verdict(out: &mut Markup, finding: &Finding) {
    out.raw(class(finding.severity)).text(&finding.verdict).raw("</span>");
}

/// What stands behind a verdict that is not quiet: a row of its own below that of its subject, over all columns.
pub(super) fn write_why(out: &mut Markup, finding: &Finding, columns: usize) {
    if finding.is_quiet() {
        return;
    }
    out.raw("<tr class=\"why\"><td colspan=\"").number(columns).raw("\"><details id=\"v-").text(&finding.subject);
    // What must be looked at is open without JavaScript as well.
    out.raw(if finding.severity >= Severity::Warning { "\" open>" } else { "\">" });
    out.raw("<summary>why, and what to do</summary>");
    write_details(out, finding);
    out.raw("</details></td></tr>");
}

fn write_details(out: &mut Markup, finding: &Finding) {
    out.raw("<dl><dt>evidence</dt><dd>").text(&finding.evidence.join(" ")).raw("</dd>");
    for (name, text) in [("effect", &finding.effect), ("action", &finding.action)] {
        if !text.is_empty() {
            out.element("dt", name).element("dd", text);
        }
    }
    if let Some(forget) = &finding.forget {
        out.raw("<dt>safe to forget?</dt><dd>").raw(if forget.safe { "yes: " } else { "no: " });
        out.text(&forget.why).raw("</dd>");
    }
    out.raw("</dl>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::testing::{RING, crowd};

    #[test]
    fn differences_name_what_is_missing_and_what_is_other() {
        let crowd = crowd(3);
        let records: Vec<Record> = crowd.state.records().cloned().collect();
        let mut stamps: Vec<(Key, u64)> = records.iter().map(|r| (r.key().clone(), r.stamp().0)).collect();
        let same = PeerView { member: "same".into(), stamps: Ok(stamps.clone()) };
        stamps.remove(0);
        stamps[0].1 += 1;
        stamps.push((Key::instance(RING, "live-store-9"), 4));
        stamps.push((Key::instance("collectors/other", "x"), 4));
        let other = PeerView { member: "other".into(), stamps: Ok(stamps) };
        let silent = PeerView { member: "silent".into(), stamps: Err("no answer within a second".into()) };
        let found = differences(&records, &[same, other, silent], |ring| ring == RING);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].only_here, ["collectors/live-store/live-store-0"]);
        assert_eq!(found[0].other_version, ["collectors/live-store/live-store-1"]);
        assert_eq!(found[0].only_there, ["collectors/live-store/live-store-9"]);
        assert_eq!(found[1].error.as_deref(), Some("no answer within a second"));
    }
}
