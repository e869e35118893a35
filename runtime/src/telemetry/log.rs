//! Log lines on stderr: `level=info ts=2026-01-02T03:04:05.678Z caller=flusher.rs:41 msg="block flushed" block=…`, or the same
//! as JSON.

use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock::{Clock, SystemClock};

/// The form of a line: `log_format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `key=value`.
    #[default]
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Expected: the level is wrong. Nothing changed.
    #[error("log level {level:?} is none of debug, info, warn, error, nor a list target=level")]
    Level {
        /// As given.
        level: String,
        /// What the parser says.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A bug: logging is set up twice in one process.
    #[error("logging is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// A bug: the process is ending.
    #[error("logging is gone")]
    Gone(#[from] reload::Error),
}

/// Changes the level while the process runs.
#[derive(Clone)]
pub struct LogHandle {
    filter: reload::Handle<Targets, tracing_subscriber::Registry>,
    level: Arc<Mutex<String>>,
}

impl LogHandle {
    /// Sets the level, as for [`init_log`].
    ///
    /// # Errors
    /// The level is wrong; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        let targets = targets(level)?;
        let mut current = self.level.lock();
        self.filter.reload(targets)?;
        level.clone_into(&mut current);
        Ok(())
    }

    /// The level in force, as it was set.
    #[must_use]
    pub fn level(&self) -> String {
        self.level.lock().clone()
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogHandle")
    }
}

