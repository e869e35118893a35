//! Durations in Go's syntax: `1h30m0s`, `500ms`, `1.5s`.

use std::{fmt, ops::Deref, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::shape::{Described, Shape};

/// A duration as Go writes it. In YAML a bare integer is a number of nanoseconds. Negative values are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct GoDuration(Duration);

/// The longest duration of Go, some 292 years. Stands for "never".
const LONGEST: u64 = i64::MAX.unsigned_abs();

impl GoDuration {
    /// No time at all.
    pub const ZERO: Self = Self(Duration::ZERO);
    /// The longest duration of Go: "never".
    pub const NEVER: Self = Self(Duration::from_nanos(LONGEST));

    /// Hours.
    pub const fn hours(hours: u64) -> Self {
        Self(Duration::from_secs(hours * 3600))
    }

    /// Minutes.
    pub const fn minutes(minutes: u64) -> Self {
        Self(Duration::from_secs(minutes * 60))
    }

    /// Seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// Milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The plain duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Deref for GoDuration {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl From<GoDuration> for Duration {
    fn from(duration: GoDuration) -> Self {
        duration.0
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing but white space, or no number where one is needed.
    #[error("`{0}` is not a duration (expected something like `1h30m`, `500ms`)")]
    Malformed(String),
    /// A number without `ns`, `us`, `ms`, `s`, `m` or `h`.
    #[error("`{0}` has no unit (expected something like `{0}s`)")]
    NoUnit(String),
    /// A unit that Go's durations do not have; days belong to the overrides only.
    #[error("unknown unit `{unit}` in duration `{text}` (units: ns, us, ms, s, m, h)")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
    /// Below zero.
    #[error("duration `{0}` is negative")]
    Negative(String),
    /// More than 292 years.
    #[error("duration `{0}` is too long")]
    TooLong(String),
}

impl FromStr for GoDuration {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error::Malformed(text.to_owned());
        let (negative, mut rest) = match text.strip_prefix(['+', '-']) {
            Some(rest) => (text.starts_with('-'), rest),
            None => (false, text),
        };
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        if rest.is_empty() {
            return Err(malformed());
        }
        let mut nanos: u128 = 0;
        while !rest.is_empty() {
            let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, tail) = rest.split_at(number_end);
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
                return Err(malformed());
            }
            let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let scale: u128 = match unit {
                "" => return Err(Error::NoUnit(text.to_owned())),
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                other => return Err(Error::UnknownUnit { unit: other.to_owned(), text: text.to_owned() }),
            };
            let too_long = || Error::TooLong(text.to_owned());
            if whole.len() > 19 {
                return Err(too_long());
            }
            let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_digits_only| too_long())? };
            nanos += whole * scale;
            // Eighteen digits of fraction are below a nanosecond even for hours.
            let mut place = scale;
            for digit in fraction.bytes().take(18) {
                nanos += u128::from(digit - b'0') * place / 10;
                place /= 10;
            }
            if nanos > u128::from(LONGEST) {
                return Err(too_long());
            }
            rest = tail;
        }
        if negative && nanos > 0 {
            return Err(Error::Negative(text.to_owned()));
        }
        let nanos = u64::try_from(nanos).map_err(|_checked_above| Error::TooLong(text.to_owned()))?;
        Ok(Self(Duration::from_nanos(nanos)))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let decimal = |out: &mut fmt::Formatter<'_>, scale: u128, unit: &str| {
            let (whole, fraction) = (nanos / scale, nanos % scale);
            write!(out, "{whole}")?;
            if fraction > 0 {
                let width = scale.ilog10() as usize;
                let digits = format!("{fraction:0width$}");
                write!(out, ".{}", digits.trim_end_matches('0'))?;
            }
            out.write_str(unit)
        };
        match nanos {
            0 => out.write_str("0s"),
            1..1_000 => write!(out, "{nanos}ns"),
            1_000..1_000_000 => decimal(out, 1_000, "µs"),
            1_000_000..1_000_000_000 => decimal(out, 1_000_000, "ms"),
            _ => {
                let (minutes, seconds) = (self.0.as_secs() / 60, self.0.as_secs() % 60);
                let (hours, minutes) = (minutes / 60, minutes % 60);
                if hours > 0 {
                    write!(out, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(out, "{minutes}m")?;
                }
                write!(out, "{seconds}")?;
                let fraction = self.0.subsec_nanos();
                if fraction > 0 {
                    let digits = format!("{fraction:09}");
                    write!(out, ".{}", digits.trim_end_matches('0'))?;
                }
                out.write_str("s")
            }
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = GoDuration;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a duration like `1h30m`, or a number of nanoseconds")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<GoDuration, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, nanos: u64) -> Result<GoDuration, E> {
                if nanos > LONGEST {
                    return Err(E::custom(Error::TooLong(nanos.to_string())));
                }
                Ok(GoDuration(Duration::from_nanos(nanos)))
            }

            fn visit_i64<E: de::Error>(self, nanos: i64) -> Result<GoDuration, E> {
                match u64::try_from(nanos) {
                    Ok(nanos) => self.visit_u64(nanos),
                    Err(_negative) => Err(E::custom(Error::Negative(nanos.to_string()))),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Described for GoDuration {
    fn shape() -> Shape {
        Shape::Duration
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_and_print_as_in_go() {
        for (text, printed) in [
            ("0", "0s"),
            ("1h30m", "1h30m0s"),
            ("500ms", "500ms"),
            ("1.5s", "1.5s"),
            (".5s", "500ms"),
            ("90s", "1m30s"),
            ("336h", "336h0m0s"),
            ("1us", "1µs"),
            ("1500µs", "1.5ms"),
            ("15ns", "15ns"),
            ("2562047h47m16.854775807s", "2562047h47m16.854775807s"),
        ] {
            assert_eq!(text.parse::<GoDuration>().unwrap().to_string(), printed, "{text}");
        }
        assert_eq!(GoDuration::NEVER.to_string(), "2562047h47m16.854775807s");
    }

    #[test]
    fn malformed_durations_say_why() {
        for (text, message) in [
            ("", "`` is not a duration (expected something like `1h30m`, `500ms`)"),
            ("5", "`5` has no unit (expected something like `5s`)"),
            ("1d", "unknown unit `d` in duration `1d` (units: ns, us, ms, s, m, h)"),
            ("abc", "`abc` is not a duration (expected something like `1h30m`, `500ms`)"),
            ("-1s", "duration `-1s` is negative"),
            ("2562048h", "duration `2562048h` is too long"),
            ("99999999999999999999h", "duration `99999999999999999999h` is too long"),
        ] {
            assert_eq!(text.parse::<GoDuration>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_bare_integer_is_nanoseconds() {
        assert_eq!(serde_json::from_str::<GoDuration>("1000000").unwrap(), GoDuration::millis(1));
        assert!(serde_json::from_str::<GoDuration>("-1").is_err());
    }

    proptest! {
        #[test]
        fn printing_then_reading_gives_the_same(nanos in 0..=LONGEST) {
            let duration = GoDuration(Duration::from_nanos(nanos));
            prop_assert_eq!(duration.to_string().parse::<GoDuration>().unwrap(), duration);
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[-+0-9.hmsnuµd]{0,24}") {
            drop(text.parse::<GoDuration>());
        }
    }
}
