//! `explain`: how a query was run, as one JSON object in the body, for who asks with `explain=true`. Default bodies gain no
//! field.
//!
//! The plan is what the engine fetches by; pruning, columns and times come from the notes that jobs on blocks send back; the
//! estimate is what reading every touched column as a whole would have cost.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};
use vivace_protocol::vivace::{Profile, ProfileColumn};
use vivace_traceql::{CompareOp, Condition, FetchSpec, Field, LoadSpec, Predicate, Test};

use crate::coverage::Covered;

/// A finished query.
pub(crate) struct Explained<'a> {
    /// `search`, `metrics`, `trace`.
    pub(crate) kind: &'static str,
    /// In normal form.
    pub(crate) query: String,
    pub(crate) window: (u64, u64),
    pub(crate) step_ns: Option<u64>,
    /// One for each sub-query; none for a look-up by id.
    pub(crate) fetches: Vec<FetchSpec>,
    pub(crate) output: Option<LoadSpec>,
    /// Blocks of the tenants.
    pub(crate) listed: u64,
    /// Of these, in the window and not counted already. An early end may leave some of them unread.
    pub(crate) chosen: u64,
    pub(crate) jobs: (u32, u32),
    pub(crate) spans: u64,
    pub(crate) traces: u64,
    pub(crate) covered: &'a Covered,
    pub(crate) profile: &'a Profile,
    /// From the first question to the answer.
    pub(crate) elapsed: Duration,
}

impl Explained<'_> {
    pub(crate) fn json(&self) -> Value {
        let mut told = json!({
            "kind": self.kind,
            "query": self.query,
            "sources": self.covered.json(),
            "pruning": { "blocks": self.blocks() },
            "requests": {
                "openBlocks": { "hits": self.profile.blocks_at_hand, "misses": self.profile.blocks_opened },
            },
            "stages": {
                "open": millis(self.profile.open_nanos),
                "wall": millis(u64::try_from(self.elapsed.as_nanos()).unwrap_or(u64::MAX)),
            },
        });
        // A look-up by id fetches no columns of spans; what it reads of a block is a filter and the pages of one row.
        if !self.fetches.is_empty() {
            self.add_fetches(&mut told);
        }
        told
    }

    fn blocks(&self) -> Value {
        let notes = self.profile;
        let opened = notes.blocks_at_hand.saturating_add(notes.blocks_opened);
        json!({
            "listed": self.listed,
            "leftOut": self.listed.saturating_sub(self.chosen),
            "notNeeded": self.chosen.saturating_sub(opened),
            "byBloom": notes.blocks_by_bloom,
            "read": opened.saturating_sub(notes.blocks_by_bloom),
        })
    }

    fn add_fetches(&self, told: &mut Value) {
        let notes = self.profile;
        let sum = |of: fn(&ProfileColumn) -> u64| notes.columns.iter().map(of).sum::<u64>();
        told["window"] = json!({ "startUnixNano": self.window.0, "endUnixNano": self.window.1 });
        if let Some(step) = self.step_ns {
            told["window"]["stepNanos"] = step.into();
        }
        told["plan"] = self.plan();
        told["jobs"] = json!({ "total": self.jobs.0, "completed": self.jobs.1 });
        told["pruning"]["rowGroups"] = json!({
            "read": notes.row_groups_read,
            "byPredicate": notes.row_groups_by_predicate,
            "byTime": notes.row_groups_by_time,
            "bySelection": notes.row_groups_by_selection,
        });
        told["pruning"]["pages"] =
            json!({ "read": sum(|column| column.pages), "skipped": sum(|column| column.pages_skipped) });
        told["columns"] = self.columns();
        told["requests"]["objectStore"] = sum(|column| column.requests).into();
        for (stage, nanos) in
            [("read", notes.read_nanos), ("evaluate", notes.evaluate_nanos), ("load", notes.load_nanos)]
        {
            told["stages"][stage] = millis(nanos).into();
        }
        told["estimated"] = json!({ "bytes": sum(|column| column.stored_bytes), "spans": notes.stored_spans });
        told["actual"] = json!({ "bytes": sum(|column| column.bytes), "spans": self.spans, "traces": self.traces });
    }

    /// Those that cost most first.
    fn columns(&self) -> Value {
        let mut columns: Vec<_> = self.profile.columns.iter().collect();
        columns.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        let columns = columns.into_iter().map(|column| {
            json!({
                "column": column.path,
                "bytes": column.bytes,
                "storedBytes": column.stored_bytes,
                "pages": column.pages,
                "pagesSkipped": column.pages_skipped,
                "requests": column.requests,
            })
        });
        columns.collect()
    }

    fn plan(&self) -> Value {
        let names = |fields: &[Field]| fields.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut plan = json!({
            "pushedDown": self.fetches.iter().map(|fetch| predicate(&fetch.spans)).collect::<Vec<_>>().join("; "),
            "perTrace": self.fetches.iter().flat_map(|fetch| &fetch.traces).map(predicate).collect::<Vec<_>>(),
            "firstPass": self.fetches.iter().flat_map(|fetch| names(&fetch.fields)).collect::<Vec<_>>(),
            "structure": self.fetches.iter().any(|fetch| fetch.structure),
        });
        if let Some(output) = &self.output {
            plan["secondPass"] = names(&output.fields).into();
        }
        plan
    }
}