/// Sets up logging for the process. `level` is `debug`, `info`, `warn` or `error`, or a list such as `info,vivace_log=debug`.
///
/// # Errors
/// The level is wrong, or logging is set up already.
pub fn init_log(format: LogFormat, level: &str) -> Result<LogHandle, LogError> {
    let (filter, handle) = filter(level)?;
    let lines = tracing_subscriber::fmt::layer().event_format(Lines(format)).with_writer(io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    Ok(handle)
}

type Filter = reload::Layer<Targets, tracing_subscriber::Registry>;

fn filter(level: &str) -> Result<(Filter, LogHandle), LogError> {
    let (layer, filter) = reload::Layer::new(targets(level)?);
    Ok((layer, LogHandle { filter, level: Arc::new(Mutex::new(level.to_owned())) }))
}

/// The Kafka client library reports as errors what its caller sits out, and says itself; its lines come only where it is named, as in
/// `info,rskafka=debug`.
const SILENT: &str = "rskafka";

fn targets(level: &str) -> Result<Targets, LogError> {
    let targets: Targets = level.parse().map_err(|source| LogError::Level { level: level.to_owned(), source })?;
    Ok(if level.contains(SILENT) { targets } else { targets.with_target(SILENT, LevelFilter::OFF) })
}

struct Lines(LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line::new(self.0);
        let metadata = event.metadata();
        line.pair("level", level(*metadata.level()));
        line.pair("ts", &timestamp(SystemClock.unix()));
        line.pair("caller", &caller(metadata.file(), metadata.line(), metadata.target()));
        let mut fields = Fields::default();
        event.record(&mut fields);
        line.pair("msg", &fields.message);
        for (key, value) in &fields.others {
            line.pair(key, value);
        }
        if let Some(span) = context.lookup_current() {
            let extensions = span.extensions();
            let recorded =
                extensions.get::<FormattedFields<N>>().map(|fields| fields.fields.as_str()).unwrap_or_default();
            line.pair("span", span.name());
            if !recorded.is_empty() {
                line.pair("span_fields", recorded);
            }
        }
        writer.write_str(&line.finish())
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

fn caller(file: Option<&str>, line: Option<u32>, target: &str) -> String {
    let name = file.and_then(|file| Path::new(file).file_name()).and_then(|name| name.to_str());
    match (name, line) {
        (Some(name), Some(line)) => format!("{name}:{line}"),
        _ => target.to_owned(),
    }
}

/// RFC 3339 in UTC with milliseconds, from the time since the Unix epoch.
#[must_use]
pub fn timestamp(unix: std::time::Duration) -> String {
    let seconds = unix.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days to a date in the proleptic Gregorian calendar: eras of 400 years, years beginning in March (H. Hinnant,
    // "chrono-Compatible Low-Level Date Algorithms").
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", unix.subsec_millis())
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            // Fields of the `log` bridge repeat what the metadata says.
            name if name.starts_with("log.") => {}
            name => self.others.push((name, value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

struct Line {
    format: LogFormat,
    text: String,
}

impl Line {
    fn new(format: LogFormat) -> Self {
        let text = match format {
            LogFormat::Logfmt => String::with_capacity(160),
            LogFormat::Json => "{".to_owned(),
        };
        Self { format, text }
    }

    fn pair(&mut self, key: &str, value: &str) {
        match self.format {
            LogFormat::Logfmt => {
                if !self.text.is_empty() {
                    self.text.push(' ');
                }
                self.text.push_str(key);
                self.text.push('=');
                let plain = !value.is_empty()
                    && value.chars().all(|c| c > ' ' && c != '"' && c != '=' && c != '\\' && !c.is_control());
                if plain {
                    self.text.push_str(value);
                } else {
                    self.quoted(value);
                }
            }
            LogFormat::Json => {
                if self.text.len() > 1 {
                    self.text.push(',');
                }
                self.quoted(key);
                self.text.push(':');
                self.quoted(value);
            }
        }
    }

    /// A JSON string, which is also what logfmt readers take.
    fn quoted(&mut self, value: &str) {
        self.text.push('"');
        for c in value.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                // Writing to a string cannot fail.
                c if c.is_control() => write!(self.text, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }

    fn finish(mut self) -> String {
        self.text.push_str(if self.format == LogFormat::Json { "}\n" } else { "\n" });
        self.text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let lines = tracing_subscriber::fmt::layer().event_format(Lines(format)).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), log);
        let bytes = sink.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn logfmt_lines_have_the_usual_order_and_quote_what_needs_it() {
        let line =
            logged(LogFormat::Logfmt, || tracing::info!(block = "b-1", why = "a \"b\"\nc", n = 3, "block flushed"));
        assert!(line.starts_with("level=info ts=20"), "{line}");
        assert!(line.contains(" caller=log.rs:"), "{line}");
        assert!(line.ends_with(" msg=\"block flushed\" block=b-1 why=\"a \\\"b\\\"\\nc\" n=3\n"), "{line}");
    }

    #[test]
    fn json_lines_parse() {
        let line = logged(LogFormat::Json, || tracing::warn!(path = "C:\\x\u{1}", "odd"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((value["level"].as_str(), value["msg"].as_str()), (Some("warn"), Some("odd")));
        assert_eq!(value["path"], "C:\\x\u{1}");
    }

    #[test]
    fn timestamps_know_leap_days() {
        assert_eq!(timestamp(Duration::ZERO), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(Duration::from_millis(951_782_400_007)), "2000-02-29T00:00:00.007Z");
        assert_eq!(timestamp(Duration::from_secs(1_709_251_199)), "2024-02-29T23:59:59.000Z");
        assert_eq!(timestamp(Duration::from_secs(4_107_542_400)), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn the_level_changes_while_lines_are_written_and_a_wrong_one_leaves_it() {
        let sink = Sink::default();
        let writer = sink.clone();
        let (filter, handle) = filter("info").unwrap();
        let lines =
            tracing_subscriber::fmt::layer().event_format(Lines(LogFormat::Logfmt)).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filter).with(lines), || {
            tracing::debug!("one");
            handle.set_level("warn,vivace_runtime=debug").unwrap();
            tracing::debug!("two");
            assert!(matches!(handle.set_level("a=b=c"), Err(LogError::Level { .. })));
            assert_eq!(handle.level(), "warn,vivace_runtime=debug");
            tracing::debug!("three");
            handle.set_level("error").unwrap();
            tracing::warn!("four");
        });
        let text = String::from_utf8(sink.0.lock().clone()).unwrap();
        let messages: Vec<_> = text.lines().filter_map(|line| line.split_once(" msg=")).map(|(_, msg)| msg).collect();
        assert_eq!(messages, ["two", "three"]);
    }

    #[test]
    fn a_wrong_level_is_named() {
        assert!(targets("info,hyper=warn").is_ok());
        let client = |level| targets(level).unwrap().would_enable("rskafka::client", &Level::ERROR);
        assert!(!client("debug") && client("info,rskafka=error"));
        assert!(targets("a=b=c").unwrap_err().to_string().contains("a=b=c"));
    }
}
