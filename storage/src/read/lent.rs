//! Memory that reads of files go into, used again and again: touching memory for the first time costs about as much as reading into
//! it, and what is read is unpacked and forgotten.

use std::cell::RefCell;

use bytes::Bytes;

/// Less than this is taken from the allocator, which has it at hand.
const LEAST: usize = 64 << 10;
/// So is more than this, which is rare and would be a lot to keep.
const MOST: usize = (1 << 20) + (256 << 10);
/// Kept for a thread.
const KEPT: usize = 2;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// `len` bytes that `fill` writes. What was there before is not theirs to see.
pub(super) fn filled<E>(len: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Bytes, E> {
    if !(LEAST..=MOST).contains(&len) {
        let mut memory = vec![0; len];
        fill(&mut memory)?;
        return Ok(memory.into());
    }
    let mut memory = taken(len);
    fill(&mut memory[..len])?;
    Ok(Bytes::from_owner(Lent { memory, len }))
}

/// Memory of at least `len` bytes.
fn taken(len: usize) -> Vec<u8> {
    FREE.with_borrow_mut(|free| {
        let fitting = free.iter().position(|memory| memory.len() >= len);
        fitting.map(|at| free.swap_remove(at))
    })
    .unwrap_or_else(|| vec![0; len.next_multiple_of(LEAST)])
}

struct Lent {
    memory: Vec<u8>,
    len: usize,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        // A thread that ends keeps nothing.
        let kept = |free: &RefCell<Vec<Vec<u8>>>| {
            let mut free = free.borrow_mut();
            // The largest ones are of use for most reads.
            match free.iter().position(|other| other.len() < memory.len()) {
                Some(smaller) if free.len() >= KEPT => free[smaller] = memory,
                _ if free.len() < KEPT => free.push(memory),
                _ => {}
            }
        };
        FREE.try_with(kept).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(len: usize, byte: u8) -> Bytes {
        filled(len, |memory| {
            memory.fill(byte);
            Ok::<(), ()>(())
        })
        .unwrap()
    }

    #[test]
    fn memory_is_used_again_when_nobody_holds_it_any_more() {
        let first = read(LEAST + 5, 1);
        let place = first.as_ptr();
        let part = first.slice(LEAST..);
        drop(first);
        // A part of it is still held.
        let second = read(LEAST, 2);
        assert_ne!(second.as_ptr(), place);
        assert!(part.iter().all(|byte| *byte == 1) && second.iter().all(|byte| *byte == 2));
        drop(part);
        let third = read(LEAST + 1, 3);
        assert_eq!((third.as_ptr(), third.len()), (place, LEAST + 1));
        assert!(third.iter().all(|byte| *byte == 3));
    }

    #[test]
    fn a_read_that_fails_is_an_error_and_little_is_kept() {
        assert_eq!(filled(LEAST, |_| Err("no disk")), Err("no disk"));
        drop((0..5).map(|_| read(MOST, 4)).collect::<Vec<_>>());
        drop(read(MOST + 1, 5));
        drop(read(10, 6));
        FREE.with_borrow(|free| {
            assert_eq!(free.len(), KEPT);
            assert!(free.iter().all(|memory| (MOST..MOST + LEAST).contains(&memory.len())));
        });
    }
}
