//! Asks what the command line says, over HTTP or gRPC, and shows the answer.

use std::time::{Duration, Instant};

use prost::Message;
use serde_json::Value;
use vivace_protocol::tempopb;
use vivace_runtime::{Clock, SystemClock};

use super::arguments::{Arguments, Command, Output};
use super::http::{self, Answer, Server};
use super::progress::Progress;
use super::stream::{Querier, Streamed};
use super::times::{TimesError, Window};
use super::{Failure, Shown, arguments, coverage, pick, render};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";
/// Names and values.
type Parameters = Vec<(&'static str, String)>;

/// Spans of a page if nobody says how many.
const PAGE_SPANS: u32 = 1000;
/// How often the line about waiting moves.
const TICK: Duration = Duration::from_millis(200);

impl From<TimesError> for Failure {
    fn from(error: TimesError) -> Self {
        Self(error.to_string())
    }
}

/// The answer to a command line; `now_ns` is what `now` means.
pub(super) async fn ask(arguments: &Arguments, now_ns: u64, progress: &mut Progress) -> Result<Shown, Failure> {
    if let Command::Trace(id) = &arguments.command {
        return trace(arguments, id, now_ns, progress).await;
    }
    if let Command::Explain(target) = &arguments.command {
        return explain(arguments, target, now_ns, progress).await;
    }
    let answer = match &arguments.grpc {
        Some(address) => {
            let querier = Querier::connect(address, arguments.tenant.as_deref()).await?;
            let Streamed { json, coverage } = stream(querier, arguments, now_ns, progress).await?;
            Answer { coverage, next_page: None, body: json.into() }
        }
        None => {
            let (path, parameters) = call(arguments, now_ns)?;
            get(arguments, &path, &parameters, JSON, progress).await?.ok_or_else(not_the_api)?
        }
    };
    let body: Value = parse(&answer.body)?;
    let text = pick(arguments.output, &answer.body, || {
        Ok(match &arguments.command {
            Command::Search(_) => render::search(&body),
            Command::Tags => render::tags(&body),
            Command::Values(_) => render::values(&body),
            Command::Metrics(_) if arguments.instant => render::instant(&body),
            Command::Metrics(_) | Command::Trace(_) | Command::Explain(_) => render::range(&body),
        })
    })?;
    Ok(Shown { text, missing: coverage::missing(answer.coverage.as_deref(), &body), ..Shown::default() })
}

fn not_the_api() -> Failure {
    Failure("the answer is 404: is -url the HTTP API of Vivace or Tempo, and its prefix right?".to_owned())
}

fn parse(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure(format!("the answer is not JSON ({error}); is -url right?")))
}

/// The path and the parameters of a question.
fn call(arguments: &Arguments, now_ns: u64) -> Result<(String, Parameters), Failure> {
    let mut parameters = Parameters::new();
    let seconds = arguments.times.window(now_ns)?.map(Window::seconds);
    let window = |parameters: &mut Parameters| {
        if let Some((start, end)) = seconds {
            parameters.extend([("start", start.to_string()), ("end", end.to_string())]);
        }
    };
    let limit = |name: &'static str| arguments.limit.map(|limit| (name, limit.to_string()));
    let path = match &arguments.command {
        Command::Search(query) => {
            parameters.push(("q", query.clone()));
            window(&mut parameters);
            parameters.extend(limit("limit"));
            "/api/search".to_owned()
        }
        Command::Tags => {
            window(&mut parameters);
            parameters.extend(limit("limit"));
            parameters.extend(arguments.scope.clone().map(|scope| ("scope", scope)));
            parameters.extend(arguments.filter.clone().map(|filter| ("q", filter)));
            "/api/v2/search/tags".to_owned()
        }
        Command::Values(tag) => {
            window(&mut parameters);
            parameters.extend(limit("limit"));
            parameters.extend(arguments.filter.clone().map(|filter| ("q", filter)));
            format!("/api/v2/search/tag/{}/values", http::encode(tag))
        }
        Command::Metrics(query) => {
            parameters.push(("q", query.clone()));
            // Metrics take nanoseconds, which keeps the window as it was said.
            if let Some(window) = arguments.times.window(now_ns)? {
                parameters.extend([("start", window.start_ns.to_string()), ("end", window.end_ns.to_string())]);
            }
            parameters.extend(limit("maxSeries"));
            parameters.extend(arguments.step.clone().map(|step| ("step", step)));
            if arguments.instant { "/api/metrics/query".to_owned() } else { "/api/metrics/query_range".to_owned() }
        }
        Command::Trace(id) => {
            window(&mut parameters);
            if arguments.limit.is_some() || arguments.page.is_some() {
                parameters.push(("page_spans", arguments.limit.unwrap_or(PAGE_SPANS).to_string()));
            }
            parameters.extend(arguments.page.clone().map(|page| ("page", page)));
            format!("/api/v2/traces/{id}")
        }
        Command::Explain(target) => {
            let command = if arguments::is_trace_id(target) {
                // It is the search for the trace that is explained, not a page.
                let whole = Arguments { command: Command::Trace(target.clone()), limit: None, ..arguments.clone() };
                let (path, mut parameters) = call(&whole, now_ns)?;
                parameters.push(("explain", "true".to_owned()));
                return Ok((path, parameters));
            } else if vivace_traceql::Query::parse(target).is_ok_and(|query| query.is_metrics()) {
                Command::Metrics(target.clone())
            } else {
                Command::Search(target.clone())
            };
            let (path, mut parameters) = call(&Arguments { command, ..arguments.clone() }, now_ns)?;
            parameters.push(("explain", "true".to_owned()));
            return Ok((path, parameters));
        }
    };
    Ok((path, parameters))
}

