//! The ledger of acknowledged requests: what got a 2xx must be found, whole and once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use prost::Message;
use vivace_protocol::tempopb;

use crate::http::Connection;
use crate::load::{self, Template};

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx: a promise.
    Acknowledged,
    /// A status that says no; carries it.
    Refused(u16),
    /// The connection broke: the request may or may not have been taken.
    Unknown,
}

/// All requests of one run.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    /// Seed of the ids.
    pub seed: u64,
    /// Outcome by sequence number.
    pub outcomes: BTreeMap<u64, Outcome>,
}

impl Ledger {
    /// Sequence numbers that were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<u64> {
        self.outcomes.iter().filter(|(_, o)| **o == Outcome::Acknowledged).map(|(s, _)| *s).collect()
    }

    /// The last `newest` acknowledged requests below `before`, and about `others` of the earlier ones, evenly chosen: what
    /// a crash can take is at the end, but everything is sampled.
    #[must_use]
    pub fn sample(&self, newest: usize, others: usize) -> Vec<u64> {
        let all = self.acknowledged();
        let (early, late) = all.split_at(all.len().saturating_sub(newest));
        let stride = early.len().div_ceil(others.max(1)).max(1);
        early.iter().step_by(stride).chain(late).copied().collect()
    }

    /// The last `count` acknowledged requests: what a crash can take.
    #[must_use]
    pub fn newest(&self, count: usize) -> Vec<u64> {
        let all = self.acknowledged();
        all[all.len().saturating_sub(count)..].to_vec()
    }

    /// [`Ledger::verify`] of every trace of the given requests, over several connections at once.
    ///
    /// # Errors
    /// As [`Ledger::verify`].
    pub fn verify_parallel(
        &self,
        sequences: &[u64],
        http: SocketAddr,
        template: &Template,
        connections: usize,
    ) -> anyhow::Result<usize> {
        self.verify_some(sequences, http, template, connections, 1)
    }

    /// The same of every `stride`-th trace of the given requests.
    ///
    /// # Errors
    /// As [`Ledger::verify`].
    pub fn verify_some(
        &self,
        sequences: &[u64],
        http: SocketAddr,
        template: &Template,
        connections: usize,
        stride: usize,
    ) -> anyhow::Result<usize> {
        let share = sequences.len().div_ceil(connections.max(1)).max(1);
        std::thread::scope(|scope| {
            let check = |part| scope.spawn(move || self.verify(part, http, template, stride));
            let workers: Vec<_> = sequences.chunks(share).map(check).collect();
            let checked =
                workers.into_iter().map(|worker| worker.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
            checked.sum()
        })
    }

    /// Asks for every trace of the given requests and fails on the first span that is missing or there twice.
    ///
    /// Every `stride`-th trace of a request is checked; 1 checks all.
    ///
    /// # Errors
    /// Names the request, the trace and what is wrong with it.
    pub fn verify(
        &self,
        sequences: &[u64],
        http: SocketAddr,
        template: &Template,
        stride: usize,
    ) -> anyhow::Result<usize> {
        let mut connection = Connection::open(http, Duration::from_secs(30)).context("connect")?;
        let mut checked = 0;
        for &sequence in sequences {
            for trace in (0..template.trace_count()).step_by(stride) {
                let id = load::trace_id(self.seed, sequence, trace);
                let expected: BTreeSet<Vec<u8>> =
                    template.spans_of(trace).into_iter().map(|s| load::span_id(&id, s).to_vec()).collect();
                let found = fetch(&mut connection, &id)
                    .with_context(|| format!("request {sequence}, trace {trace} ({})", hex(&id)))?;
                let unique: BTreeSet<Vec<u8>> = found.iter().cloned().collect();
                if unique.len() != found.len() {
                    bail!("request {sequence}, trace {trace} ({}): a span is there twice", hex(&id));
                }
                if unique != expected {
                    bail!(
                        "request {sequence}, trace {trace} ({}): {} of {} spans found",
                        hex(&id),
                        unique.intersection(&expected).count(),
                        expected.len()
                    );
                }
                checked += 1;
            }
        }
        Ok(checked)
    }
}

/// The span ids of one trace, as the server has them.
///
/// # Errors
/// When the answer is not 200, or not a trace.
pub fn fetch(connection: &mut Connection, id: &[u8; 16]) -> anyhow::Result<Vec<Vec<u8>>> {
    let answer =
        connection.send("GET", &format!("/api/traces/{}", hex(id)), &[("Accept", "application/protobuf")], &[])?;
    if answer.status != 200 {
        bail!("status {}: {}", answer.status, answer.text());
    }
    let trace = tempopb::Trace::decode(answer.body.as_slice()).context("decode the trace")?;
    Ok(span_ids(&trace))
}

/// The same from the second version of the API, where a trace may be partial; not found is no span.
///
/// # Errors
/// When the answer is neither 200 nor 404, or not a trace.
pub fn fetch_v2(connection: &mut Connection, id: &[u8; 16]) -> anyhow::Result<Vec<Vec<u8>>> {
    let path = format!("/api/v2/traces/{}", hex(id));
    let answer = connection.send("GET", &path, &[("Accept", "application/protobuf")], &[])?;
    match answer.status {
        200 => {}
        404 => return Ok(Vec::new()),
        status => bail!("status {status}: {}", answer.text()),
    }
    let answer = tempopb::TraceByIdResponse::decode(answer.body.as_slice()).context("decode the trace")?;
    Ok(answer.trace.as_ref().map(span_ids).unwrap_or_default())
}

fn span_ids(trace: &tempopb::Trace) -> Vec<Vec<u8>> {
    trace
        .resource_spans
        .iter()
        .flat_map(|r| &r.scope_spans)
        .flat_map(|s| &s.spans)
        .map(|s| s.span_id.to_vec())
        .collect()
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Sends one request; never fails, but says what became of it. A broken connection is dropped.
pub fn send(connection: &mut Option<Connection>, addr: SocketAddr, body: &[u8]) -> Outcome {
    if connection.is_none() {
        *connection = Connection::open(addr, Duration::from_secs(20)).ok();
    }
    let Some(open) = connection else { return Outcome::Unknown };
    match open.send("POST", "/v1/traces", &[("Content-Type", "application/x-protobuf")], body) {
        Ok(answer) if (200..300).contains(&answer.status) => Outcome::Acknowledged,
        Ok(answer) => Outcome::Refused(answer.status),
        Err(_) => {
            *connection = None;
            Outcome::Unknown
        }
    }
}
