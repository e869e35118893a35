//! When the spans of a trace's pieces start, noted by the first who reads the trace page by page and kept with the pieces: later pages
//! look only at the pieces that have some of them.
//!
//! A note is 16 bytes for each piece, and goes with it.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use vivace_protocol::trace_page::Extent;

/// Of the first pieces of a trace, as many as have been looked at; pieces are added at the end only.
#[derive(Debug, Default)]
pub(crate) struct Noted(Mutex<Vec<Extent>>);

/// What one place (a head, a cut) has of a trace: pieces in the order of the log.
#[derive(Debug, Clone)]
pub(crate) struct Pieces {
    pub(crate) bytes: Vec<Bytes>,
    pub(super) noted: Arc<Noted>,
}

impl Pieces {
    /// With when the spans of each start; walks those that nobody has looked at.
    pub(crate) fn measured(self) -> Vec<(Bytes, Extent)> {
        let mut noted = self.noted.0.lock();
        let known = noted.len().min(self.bytes.len());
        noted.extend(self.bytes[known..].iter().map(|piece| Extent::of(piece)));
        let extents = noted[..self.bytes.len()].to_vec();
        drop(noted);
        self.bytes.into_iter().zip(extents).collect()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span};
    use vivace_protocol::tempopb::Trace;

    use super::super::head::{Held, Piece};
    use super::*;

    fn piece(start: u64) -> Bytes {
        let span = Span { start_time_unix_nano: start, ..Span::default() };
        let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
        let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
        Trace { resource_spans: vec![resource] }.encode_to_vec().into()
    }

    #[test]
    fn a_piece_is_looked_at_once_and_those_that_come_later_then() {
        let mut held = Held::new(0);
        let extents = |pieces: Pieces| pieces.measured().into_iter().map(|(_, extent)| extent).collect::<Vec<_>>();
        held.push(Piece { offset: 1, bytes: piece(10) });
        let before = held.pieces();
        assert_eq!(extents(before.clone()), [Extent::of(&piece(10))]);
        // Another note tells whether it is asked.
        before.noted.0.lock()[0] = Extent::of(&piece(77));
        held.push(Piece { offset: 2, bytes: piece(20) });
        assert_eq!(extents(held.pieces()), [Extent::of(&piece(77)), Extent::of(&piece(20))]);
        assert_eq!(extents(before), [Extent::of(&piece(77))]);
    }
}
