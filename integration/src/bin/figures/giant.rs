//! The figures of one trace of a million spans: written, searched, fetched and paged, by one process or by one for each role.
//!
//! ```text
//! written                 one request after the other; from then on a small load besides, so that blocks are made and merged
//! asked while recent      searches, metrics, values of a tag; fetched as JSON and as protobuf; all of its pages
//! asked in blocks         the same (a process for each role: from blocks alone, once all of it is there)
//! fetched while merging   the process anew: it knows of no blocks that have to stay apart, and tries to merge them
//! ```
//!
//! Each time it is fetched, and by all pages together, every span has to come once. Peaks are resident bytes between the begin of a
//! question and its end: `VmHWM`, which is reset before through `/proc/PID/clear_refs`.

mod client;
mod trace;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use prost::Message;
use serde_json::json;
use vivace_integration::cluster::{BROKER, Cluster};
use vivace_integration::http::{Connection, encode};
use vivace_integration::load::Template;
use vivace_integration::process::{PATIENCE, Setup, usage};
use vivace_protocol::tempopb::TraceByIdResponse;
use vivace_runtime::{Clock, SystemClock};

use self::client::{Form, fetch};
use self::trace::{ID, PER_REQUEST, Requests, Seen};
use crate::asked::Asked;
use crate::options::Options;
use crate::run::Target;
use crate::{conditions, mb, ms};

/// What no process may exceed.
const MOST_MB: f64 = 512.0;
/// An answer to a search may not grow with the trace.
const MOST_ANSWER_KB: f64 = 1024.0;
const PAGE_SPANS: u64 = 20_000;
/// Requests a second of ordinary traces meanwhile, and spans of each.
const BESIDES: u32 = 10;
const SPANS_BESIDES: usize = 100;
const DISTRIBUTOR: &str = "distributor-0";
const FRONTEND: &str = "query-frontend-0";

/// Limits that let the trace in, and merging as often as it can be.
const YAML: &str = "overrides:
  defaults:
    global:
      max_bytes_per_trace: 0
    ingestion:
      rate_limit_bytes: 1000000000
      burst_size_bytes: 1000000000
backend_worker:
  compaction:
    compaction_cycle: 1s
";

/// Prints the figures of a large trace.
///
/// # Errors
/// Anything that fails, and an answer that is wrong: there are no figures then.
pub(crate) fn measure(options: &Options, asked: &mut Asked) -> anyhow::Result<()> {
    let scratch = options.scratch()?;
    conditions::print(scratch.path())?;
    println!("  trace                 {} spans, {PER_REQUEST} a request, 11 attributes a span", options.spans);
    println!("  besides               {BESIDES} requests of {SPANS_BESIDES} spans a second, of ordinary traces");
    let folder = scratch.path();
    if options.processes { of_processes(folder, options, asked) } else { of_a_node(folder, options, asked) }
}

fn of_a_node(dir: &Path, options: &Options, asked: &mut Asked) -> anyhow::Result<()> {
    let setup = Setup::new(dir).yaml(YAML);
    let node = setup.start()?;
    let target = Target { otlp: node.addr("otlp_http")?, http: node.addr("http")? };
    let asking = Asking::new(&target, vec![("process".to_owned(), node.pid())], options.spans);
    live_and_stored(asking, target.otlp, asked)?;
    node.stop()?;

    let node = setup.start()?;
    let target = Target { otlp: node.addr("otlp_http")?, http: node.addr("http")? };
    let mut asking = Asking::new(&target, vec![("process anew, merging".to_owned(), node.pid())], options.spans);
    let besides = Besides::begin(target.otlp);
    println!("fetched while merging");
    asking.counted("one after the other", |asking| {
        let (began, mut tried, mut times) = (Instant::now(), None, 0);
        let path = format!("/api/v2/traces/{ID}");
        // A few times more after it was tried: memory is given back late.
        while tried.is_none_or(|at| times < at + 3) {
            ensure!(began.elapsed() < PATIENCE, "no merge of the trace was tried within {PATIENCE:?}");
            let fetched = fetch(asking.target.http, &path, Form::Answer, asking.spans)?;
            ensure!(fetched.spans == asking.spans, "{path}: {} of {} spans", fetched.spans, asking.spans);
            times += 1;
            if tried.is_none() && node.log().iter().any(|line| line.contains("too large for one row")) {
                tried = Some(times);
            }
        }
        let merge = tried.unwrap_or_default();
        Ok(((), format!("{times} times in {}, a merge was tried in the first {merge}", ms(began.elapsed()))))
    })?;
    asking.pages("")?;
    besides.end()?;
    asking.judge(asked);
    node.stop()?;
    Ok(())
}

