//! Query parameters, read as Tempo's API reads them; the texts of the errors are what its clients see.

use std::time::Duration;

use vivace_runtime::config::{GoDuration, PromDuration};

/// A parameter that cannot be used: the text of a 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadParam(pub(crate) String);

fn bad(text: impl Into<String>) -> BadParam {
    BadParam(text.into())
}

/// The parameters of one request, in the order given. Only the URL counts, never a form body.
#[derive(Debug, Default, Clone)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Splits and decodes a query string. What is not valid percent-encoding is taken literally.
    pub(crate) fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    /// The first value of a parameter; empty values count as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// An unsigned 32-bit number.
    pub(crate) fn u32(&self, name: &str) -> Result<Option<u32>, BadParam> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse_u32(text)
            .map(Some)
            .map_err(|why| bad(format!("invalid {name}: strconv.ParseUint: parsing {}: {why}", quote(text))))
    }

    /// From names and values that are decoded already; empty values count as absent.
    pub(crate) fn from_pairs(pairs: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// A truth value as Go reads it.
    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>, BadParam> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Some(false)),
            _ => Err(bad(format!("invalid {name}: strconv.ParseBool: parsing {}: invalid syntax", quote(text)))),
        }
    }

    /// A signed 64-bit number.
    pub(crate) fn i64(&self, name: &str) -> Result<Option<i64>, BadParam> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error: std::num::ParseIntError| {
            let why = match error.kind() {
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            bad(format!("invalid {name}: strconv.ParseInt: parsing {}: {why}", quote(text)))
        })
    }

    /// A duration in Go's syntax.
    pub(crate) fn go_duration(&self, name: &str) -> Result<Option<Duration>, BadParam> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse::<GoDuration>()
            .map(|duration| Some(duration.into()))
            .map_err(|_refused| bad(format!("invalid {name}: {}", go_complaint(text))))
    }
}

/// What Go says of a text that is no duration.
fn go_complaint(text: &str) -> String {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number = |c: char| c.is_ascii_digit() || c == '.';
    let after = unsigned.trim_start_matches(number);
    if after.len() == unsigned.len() || !unsigned.starts_with(|c: char| c.is_ascii_digit()) {
        return format!("time: invalid duration {}", quote(text));
    }
    let units = after.split(number).filter(|unit| !unit.is_empty());
    let known = ["ns", "us", "\u{b5}s", "\u{3bc}s", "ms", "s", "m", "h"];
    if let Some(unit) = units.into_iter().find(|unit| !known.contains(unit)) {
        return format!("time: unknown unit {} in duration {}", quote(unit), quote(text));
    }
    if unsigned.ends_with(number) {
        return format!("time: missing unit in duration {}", quote(text));
    }
    format!("time: invalid duration {}", quote(text))
}

fn parse_u32(text: &str) -> Result<u32, &'static str> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("invalid syntax");
    }
    text.parse().map_err(|_overflow| "value out of range")
}

fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => {
                if let (Some(high), Some(low)) = (hex(at + 1), hex(at + 2)) {
                    out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                    at += 2;
                } else {
                    out.push(b'%');
                }
            }
            other => out.push(other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Percent-encoding undone, where there is any left.
pub(crate) fn unescape(text: &str) -> String {
    // A plus is a plus in a path.
    if text.contains('%') { decode(&text.replace('+', "%2B")) } else { text.to_owned() }
}

/// A window in whole seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// What the time rules need to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeRules {
    pub(crate) now: u32,
    /// Newer than this is left out.
    pub(crate) cutoff: u32,
    /// Width of the window when nothing is said.
    pub(crate) default_window: u32,
    /// Widest window, 0 = any.
    pub(crate) max_window: u32,
}

/// The time range of a search or tag query, from `start`, `end` and `since`.
///
/// `flexible` also takes fractions, nanoseconds and RFC3339, as the tag endpoints do.
pub(crate) fn window(params: &Params, rules: &TimeRules, flexible: bool) -> Result<Window, BadParam> {
    let end_of_time = rules.now.saturating_sub(rules.cutoff);
    let (start, end) = if flexible {
        (flex(params, "start")?, flex(params, "end")?)
    } else {
        (params.u32("start")?, params.u32("end")?)
    };
    if !flexible {
        let (from, to) = (start.unwrap_or(0), end.unwrap_or(0));
        if from > to || (start.is_some_and(|s| s > 0) && from == to) {
            return Err(bad(format!("http parameter start must be before end. received start={from} end={to}")));
        }
    }
    let window = if let Some(since) = params.get("since") {
        let since: Duration = since.parse::<PromDuration>().map(Into::into).map_err(|_invalid| {
            bad(format!(
                "error parsing date range: could not parse 'since' parameter: not a valid duration string: {}",
                quote(since)
            ))
        })?;
        let since = u32::try_from(since.as_secs()).unwrap_or(u32::MAX);
        if since == 0 {
            let text =
                format!("http parameter start must be before end. received start={end_of_time} end={end_of_time}");
            return Err(bad(text));
        }
        Window { start: end_of_time.saturating_sub(since), end: end_of_time }
    } else {
        match (start.filter(|s| *s > 0), end.filter(|e| *e > 0)) {
            (None, None) => Window { start: rules.now.saturating_sub(rules.default_window), end: end_of_time },
            (Some(start), Some(end)) => {
                if start > end {
                    return Err(bad(format!(
                        "http parameter start must be before end. received start={start} end={end}"
                    )));
                }
                let end = end.min(end_of_time);
                let start = if start > end { rules.now.saturating_sub(rules.default_window) } else { start };
                Window { start, end }
            }
            _ => {
                return Err(bad(
                    "error parsing date range: only one of start and end provided: must provide both or neither",
                ));
            }
        }
    };
    if rules.max_window > 0 && window.end.saturating_sub(window.start) > rules.max_window {
        return Err(bad(format!(
            "range specified by start and end exceeds {}. received start={} end={}",
            GoDuration::secs(rules.max_window.into()),
            window.start,
            window.end
        )));
    }
    Ok(window)
}

