//! What pages are expected to say of faults, and of nothing else.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::member::{Member, within};

/// The pages name what is wrong within this time.
pub(crate) const PROMISED: Duration = Duration::from_secs(15);

/// What a page must say of one member, name or address.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    /// The subject, or a part of it.
    pub(crate) subject: String,
    pub(crate) code: &'static str,
    /// Whether forgetting is called safe.
    pub(crate) safe: bool,
    /// Texts that the evidence must have.
    pub(crate) evidence: Vec<String>,
}

pub(crate) fn named(subject: &str, code: &'static str, safe: bool, evidence: &[&str]) -> Named {
    let evidence = evidence.iter().map(|text| (*text).to_owned()).collect();
    Named { subject: subject.to_owned(), code, safe, evidence }
}

impl Named {
    /// Whether a finding says this, with everything that a finding has to say.
    fn is_said_by(&self, finding: &Value) -> Result<(), String> {
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        let evidence = finding["evidence"].as_array().cloned().unwrap_or_default();
        let evidence = evidence.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
        let whole = !text("verdict").is_empty() && !text("effect").is_empty() && !text("action").is_empty();
        let forget = &finding["forget"];
        let why = forget["why"].as_str().is_some_and(|why| !why.is_empty());
        let says = text("code") == self.code && forget["safe"] == self.safe && why && whole;
        if says && self.evidence.iter().all(|part| evidence.contains(part.as_str())) {
            Ok(())
        } else {
            Err(format!("wanted {self:?}, found {finding}"))
        }
    }
}

/// The verdicts of a page: whom each is about, and what it says.
fn verdicts(page: &Value) -> Vec<(String, Value)> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all: Vec<(String, Value)> = Vec::new();
    all.extend(list(&page["shards"]).iter().map(|shard| (text(&shard["id"]), shard["finding"].clone())));
    all.extend(list(&page["SortedMembers"]).iter().map(|member| (text(&member["Name"]), member["Finding"].clone())));
    for findings in [&page["findings"], &page["Findings"]] {
        all.extend(list(findings).iter().map(|finding| (text(&finding["subject"]), finding.clone())));
    }
    all
}

/// Whether a page says all of `wanted` and nothing else.
pub(crate) fn says(page: &Value, wanted: &[Named]) -> Result<(), String> {
    let verdicts = verdicts(page);
    if verdicts.is_empty() {
        return Err(format!("there is no verdict: {page}"));
    }
    for named in wanted {
        let about: Vec<_> = verdicts.iter().filter(|(subject, _)| subject.contains(&named.subject)).collect();
        let objections: Vec<String> = about.iter().filter_map(|(_, finding)| named.is_said_by(finding).err()).collect();
        if about.is_empty() || objections.len() == about.len() {
            return Err(format!("of {} it says: {objections:?}", named.subject));
        }
    }
    let wanted_of = |subject: &String| wanted.iter().any(|named| subject.contains(&named.subject));
    match verdicts.iter().find(|(subject, finding)| !wanted_of(subject) && finding["code"] != "healthy") {
        Some((subject, finding)) => Err(format!("of {subject}, who is well, it says: {finding}")),
        None => Ok(()),
    }
}

/// Waits until the page of the ring and that of members say what is wanted, on each observer in turn. Reading a page takes a
/// second or two where somebody does not answer.
pub(crate) fn named_by<'m>(
    what: &str,
    observers: impl IntoIterator<Item = &'m Member>,
    ring: &[Named],
    members: &[Named],
) -> Duration {
    let begun = Instant::now();
    for member in observers {
        for (path, wanted) in [(member.page, ring), ("/memberlist", members)] {
            let left = PROMISED.saturating_sub(begun.elapsed());
            within(left, &format!("{what}: {path} on {}", member.id), || says(&member.json(path), wanted));
        }
    }
    let took = begun.elapsed();
    println!("{what}: named after {took:?}");
    took
}