async fn get(
    arguments: &Arguments,
    path: &str,
    parameters: &[(&str, String)],
    accept: &str,
    progress: &mut Progress,
) -> Result<Option<Answer>, Failure> {
    let server = Server::new(&arguments.url)?;
    waiting(progress, server.get(path, parameters, arguments.tenant.as_deref(), accept)).await
}

/// Moves the line while the future runs.
async fn waiting<T>(progress: &mut Progress, running: impl Future<Output = T>) -> T {
    let began = Instant::now();
    tokio::pin!(running);
    loop {
        tokio::select! {
            done = &mut running => return done,
            () = SystemClock.sleep(TICK) => progress.waiting(began.elapsed()),
        }
    }
}

async fn trace(arguments: &Arguments, id: &str, now_ns: u64, progress: &mut Progress) -> Result<Shown, Failure> {
    let (path, parameters) = call(arguments, now_ns)?;
    let accept = if arguments.output == Output::Json { JSON } else { PROTOBUF };
    let Some(answer) = get(arguments, &path, &parameters, accept, progress).await? else {
        return Ok(Shown { text: format!("there is no trace {id}\n"), not_found: true, ..Shown::default() });
    };
    let (text, empty, body) = if arguments.output == Output::Json {
        let body = parse(&answer.body)?;
        let empty = body["trace"]["resourceSpans"].as_array().is_none_or(Vec::is_empty);
        (pick(Output::Json, &answer.body, || Ok(String::new()))?, empty, body)
    } else {
        let decoded = tempopb::TraceByIdResponse::decode(answer.body);
        let decoded = decoded.map_err(|error| Failure(format!("the answer is no trace ({error}); is -url right?")))?;
        let trace = decoded.trace.unwrap_or_default();
        let partial = tempopb::PartialStatus::try_from(decoded.status) == Ok(tempopb::PartialStatus::Partial);
        let status = if partial { "PARTIAL" } else { "COMPLETE" };
        let body = serde_json::json!({ "status": status, "message": decoded.message });
        (render::trace(&trace), trace.resource_spans.is_empty(), body)
    };
    let missing = coverage::missing(answer.coverage.as_deref(), &body);
    // What was not read might have had it: that is an incomplete answer, not the word that there is none.
    let not_found = empty && missing.is_none();
    let text = if not_found && arguments.output == Output::Table { format!("there is no trace {id}\n") } else { text };
    Ok(Shown { text, missing, not_found, more: answer.next_page.map(|next| format!("-page={next}")) })
}

async fn explain(arguments: &Arguments, target: &str, now_ns: u64, progress: &mut Progress) -> Result<Shown, Failure> {
    let (path, parameters) = call(arguments, now_ns)?;
    let answer = get(arguments, &path, &parameters, JSON, progress).await?;
    let Some(answer) = answer else {
        return Ok(Shown { text: format!("there is no trace {target}\n"), not_found: true, ..Shown::default() });
    };
    let body = parse(&answer.body)?;
    let explained = body.get("explain").ok_or_else(|| {
        Failure("the server explained nothing: it is Tempo, or a version of Vivace without `explain`".to_owned())
    })?;
    let json = explained.to_string();
    let text = pick(arguments.output, json.as_bytes(), || Ok(render::explain(explained)))?;
    Ok(Shown { text, missing: coverage::missing(answer.coverage.as_deref(), &body), ..Shown::default() })
}