fn of_processes(dir: &Path, options: &Options, asked: &mut Asked) -> anyhow::Result<()> {
    let settings = json!({
        "overrides": { "defaults": {
            "global": { "max_bytes_per_trace": 0 },
            "ingestion": { "rate_limit_bytes": 1_000_000_000, "burst_size_bytes": 1_000_000_000 },
        } },
        "backend_worker": { "compaction": { "compaction_cycle": "1s" } },
    });
    let mut cluster = Cluster::of_each_role_with(dir, &settings);
    cluster.start_all()?;
    let names = Cluster::EACH_ROLE.iter().map(|(name, _)| (*name).to_owned()).filter(|name| name != BROKER);
    let processes = names.map(|name| (name.clone(), cluster.node(&name).pid())).collect();
    let target = Target { otlp: cluster.otlp_http(DISTRIBUTOR), http: cluster.http(FRONTEND) };
    let asking = Asking::new(&target, processes, options.spans);
    live_and_stored(asking, target.otlp, asked)?;
    Ok(())
}

/// Writes the trace, and asks for it while it is recent data, and again when it is in blocks alone.
fn live_and_stored(mut asking: Asking<'_>, otlp: SocketAddr, asked: &mut Asked) -> anyhow::Result<()> {
    asking.write()?;
    let besides = Besides::begin(otlp);
    asking.all("")?;
    asking.until_in_blocks()?;
    asking.all("?mode=blocks")?;
    besides.end()?;
    asking.judge(asked);
    Ok(())
}

/// Ordinary traces while the large one is asked for.
struct Besides {
    end: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Besides {
    fn begin(otlp: SocketAddr) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let mut template = Template::new(7, SPANS_BESIDES);
            let mut connection = Connection::open(otlp, PATIENCE)?;
            for sequence in 0.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let body = template.fill(7, sequence, SystemClock.unix_nanos());
                connection.send("POST", "/v1/traces", &PROTOBUF, body)?;
                std::thread::park_timeout(Duration::from_secs(1) / BESIDES);
            }
            Ok(())
        });
        Self { end, thread }
    }

    fn end(self) -> anyhow::Result<()> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_panic| anyhow::anyhow!("the thread of ordinary traces panicked"))?
    }
}

const PROTOBUF: [(&str, &str); 1] = [("Content-Type", "application/x-protobuf")];

/// Whoever is asked, and what they needed for it.
struct Asking<'a> {
    target: &'a Target,
    /// Name and id of each process, and its highest peak.
    processes: Vec<(String, u32, u64)>,
    spans: u64,
    began_s: u64,
    largest_answer: u64,
}

impl<'a> Asking<'a> {
    fn new(target: &'a Target, processes: Vec<(String, u32)>, spans: u64) -> Self {
        let processes = processes.into_iter().map(|(name, pid)| (name, pid, 0)).collect();
        Self { target, processes, spans, began_s: SystemClock.unix_nanos() / 1_000_000_000, largest_answer: 0 }
    }

