//! Room of a section for its pieces: copied out of what the log delivered, one behind the other, into chunks of one size.
//!
//! What a fetch brought can go as soon as its records are filed, and a section that goes leaves room of the very shape that the next one
//! asks for. Pieces that kept the answers of the brokers alive left holes of all sizes.

use bytes::{Bytes, BytesMut};

/// Large enough that the allocator takes it from the system and gives it back as a whole.
const CHUNK_BYTES: usize = 1 << 20;
/// A piece of this size has room of its own: less than a quarter of a chunk is left over.
const LARGE_BYTES: usize = CHUNK_BYTES / 4;

/// The chunk that is being filled; full ones live as long as their pieces.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    open: BytesMut,
}

impl Chunks {
    /// A copy of the piece.
    pub(crate) fn keep(&mut self, piece: &[u8]) -> Bytes {
        if piece.len() >= LARGE_BYTES {
            return Bytes::copy_from_slice(piece);
        }
        if self.open.capacity() < piece.len() {
            self.open = BytesMut::with_capacity(CHUNK_BYTES);
        }
        self.open.extend_from_slice(piece);
        self.open.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_does_not_keep_alive_what_it_came_with() {
        for len in [0, 1, LARGE_BYTES - 1, LARGE_BYTES] {
            let answer = Bytes::from(vec![7; len + 1]);
            let kept = Chunks::default().keep(&answer.slice(..len));
            assert_eq!(kept, answer[..len]);
            assert!(answer.is_unique(), "{len}");
        }
    }

    #[test]
    fn pieces_stand_side_by_side_until_a_chunk_is_full() {
        let mut chunks = Chunks::default();
        let kept: Vec<Bytes> = (0..=CHUNK_BYTES / 1024).map(|_| chunks.keep(&[1; 1024])).collect();
        let neighbours = kept.windows(2).filter(|pair| pair[0].as_ptr_range().end == pair[1].as_ptr()).count();
        assert_eq!(neighbours, CHUNK_BYTES / 1024 - 1, "all but the last, which begins the second chunk");
    }

    #[test]
    fn what_is_kept_is_what_came() {
        let mut chunks = Chunks::default();
        let lens = (1..400).map(|number| number * number % (2 * LARGE_BYTES));
        let pieces: Vec<Vec<u8>> = lens.zip((0..=u8::MAX).cycle()).map(|(len, byte)| vec![byte; len]).collect();
        let kept: Vec<Bytes> = pieces.iter().map(|piece| chunks.keep(piece)).collect();
        assert_eq!(kept, pieces);
    }
}
