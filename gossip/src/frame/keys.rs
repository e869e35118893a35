//! Keys of authenticated encryption: the first one seals, each of them opens, so that keys can be rotated without a stop.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use thiserror::Error;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes that sealing adds behind the text.
pub(crate) const TAG_BYTES: usize = 16;

/// A key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("gossip key {position} has {length} bytes; it takes 32")]
pub struct BadKey {
    position: usize,
    length: usize,
}

/// The keys of a cluster. To rotate: add the new key at the end everywhere, move it to the front everywhere, remove the
/// old one everywhere.
#[derive(Default)]
pub struct Keys(Vec<Key>);

struct Key {
    id: [u8; 4],
    cipher: LessSafeKey,
}

impl Keys {
    /// Keys of 32 bytes each; none: frames are not encrypted.
    ///
    /// # Errors
    /// A key has another length.
    pub fn new<K: AsRef<[u8]>>(keys: &[K]) -> Result<Self, BadKey> {
        let mut ready = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let bytes = key.as_ref();
            let bad = || BadKey { position: index + 1, length: bytes.len() };
            let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).map_err(|_unspecified| bad())?);
            let hash = digest(&SHA256, bytes);
            let id = *hash.as_ref().first_chunk::<4>().expect("SHA-256 has 32 bytes");
            ready.push(Key { id, cipher });
        }
        Ok(Self(ready))
    }

    /// Whether frames are encrypted.
    #[must_use]
    pub fn in_use(&self) -> bool {
        !self.0.is_empty()
    }

    /// The identifier of the key that seals: a part of its hash, which says nothing of the key.
    pub(crate) fn sealing_id(&self) -> Option<[u8; 4]> {
        self.0.first().map(|key| key.id)
    }

    /// Encrypts `text` in place and appends the tag. Without keys nothing happens.
    pub(crate) fn seal(&self, nonce: [u8; NONCE_LEN], head: &[u8], text: &mut Vec<u8>) {
        if let Some(key) = self.0.first() {
            key.cipher
                .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(head), text)
                .expect("frames are far below the 64 GiB that the cipher takes");
        }
    }

    /// Decrypts `text`, which ends in the tag, with the key that `id` names.
    pub(crate) fn open(&self, id: [u8; 4], nonce: [u8; NONCE_LEN], head: &[u8], text: &mut Vec<u8>) -> bool {
        for key in self.0.iter().filter(|key| key.id == id) {
            let mut copy = text.clone();
            let nonce = Nonce::assume_unique_for_key(nonce);
            if let Ok(plain) = key.cipher.open_in_place(nonce, Aad::from(head), &mut copy) {
                let length = plain.len();
                copy.truncate(length);
                *text = copy;
                return true;
            }
        }
        false
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}
