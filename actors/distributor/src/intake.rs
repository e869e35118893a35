//! What the receivers of all protocols do alike with a body before it is pushed.

use std::sync::Arc;

use bytes::Bytes;
use vivace_protocol::{Error, json};

use crate::encoding::{DecompressError, Decompression, Encoding};
use crate::metrics::{ReceiverMetrics, TurnedAway};
use crate::push::{Push, Pusher, Refusal};
use crate::reservation::Reservation;
use crate::tenant::Tenancy;

/// Decompressing this much takes a few milliseconds at worst: as long as a server thread may be kept. The rest goes to the
/// compute pool.
const INLINE_DECOMPRESSED_BYTES: usize = 512 << 10;
/// JSON is slower.
const INLINE_JSON_BYTES: usize = 128 << 10;

/// One receiver's way in.
pub(crate) struct Intake {
    pub(crate) pusher: Arc<Pusher>,
    pub(crate) tenancy: Tenancy,
    pub(crate) metrics: ReceiverMetrics,
}

impl Intake {
    /// Decompresses a body under its reservation.
    pub(crate) async fn decompress(
        &self,
        encoding: Encoding,
        body: Bytes,
        limit_bytes: usize,
        mut reservation: Reservation,
    ) -> Result<(Bytes, Reservation), DecompressError> {
        let pinned = body.len();
        let mut work = Decompression::new(encoding, body, limit_bytes, &mut reservation)?;
        if work.run(INLINE_DECOMPRESSED_BYTES, &mut reservation)? {
            return Ok((work.finish(), reservation));
        }
        let rest = move || {
            while !work.run(usize::MAX, &mut reservation)? {}
            Ok((work.finish(), reservation))
        };
        let finished = self.pusher.compute.run(pinned, rest).await;
        finished.unwrap_or_else(|status| Err(DecompressError::Interrupted(status.into())))
    }

    /// Rewrites OTLP's JSON as protobuf.
    pub(crate) async fn json_to_protobuf(&self, body: Bytes) -> Result<Bytes, Error> {
        let pinned = body.len();
        let convert = move || json::otlp_to_protobuf(&body);
        let converted = if pinned <= INLINE_JSON_BYTES {
            convert()
        } else {
            self.pusher.compute.run(pinned, convert).await.map_err(Error::from)?
        };
        converted.map(Bytes::from).map_err(|error| Error::fix_request(error.to_string()))
    }

    /// Pushes and counts.
    pub(crate) async fn push(&self, push: Push) -> Result<(), Refusal> {
        self.pusher.push(push, &self.metrics).await
    }

    /// Counts a request that was turned away before it was read, or while it was.
    pub(crate) fn turned_away(&self, why: TurnedAway, error: Error) -> Error {
        self.pusher.metrics.turned_away(why);
        error
    }
}
