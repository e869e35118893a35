//! `/status/overrides` and `/status/overrides/{tenant}`: whose limits are set, and which are in force.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, header};
use serde_json::json;
use vivace_runtime::Clock;
use vivace_runtime::telemetry::rfc3339;

use crate::config::render_limits;
use crate::limits::Overrides;

/// What the pages are made of.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) overrides: Arc<Overrides>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Source {
    fn now(&self) -> String {
        rfc3339(self.clock.unix())
    }
}

pub(super) async fn list(State(source): State<Source>, headers: HeaderMap) -> Response {
    let names: Vec<String> = source.overrides.entries().into_iter().map(|(tenant, _)| tenant).collect();
    if wants_json(&headers) {
        let tenants: Vec<_> = names
            .iter()
            .map(
                |name| json!({ "name": name, "has_runtime_overrides": true, "has_user_configurable_overrides": false }),
            )
            .collect();
        return as_json(&json!({ "now": source.now(), "tenants": tenants }));
    }
    let mut body = String::new();
    for name in &names {
        let (link, text) = (percent(name), escape(name));
        // Writing to a string cannot fail.
        writeln!(body, "<tr><td><a href=\"/status/overrides/{link}\">{text}</a></td><td>yes</td><td>no</td></tr>").ok();
    }
    let head = "<th>Tenant</th><th>Runtime overrides</th><th>User-configurable overrides</th>";
    page("Overrides", &source.now(), &format!("<table border=\"1\">\n<tr>{head}</tr>\n{body}</table>"))
}

pub(super) async fn tenant(State(source): State<Source>, Path(tenant): Path<String>, headers: HeaderMap) -> Response {
    let (origin, limits) = source.overrides.with_origin(&tenant);
    let limits = render_limits(&limits);
    if wants_json(&headers) {
        return as_json(&json!({
            "now": source.now(),
            "tenant": tenant,
            "user_configurable_overrides": "",
            "runtime_overrides": limits,
            "using_default_or_wildcard_runtime_overrides": origin,
        }));
    }
    let body = format!(
        "<p>In force: the entry of <b>{}</b> (<b>*</b> stands for every tenant without one).</p>\n<pre>{}</pre>",
        escape(origin),
        escape(&limits)
    );
    page(&format!("Overrides of {}", escape(&tenant)), &source.now(), &body)
}

fn wants_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"))
}

fn as_json(value: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

fn page(title: &str, now: &str, body: &str) -> Response {
    let head = format!("<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>{title}</title></head>");
    Html(format!("{head}\n<body><h1>{title}</h1>\n<p>{now}</p>\n{body}\n</body></html>\n")).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A tenant's id as one segment of a path.
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").ok();
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use vivace_runtime::FakeClock;
    use vivace_runtime::config::Limits;

    use super::*;
    use crate::config::TenantLimits;

    fn source(file: &str) -> State<Source> {
        let overrides = Arc::new(Overrides::new(Limits::default(), Vec::new()));
        overrides.replace(&TenantLimits::parse(file, &Limits::default(), false).unwrap());
        State(Source { overrides, clock: Arc::new(FakeClock::default()) })
    }

    async fn body(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    async fn json(response: Response) -> Value {
        serde_json::from_str(&body(response).await).unwrap()
    }

    fn asking_for_json() -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, "application/json".parse().unwrap())])
    }

    const FILE: &str = "overrides:\n  a b: {ingestion: {rate_limit_bytes: 5}}\n  '<x>': {}\n";

    #[tokio::test]
    async fn tenants_with_an_entry_are_listed() {
        let listed = json(list(source(FILE), asking_for_json()).await).await;
        assert!(listed["now"].as_str().unwrap().ends_with('Z'), "{listed}");
        let entry = |name: &str| json!({ "name": name, "has_runtime_overrides": true, "has_user_configurable_overrides": false });
        assert_eq!(listed["tenants"], json!([entry("<x>"), entry("a b")]));
        let page = body(list(source(FILE), HeaderMap::new()).await).await;
        assert!(page.contains("<a href=\"/status/overrides/a%20b\">a b</a>"), "{page}");
        assert!(page.contains("&lt;x&gt;") && !page.contains("<x>"), "{page}");
    }

    #[tokio::test]
    async fn a_tenant_is_shown_with_what_is_in_force_and_where_it_comes_from() {
        let of = async |file: &str, name: &str| {
            json(tenant(source(file), Path(name.to_owned()), asking_for_json()).await).await
        };
        let own = of(FILE, "a b").await;
        assert_eq!(own["using_default_or_wildcard_runtime_overrides"], "a b");
        assert!(own["runtime_overrides"].as_str().unwrap().contains("    rate_limit_bytes: 5\n"), "{own}");
        let other = of(FILE, "other").await;
        assert_eq!(other["using_default_or_wildcard_runtime_overrides"], "default overrides");
        assert!(other["runtime_overrides"].as_str().unwrap().contains("rate_limit_bytes: 30000000"), "{other}");
        let star = of("overrides: {'*': {}}", "other").await;
        assert_eq!(star["using_default_or_wildcard_runtime_overrides"], "*");
        let page = body(tenant(source(FILE), Path("<i>".to_owned()), HeaderMap::new()).await).await;
        assert!(page.contains("Overrides of &lt;i&gt;") && !page.contains("<i>"), "{page}");
    }
}
