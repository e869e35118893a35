//! The identity of one log, created once and kept beside it; block ids are derived from it.

use std::fmt;
use std::str::FromStr;

/// 128 random bits in UUID v4 layout. A log that is deleted and created again has another id, so nothing derived from it
/// (block ids, commit chains) can be confused with its predecessor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId([u8; 16]);

impl LogId {
    /// Makes an id of 16 random bytes, setting the version and variant bits.
    #[must_use]
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// Takes the bytes as they are: for ids read from a file or given by Kafka (a topic id).
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The sixteen bytes, in the order in which the text form prints them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// The text is not 32 hexadecimal digits in the 8-4-4-4-12 form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log id is not in the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")]
pub struct ParseLogIdError;

impl FromStr for LogId {
    type Err = ParseLogIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.as_bytes();
        if text.len() != 36 {
            return Err(ParseLogIdError);
        }
        let mut digits = [0_u8; 32];
        let mut filled = 0;
        for (index, &character) in text.iter().enumerate() {
            if matches!(index, 8 | 13 | 18 | 23) {
                if character != b'-' {
                    return Err(ParseLogIdError);
                }
                continue;
            }
            digits[filled] = match character {
                b'0'..=b'9' => character - b'0',
                b'a'..=b'f' => character - b'a' + 10,
                b'A'..=b'F' => character - b'A' + 10,
                _ => return Err(ParseLogIdError),
            };
            filled += 1;
        }
        let mut bytes = [0_u8; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_reads_back() {
        let id = LogId::from_random([0xab; 16]);
        assert_eq!(id.to_string(), "abababab-abab-4bab-abab-abababababab");
        assert_eq!(id.to_string().parse::<LogId>().unwrap(), id);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "abababab-abab-4bab-abab-ababababab",
            "abababab+abab-4bab-abab-abababababab",
            "gbababab-abab-4bab-abab-abababababab",
        ] {
            assert_eq!(text.parse::<LogId>(), Err(ParseLogIdError), "{text}");
        }
    }
}
