//! SCRAM (RFC 5802, RFC 7677) for our own connections: a pure exchange of three texts.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

/// A server that asks for more than this wants our time, not our password.
const ITERATIONS_MAX: u32 = 1 << 20;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

/// One authentication, without channel binding.
pub(crate) struct Exchange {
    hash: Hash,
    /// `n=user,r=nonce`
    first_bare: String,
    nonce: String,
    password: String,
}

impl Exchange {
    /// `nonce` must be random and new.
    pub(crate) fn new(hash: Hash, user: &str, password: &str, nonce: u128) -> Self {
        Self::with_nonce(hash, user, password, STANDARD.encode(nonce.to_be_bytes()))
    }

    fn with_nonce(hash: Hash, user: &str, password: &str, nonce: String) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Self { hash, first_bare: format!("n={user},r={nonce}"), nonce, password: password.to_owned() }
    }

    /// What the client opens with.
    pub(crate) fn first(&self) -> String {
        format!("n,,{}", self.first_bare)
    }

    /// The client's proof, and the text with which a server that knows the password answers it.
    pub(crate) fn answer(&self, challenge: &[u8]) -> Result<(String, String), &'static str> {
        let malformed = "the broker's challenge is malformed";
        let challenge = std::str::from_utf8(challenge).ok().ok_or(malformed)?;
        let field = |name: &str| challenge.split(',').find_map(|field| field.strip_prefix(name));
        let (nonce, salt) = (field("r=").ok_or(malformed)?, field("s=").ok_or(malformed)?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the broker's nonce is not made from ours");
        }
        let salt = STANDARD.decode(salt).ok().ok_or(malformed)?;
        let iterations: NonZeroU32 = field("i=").and_then(|count| count.parse().ok()).ok_or(malformed)?;
        if iterations.get() > ITERATIONS_MAX {
            return Err("the broker asks for too many iterations");
        }
        let (salting, signing, hashing) = match self.hash {
            Hash::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, hmac::HMAC_SHA256, &digest::SHA256),
            Hash::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, hmac::HMAC_SHA512, &digest::SHA512),
        };
        let mut salted = vec![0; hashing.output_len()];
        pbkdf2::derive(salting, iterations, &salt, self.password.as_bytes(), &mut salted);
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(signing, key), text);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(hashing, client_key.as_ref());
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{challenge},{without_proof}", self.first_bare);
        let signature = sign(stored_key.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(key, bits)| key ^ bits).collect();
        let server_key = sign(&salted, b"Server Key");
        let expected = sign(server_key.as_ref(), signed.as_bytes());
        Ok((
            format!("{without_proof},p={}", STANDARD.encode(proof)),
            format!("v={}", STANDARD.encode(expected.as_ref())),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exchange_of_the_standard_is_reproduced() {
        // RFC 7677, section 3.
        let exchange = Exchange::with_nonce(Hash::Sha256, "user", "pencil", "rOprNGfwEbeRWgbNEkqO".into());
        assert_eq!(exchange.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (proof, expected) = exchange.answer(challenge.as_bytes()).unwrap();
        assert_eq!(
            proof,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(expected, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_challenge_that_is_not_one_is_refused() {
        let exchange = Exchange::new(Hash::Sha512, "a,b=c", "p", 7);
        assert!(exchange.first().starts_with("n,,n=a=2Cb=3Dc,r="));
        let nonce = STANDARD.encode(7_u128.to_be_bytes());
        for challenge in [
            String::new(),
            format!("r={nonce},s=AAAA,i=4096"),
            "r=other,s=AAAA,i=4096".to_owned(),
            format!("r={nonce}x,s=?,i=4096"),
            format!("r={nonce}x,s=AAAA,i=0"),
            format!("r={nonce}x,s=AAAA,i=4000000000"),
        ] {
            exchange.answer(challenge.as_bytes()).unwrap_err();
        }
        exchange.answer(&[0xff]).unwrap_err();
    }
}
