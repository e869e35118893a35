//! Times sixteen kinds of queries against any server that speaks Tempo's HTTP API, and the CPU that each takes in it.
//!
//! `cargo run --release -p vivace-integration --bin queries -- --http ADDR [--otlp ADDR] [--pid PID] [--spans 600000] [--runs 20]
//! [--ago 0] [--only TEXT] [--seed 1]`
//!
//! With `--otlp` the data is sent first (about 470 bytes and 13 attributes a span, 8 spans a trace, 500 a request, every tenth
//! span an error with an event); without it, what is there is asked, with the seed it was sent with. Every run of a query has
//! another literal or a window moved by seconds, so that no cache of whole answers can help. The window ends `--ago` seconds
//! before now. With `--pid` the CPU time of that process is read before and after; other work in it is counted too.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use vivace_integration::http::{Connection, encode};
use vivace_integration::ledger::{self, Outcome};
use vivace_integration::load::{self, Template};
use vivace_runtime::{Clock, SystemClock};

const SPANS: usize = 500;
const TEMPLATES: u64 = 64;
/// Clock ticks a second in `/proc/PID/stat`: the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

struct Args {
    http: SocketAddr,
    otlp: Option<SocketAddr>,
    pid: Option<u32>,
    spans: u64,
    runs: u64,
    ago: u64,
    window: u64,
    seed: u64,
    only: String,
}

fn args() -> anyhow::Result<Args> {
    let mut http = None;
    let mut args = Args {
        http: SocketAddr::from(([127, 0, 0, 1], 3200)),
        otlp: None,
        pid: None,
        spans: 600_000,
        runs: 20,
        ago: 0,
        window: 1800,
        seed: 1,
        only: String::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--http" => http = Some(value.parse().context("--http")?),
            "--otlp" => args.otlp = Some(value.parse().context("--otlp")?),
            "--pid" => args.pid = Some(value.parse().context("--pid")?),
            "--spans" => args.spans = value.parse().context("--spans")?,
            "--runs" => args.runs = value.parse().context("--runs")?,
            "--ago" => args.ago = value.parse().context("--ago")?,
            "--window" => args.window = value.parse().context("--window")?,
            "--seed" => args.seed = value.parse().context("--seed")?,
            "--only" => args.only = value,
            other => bail!(
                "unknown argument {other}; known: --http --otlp --pid --spans --runs --ago --window --seed --only"
            ),
        }
    }
    args.http = http.context("--http ADDR is needed")?;
    Ok(args)
}

fn send(args: &Args, otlp: SocketAddr) -> anyhow::Result<()> {
    let mut connection = None;
    let mut templates: Vec<Template> = (0..TEMPLATES).map(|t| Template::new(args.seed * 1000 + t, SPANS)).collect();
    let (mut sent, mut sequence) = (0, 0);
    let from = Instant::now();
    while sent < args.spans {
        let slot = usize::try_from(sequence % TEMPLATES).unwrap_or(0);
        let template = &mut templates[slot];
        let body = template.fill(args.seed, sequence, SystemClock.unix_nanos());
        match ledger::send(&mut connection, otlp, body) {
            Outcome::Acknowledged => {
                sent += template.span_count() as u64;
                sequence += 1;
            }
            // A refusal asks to come back later; the next attempt sends the same ids.
            Outcome::Refused(_) | Outcome::Unknown => std::thread::park_timeout(Duration::from_millis(200)),
        }
    }
    println!("sent {sent} spans in {:.1} s", from.elapsed().as_secs_f64());
    Ok(())
}

/// Path and parameters of a query; the number makes each run another one.
type Asked = Box<dyn Fn(&Args, u64) -> String>;

/// One kind of query.
struct Case {
    name: &'static str,
    path: Asked,
}

fn window(args: &Args, n: u64) -> (u64, u64) {
    let end = SystemClock.unix_nanos() / 1_000_000_000 - args.ago + 60;
    (end - args.window - n % 30, end - n % 7)
}

fn search(query: impl Fn(u64) -> String + 'static) -> Asked {
    Box::new(move |args, n| {
        let (start, end) = window(args, n);
        format!("/api/search?q={}&limit=20&start={start}&end={end}", encode(&query(n)))
    })
}

fn series(query: &'static str) -> Asked {
    Box::new(move |args, n| {
        let (start, end) = window(args, n);
        format!("/api/metrics/query_range?q={}&start={start}&end={end}&step=15s", encode(query))
    })
}

