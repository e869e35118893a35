//! Byte sizes with units: `64KiB`, `63KiB1023B`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::shape::{Described, Shape};

/// A number of bytes, written with binary units that may follow each other. A bare integer is bytes; `KB`, `MB`, … mean
/// the same as `KiB`, `MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u32); 7] =
    [("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

/// The text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size (expected something like `64KiB`, `1MiB`)")]
pub struct Error(String);

impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = || Error(text.to_owned());
        if let Ok(bytes) = text.parse::<u64>() {
            return Ok(Self(bytes));
        }
        let mut rest = text;
        let mut bytes: u64 = 0;
        while !rest.is_empty() {
            let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?);
            let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
            let shift = UNITS
                .iter()
                .find(|(name, _)| *name == unit || name.len() == 3 && name.replace('i', "") == unit)
                .ok_or_else(error)?
                .1;
            let number: u64 = number.parse().map_err(|_empty_or_too_long| error())?;
            let part = number.checked_mul(1 << shift).ok_or_else(error)?;
            bytes = bytes.checked_add(part).ok_or_else(error)?;
            rest = tail;
        }
        if text.is_empty() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return out.write_str("0B");
        }
        let mut rest = self.0;
        for (unit, shift) in UNITS {
            if rest >> shift > 0 {
                write!(out, "{}{unit}", rest >> shift)?;
                rest &= (1 << shift) - 1;
            }
        }
        Ok(())
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a size like `64KiB`, or a number of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                self.visit_str(&bytes.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Described for ByteSize {
    fn shape() -> Shape {
        Shape::Size
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes, printed) in [
            ("0", 0, "0B"),
            ("64KiB", 65536, "64KiB"),
            ("64KB", 65536, "64KiB"),
            ("63KiB1023B", 65535, "63KiB1023B"),
            ("65535", 65535, "63KiB1023B"),
            ("1GiB", 1 << 30, "1GiB"),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap(), ByteSize(bytes), "{text}");
            assert_eq!(ByteSize(bytes).to_string(), printed);
        }
        for text in ["", "KiB", "1X", "-1", "1.5MiB", "99EiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn printing_then_reading_gives_the_same(bytes in any::<u64>()) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse::<ByteSize>().unwrap(), ByteSize(bytes));
        }
    }
}
