//! Frames that were heard before: a window of counters per sending session, as IPsec keeps one.

use std::collections::HashMap;

/// How far behind the newest counter of its session a frame may come.
pub const WINDOW: u32 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;
/// Sessions remembered. One is a process of a member between two wraps of its counter.
const SESSIONS_MAX: usize = 4096;

/// Tells a frame that is new from one that somebody recorded and sent again.
///
/// A process that has just started has heard nothing, so an old frame passes once. What frames say is merged, not obeyed
/// (a stale state loses), so such a frame changes nothing.
#[derive(Debug, Default)]
pub struct Replay {
    sessions: HashMap<u64, Window>,
    serial: u64,
}

#[derive(Debug)]
struct Window {
    newest: u32,
    seen: [u64; WORDS],
    used: u64,
}

impl Replay {
    /// Whether the frame is new; it is remembered.
    pub fn admit(&mut self, session: u64, counter: u32) -> bool {
        self.serial += 1;
        let used = self.serial;
        if !self.sessions.contains_key(&session) && self.sessions.len() >= SESSIONS_MAX {
            self.forget_oldest();
        }
        let window = self.sessions.entry(session).or_insert(Window { newest: counter, seen: [0; WORDS], used });
        window.used = used;
        window.admit(counter)
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.sessions.iter().min_by_key(|(_, window)| window.used).map(|(session, _)| *session) {
            self.sessions.remove(&oldest);
        }
    }
}

impl Window {
    fn admit(&mut self, counter: u32) -> bool {
        if counter > self.newest {
            let ahead = counter - self.newest;
            if ahead >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                for skipped in 1..=ahead {
                    self.clear(self.newest.wrapping_add(skipped));
                }
            }
            self.newest = counter;
        } else if self.newest - counter >= WINDOW {
            return false;
        }
        let (word, bit) = Self::place(counter);
        let new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        new
    }

    fn clear(&mut self, counter: u32) {
        let (word, bit) = Self::place(counter);
        self.seen[word] &= !bit;
    }

    fn place(counter: u32) -> (usize, u64) {
        let slot = counter % WINDOW;
        ((slot / 64) as usize, 1 << (slot % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_is_admitted_once() {
        let mut replay = Replay::default();
        assert!(replay.admit(1, 10));
        assert!(!replay.admit(1, 10));
        assert!(replay.admit(2, 10));
        assert!(replay.admit(1, 9), "late, not heard before");
        assert!(!replay.admit(1, 9));
    }

    #[test]
    fn what_is_older_than_the_window_is_refused() {
        let mut replay = Replay::default();
        assert!(replay.admit(1, 5000));
        assert!(!replay.admit(1, 5000 - WINDOW));
        assert!(replay.admit(1, 5001 - WINDOW));
    }

    #[test]
    fn sessions_are_bounded() {
        let mut replay = Replay::default();
        for session in 0..10_000 {
            assert!(replay.admit(session, 1));
        }
        assert!(replay.sessions.len() <= SESSIONS_MAX);
        assert!(!replay.admit(9_999, 1));
    }

    proptest! {
        #[test]
        fn no_counter_passes_twice(counters in proptest::collection::vec(0_u32..6000, 0..300)) {
            let mut replay = Replay::default();
            let mut passed = std::collections::HashSet::new();
            for counter in counters {
                if replay.admit(7, counter) {
                    prop_assert!(passed.insert(counter));
                }
            }
        }
    }
}