    /// Does something, and says how much memory it took.
    fn counted<T>(&mut self, what: &str, work: impl FnOnce(&Self) -> anyhow::Result<(T, String)>) -> anyhow::Result<T> {
        for (_, pid, _) in &self.processes {
            std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("reset the peak of resident memory")?;
        }
        let (result, told) = work(self)?;
        let mut peaks = Vec::new();
        for (name, pid, most) in &mut self.processes {
            let peak = usage(*pid).with_context(|| format!("{name} has ended"))?.peak_rss;
            *most = peak.max(*most);
            peaks.push((peak, name.as_str()));
        }
        peaks.sort_unstable_by_key(|(peak, _)| std::cmp::Reverse(*peak));
        let peaks: Vec<String> = match peaks.as_slice() {
            [(peak, _)] => vec![format!("{:.0} MB", mb(*peak))],
            many => many.iter().take(3).map(|(peak, name)| format!("{name} {:.0} MB", mb(*peak))).collect(),
        };
        println!("  {what:<21} {told}; peak {}", peaks.join(", "));
        Ok(result)
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let begin = SystemClock.unix_nanos() - 120_000_000_000;
        self.began_s = begin / 1_000_000_000;
        self.counted("written", |asking| {
            let (began, mut bytes, mut refused) = (Instant::now(), 0, 0);
            let mut connection = Connection::open(asking.target.otlp, PATIENCE)?;
            for request in Requests::new(asking.spans, begin) {
                loop {
                    let answer = connection.send("POST", "/v1/traces", &PROTOBUF, &request)?;
                    if answer.status == 200 {
                        break;
                    }
                    ensure!([429, 503].contains(&answer.status), "status {}: {}", answer.status, answer.text());
                    ensure!(began.elapsed() < PATIENCE, "refused for {PATIENCE:?}: {}", answer.text());
                    refused += 1;
                    std::thread::park_timeout(Duration::from_millis(50));
                }
                bytes += request.len() as u64;
            }
            Ok(((), format!("{:.0} MB in {}, {refused} refusals", mb(bytes), ms(began.elapsed()))))
        })
    }

    fn all(&mut self, mode: &str) -> anyhow::Result<()> {
        println!("asked{}", if mode.is_empty() { ", recent data and blocks" } else { ", blocks alone" });
        if mode.is_empty() {
            self.searches()?;
        }
        self.fetch("/api/traces/", mode, Form::Json)?;
        self.fetch("/api/traces/", mode, Form::Trace)?;
        self.fetch("/api/v2/traces/", mode, Form::Answer)?;
        self.pages(mode)
    }

    /// Asks until blocks have every span.
    fn until_in_blocks(&mut self) -> anyhow::Result<()> {
        let spans = self.spans;
        self.counted("until all is in blocks", |asking| {
            let began = Instant::now();
            let path = format!("/api/traces/{ID}?mode=blocks");
            while fetch(asking.target.http, &path, Form::Trace, spans)?.spans < spans {
                ensure!(began.elapsed() < PATIENCE, "not all of the trace is in blocks after {PATIENCE:?}");
                std::thread::park_timeout(Duration::from_secs(2));
            }
            Ok(((), ms(began.elapsed())))
        })
    }

    fn fetch(&mut self, path: &str, mode: &str, form: Form) -> anyhow::Result<()> {
        let (path, spans) = (format!("{path}{ID}{mode}"), self.spans);
        self.counted(&format!("{form:?}"), |asking| {
            let fetched = fetch(asking.target.http, &path, form, spans)?;
            ensure!(fetched.spans == spans, "{path}: {} of {spans} spans", fetched.spans);
            let (first, took) = (ms(fetched.first), ms(fetched.took));
            Ok(((), format!("{:.0} MB in {took}, the first after {first}", mb(fetched.bytes))))
        })
    }

