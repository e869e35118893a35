//! A large trace on its way to the client: written while it is read, so that nobody ever holds it.
//!
//! Its parts come as they are found, each span once; they are not sorted over the whole, and ids that client and server spans
//! share are not told apart, as both need all of it. What it was read from is known at the end and comes in the trailer
//! `X-Vivace-Coverage`. If the first form of the trace API turns out to be incomplete or too large it cannot say so any more, so
//! the connection is cut: no client takes the piece for the whole.

use std::sync::Arc;

use axum::BoxError;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use parking_lot::Mutex;
use prost::Message;
use vivace_protocol::find_trace::{self, Pieces};
use vivace_protocol::json::{self, ToJson};
use vivace_protocol::otlp::trace::ResourceSpans;
use vivace_protocol::tempopb;

use super::gather::{Gathering, HELD};
use super::{resources, rest, too_large};
use crate::coverage::Covered;
use crate::respond::{Form, Manner};

/// JSON is made from pieces of about this size: as objects they take ten times as much.
const PIECE: usize = 1 << 20;

/// Which endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// The answer being written.
struct Flow {
    gathering: Gathering,
    version: Version,
    manner: Manner,
    max_bytes: usize,
    require_complete: bool,
    covered: Arc<Mutex<Covered>>,
    step: Step,
}

enum Step {
    Head,
    /// What is held, in pieces.
    Pieces(Pieces, bool),
    /// The next parts; whether something was written yet.
    Next(bool),
    Tail,
    End,
}

/// Why an answer that has begun cannot be finished.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("the trace may be incomplete: {0}")]
    Incomplete(String),
    #[error("trace exceeds max size (max bytes: {0})")]
    TooLarge(usize),
    #[error("{0}")]
    Refused(String),
    #[error("a part of the trace: {0}")]
    Wire(#[from] vivace_protocol::wire::WireError),
    #[error("a part of the trace: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// The answer, of which nothing is written yet.
pub(super) fn answer(
    gathering: Gathering,
    version: Version,
    manner: Manner,
    max_bytes: usize,
    require_complete: bool,
) -> Response {
    let covered = Arc::new(Mutex::new(Covered::default()));
    let at_the_end = Arc::clone(&covered);
    let flow = Flow { gathering, version, manner, max_bytes, require_complete, covered, step: Step::Head };
    manner.flow(flow.pieces(), move || at_the_end.lock().header())
}

impl Flow {
    fn pieces(self) -> impl Stream<Item = Result<Vec<u8>, BoxError>> + Send + 'static {
        stream::unfold(Some(self), |flow| async move {
            let mut flow = flow?;
            match flow.piece().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(flow))),
                Ok(None) => None,
                Err(cut) => {
                    tracing::warn!(error = %cut, "a trace that is being written is cut off");
                    Some((Err(BoxError::from(cut)), None))
                }
            }
        })
    }

    fn is_json(&self) -> bool {
        self.manner.form != Form::Protobuf
    }

    async fn piece(&mut self) -> Result<Option<Vec<u8>>, Cut> {
        loop {
            match &mut self.step {
                Step::Head => {
                    self.step = self.drained(false);
                    if self.is_json() {
                        let head = match self.version {
                            Version::One => "{\"batches\":[",
                            Version::Two => "{\"trace\":{\"resourceSpans\":[",
                        };
                        return Ok(Some(head.into()));
                    }
                }
                Step::Pieces(pieces, written) => match pieces.next() {
                    Some(piece) => {
                        let (piece, first) = (piece?, !*written);
                        *written = true;
                        return self.write(&piece, first).map(Some);
                    }
                    None => self.step = Step::Next(*written),
                },
                Step::Next(written) => {
                    let written = *written;
                    let ended = self.gathering.hold(HELD / 4).await.map_err(|refusal| Cut::Refused(refusal.text))?;
                    let more = self.gathering.combiner.held_bytes() > 0;
                    self.step = if more { self.drained(written) } else { Step::Next(written) };
                    if ended && !more {
                        self.step = Step::Tail;
                    }
                }
                Step::Tail => {
                    self.step = Step::End;
                    return self.tail().map(Some);
                }
                Step::End => return Ok(None),
            }
        }
    }

    fn drained(&mut self, written: bool) -> Step {
        Step::Pieces(find_trace::pieces(self.gathering.combiner.drain(), PIECE), written)
    }

    fn write(&self, piece: &Bytes, first: bool) -> Result<Vec<u8>, Cut> {
        match (self.is_json(), self.version) {
            (true, _) => {
                let mut out = Vec::with_capacity(piece.len() * 2);
                let mut first = first;
                for resource in resources(piece)? {
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    json::write_resource_spans(&ResourceSpans::decode(resource)?, &mut out);
                }
                Ok(out)
            }
            (false, Version::One) => Ok(piece.to_vec()),
            // The field of the trace over and over: readers of protobuf merge what comes in several pieces.
            (false, Version::Two) => {
                let mut out = BytesMut::with_capacity(piece.len() + 8);
                prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut out);
                prost::encoding::encode_varint(piece.len() as u64, &mut out);
                out.extend_from_slice(piece);
                Ok(out.into())
            }
        }
    }

    fn tail(&self) -> Result<Vec<u8>, Cut> {
        let (full, search) = (self.gathering.combiner.is_full(), &self.gathering.search);
        let complete = search.covered().complete();
        self.covered.lock().clone_from(search.covered());
        if !complete && (self.version == Version::One || self.require_complete) {
            return Err(Cut::Incomplete(search.covered().message()));
        }
        let mut messages = Vec::new();
        match self.version {
            Version::One if full => return Err(Cut::TooLarge(self.max_bytes)),
            Version::One if self.is_json() => {
                return Ok(format!("]{}", self.manner.tail(search.covered(), false)).into());
            }
            Version::One => return Ok(Vec::new()),
            Version::Two => {}
        }
        if full {
            messages.push(too_large(self.max_bytes));
        }
        if !complete {
            messages.push(search.covered().message());
        }
        let rest = rest(search.inspected_bytes(), &messages);
        Ok(if self.is_json() { json_tail(&rest, self.manner, search.covered()) } else { rest.encode_to_vec() })
    }
}

/// What follows the resources of the second form.
pub(super) fn json_tail(rest: &tempopb::TraceByIdResponse, manner: Manner, covered: &Covered) -> Vec<u8> {
    let mut tail = Vec::new();
    rest.write_json(&mut tail);
    let tail = String::from_utf8_lossy(&tail);
    let tail = tail.strip_prefix("{\"trace\":{}").and_then(|tail| tail.strip_suffix('}')).unwrap_or_default();
    format!("]}}{tail}{}", manner.tail(covered, false)).into()
}
