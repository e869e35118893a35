//! Small pieces of language.

use std::time::Duration;

use vivace_runtime::telemetry::rfc3339;

/// "3 s ago", "2 min ago", "5 h ago".
pub(crate) fn ago(age: Duration) -> String {
    format!("{} ago", span(age))
}

/// "3 s", "2 min 5 s", "5 h 3 min".
pub(crate) fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..60 => format!("{seconds} s"),
        seconds @ ..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds @ ..172_800 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// "a, b and c".
pub(crate) fn listed(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().collect();
    match items.split_last() {
        None => "none".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// RFC 3339 in UTC; whole seconds without a fraction, as Go writes them.
pub(crate) fn time(unix: Duration) -> String {
    let text = rfc3339(unix);
    match text.strip_suffix(".000Z") {
        Some(whole) => format!("{whole}Z"),
        None => text,
    }
}

/// Seconds since the epoch as RFC 3339; Go's zero time for none.
pub(crate) fn seconds(unix: i64) -> String {
    match u64::try_from(unix) {
        Ok(unix) if unix > 0 => time(Duration::from_secs(unix)),
        _ => "0001-01-01T00:00:00Z".to_owned(),
    }
}

/// A share with three significant digits, in percent.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    let digits = if value >= 99.95 || value == 0.0 {
        0
    } else if value >= 9.995 {
        1
    } else if value >= 0.9995 {
        2
    } else {
        3
    };
    format!("{value:.digits$}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_people_write_them() {
        assert_eq!(span(Duration::from_millis(900)), "0 s");
        assert_eq!(span(Duration::from_secs(125)), "2 min 5 s");
        assert_eq!(span(Duration::from_secs(3 * 3600 + 61)), "3 h 1 min");
        assert_eq!(span(Duration::from_secs(5 * 86_400)), "5 days");
        assert_eq!(listed(["a".to_owned(), "b".to_owned(), "c".to_owned()]), "a, b and c");
        assert_eq!(listed([]), "none");
        assert_eq!(seconds(0), "0001-01-01T00:00:00Z");
        assert_eq!(seconds(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(time(Duration::from_millis(1_700_000_000_250)), "2023-11-14T22:13:20.250Z");
        assert_eq!([1.0, 0.5, 0.0333, 0.001, 0.0].map(percent), ["100%", "50.0%", "3.33%", "0.100%", "0%"]);
    }
}
