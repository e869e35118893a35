//! What a metrics request asks, read from parameters or from a message, checked against the limits, put on the time axis.
//!
//! No clock and no configuration in here: [`Rules`] has what is needed of both. The texts of the errors are what Tempo's
//! clients see.

use std::time::Duration;

use vivace_protocol::tempopb;
use vivace_runtime::config::{GoDuration, PromDuration};
use vivace_traceql::{ErrorKind, MetricsRequest, Query};

use crate::params::{Params, rfc3339};
use crate::respond::Refusal;

const SECOND: u64 = 1_000_000_000;
/// Without `start` and `since`.
const DEFAULT_SINCE: Duration = Duration::from_secs(3600);

/// What the checks need to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) now_ns: u64,
    /// Newer than this is left out.
    pub(crate) cutoff_ns: u64,
    /// Longest range; zero is any.
    pub(crate) max_range: Duration,
    /// Most steps in a range; 0 is any.
    pub(crate) max_intervals: u64,
    pub(crate) max_exemplars: u32,
    /// Most series in an answer; 0 is any.
    pub(crate) max_series: u32,
}

/// A request as it came. Zeros stand for what was not said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) query: String,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    /// None: computed from the range.
    pub(crate) step_ns: Option<u64>,
    pub(crate) exemplars: u32,
    pub(crate) max_series: u32,
    /// None: a range of exactly one step is an instant query.
    pub(crate) instant: Option<bool>,
}

/// A request that can run.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    pub(crate) query: Query,
    pub(crate) request: MetricsRequest,
}

/// Why a request cannot run. It is the client's to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("rpc error: code = Code(400) desc = could not parse '{name}' parameter: {why}")]
    Time { name: &'static str, why: String },
    #[error("rpc error: code = Code(400) desc = cannot parse {0}: step must be positive")]
    NegativeStep(String),
    #[error("rpc error: code = Code(400) desc = cannot parse {0} to a valid duration")]
    Step(String),
    #[error("step of {step} is too small, minimum step for given range is {minimum}")]
    SmallStep { step: GoDuration, minimum: GoDuration },
    #[error("end must be greater than start")]
    Order,
    #[error("query window falls entirely within query_end_cutoff")]
    Cutoff,
    #[error("metrics query time range exceeds the maximum allowed duration of {0}")]
    Range(GoDuration),
    #[error("parse error : syntax error: unexpected $end")]
    Empty,
    #[error("invalid TraceQL query: {0}")]
    Parse(String),
    #[error("compiling query: {0}")]
    Compile(String),
    #[error("not a metrics query")]
    NotMetrics,
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        Self::bad(error.to_string())
    }
}

impl Asked {
    /// From the parameters of a URL.
    pub(crate) fn of_params(params: &Params, now_ns: u64) -> Result<Self, RequestError> {
        let asked = Self::without_step(params, now_ns)?;
        Ok(Self { step_ns: params.get("step").map(step).transpose()?, ..asked })
    }

    /// From the parameters of a URL, over the whole range at once. A step has no meaning there, and is not looked at.
    pub(crate) fn at_once_of_params(params: &Params, now_ns: u64) -> Result<Self, RequestError> {
        Ok(Self { instant: Some(true), exemplars: 0, ..Self::without_step(params, now_ns)? })
    }

    fn without_step(params: &Params, now_ns: u64) -> Result<Self, RequestError> {
        let end = time(params, "end")?;
        let start = time(params, "start")?;
        let since = match params.get("since") {
            None => DEFAULT_SINCE,
            Some(text) => text.parse::<PromDuration>().map(PromDuration::get).map_err(|_reason| {
                RequestError::Time { name: "since", why: format!("not a valid duration string: {text:?}") }
            })?,
        };
        let end_ns = end.unwrap_or(now_ns);
        let since = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let start_ns = start.unwrap_or_else(|| end_ns.min(now_ns).saturating_sub(since));
        // What is no number here counts as not said.
        let number = |name: &str| params.get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Self {
            query: params.get("q").or_else(|| params.get("query")).unwrap_or("").to_owned(),
            start_ns,
            end_ns,
            step_ns: None,
            exemplars: number("exemplars"),
            max_series: number("maxSeries"),
            instant: params.get("instant").and_then(boolean),
        })
    }

    /// Checks the query and the range and puts the range on multiples of the step.
    pub(crate) fn check(&self, rules: &Rules) -> Result<Checked, RequestError> {
        let query = self.parsed()?;
        if self.end_ns <= self.start_ns {
            return Err(RequestError::Order);
        }
        let horizon = rules.now_ns.saturating_sub(rules.cutoff_ns);
        let range = self.end_ns - self.start_ns;
        let instant = self.instant.unwrap_or_else(|| self.step_ns == Some(range));
        let end_ns = match (self.end_ns > horizon, instant) {
            (false, _) => self.end_ns,
            (true, false) => horizon,
            // By whole seconds, so that the end keeps its place within the second.
            (true, true) => self.end_ns.saturating_sub((self.end_ns - horizon).div_ceil(SECOND) * SECOND),
        };
        if end_ns <= self.start_ns {
            return Err(RequestError::Cutoff);
        }
        let range = end_ns - self.start_ns;
        if !rules.max_range.is_zero() && u128::from(range) > rules.max_range.as_nanos() {
            return Err(RequestError::Range(rules.max_range.into()));
        }
        let max_series = match (self.max_series, rules.max_series) {
            (0, limit) | (limit, 0) => limit,
            (asked, limit) => asked.min(limit),
        };
        let max_series = usize::try_from(max_series).unwrap_or(usize::MAX);
        if instant {
            let request =
                MetricsRequest { start_ns: self.start_ns, end_ns, step_ns: range, instant, exemplars: 0, max_series };
            return Ok(Checked { query, request });
        }
        let step_ns = self.step_ns.unwrap_or_else(|| MetricsRequest::default_step_ns(self.start_ns, self.end_ns));
        if step_ns == 0 || (rules.max_intervals > 0 && range / step_ns > rules.max_intervals) {
            let minimum = range.div_ceil(rules.max_intervals.max(1));
            let (step, minimum) = (Duration::from_nanos(step_ns).into(), Duration::from_nanos(minimum).into());
            return Err(RequestError::SmallStep { step, minimum });
        }
        let (start_ns, end_ns) = MetricsRequest::aligned(self.start_ns, end_ns, step_ns, horizon);
        if end_ns <= start_ns {
            // Not one whole step lies before the cutoff.
            return Err(RequestError::Cutoff);
        }
        let asked = if self.exemplars == 0 { rules.max_exemplars } else { self.exemplars };
        let exemplars = MetricsRequest::exemplar_budget(&query, asked, rules.max_exemplars);
        let request = MetricsRequest { start_ns, end_ns, step_ns, instant, exemplars, max_series };
        Ok(Checked { query, request })
    }

    fn parsed(&self) -> Result<Query, RequestError> {
        if self.query.trim().is_empty() {
            return Err(RequestError::Empty);
        }
        let query = Query::parse(&self.query).map_err(|error| match error.kind {
            ErrorKind::Parse => RequestError::Parse(error.to_string()),
            ErrorKind::Type | ErrorKind::Unsupported => RequestError::Compile(error.to_string()),
        })?;
        if query.is_metrics() { Ok(query) } else { Err(RequestError::NotMetrics) }
    }
}

