//! Frames: what stands around every message between members, on datagrams and streams alike.
//!
//! ```text
//! plain:      version(1) flags(1) label(8) body
//! encrypted:  version(1) flags(1) label(8) key id(4) session(8) counter(4) sealed body, tag(16)
//! ```
//!
//! The label keeps clusters apart, encryption keeps strangers out, the counter keeps recorded frames out, and the first
//! byte is none that an HTTP request can begin with. On a stream each frame has its length before it (`transport`).

use std::net::SocketAddr;
use std::time::Duration;

use ring::digest::{SHA256, digest};

mod keys;
mod refusals;
mod replay;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

pub use keys::{BadKey, KEY_BYTES, Keys};
pub use refusals::{Offender, Refusals, Refused};
pub use replay::{Replay, WINDOW};
pub use wire::Malformed;

const VERSION: u8 = 0xc5;
const ENCRYPTED: u8 = 1;
const HEAD_BYTES: usize = 10;
const SEALED_HEAD_BYTES: usize = HEAD_BYTES + 16;

/// Bytes of the largest datagram: what fits a packet of an ordinary network over either family.
pub const DATAGRAM_BYTES_MAX: usize = 1400;
/// Bytes of the largest frame on a stream.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Bytes that a frame adds around a body, at most.
pub const OVERHEAD_BYTES_MAX: usize = SEALED_HEAD_BYTES + keys::TAG_BYTES;

/// Seals and opens the frames of one member.
#[derive(Debug)]
pub struct Frames {
    label: u64,
    any_label: bool,
    keys: Keys,
    session: u64,
    counter: u32,
    replay: Replay,
    refusals: Refusals,
}

impl Frames {
    /// Frames of the cluster `label`. `session` is random: it makes nonces of this process unlike those of all others.
    #[must_use]
    pub fn new(label: &str, keys: Keys, session: u64) -> Self {
        Self {
            label: label_hash(label),
            any_label: false,
            keys,
            session,
            counter: 0,
            replay: Replay::default(),
            refusals: Refusals::default(),
        }
    }

    /// Hears members of every label, while a label is introduced.
    #[must_use]
    pub fn any_label(mut self, any: bool) -> Self {
        self.any_label = any;
        self
    }

    /// What was refused so far.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Notes a refusal that was found behind the frame, or before it (an HTTP request).
    pub fn refuse(&mut self, now: Duration, from: SocketAddr, refused: Refused) {
        self.refusals.note(now, from.ip().to_canonical(), refused);
    }

    /// The frame around a body.
    pub fn seal(&mut self, body: Vec<u8>) -> Vec<u8> {
        let mut frame = Vec::with_capacity(body.len() + OVERHEAD_BYTES_MAX);
        frame.push(VERSION);
        frame.push(if self.keys.in_use() { ENCRYPTED } else { 0 });
        frame.extend_from_slice(&self.label.to_be_bytes());
        let Some(id) = self.keys.sealing_id() else {
            frame.extend_from_slice(&body);
            return frame;
        };
        self.counter = self.counter.wrapping_add(1);
        if self.counter == 0 {
            // A nonce is used once: when the counter wraps, the session goes on to the next number.
            self.session = self.session.wrapping_add(1);
        }
        let nonce = nonce(self.session, self.counter);
        frame.extend_from_slice(&id);
        frame.extend_from_slice(&nonce);
        let mut text = body;
        self.keys.seal(nonce, &frame[..HEAD_BYTES], &mut text);
        frame.extend_from_slice(&text);
        frame
    }

    /// The body of a frame.
    ///
    /// # Errors
    /// The frame is not one of this cluster. The refusal is counted and its sender noted.
    pub fn open(&mut self, now: Duration, from: SocketAddr, frame: &[u8]) -> Result<Vec<u8>, Refused> {
        self.try_open(frame).inspect_err(|refused| self.refusals.note(now, from.ip().to_canonical(), *refused))
    }

    fn try_open(&mut self, frame: &[u8]) -> Result<Vec<u8>, Refused> {
        if is_http(frame) {
            return Err(Refused::Http);
        }
        let (head, rest) = frame.split_first_chunk::<HEAD_BYTES>().ok_or(Refused::Size(frame.len()))?;
        let [version, flags, label @ ..] = *head;
        if version != VERSION || flags & !ENCRYPTED != 0 {
            return Err(Refused::Version);
        }
        if frame.len() > FRAME_BYTES_MAX {
            return Err(Refused::Size(frame.len()));
        }
        let label = u64::from_be_bytes(label);
        if label != self.label && !self.any_label {
            return Err(Refused::Label(label));
        }
        if flags & ENCRYPTED == 0 {
            return if self.keys.in_use() { Err(Refused::Plain) } else { Ok(rest.to_vec()) };
        }
        let size = || Refused::Size(frame.len());
        let (id, rest) = rest.split_first_chunk::<4>().ok_or_else(size)?;
        let (nonce, rest) = rest.split_first_chunk::<12>().ok_or_else(size)?;
        let mut text = rest.to_vec();
        if !self.keys.open(*id, *nonce, head, &mut text) {
            return Err(Refused::Key);
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *nonce;
        let session = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let counter = u32::from_be_bytes([i, j, k, l]);
        if self.replay.admit(session, counter) { Ok(text) } else { Err(Refused::Replayed) }
    }
}

/// Whether bytes are the beginning of an HTTP request, of version 1 or 2.
#[must_use]
pub fn is_http(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] = [b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"PRI "];
    METHODS.iter().any(|method| bytes.starts_with(method))
}

/// What stands for a cluster's label in its frames.
#[must_use]
pub fn label_hash(label: &str) -> u64 {
    let hash = digest(&SHA256, label.as_bytes());
    u64::from_be_bytes(*hash.as_ref().first_chunk::<8>().expect("SHA-256 has 32 bytes"))
}

fn nonce(session: u64, counter: u32) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&session.to_be_bytes());
    nonce[8..].copy_from_slice(&counter.to_be_bytes());
    nonce
}
