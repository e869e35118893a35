//! The pages of a process: readiness, metrics, status.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use http::{HeaderMap, StatusCode, Uri, header};
use tokio_util::sync::CancellationToken;
use vivace_runtime::metrics::{CONTENT_TYPE, Registry};
use vivace_runtime::telemetry::LogHandle;
use vivace_runtime::{Clock, State as Life, Supervisor};

use crate::config::{self, Config, render_entries};
use crate::limits::Overrides;

mod log_level;
mod overrides;
#[cfg(test)]
mod tests;

/// The Tempo API level that this version matches; Grafana switches features by it.
pub(crate) const API_LEVEL: &str = "3.1.0";
/// Parts that take longer to describe themselves are shown as busy.
const OBSERVE: Duration = Duration::from_millis(500);

/// Why the process is not ready although all its parts run, if it is not.
pub(crate) type ReadyRule = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// What the pages show.
pub(crate) struct Pages {
    pub(crate) root: Supervisor,
    pub(crate) registry: Registry,
    pub(crate) config: Box<Config>,
    pub(crate) stopping: CancellationToken,
    pub(crate) overrides: Arc<Overrides>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log: LogHandle,
    /// What else must hold for the process to be ready; looked at in this order.
    pub(crate) rules: Vec<ReadyRule>,
    /// Every path that the process answers, by name.
    pub(crate) endpoints: Vec<(&'static str, String)>,
}

type Shared = State<Arc<Pages>>;

impl Pages {
    /// The routes; `prefix` goes before the build information and the statistics of usage only.
    pub(crate) fn router(self, prefix: &str) -> Router {
        let instrumented = self.config.server.register_instrumentation;
        let prefix = prefix.trim_end_matches('/');
        let limits = overrides::Source { overrides: Arc::clone(&self.overrides), clock: Arc::clone(&self.clock) };
        let limits = Router::new()
            .route("/status/overrides", get(overrides::list))
            .route("/status/overrides/{tenant}", get(overrides::tenant))
            .with_state(limits);
        let log_level = Router::new()
            .route("/status/log_level", get(log_level::show).post(log_level::change))
            .with_state(self.log.clone());
        let pages = Arc::new(self);
        let mut router = Router::new()
            .route("/ready", any(ready))
            .route("/status", get(status))
            .route("/status/actors", get(actors))
            .route("/status/{part}", get(status_part))
            .route(&format!("{prefix}/status/usage-stats"), any(usage_stats))
            .route(&format!("{prefix}/api/status/buildinfo"), get(buildinfo));
        if instrumented {
            router = router.route("/metrics", any(metrics));
        }
        router.fallback(not_found).with_state(pages).merge(limits).merge(log_level)
    }

    /// Why the process is not ready, if it is not.
    fn unready(&self) -> Option<String> {
        if self.stopping.is_cancelled() {
            return Some("Application is stopping".to_owned());
        }
        let services = self.root.services();
        if services.iter().all(|service| service.state == Life::Running) {
            return self.rules.iter().find_map(|rule| rule());
        }
        let mut text = "Some services are not Running:".to_owned();
        for state in [Life::Starting, Life::Running, Life::Stopping, Life::Stopped, Life::Failed] {
            let count = services.iter().filter(|service| service.state == state).count();
            if count > 0 {
                write!(text, "\n{}: {count}", state.title()).unwrap_or(());
            }
        }
        if services.iter().any(|service| service.name == "live-store" && service.state == Life::Starting) {
            text.push_str("\nLiveStore not ready: live-store is starting");
        }
        Some(text)
    }

    fn version(&self) -> String {
        format!(
            "vivace, version {} (Tempo API level {API_LEVEL})\n  target:           {}\n  platform:         {}/{}\n",
            env!("CARGO_PKG_VERSION"),
            self.config.target,
            std::env::consts::OS,
            std::env::consts::ARCH,
        )
    }

    fn services(&self) -> String {
        let services = self.root.services();
        let mut rows: Vec<[String; 3]> = services
            .into_iter()
            .map(|service| [service.name, service.state.title().to_owned(), String::new()])
            .collect();
        rows.sort();
        table(["SERVICE NAME", "STATUS", "FAILURE CASE"], &rows)
    }

