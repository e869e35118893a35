//! The window of a query as people write it: `-start`, `-end`, `-since`.

use std::time::Duration;

use vivace_runtime::config::PromDuration;

const SECOND: u64 = 1_000_000_000;
/// Without any flag, where a window has to be named.
const DEFAULT: Duration = Duration::from_secs(3600);

/// One end of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instant {
    /// Nanoseconds since the epoch.
    At(u64),
    /// So long ago.
    Ago(Duration),
}

impl Instant {
    fn at(self, now_ns: u64) -> u64 {
        match self {
            Self::At(ns) => ns,
            Self::Ago(ago) => now_ns.saturating_sub(nanos(ago)),
        }
    }
}

/// What was said about the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    start: Option<Instant>,
    end: Option<Instant>,
    since: Option<Duration>,
}

/// Nanoseconds since the epoch, the start before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
}

impl Window {
    /// In whole seconds that hold the window.
    pub(super) fn seconds(self) -> (u64, u64) {
        (self.start_ns / SECOND, self.end_ns.div_ceil(SECOND))
    }
}

/// Why a window is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TimesError {
    #[error("-{flag}={text:?} is no time: use Unix seconds, RFC 3339 (2026-01-31T10:00:00Z), now, or now-1h")]
    NoTime { flag: &'static str, text: String },
    #[error("-since={0:?} is no duration: use whole numbers with units, as in 30m or 1d12h")]
    NoDuration(String),
    #[error("-start and -since exclude each other: a window has one beginning")]
    TwoStarts,
    #[error("-start lies at or after -end: the window is empty")]
    Empty,
}

impl Times {
    pub(super) fn set_start(&mut self, text: &str) -> Result<(), TimesError> {
        self.start = Some(instant("start", text)?);
        Ok(())
    }

    pub(super) fn set_end(&mut self, text: &str) -> Result<(), TimesError> {
        self.end = Some(instant("end", text)?);
        Ok(())
    }

    pub(super) fn set_since(&mut self, text: &str) -> Result<(), TimesError> {
        let since = text.parse::<PromDuration>().map_err(|_reason| TimesError::NoDuration(text.to_owned()))?;
        self.since = Some(since.get());
        Ok(())
    }

    /// The window, none when nothing was said about it.
    pub(super) fn window(&self, now_ns: u64) -> Result<Option<Window>, TimesError> {
        if *self == Self::default() {
            return Ok(None);
        }
        if self.start.is_some() && self.since.is_some() {
            return Err(TimesError::TwoStarts);
        }
        let end_ns = self.end.map_or(now_ns, |end| end.at(now_ns));
        let since = nanos(self.since.unwrap_or(DEFAULT));
        let start_ns = self.start.map_or_else(|| end_ns.saturating_sub(since), |start| start.at(now_ns));
        if start_ns >= end_ns {
            return Err(TimesError::Empty);
        }
        Ok(Some(Window { start_ns, end_ns }))
    }

    /// The window, the last hour when nothing was said about it.
    pub(super) fn window_or_hour(&self, now_ns: u64) -> Result<Window, TimesError> {
        let hour = Window { start_ns: now_ns.saturating_sub(nanos(DEFAULT)), end_ns: now_ns };
        Ok(self.window(now_ns)?.unwrap_or(hour))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Up to ten digits are seconds, more are nanoseconds, a dot makes a fraction of seconds: as the API reads them.
fn instant(flag: &'static str, text: &str) -> Result<Instant, TimesError> {
    let wrong = || TimesError::NoTime { flag, text: text.to_owned() };
    if text == "now" {
        return Ok(Instant::Ago(Duration::ZERO));
    }
    if let Some(ago) = text.strip_prefix("now-") {
        return ago.parse::<PromDuration>().map(|ago| Instant::Ago(ago.get())).map_err(|_reason| wrong());
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: u64 = text.parse().map_err(|_overflow| wrong())?;
        return Ok(Instant::At(if text.len() <= 10 { number * SECOND } else { number }));
    }
    if let Ok(seconds) = text.parse::<f64>() {
        let duration = Duration::try_from_secs_f64(seconds).map_err(|_negative| wrong())?;
        return Ok(Instant::At(nanos(duration)));
    }
    let time: prost_types::Timestamp = text.parse().map_err(|_no_instant| wrong())?;
    let seconds = u64::try_from(time.seconds).map_err(|_before_1970| wrong())?;
    Ok(Instant::At(seconds.saturating_mul(SECOND).saturating_add(u64::try_from(time.nanos).unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000 * SECOND;

    fn window(flags: &[(&str, &str)]) -> Result<Option<(u64, u64)>, String> {
        let mut times = Times::default();
        for (flag, text) in flags {
            let set = match *flag {
                "start" => times.set_start(text),
                "end" => times.set_end(text),
                _ => times.set_since(text),
            };
            set.map_err(|error| error.to_string())?;
        }
        let window = times.window(NOW).map_err(|error| error.to_string())?;
        Ok(window.map(|window| (window.start_ns, window.end_ns)))
    }

    #[test]
    fn one_instant_has_many_spellings() {
        for text in
            ["1699990000", "1699990000.0", "1699990000000000000", "2023-11-14T19:26:40Z", "2023-11-14T20:26:40+01:00"]
        {
            assert_eq!(window(&[("start", text)]), Ok(Some((1_699_990_000 * SECOND, NOW))), "{text}");
        }
        assert_eq!(window(&[("start", "now-10s"), ("end", "now")]), Ok(Some((NOW - 10 * SECOND, NOW))));
    }

    #[test]
    fn since_counts_back_from_the_end_and_silence_means_the_server_decides() {
        assert_eq!(window(&[("since", "1m")]), Ok(Some((NOW - 60 * SECOND, NOW))));
        assert_eq!(window(&[("since", "1m"), ("end", "1000")]), Ok(Some((940 * SECOND, 1000 * SECOND))));
        assert_eq!(window(&[("end", "1699990000")]), Ok(Some((1_699_986_400 * SECOND, 1_699_990_000 * SECOND))));
        assert_eq!(window(&[]), Ok(None));
    }

    #[test]
    fn impossible_windows_are_refused_with_the_reason() {
        assert!(window(&[("start", "yesterday")]).unwrap_err().starts_with("-start=\"yesterday\" is no time: use"));
        assert!(window(&[("end", "-5")]).unwrap_err().starts_with("-end=\"-5\" is no time"));
        assert!(window(&[("since", "abc")]).unwrap_err().starts_with("-since=\"abc\" is no duration"));
        assert!(window(&[("start", "5"), ("since", "1m")]).unwrap_err().contains("exclude each other"));
        assert!(window(&[("start", "6"), ("end", "5")]).unwrap_err().contains("the window is empty"));
    }

    #[test]
    fn whole_seconds_hold_the_window() {
        assert_eq!(Window { start_ns: 1_500_000_000, end_ns: 2_500_000_000 }.seconds(), (1, 3));
    }
}