    fn pages(&mut self, mode: &str) -> anyhow::Result<()> {
        let spans = self.spans;
        let mode = if mode.is_empty() { String::new() } else { format!("&{}", &mode[1..]) };
        self.counted("all of its pages", |asking| {
            let (mut seen, mut page, mut pages, mut slowest) = (Seen::new(spans), String::new(), 0, Duration::ZERO);
            let began = Instant::now();
            let mut connection = Connection::open(asking.target.http, PATIENCE)?;
            loop {
                let asked = Instant::now();
                let path = format!("/api/v2/traces/{ID}?page_spans={PAGE_SPANS}&page={page}{mode}");
                let answer = connection.send("GET", &path, &[("Accept", "application/protobuf")], &[])?;
                ensure!(answer.status == 200, "{path}: status {}: {}", answer.status, answer.text());
                slowest = slowest.max(asked.elapsed());
                pages += 1;
                let told = TraceByIdResponse::decode(answer.body.as_slice())?;
                ensure!(told.message.is_empty(), "{path}: {}", told.message);
                seen.add(&told.trace.unwrap_or_default().encode_to_vec(), true)?;
                match answer.header("x-vivace-next-page") {
                    Some(next) => next.clone_into(&mut page),
                    None => break,
                }
            }
            ensure!(seen.count() == spans, "{} of {spans} spans on {pages} pages", seen.count());
            Ok(((), format!("{pages} in {}, the slowest {}", ms(began.elapsed()), ms(slowest))))
        })
    }

    fn searches(&mut self) -> anyhow::Result<()> {
        let window = format!("start={}&end={}", self.began_s - 60, self.began_s + 3600);
        let middle = Requests::text_of(self.spans / 2);
        let searches = [
            format!("{{ trace:id = \"{ID}\" }}"),
            "{}".to_owned(),
            format!("{{ span.app.seq = \"{middle}\" }}"),
            "{ span.app.seq = \"nobody\" }".to_owned(),
            "{ span.db.statement =~ \".*customer = 0000.*\" }".to_owned(),
            "{ resource.service.name = \"giant\" } | select(span.http.route)".to_owned(),
            format!("{{}} >> {{ span.app.seq = \"{middle}\" }}"),
            "{ span.http.route = \"/api/1\" } ~ { span.http.route = \"/api/2\" }".to_owned(),
            "{} | count() > 3".to_owned(),
            "{} | by(span.http.route) | avg(duration) > 1ms".to_owned(),
        ];
        for query in &searches {
            self.question(query, &format!("/api/search?q={}&limit=20&spss=100&{window}", encode(query)))?;
        }
        for query in ["{} | rate() by (span.http.route)", "{} | quantile_over_time(duration, .5, .99)"] {
            self.question(query, &format!("/api/metrics/query_range?q={}&{window}&step=60s", encode(query)))?;
        }
        self.question("values of app.user.id", &format!("/api/v2/search/tag/span.app.user.id/values?{window}"))
    }

    fn question(&mut self, what: &str, path: &str) -> anyhow::Result<()> {
        let bytes = self.counted("", |asking| {
            let began = Instant::now();
            let answer = Connection::open(asking.target.http, PATIENCE)?.send("GET", path, &[], &[])?;
            ensure!(answer.status == 200, "{what}: status {}: {}", answer.status, answer.text());
            let bytes = answer.body.len() as u64;
            Ok((bytes, format!("{what}: {:.0} kB in {}", bytes as f64 / 1e3, ms(began.elapsed()))))
        })?;
        self.largest_answer = self.largest_answer.max(bytes);
        Ok(())
    }

    /// The peaks and sizes beside what they may be.
    fn judge(self, asked: &mut Asked) {
        for (name, _, peak) in &self.processes {
            asked.at_most(format!("peak RSS, {name}"), MOST_MB, mb(*peak), "MB");
        }
        if self.largest_answer > 0 {
            asked.at_most("largest answer to a search", MOST_ANSWER_KB, self.largest_answer as f64 / 1e3, "kB");
        }
    }
}