    fn endpoint_table(&self) -> String {
        let mut rows: Vec<[String; 2]> =
            self.endpoints.iter().map(|(name, path)| [(*name).to_owned(), path.clone()]).collect();
        rows.sort();
        let mut text = table(["NAME", "PATH"], &rows);
        text.push_str("\nAPI documentation: https://grafana.com/docs/tempo/latest/api_docs/\n");
        text
    }

    fn part(&self, part: &str, mode: Option<&str>) -> Result<String, (StatusCode, String)> {
        let body = match part {
            "version" => self.version(),
            "services" => self.services(),
            "endpoints" => self.endpoint_table(),
            "runtime_config" => {
                let entries = self.overrides.entries();
                let shown = mode.unwrap_or_default().parse::<config::Mode>();
                match shown.and_then(|mode| render_entries(&entries, self.overrides.defaults(), mode)) {
                    Ok(text) => text,
                    Err(error) => return Err((StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
                }
            }
            "config" => match mode.unwrap_or_default().parse() {
                Ok(mode) => crate::config::render(&self.config, mode),
                Err(error) => return Err((StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
            },
            other => {
                let text = format!(
                    "there is no /status/{other}; there are version, services, endpoints, runtime_config, config, actors, \
                     overrides, log_level\n"
                );
                return Err((StatusCode::NOT_FOUND, text));
            }
        };
        Ok(format!("GET /status/{part}\n{body}"))
    }
}

fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].len()).chain([head[column].len()]).max().unwrap_or_default();
    let mut text = String::new();
    let mut line = |cells: [&str; N]| {
        for (column, cell) in cells.iter().enumerate() {
            write!(text, "{}{cell:<width$}", if column == 0 { "" } else { " | " }, width = width(column)).unwrap_or(());
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    };
    line(head);
    for row in rows {
        line(std::array::from_fn(|column| row[column].as_str()));
    }
    text
}

async fn ready(State(pages): Shared) -> Response {
    match pages.unready() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(pages): Shared) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], pages.registry.render()).into_response()
}

/// No usage is reported, to nobody.
async fn usage_stats() -> &'static str {
    "usage-stats is not enabled\n"
}

async fn buildinfo() -> Response {
    let info = serde_json::json!({
        "version": API_LEVEL,
        "revision": concat!("vivace-", env!("CARGO_PKG_VERSION")),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    });
    ([(header::CONTENT_TYPE, "application/json")], format!("{info}\n")).into_response()
}

#[derive(serde::Deserialize)]
struct Mode {
    mode: Option<String>,
}

async fn status(State(pages): Shared, Query(query): Query<Mode>) -> Response {
    let mut text = String::new();
    for part in ["version", "services", "endpoints", "runtime_config", "config"] {
        // The mode `defaults` is one of the configuration only.
        let mode = query.mode.as_deref().filter(|mode| part == "config" || *mode == "diff");
        match pages.part(part, mode) {
            Ok(section) => text.push_str(&section),
            Err(refusal) => return refusal.into_response(),
        }
        text.push('\n');
    }
    text.into_response()
}

async fn status_part(State(pages): Shared, Path(part): Path<String>, Query(query): Query<Mode>) -> Response {
    pages.part(&part, query.mode.as_deref()).map_or_else(IntoResponse::into_response, IntoResponse::into_response)
}

async fn actors(State(pages): Shared, headers: HeaderMap) -> Response {
    let tree = pages.root.tree(OBSERVE).await;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if accept.contains("application/json") {
        ([(header::CONTENT_TYPE, "application/json")], tree.render_json()).into_response()
    } else {
        Html(tree.render_html()).into_response()
    }
}

/// Paths with empty, `.` or `..` parts are sent to the path that they mean: a base URL that ends with a slash is common.
async fn not_found(uri: Uri) -> Response {
    let Some(clean) = cleaned(uri.path()) else {
        return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
    };
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, format!("{clean}{query}"))]).into_response()
}

/// The path without empty, `.` and `..` parts; none where it has none. A slash at the end stays.
fn cleaned(path: &str) -> Option<String> {
    let (inner, end) = path.strip_suffix('/').map_or((path, ""), |inner| (inner, "/"));
    let mut parts: Vec<&str> = Vec::new();
    for part in inner.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let end = if parts.is_empty() { "" } else { end };
    // One slash only at the beginning: two would be another host.
    let clean = format!("/{}{end}", parts.join("/"));
    (clean != path).then_some(clean)
}
