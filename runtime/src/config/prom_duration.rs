//! Durations in Prometheus' syntax, with days, weeks and years: `2w`, `1d12h`.

use std::{fmt, ops::Deref, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::shape::{Described, Shape};

/// A duration as Prometheus writes it: whole numbers with `y`, `w`, `d`, `h`, `m`, `s`, `ms`, each at most once and in
/// this order. Used in overrides only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct PromDuration(Duration);

/// Units in the order in which they must stand, with their milliseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl PromDuration {
    /// No time at all: nearly everywhere "not set".
    pub const ZERO: Self = Self(Duration::ZERO);

    /// Seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The plain duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Deref for PromDuration {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl From<PromDuration> for Duration {
    fn from(duration: PromDuration) -> Self {
        duration.0
    }
}

/// The text is no duration of this syntax.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration (expected whole numbers with y, w, d, h, m, s, ms in this order, like `1d12h`)")]
pub struct Error(String);

impl FromStr for PromDuration {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "0" {
            return Ok(Self::ZERO);
        }
        let error = || Error(text.to_owned());
        let mut rest = text;
        let mut millis: u64 = 0;
        let mut next_unit = 0;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
            let (number, tail) = rest.split_at(end);
            let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let at =
                UNITS.iter().position(|(name, _)| *name == unit).filter(|at| *at >= next_unit).ok_or_else(error)?;
            next_unit = at + 1;
            let number: u64 = number.parse().map_err(|_empty_or_too_long| error())?;
            millis = number.checked_mul(UNITS[at].1).and_then(|part| millis.checked_add(part)).ok_or_else(error)?;
            rest = tail;
        }
        // The limit of Go's durations, which Prometheus shares.
        if next_unit == 0 || millis > i64::MAX.unsigned_abs() / 1_000_000 {
            return Err(error());
        }
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for PromDuration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return out.write_str("0s");
        }
        for (at, (unit, scale)) in UNITS.into_iter().enumerate() {
            // Years and weeks are only written when nothing is left over.
            if at < 2 && !millis.is_multiple_of(scale) {
                continue;
            }
            if millis >= scale {
                write!(out, "{}{unit}", millis / scale)?;
                millis %= scale;
            }
        }
        Ok(())
    }
}

impl Serialize for PromDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PromDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = PromDuration;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a duration like `1d12h`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PromDuration, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<PromDuration, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<PromDuration, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Described for PromDuration {
    fn shape() -> Shape {
        Shape::PromDuration
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_and_print_as_in_prometheus() {
        for (text, printed) in [
            ("0", "0s"),
            ("0s", "0s"),
            ("1d", "1d"),
            ("14d", "2w"),
            ("336h", "2w"),
            ("8d", "8d"),
            ("1d12h", "1d12h"),
            ("1h30m", "1h30m"),
            ("10s", "10s"),
            ("365d", "1y"),
            ("1500ms", "1s500ms"),
        ] {
            assert_eq!(text.parse::<PromDuration>().unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn malformed_durations_are_refused() {
        for text in ["", "1", "1.5d", "1h1d", "1d1d", "-1d", "d", "1 d", "300y", "99999999999999999999s"] {
            assert!(text.parse::<PromDuration>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn printing_then_reading_gives_the_same(millis in 0u64..9_223_372_036_854) {
            let duration = PromDuration(Duration::from_millis(millis));
            prop_assert_eq!(duration.to_string().parse::<PromDuration>().unwrap(), duration);
        }
    }
}