/// Seconds (whole or with a fraction), nanoseconds when longer than ten digits, or RFC3339.
fn flex(params: &Params, name: &str) -> Result<Option<u32>, BadParam> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let wrong =
        || bad(format!("error parsing date range: could not parse '{name}' parameter: {} is not a time", quote(text)));
    let seconds = if text.bytes().all(|b| b.is_ascii_digit()) {
        let number: u64 = text.parse().map_err(|_overflow| wrong())?;
        if text.len() <= 10 { number } else { number / 1_000_000_000 }
    } else if let Ok(float) = text.parse::<f64>() {
        if !(0.0..=f64::from(u32::MAX)).contains(&float) {
            return Err(wrong());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked against the range above")]
        let seconds = float as u64;
        seconds
    } else {
        rfc3339(text).ok_or_else(wrong)?
    };
    u32::try_from(seconds).map(Some).map_err(|_overflow| wrong())
}

/// Seconds since the epoch of an RFC3339 time, fractions dropped.
pub(crate) fn rfc3339(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let bytes = text.as_bytes();
    if bytes.len() < 20 || bytes[4] != b'-' || bytes[7] != b'-' || !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    if bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if !(1..=last).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &text[19..];
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    let offset = match rest.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let minutes = rest.get(1..3)?.parse::<i64>().ok()? * 60 + rest.get(4..6)?.parse::<i64>().ok()?;
            if *sign == b'+' { minutes * 60 } else { -minutes * 60 }
        }
        _ => return None,
    };
    // Days since the epoch, by the civil calendar counted from March.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days =
        365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second - offset).ok()
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: TimeRules = TimeRules { now: 1_700_000_000, cutoff: 30, default_window: 900, max_window: 604_800 };

    fn search(query: &str) -> Result<(u32, u32), String> {
        window(&Params::parse(query), &RULES, false).map(|w| (w.start, w.end)).map_err(|e| e.0)
    }

    fn tags(query: &str) -> Result<(u32, u32), String> {
        window(&Params::parse(query), &RULES, true).map(|w| (w.start, w.end)).map_err(|e| e.0)
    }

    #[test]
    fn without_times_the_last_quarter_of_an_hour_is_meant() {
        assert_eq!(search("q=x"), Ok((1_699_999_100, 1_699_999_970)));
    }

    #[test]
    fn since_overrides_both_ends() {
        assert_eq!(search("start=5&end=6&since=1h"), Ok((1_699_996_370, 1_699_999_970)));
    }

    #[test]
    fn errors_read_as_tempo_says_them() {
        assert_eq!(
            search("start=5&end=1").unwrap_err(),
            "http parameter start must be before end. received start=5 end=1"
        );
        assert_eq!(search("start=5").unwrap_err(), "http parameter start must be before end. received start=5 end=0");
        assert_eq!(
            search("end=5").unwrap_err(),
            "error parsing date range: only one of start and end provided: must provide both or neither"
        );
        assert_eq!(
            search("start=1&end=1000000").unwrap_err(),
            "range specified by start and end exceeds 168h0m0s. received start=1 end=1000000"
        );
        assert_eq!(
            search("start=1.5&end=3").unwrap_err(),
            "invalid start: strconv.ParseUint: parsing \"1.5\": invalid syntax"
        );
        assert_eq!(
            search("since=0s").unwrap_err(),
            "http parameter start must be before end. received start=1699999970 end=1699999970"
        );
        assert_eq!(
            search("since=zz").unwrap_err(),
            "error parsing date range: could not parse 'since' parameter: not a valid duration string: \"zz\""
        );
    }

    #[test]
    fn the_end_is_clamped_to_the_cutoff() {
        assert_eq!(search("start=1699999000&end=1800000000"), Ok((1_699_999_000, 1_699_999_970)));
        assert_eq!(search("start=1799999000&end=1800000000"), Ok((1_699_999_100, 1_699_999_970)));
    }

    #[test]
    fn tag_queries_take_many_spellings_of_one_time() {
        for start in [
            "1699990000",
            "1699990000.25",
            "1699990000000000000",
            "2023-11-14T19:26:40Z",
            "2023-11-14T20:26:40.5%2B01:00",
        ] {
            assert_eq!(tags(&format!("start={start}&end=1699999000")), Ok((1_699_990_000, 1_699_999_000)), "{start}");
        }
        for (wrong, end) in [
            ("yesterday", "1699999000"),
            ("2023-02-29T00:00:00Z", "2023-03-01T12:00:00Z"),
            ("2023-04-31T00:00:00Z", "2023-05-01T12:00:00Z"),
            ("2023-13-01T00:00:00Z", "2024-01-01T12:00:00Z"),
            ("2023-01-00T00:00:00Z", "2023-01-01T00:00:00Z"),
        ] {
            assert!(tags(&format!("start={wrong}&end={end}")).is_err(), "{wrong}");
        }
        assert!(tags("start=2020-02-29T00:00:00Z&end=2020-03-01T00:00:00Z").is_ok());
    }

    #[test]
    fn escapes_are_decoded_and_broken_ones_kept() {
        let params = Params::parse("q=%7B+.a%20%3D%201+%7D&x=100%&empty=");
        assert_eq!(params.get("q"), Some("{ .a = 1 }"));
        assert_eq!(params.get("x"), Some("100%"));
        assert_eq!(params.get("empty"), None);
    }
}
