//! The live tree of a process, for `/status/actors`: who supervises whom, and how each one is.

use std::fmt::Write as _;

use serde::Serialize;

use crate::child::Seat;
use crate::lifecycle::State;
use crate::mailbox::Load;

/// A supervisor or a part, with those below it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    /// Its name, without those above.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How far along it is.
    pub state: State,
    /// The group that it fails with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<&'static str>,
    /// `here` or `arbiter`.
    pub placement: &'static str,
    /// How often it was rebuilt.
    pub restarts: u64,
    /// How often it failed by itself.
    pub failures: u64,
    /// The text of its latest failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The figures of its mailbox; a supervisor has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// What the part says about itself.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub observed: serde_json::Value,
    /// Those below, in the order of the data flow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Self>,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It has children.
    Supervisor,
    /// It handles messages.
    Part,
}

impl Node {
    pub(crate) fn of_part(seat: &Seat) -> Self {
        Self {
            name: seat.vitals.name.to_string(),
            kind: Kind::Part,
            state: seat.vitals.state(),
            group: seat.group,
            placement: seat.placement.word(),
            restarts: seat.vitals.restarts(),
            failures: seat.vitals.failures(),
            last_error: seat.vitals.last_error(),
            load: Some(seat.pool.load()),
            observed: serde_json::Value::Null,
            children: Vec::new(),
        }
    }

    /// This node and all below, each with its path of names joined by `/`.
    #[must_use]
    pub fn flatten(&self) -> Vec<(String, &Self)> {
        let mut all = vec![(self.name.clone(), self)];
        for child in &self.children {
            all.extend(child.flatten().into_iter().map(|(path, node)| (format!("{}/{path}", self.name), node)));
        }
        all
    }

    /// The tree as JSON, indented for people.
    #[must_use]
    pub fn render_json(&self) -> String {
        // A tree of strings, numbers and JSON values always has a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The tree as one page that needs nothing else: no script, no fetches, light and dark by the reader's setting.
    #[must_use]
    pub fn render_html(&self) -> String {
        let mut page = String::with_capacity(4096);
        page.push_str(HEAD);
        self.row(0, &mut page);
        page.push_str("</table></main></body></html>\n");
        page
    }

    fn row(&self, depth: usize, page: &mut String) {
        let state = self.state.word();
        let error = self.last_error.as_deref().unwrap_or("");
        let group = self.group.map(|group| format!(" <small>group {}</small>", escape(group))).unwrap_or_default();
        let observed = match &self.observed {
            serde_json::Value::Null => String::new(),
            value => format!("<details><summary>state</summary><pre>{}</pre></details>", escape(&format!("{value:#}"))),
        };
        let load = self.load.map_or_else(|| "<td></td><td></td><td></td><td></td>".to_owned(), load_cells);
        // Writing to a string cannot fail.
        writeln!(
            page,
            "<tr><td style=\"padding-left:{}rem\"><b>{}</b>{group}{observed}</td><td class=\"{state}\">{state}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td>{load}<td>{}</td><td>{}</td></tr>",
            1 + depth,
            escape(&self.name),
            self.restarts,
            self.failures,
            self.placement,
            escape(error),
        )
        .ok();
        for child in &self.children {
            child.row(depth + 1, page);
        }
    }
}

fn load_cells(load: Load) -> String {
    let bytes = match load.capacity_bytes {
        Some(capacity) => format!("{} / {capacity}", load.bytes),
        None => String::new(),
    };
    format!(
        "<td class=\"n\">{} / {}</td><td class=\"n\">{bytes}</td><td class=\"n\">{}</td><td class=\"n\">{:.3}</td>",
        load.depth,
        load.capacity,
        load.waiting,
        load.waited.as_secs_f64(),
    )
}

/// Text for HTML, in attributes as well.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Actors</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">
<style>
:root{--fg:#1c1e21;--bg:#fff;--line:#d8dbe0;--ok:#14733a;--wait:#8a5a00;--bad:#b3261e;--dim:#5f6670}
@media(prefers-color-scheme:dark){:root{--fg:#e4e6ea;--bg:#16181c;--line:#363a42;--ok:#6cc98c;--wait:#e0b050;--bad:#ff8a80;--dim:#9aa1ac}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--fg);background:var(--bg);margin:1.5rem}
table{border-collapse:collapse;width:100%}th,td{padding:.3rem .8rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{font-weight:600;color:var(--dim)}.n{text-align:right;font-variant-numeric:tabular-nums}small{color:var(--dim)}
.running{color:var(--ok)}.starting,.stopping{color:var(--wait)}.failed{color:var(--bad);font-weight:600}.stopped{color:var(--dim)}
pre{margin:.3rem 0;font-size:13px;white-space:pre-wrap}summary{cursor:pointer;color:var(--dim)}
</style></head><body><main><h1>Actors</h1><table>
<tr><th>name</th><th>state</th><th class="n">restarts</th><th class="n">failures</th><th class="n">depth</th><th class="n">bytes</th><th class="n">waiting</th><th class="n">waited (s)</th><th>thread</th><th>last error</th></tr>
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_escapes_what_parts_say() {
        let node = Node {
            name: "<part>".into(),
            kind: Kind::Part,
            state: State::Failed,
            group: None,
            placement: "here",
            restarts: 2,
            failures: 3,
            last_error: Some("a \"b\" & <c>".into()),
            load: None,
            observed: serde_json::json!({"k": "<v>"}),
            children: Vec::new(),
        };
        let page = node.render_html();
        assert!(
            page.contains("&lt;part&gt;")
                && page.contains("a &quot;b&quot; &amp; &lt;c&gt;")
                && page.contains("&lt;v&gt;")
        );
        assert!(!page.contains("<part>") && !page.contains("<script"));
        assert!(node.render_json().contains("\"state\": \"failed\""));
    }
}
