//! Asks, measures, prints.

use std::time::{Duration, Instant};

use anyhow::Context;
use vivace_integration::http::Connection;

use crate::cases::{self, Case};
use crate::cost::{Cost, Look};
use crate::options::Options;
use crate::send;
use crate::server::{Emptying, Server};

pub(crate) fn all(options: &Options) -> anyhow::Result<()> {
    let emptying = options.cold.then(|| Emptying::of(options)).transpose()?;
    let mut server = Server::of(options)?;
    if let Some(otlp) = options.otlp {
        send::all(options, otlp)?;
    }
    if let Some(emptying) = &emptying {
        println!("cold: the server is started anew for every run; {}", emptying.in_words());
    }
    println!("blocks that a search is about, before: {}", blocks(options, &server)?);
    println!(
        "{:<22} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10}  answer",
        "query", "first ms", "p50 ms", "p99 ms", "cpu ms", "disk KB", "read KB", "bytes"
    );
    for case in cases::all().iter().filter(|case| case.name.contains(&options.only)) {
        measure(options, case, &mut server, emptying.as_ref())?;
    }
    println!("blocks that a search is about, after: {}", blocks(options, &server)?);
    Ok(())
}

fn measure(options: &Options, case: &Case, server: &mut Server, emptying: Option<&Emptying>) -> anyhow::Result<()> {
    let mut times = Vec::new();
    let mut cost = Cost::default();
    let (mut status, mut bytes, mut note) = (0, 0, String::new());
    let mut kept: Option<Connection> = None;
    for n in 0..options.runs {
        if let Some(emptying) = emptying {
            server.forget_all(emptying)?;
            kept = None;
        }
        let connection = match &mut kept {
            Some(connection) => connection,
            None => kept.insert(greeted(server)?),
        };
        let path = (case.path)(options, n);
        let look = server.pid().map(Look::at).transpose()?;
        let from = Instant::now();
        let answer = connection.send("GET", &path, &[], &[]).with_context(|| path.clone())?;
        times.push(from.elapsed());
        if let Some(look) = look {
            cost += look.cost()?;
        }
        (status, bytes) = (answer.status, answer.body.len());
        if n == 0 || answer.status != 200 {
            note = summary(&answer.body);
        }
    }
    let each = |sum: u64, unit: f64| match server.pid() {
        Some(_) => format!("{:.1}", sum as f64 / unit / options.runs as f64),
        None => "-".to_owned(),
    };
    let first = times[0];
    times.sort();
    let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
    let last_of_100 = (times.len() * 99).div_ceil(100) - 1;
    println!(
        "{:<22} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10}  {status} {note}",
        case.name,
        ms(first),
        ms(times[times.len() / 2]),
        ms(times[last_of_100]),
        each(cost.cpu_ns, 1e6),
        each(cost.disk, 1024.0),
        each(cost.read, 1024.0),
        bytes
    );
    Ok(())
}

/// A connection that has carried a request already, so that no query pays for the first.
fn greeted(server: &Server) -> anyhow::Result<Connection> {
    let mut connection = server.connect()?;
    connection.send("GET", "/api/echo", &[], &[]).context("GET /api/echo")?;
    Ok(connection)
}

/// How many blocks the server says that a search over everything has to look at.
fn blocks(options: &Options, server: &Server) -> anyhow::Result<String> {
    let path = cases::everything(options);
    let answer = server.connect()?.send("GET", &path, &[], &[]).with_context(|| path.clone())?;
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(&answer.body) else { return Ok("unknown".to_owned()) };
    Ok(body["metrics"]["totalBlocks"].as_u64().unwrap_or(0).to_string())
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