async fn stream(
    querier: Querier,
    arguments: &Arguments,
    now_ns: u64,
    progress: &mut Progress,
) -> Result<Streamed, Failure> {
    let bound = |seconds: u64| u32::try_from(seconds).unwrap_or(u32::MAX);
    let seconds = arguments.times.window(now_ns)?.map(Window::seconds).unwrap_or_default();
    let (start, end) = (bound(seconds.0), bound(seconds.1));
    let limit = arguments.limit.unwrap_or(0);
    match &arguments.command {
        Command::Search(query) => {
            let query = query.clone();
            querier.search(tempopb::SearchRequest { query, start, end, limit, ..Default::default() }, progress).await
        }
        Command::Tags => {
            let ask = tempopb::SearchTagsRequest {
                scope: arguments.scope.clone().unwrap_or_default(),
                query: arguments.filter.clone().unwrap_or_default(),
                start,
                end,
                max_tags_per_scope: limit,
                ..Default::default()
            };
            querier.tags(ask, progress).await
        }
        Command::Values(tag) => {
            let ask = tempopb::SearchTagValuesRequest {
                tag_name: tag.clone(),
                query: arguments.filter.clone().unwrap_or_default(),
                start,
                end,
                max_tag_values: limit,
                ..Default::default()
            };
            querier.values(ask, progress).await
        }
        Command::Metrics(query) | Command::Trace(query) | Command::Explain(query) => {
            let window = arguments.times.window_or_hour(now_ns)?;
            let (query, start, end) = (query.clone(), window.start_ns, window.end_ns);
            if arguments.instant {
                return querier.instant(tempopb::QueryInstantRequest { query, start, end }, progress).await;
            }
            let step = arguments.step.as_deref().map(step_ns).transpose()?.unwrap_or(0);
            let ask = tempopb::QueryRangeRequest { query, start, end, step, max_series: limit, ..Default::default() };
            querier.range(ask, progress).await
        }
    }
}

/// A step as the HTTP API reads it: seconds, or a duration in Go's syntax.
fn step_ns(text: &str) -> Result<u64, Failure> {
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_no_number) => text.parse::<vivace_runtime::config::GoDuration>().ok().map(Into::into),
    };
    let nanos = duration.and_then(|step| u64::try_from(step.as_nanos()).ok()).filter(|nanos| *nanos > 0);
    nanos.ok_or_else(|| Failure(format!("-step={text:?} is no duration above 0: use 30s, 1m30s or 0.5")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_500_000_000;

    fn url(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let (path, parameters) = call(&arguments::parse(&words).unwrap(), NOW).unwrap();
        let parameters: Vec<String> = parameters.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{path}?{}", parameters.join("&"))
    }

    #[test]
    fn every_command_becomes_the_call_that_answers_it() {
        let cases: [(&[&str], &str); 11] = [
            (&["search", "{ }"], "/api/search?q={ }"),
            (&["search", "{ }", "-since=1m", "-limit=7"], "/api/search?q={ }&start=1699999940&end=1700000001&limit=7"),
            (&["tags", "-scope=span", "-filter={ }"], "/api/v2/search/tags?scope=span&q={ }"),
            (&["values", "span.a/b", "-limit=2"], "/api/v2/search/tag/span.a%2Fb/values?limit=2"),
            (
                &["metrics", "{ } | rate()", "-since=1m", "-step=5s", "-limit=3"],
                "/api/metrics/query_range?q={ } | rate()&start=1699999940500000000&end=1700000000500000000&maxSeries=3&step=5s",
            ),
            (&["metrics", "{ } | rate()", "-instant"], "/api/metrics/query?q={ } | rate()"),
            (&["trace", "ab", "-start=5", "-end=6"], "/api/v2/traces/ab?start=5&end=6"),
            (&["explain", "{ } | rate()"], "/api/metrics/query_range?q={ } | rate()&explain=true"),
            (&["trace", "ab", "-limit=9"], "/api/v2/traces/ab?page_spans=9"),
            (&["trace", "ab", "-page=0f"], "/api/v2/traces/ab?page_spans=1000&page=0f"),
            (&["explain", "ab", "-limit=9"], "/api/v2/traces/ab?explain=true"),
        ];
        for (words, expected) in cases {
            assert_eq!(url(words), expected, "{words:?}");
        }
    }

    #[test]
    fn steps_are_read_as_the_server_reads_them() {
        assert_eq!(step_ns("1.5").unwrap(), 1_500_000_000);
        assert_eq!(step_ns("1m30s").unwrap(), 90_000_000_000);
        for wrong in ["0", "-5", "soon", "NaN"] {
            assert!(step_ns(wrong).unwrap_err().to_string().contains("is no duration above 0"), "{wrong}");
        }
    }
}
