//! Reading request bodies: within a limit, under the budget, in time.

use std::pin::pin;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt as _;

use crate::reservation::Reservation;

/// A refused body is read and thrown away up to this size, because many clients look for the answer only after they have sent
/// everything. What is larger meets a closed connection.
const DISCARD_BYTES: usize = 256 << 10;
/// The first step of a body whose length was not announced.
const FIRST_STEP_BYTES: usize = 16 << 10;

/// Why there is no body. Nothing happened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Announced or found to be larger than the limit.
    #[error("body is larger than the limit")]
    TooLarge,
    /// The process has no room for it now; try again.
    #[error("no room for the body")]
    Overloaded(#[source] vivace_log::Error),
    /// The connection broke or spoke nonsense.
    #[error("body could not be read: {0}")]
    Broken(String),
}

/// Bytes of a body, gathered without copying when they come in one piece.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    first: Bytes,
    rest: Vec<u8>,
}

impl Gathered {
    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// All bytes so far, where that is cheap to have: only for the first few.
    pub(crate) fn head<const N: usize>(&self) -> Option<[u8; N]> {
        let mut head = [0; N];
        let source = if self.rest.is_empty() { &self.first[..] } else { &self.rest[..] };
        head.copy_from_slice(source.get(..N)?);
        Some(head)
    }

    /// Adds a piece; `expected` is the whole size if it is known, and memory grows under the reservation, not beyond `limit`.
    pub(crate) fn push(
        &mut self,
        piece: Bytes,
        expected: Option<usize>,
        limit: usize,
        reservation: &mut Reservation,
    ) -> Result<(), BodyError> {
        let len = self.len() + piece.len();
        if len > limit {
            return Err(BodyError::TooLarge);
        }
        if self.len() == 0 {
            reservation.cover(len).map_err(BodyError::Overloaded)?;
            self.first = piece;
            return Ok(());
        }
        // From the second piece on everything lies in `rest`.
        if len > self.rest.capacity() {
            let grown =
                expected.unwrap_or_else(|| (self.rest.capacity() * 2).max(FIRST_STEP_BYTES)).min(limit).max(len);
            reservation.cover(grown).map_err(BodyError::Overloaded)?;
            self.rest.reserve_exact(grown - self.rest.len());
        }
        self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        self.rest.extend_from_slice(&piece);
        Ok(())
    }

    pub(crate) fn finish(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.into() }
    }
}

/// Reads a whole body of at most `limit` bytes. A length that was announced is reserved, or refused, before the first byte.
pub(crate) async fn read<B>(body: B, limit: usize, reservation: &mut Reservation) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let mut body = pin!(body);
    let expected = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if let Some(bytes) = expected {
        if bytes > limit {
            return Err(BodyError::TooLarge);
        }
        reservation.cover(bytes).map_err(BodyError::Overloaded)?;
    }
    let mut gathered = Gathered::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        if let Ok(piece) = frame.into_data() {
            gathered.push(piece, expected, limit, reservation)?;
        }
    }
    Ok(gathered.finish())
}

/// Reads what is left of a refused request, a little of it, and keeps nothing.
pub(crate) async fn discard<B>(body: B)
where
    B: Body<Data = Bytes>,
{
    let mut body = pin!(body);
    let mut left = DISCARD_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(bytes) else { return };
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use http_body::Frame;
    use http_body_util::{Full, StreamBody};
    use vivace_log::Budget;

    use super::*;

    fn pieces(sizes: &[usize]) -> impl Body<Data = Bytes, Error = Infallible> {
        let frames: Vec<_> = sizes
            .iter()
            .map(|size| Ok(Frame::data(Bytes::from(vec![u8::try_from(*size % 251).unwrap(); *size]))))
            .collect();
        StreamBody::new(futures::stream::iter(frames))
    }

    fn reservation(bytes: usize) -> (Budget, Reservation) {
        let budget = Budget::new(bytes, Duration::from_secs(1));
        (budget.clone(), crate::reservation::tests::reservation(&budget))
    }

    #[tokio::test]
    async fn one_piece_is_not_copied_and_several_are_joined() {
        let (_, mut reserved) = reservation(1 << 20);
        let body = Bytes::from(vec![1; 1000]);
        let read_back = read(Full::new(body.clone()), 2000, &mut reserved).await.unwrap();
        assert_eq!(read_back.as_ptr(), body.as_ptr());

        let joined = read(pieces(&[3, 0, 20_000, 7]), 1 << 20, &mut reserved).await.unwrap();
        assert_eq!(joined.len(), 20_010);
        assert_eq!((joined[0], joined[3], joined[20_009]), (3, u8::try_from(20_000 % 251).unwrap(), 7));
    }

    #[tokio::test]
    async fn an_announced_length_is_judged_before_anything_is_read() {
        let (budget, mut reserved) = reservation(500);
        let _other = budget.acquire(1).unwrap();
        let body = || Full::new(Bytes::from(vec![1; 1000]));
        assert!(matches!(read(body(), 999, &mut reserved).await, Err(BodyError::TooLarge)));
        assert!(matches!(read(body(), 1000, &mut reserved).await, Err(BodyError::Overloaded(_))));
    }

    #[tokio::test]
    async fn a_body_without_a_length_is_cut_off_at_the_limit_and_at_the_budget() {
        let (_, mut reserved) = reservation(1 << 20);
        assert!(matches!(read(pieces(&[600, 401]), 1000, &mut reserved).await, Err(BodyError::TooLarge)));
        assert_eq!(read(pieces(&[600, 400]), 1000, &mut reserved).await.unwrap().len(), 1000);
        let (budget, mut reserved) = reservation(100_000);
        let _other = budget.acquire(1).unwrap();
        let refused = read(pieces(&[50_000, 50_000, 50_000]), 1 << 20, &mut reserved).await;
        assert!(matches!(refused, Err(BodyError::Overloaded(_))));
    }
}
