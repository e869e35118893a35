//! Reads an answer that is larger than a client should hold, as it comes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use vivace_integration::http::Connection;

use super::trace::Seen;

/// No single read of an answer may take longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// How the trace comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    /// Version 1 in protobuf: a trace.
    Trace,
    /// Version 2 in protobuf: an answer with pieces of a trace.
    Answer,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) bytes: u64,
    pub(crate) spans: u64,
    pub(crate) first: Duration,
    pub(crate) took: Duration,
}

/// Fetches the trace and counts its spans, each of which has to be there once (as JSON they are counted only).
///
/// # Errors
/// No whole answer, or a span twice.
pub(crate) fn fetch(http: SocketAddr, path: &str, form: Form, spans: u64) -> anyhow::Result<Fetched> {
    let began = Instant::now();
    let accept = if form == Form::Json { "application/json" } else { "application/protobuf" };
    let mut reader = Reader { form, rest: Vec::new(), seen: Seen::new(spans), texts: 0 };
    let (mut bytes, mut first, mut wrong) = (0, None, None);
    let answer = Connection::open(http, PATIENCE)?.get_in_pieces(path, &[("Accept", accept)], &mut |piece| {
        first.get_or_insert_with(|| began.elapsed());
        bytes += piece.len() as u64;
        if wrong.is_none() {
            wrong = reader.read(piece).err();
        }
    });
    let answer = answer.with_context(|| format!("GET {path}"))?;
    ensure!(answer.status == 200, "GET {path}: status {}", answer.status);
    wrong.map_or(Ok(()), Err).with_context(|| format!("GET {path}"))?;
    ensure!(reader.form == Form::Json || reader.rest.is_empty(), "GET {path}: the answer ends within a field");
    let spans = if form == Form::Json { reader.texts } else { reader.seen.count() };
    Ok(Fetched { bytes, spans, first: first.unwrap_or_default(), took: began.elapsed() })
}

/// Takes an answer apart while it comes.
struct Reader {
    form: Form,
    /// The beginning of a field, or of a word.
    rest: Vec<u8>,
    seen: Seen,
    texts: u64,
}

/// What each span has once in JSON.
const SPAN_ID: &[u8] = b"\"spanId\":";

impl Reader {
    fn read(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        self.rest.extend_from_slice(piece);
        if self.form == Form::Json {
            self.texts += self.rest.windows(SPAN_ID.len()).filter(|window| *window == SPAN_ID).count() as u64;
            let kept = self.rest.len().min(SPAN_ID.len() - 1);
            self.rest.drain(..self.rest.len() - kept);
            return Ok(());
        }
        let mut at = 0;
        while let Some((key, value, end)) = field(&self.rest[at..]) {
            let value = &self.rest[at + value..at + end];
            match self.form {
                Form::Answer if key == 0x0a => self.seen.add(value, false)?,
                Form::Trace if key == 0x0a => self.seen.add(&self.rest[at..at + end], false)?,
                Form::Json | Form::Trace | Form::Answer => {}
            }
            at += end;
        }
        self.rest.drain(..at);
        Ok(())
    }
}

/// The first field of a message: its key, where its value begins and where it ends; none while it is not all there.
fn field(bytes: &[u8]) -> Option<(u64, usize, usize)> {
    let (key, at) = varint(bytes, 0)?;
    let (value, end) = match key & 7 {
        0 => (at, varint(bytes, at)?.1),
        1 => (at, at + 8),
        5 => (at, at + 4),
        _ => {
            let (len, value) = varint(bytes, at)?;
            (value, value.checked_add(usize::try_from(len).ok()?)?)
        }
    };
    (end <= bytes.len()).then_some((key, value, end))
}

fn varint(bytes: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use vivace_protocol::tempopb::{PartialStatus, Trace, TraceByIdResponse};

    use super::super::trace::Requests;
    use super::*;

    #[test]
    fn an_answer_is_understood_in_pieces_of_any_size() {
        let parts: Vec<Vec<u8>> = Requests::new(1000, 1).collect();
        let mut answer = Vec::new();
        for part in &parts {
            let trace = Some(Trace::decode(part.as_slice()).unwrap());
            TraceByIdResponse { trace, ..TraceByIdResponse::default() }.encode(&mut answer).unwrap();
        }
        let message = "m".repeat(300);
        TraceByIdResponse { status: PartialStatus::Partial.into(), message, ..TraceByIdResponse::default() }
            .encode(&mut answer)
            .unwrap();
        let json = format!("[{}]", "{\"spanId\":\"1\"},".repeat(1000));
        for (form, body) in [(Form::Answer, answer), (Form::Trace, parts.concat()), (Form::Json, json.into_bytes())] {
            for size in [1, 7, 4096] {
                let mut reader = Reader { form, rest: Vec::new(), seen: Seen::new(1000), texts: 0 };
                body.chunks(size).for_each(|piece| reader.read(piece).unwrap());
                assert_eq!(if form == Form::Json { reader.texts } else { reader.seen.count() }, 1000);
            }
        }
    }
}