fn cases() -> Vec<Case> {
    const SERVICES: [&str; 6] = ["frontend", "checkout", "cart", "payment", "shipping", "catalog"];
    const KINDS: [&str; 3] = ["TimeoutError", "ConnectionRefused", "OutOfStock"];
    let of = |n: u64, len: usize| usize::try_from(n).unwrap_or(0) % len;
    let case = |name, path| Case { name, path };
    vec![
        case("all", search(|_| "{}".to_owned())),
        case("service", search(move |n| format!(r#"{{ resource.service.name = "{}" }}"#, SERVICES[of(n, 6)]))),
        case(
            "status and duration",
            search(|n| format!("{{ span.http.response.status_code >= 500 && duration > {}ms }}", 50 + n % 20)),
        ),
        case(
            "structural",
            search(move |n| {
                format!(
                    r#"{{ resource.service.name = "{}" }} >> {{ resource.service.name = "{}" }}"#,
                    SERVICES[of(n, 6)],
                    SERVICES[of(n / 6 + n + 1, 6)]
                )
            }),
        ),
        case("no match", search(|n| format!(r#"{{ span.app.user.id = "nobody-{n}" }}"#))),
        case("count", search(|n| format!("{{ status = error }} | count() > {}", 2 + n % 2))),
        case(
            "name regex, avg",
            search(|n| format!(r#"{{ name =~ "GET /api/(cart|orders).*" }} | avg(duration) > {}ms"#, 40 + n % 20)),
        ),
        case("substring regex", search(|n| format!(r#"{{ span.app.user.id =~ ".*-1{:03}.*" }}"#, n % 1000))),
        case(
            "event, select",
            search(move |n| {
                format!(
                    r#"{{ event.exception.type = "{}" }} | select(span.http.route, span.thread.id)"#,
                    KINDS[of(n, 3)]
                )
            }),
        ),
        case("rate by service", series("{} | rate() by (resource.service.name)")),
        case("error rate", series("{ status = error } | rate()")),
        case("quantiles by route", series("{} | quantile_over_time(duration, .5, .9, .99) by (span.http.route)")),
        case("histogram", series("{} | histogram_over_time(duration)")),
        case(
            "tags",
            Box::new(|args, n| {
                let (start, end) = window(args, n);
                format!("/api/v2/search/tags?start={start}&end={end}")
            }),
        ),
        case(
            "values",
            Box::new(|args, n| {
                let (start, end) = window(args, n);
                format!("/api/v2/search/tag/span.http.route/values?start={start}&end={end}")
            }),
        ),
        case(
            "by id",
            Box::new(|args, n| {
                let requests = args.spans / SPANS as u64;
                let id = load::trace_id(args.seed, n * 97 % requests.max(1), usize::try_from(n % 60).unwrap_or(0));
                format!("/api/traces/{}", ledger::hex(&id))
            }),
        ),
    ]
}

/// User and system time so far, in milliseconds.
fn cpu_ms(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("read stat of {pid}"))?;
    let after = stat.rsplit(')').next().unwrap_or_default();
    let words: Vec<&str> = after.split_whitespace().collect();
    let ticks = |at: usize| words.get(at).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / TICKS * 1000.0)
}

fn main() -> anyhow::Result<()> {
    let args = args()?;
    if let Some(otlp) = args.otlp {
        send(&args, otlp)?;
    }
    println!(
        "{:<22} {:>9} {:>9} {:>9} {:>9} {:>10}  answer",
        "query", "first ms", "p50 ms", "max ms", "cpu ms", "bytes"
    );
    let mut connection = Connection::open(args.http, Duration::from_secs(120))?;
    for case in cases() {
        if !case.name.contains(&args.only) {
            continue;
        }
        let mut times = Vec::new();
        let (mut status, mut bytes, mut note) = (0, 0, String::new());
        let before = args.pid.map(cpu_ms).transpose()?;
        for n in 0..args.runs {
            let path = (case.path)(&args, n);
            let from = Instant::now();
            let answer = connection.send("GET", &path, &[], &[]).with_context(|| path.clone())?;
            times.push(from.elapsed());
            (status, bytes) = (answer.status, answer.body.len());
            if n == 0 || answer.status != 200 {
                note = summary(&answer.body);
            }
        }
        let cpu = match (args.pid, before) {
            (Some(pid), Some(before)) => format!("{:.1}", (cpu_ms(pid)? - before) / args.runs as f64),
            _ => "-".to_owned(),
        };
        let first = times[0];
        times.sort();
        let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
        println!(
            "{:<22} {:>9} {:>9} {:>9} {:>9} {:>10}  {status} {note}",
            case.name,
            ms(first),
            ms(times[times.len() / 2]),
            ms(times[times.len() - 1]),
            cpu,
            bytes
        );
    }
    Ok(())
}

/// What an answer holds, in a word: to see that both sides answer alike.
fn summary(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
        return String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
    };
    let count = |key: &str| value.get(key).and_then(serde_json::Value::as_array).map(Vec::len);
    ["traces", "series", "scopes", "tagValues", "batches", "resourceSpans"]
        .iter()
        .find_map(|key| count(key).map(|n| format!("{n} {key}")))
        .unwrap_or_default()
}