/// Puts the explanation into a JSON object.
pub(crate) fn insert(mut body: Vec<u8>, explained: &Value) -> Vec<u8> {
    if body.pop() == Some(b'}') {
        let comma = if body.len() > 1 { "," } else { "" };
        body.extend_from_slice(format!("{comma}\"explain\":{explained}}}").as_bytes());
    }
    body
}

/// Milliseconds to the microsecond.
fn millis(nanos: u64) -> f64 {
    // A division by a thousand rounds to the nearest float, which prints as the decimal fraction that it stands for.
    f64::from(u32::try_from(nanos / 1000).unwrap_or(u32::MAX)) / 1000.0
}

/// A predicate in the language of queries, as far as it has words for it.
fn predicate(predicate: &Predicate) -> String {
    let joined = |parts: &[Predicate], with: &str| {
        let parts = parts.iter().map(|part| match part {
            Predicate::Always | Predicate::Never | Predicate::Is(_) => self::predicate(part),
            Predicate::All(_) | Predicate::AnyOf(_) => format!("({})", self::predicate(part)),
        });
        parts.collect::<Vec<_>>().join(with)
    };
    match predicate {
        Predicate::Always => "true".to_owned(),
        Predicate::Never => "false".to_owned(),
        Predicate::Is(is) => condition(is),
        Predicate::All(parts) => joined(parts, " && "),
        Predicate::AnyOf(parts) => joined(parts, " || "),
    }
}

fn condition(condition: &Condition) -> String {
    let mut text = condition.field.to_string();
    match &condition.test {
        Test::Exists => text.push_str(" != nil"),
        Test::Missing => text.push_str(" = nil"),
        Test::Compare(op, value) => write!(text, " {} {value}", sign(*op)).unwrap_or(()),
        Test::Match(pattern) => write!(text, " =~ {:?}", pattern.as_str()).unwrap_or(()),
        Test::NotMatch(pattern) => write!(text, " !~ {:?}", pattern.as_str()).unwrap_or(()),
    }
    text
}

fn sign(op: CompareOp) -> &'static str {
    match op {
        CompareOp::Eq => "=",
        CompareOp::NotEq => "!=",
        CompareOp::Less => "<",
        CompareOp::LessEq => "<=",
        CompareOp::Greater => ">",
        CompareOp::GreaterEq => ">=",
    }
}

#[cfg(test)]
mod tests {
    use vivace_traceql::{Query, SearchPlan};

    use super::*;

    fn explained(text: &str, profile: &Profile) -> Value {
        let query = Query::parse(text).unwrap();
        let plan = SearchPlan::new(&query).unwrap();
        let covered = Covered::default();
        Explained {
            kind: "search",
            query: query.to_string(),
            window: (1, 2),
            step_ns: None,
            fetches: vec![plan.spec(None)],
            output: Some(plan.output().clone()),
            listed: 7,
            chosen: 3,
            jobs: (2, 2),
            spans: 10,
            traces: 4,
            covered: &covered,
            profile,
            elapsed: Duration::from_micros(2500),
        }
        .json()
    }

    #[test]
    fn the_plan_reads_as_a_query() {
        let told = explained(
            "{ span.http.status_code >= 500 && (name =~ \"GET.*\" || resource.x = nil) } | select(span.sku)",
            &Profile::default(),
        );
        let pushed = told["plan"]["pushedDown"].as_str().unwrap();
        assert!(pushed.contains("span.http.status_code >= 500 && (name =~ \"GET.*\" || "), "{pushed}");
        let first = told["plan"]["firstPass"].as_array().unwrap();
        assert!(first.contains(&json!("span.http.status_code")) && first.contains(&json!("name")), "{first:?}");
        assert!(told["plan"]["secondPass"].as_array().unwrap().contains(&json!("span.sku")));
        let blocks = json!({ "listed": 7, "leftOut": 4, "notNeeded": 3, "byBloom": 0, "read": 0 });
        assert_eq!(told["pruning"]["blocks"], blocks);
        assert_eq!(told["stages"]["wall"], 2.5);
    }

    #[test]
    fn columns_come_by_cost_and_sums_agree_with_them() {
        let column = |path: &str, bytes| ProfileColumn {
            path: path.to_owned(),
            bytes,
            stored_bytes: bytes * 10,
            pages: 1,
            pages_skipped: 9,
            requests: 2,
        };
        let profile = Profile {
            columns: vec![column("a", 1), column("b", 5)],
            row_groups_read: 1,
            blocks_at_hand: 2,
            blocks_opened: 1,
            blocks_by_bloom: 1,
            read_nanos: 1_234_567,
            stored_spans: 100,
            ..Profile::default()
        };
        let told = explained("{ }", &profile);
        assert_eq!(told["columns"][0]["column"], "b");
        assert_eq!(told["actual"], json!({ "bytes": 6, "spans": 10, "traces": 4 }));
        assert_eq!(told["estimated"], json!({ "bytes": 60, "spans": 100 }));
        assert_eq!(told["pruning"]["pages"], json!({ "read": 2, "skipped": 18 }));
        assert_eq!(told["pruning"]["blocks"]["read"], 2);
        assert_eq!((&told["requests"]["objectStore"], &told["stages"]["read"]), (&json!(4), &json!(1.234)));
    }

    #[test]
    fn an_explanation_goes_behind_the_other_fields() {
        let value = json!({ "kind": "search" });
        assert_eq!(insert(b"{\"a\":1}".to_vec(), &value), b"{\"a\":1,\"explain\":{\"kind\":\"search\"}}");
        assert_eq!(insert(b"{}".to_vec(), &value), b"{\"explain\":{\"kind\":\"search\"}}");
    }
}
