//! Sends spans to a server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use vivace_integration::ledger::{self, Outcome};
use vivace_integration::load::Template;
use vivace_runtime::{Clock, SystemClock};

use crate::options::{Options, SPANS, TEMPLATES};

/// The requests that all spans are made of.
pub(crate) fn templates(options: &Options) -> Vec<Template> {
    (0..TEMPLATES).map(|number| Template::new(options.seed * 1000 + number, SPANS)).collect()
}

/// The template of a request.
pub(crate) fn slot(sequence: u64) -> usize {
    usize::try_from(sequence % TEMPLATES).unwrap_or(0)
}

/// Sends the requests from the first wanted on.
pub(crate) fn all(options: &Options, otlp: SocketAddr) -> anyhow::Result<()> {
    let mut connection = None;
    let mut templates = templates(options);
    let (mut sent, mut sequence) = (0, options.first);
    let from = Instant::now();
    while sequence < options.requests() {
        let template = templates.get_mut(slot(sequence)).context("there is a template for every request")?;
        let body = template.fill(options.seed, sequence, SystemClock.unix_nanos());
        match ledger::send(&mut connection, otlp, body) {
            Outcome::Acknowledged => {
                sent += template.span_count();
                sequence += 1;
            }
            // A refusal asks to come back later; the next attempt sends the same ids.
            Outcome::Refused(_) | Outcome::Unknown => std::thread::park_timeout(Duration::from_millis(200)),
        }
    }
    println!("sent {sent} spans in {:.1} s", from.elapsed().as_secs_f64());
    Ok(())
}