/// A range request over gRPC as the parameters that it stands for. Its times are never left out.
pub(crate) fn range_parameters(request: &tempopb::QueryRangeRequest) -> Params {
    let number = |n: u32| if n == 0 { String::new() } else { n.to_string() };
    let step = if request.step == 0 { String::new() } else { format!("{}ns", request.step) };
    Params::from_pairs([
        ("q", request.query.clone()),
        ("start", nanos(request.start)),
        ("end", nanos(request.end)),
        ("step", step),
        ("exemplars", number(request.exemplars)),
        ("maxSeries", number(request.max_series)),
        ("instant", request.instant.map_or_else(String::new, |instant| instant.to_string())),
    ])
}

/// The same for an instant request.
pub(crate) fn instant_parameters(request: &tempopb::QueryInstantRequest) -> Params {
    let (start, end) = (nanos(request.start), nanos(request.end));
    Params::from_pairs([("q", request.query.clone()), ("start", start), ("end", end)])
}

/// Nanoseconds in so many digits that they are not taken for seconds.
fn nanos(ns: u64) -> String {
    format!("{ns:011}")
}

/// Go's spellings of truth.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Seconds with or without a fraction, or Go's syntax.
fn step(text: &str) -> Result<u64, RequestError> {
    let quoted = || format!("{text:?}");
    if let Ok(seconds) = text.parse::<f64>() {
        if seconds < 0.0 {
            return Err(RequestError::NegativeStep(quoted()));
        }
        let step = Duration::try_from_secs_f64(seconds).map_err(|_too_long| RequestError::Step(quoted()))?;
        return u64::try_from(step.as_nanos()).map_err(|_too_long| RequestError::Step(quoted()));
    }
    if let Some(positive) = text.strip_prefix('-')
        && positive.parse::<GoDuration>().is_ok()
    {
        return Err(RequestError::NegativeStep(quoted()));
    }
    let step: Duration = text.parse::<GoDuration>().map(Into::into).map_err(|_reason| RequestError::Step(quoted()))?;
    u64::try_from(step.as_nanos()).map_err(|_too_long| RequestError::Step(quoted()))
}

/// With a dot seconds to the millisecond; up to ten digits seconds, more nanoseconds; else RFC 3339.
fn time(params: &Params, name: &'static str) -> Result<Option<u64>, RequestError> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let wrong = || RequestError::Time { name, why: format!("{text:?} is not a time") };
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: u64 = text.parse().map_err(|_overflow| wrong())?;
        return Ok(Some(if text.len() <= 10 { number * SECOND } else { number }));
    }
    if text.contains('.')
        && let Ok(seconds) = text.parse::<f64>()
    {
        let seconds = Duration::try_from_secs_f64((seconds * 1000.0).round() / 1000.0).map_err(|_negative| wrong())?;
        let millis = u64::try_from(seconds.as_millis()).map_err(|_too_late| wrong())?;
        return millis.checked_mul(1_000_000).map(Some).ok_or_else(wrong);
    }
    let seconds = rfc3339(text).ok_or_else(wrong)?;
    let fraction = text.get(19..).and_then(|rest| rest.strip_prefix('.')).unwrap_or("");
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).take(9);
    let (nanos, _) =
        digits.fold((0, SECOND / 10), |(sum, place), digit| (sum + u64::from(digit - b'0') * place, place / 10));
    seconds.checked_mul(SECOND).and_then(|ns| ns.checked_add(nanos)).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests;
