use super::*;

const NOW: u64 = 1_700_000_000 * SECOND;
const RULES: Rules = Rules {
    now_ns: NOW,
    cutoff_ns: 30 * SECOND,
    max_range: Duration::from_secs(86_400),
    max_intervals: 10_000,
    max_exemplars: 100,
    max_series: 0,
};

fn range(parameters: &str) -> Result<MetricsRequest, String> {
    let asked = Asked::of_params(&Params::parse(parameters), NOW).map_err(|error| error.to_string())?;
    asked.check(&RULES).map(|checked| checked.request).map_err(|error| error.to_string())
}

fn instant(parameters: &str) -> Result<MetricsRequest, String> {
    let asked = Asked::at_once_of_params(&Params::parse(parameters), NOW).map_err(|error| error.to_string())?;
    asked.check(&RULES).map(|checked| checked.request).map_err(|error| error.to_string())
}

/// Start, end and step in seconds.
fn axis(parameters: &str) -> Result<(f64, f64, f64), String> {
    let seconds = |ns: u64| Duration::from_nanos(ns).as_secs_f64();
    range(parameters).map(|r| (seconds(r.start_ns), seconds(r.end_ns), seconds(r.step_ns)))
}

#[test]
fn without_times_the_last_hour_is_meant_in_steps_of_a_quarter_minute() {
    assert_eq!(axis("q={}|rate()"), Ok((1_699_996_380.0, 1_699_999_965.0, 15.0)));
}

#[test]
fn one_instant_has_many_spellings() {
    for start in
        ["1699990000", "1699990000.0", "1699990000000000000", "2023-11-14T19:26:40Z", "2023-11-14T20:26:40.000%2B01:00"]
    {
        let asked = format!("q={{}}|rate()&start={start}&end=1699990100&step=10");
        assert_eq!(axis(&asked), Ok((1_699_989_990.0, 1_699_990_100.0, 10.0)), "{start}");
    }
    // Fractions are kept: to the millisecond with a dot, to the nanosecond in the other forms.
    let instant_start = |start: &str| instant(&format!("q={{}}|rate()&start={start}&end=1699990100")).unwrap().start_ns;
    assert_eq!(instant_start("1699990000.1239"), 1_699_990_000_124_000_000);
    assert_eq!(instant_start("1699990000123456789"), 1_699_990_000_123_456_789);
    assert_eq!(instant_start("2023-11-14T19:26:40.123456789Z"), 1_699_990_000_123_456_789);
}

#[test]
fn steps_are_seconds_or_durations() {
    for (step, seconds) in [("5", 5.0), ("0.5", 0.5), ("1m30s", 90.0), ("500ms", 0.5)] {
        let asked = format!("q={{}}|rate()&start=1699990000&end=1699991000&step={step}");
        assert_eq!(axis(&asked).unwrap().2, seconds, "{step}");
    }
}

#[test]
fn a_step_says_nothing_about_the_whole_range() {
    let whole = instant("q={}|rate()&start=1699990000&end=1699990100").unwrap();
    for step in ["10", "-5", "1d", "abc"] {
        let asked = instant(&format!("q={{}}|rate()&start=1699990000&end=1699990100&step={step}"));
        assert_eq!(asked, Ok(whole), "{step}");
    }
    assert_eq!(whole.step_ns, 100 * SECOND);
}

#[test]
fn a_range_goes_outwards_to_whole_steps_and_never_past_the_cutoff() {
    assert_eq!(
        axis("q={}|rate()&start=1699990003&end=1699990097&step=10"),
        Ok((1_699_989_990.0, 1_699_990_100.0, 10.0))
    );
    // The newest step is not complete.
    assert_eq!(
        axis("q={}|rate()&start=1699999000&end=1800000000&step=60"),
        Ok((1_699_998_900.0, 1_699_999_920.0, 60.0))
    );
}

#[test]
fn an_instant_query_is_one_step_over_all_of_the_range() {
    let asked = instant("q={}|rate()&start=1699990003.5&end=1699990097&step=10&exemplars=7").unwrap();
    assert!(asked.instant && asked.exemplars == 0);
    assert_eq!((asked.start_ns, asked.end_ns), (1_699_990_003_500_000_000, 1_699_990_097 * SECOND));
    assert_eq!(asked.step_ns, asked.end_ns - asked.start_ns);
    // Within the cutoff the end goes down by whole seconds.
    let late = instant("q={}|rate()&start=1699990000&end=1699999980.25").unwrap();
    assert_eq!(late.end_ns, 1_699_999_969_250_000_000);
    // A range of exactly one step is one, unless the request says that it is not.
    assert!(range("q={}|rate()&start=1699990003&end=1699990097&step=94").unwrap().instant);
    assert!(!range("q={}|rate()&start=1699990003&end=1699990097&step=94&instant=false").unwrap().instant);
}

#[test]
fn errors_read_as_tempo_says_them() {
    let cases = [
        ("q={}|rate()&step=-5", "rpc error: code = Code(400) desc = cannot parse \"-5\": step must be positive"),
        ("q={}|rate()&step=-5s", "rpc error: code = Code(400) desc = cannot parse \"-5s\": step must be positive"),
        ("q={}|rate()&step=soon", "rpc error: code = Code(400) desc = cannot parse \"soon\" to a valid duration"),
        ("q={}|rate()&step=NaN", "rpc error: code = Code(400) desc = cannot parse \"NaN\" to a valid duration"),
        (
            "q={}|rate()&start=soon",
            "rpc error: code = Code(400) desc = could not parse 'start' parameter: \"soon\" is not a time",
        ),
        (
            "q={}|rate()&since=zz",
            "rpc error: code = Code(400) desc = could not parse 'since' parameter: not a valid duration string: \"zz\"",
        ),
        (
            "q={}|rate()&start=1699990000&end=1699993600&step=1ms",
            "step of 1ms is too small, minimum step for given range is 360ms",
        ),
        (
            "q={}|rate()&start=1699990000&end=1699993600&step=0",
            "step of 0s is too small, minimum step for given range is 360ms",
        ),
        ("q={}|rate()&start=5&end=5", "end must be greater than start"),
        ("q={}|rate()&start=9&end=5", "end must be greater than start"),
        ("q={}|rate()&start=1699999980&end=1699999990", "query window falls entirely within query_end_cutoff"),
        (
            "q={}|rate()&start=1699900000&end=1699990000",
            "metrics query time range exceeds the maximum allowed duration of 24h0m0s",
        ),
        ("start=5&end=6", "parse error : syntax error: unexpected $end"),
        ("q={}", "not a metrics query"),
        ("q={", "invalid TraceQL query: "),
        ("q={1%2B\"a\"}|rate()", "compiling query: "),
    ];
    for (parameters, message) in cases {
        let told = range(parameters).unwrap_err();
        let same = if message.ends_with(": ") { told.starts_with(message) } else { told == message };
        assert!(same, "{parameters}: {told}");
    }
}

#[test]
fn numbers_that_are_none_count_as_not_said() {
    let asked = range("q={}|rate()&exemplars=many&maxSeries=-1&instant=perhaps").unwrap();
    assert_eq!((asked.exemplars, asked.max_series, asked.instant), (100, 0, false));
    let asked = range("query={}|rate()&exemplars=7&maxSeries=5").unwrap();
    assert_eq!((asked.exemplars, asked.max_series), (7, 5));
    assert_eq!(range("q={}|rate()&exemplars=0").unwrap().exemplars, 100);
    assert_eq!(range("q={}|rate()with(exemplars=false)&exemplars=9").unwrap().exemplars, 0);
}

#[test]
fn the_first_name_of_the_query_wins() {
    assert!(range("query={&q={}|rate()").is_ok());
}

#[test]
fn the_smaller_limit_of_series_counts() {
    let asked = |parameters: &str, limit: u32| {
        let asked = Asked::of_params(&Params::parse(parameters), NOW).unwrap();
        asked.check(&Rules { max_series: limit, ..RULES }).unwrap().request.max_series
    };
    assert_eq!(asked("q={}|rate()", 10), 10);
    assert_eq!(asked("q={}|rate()&maxSeries=3", 10), 3);
    assert_eq!(asked("q={}|rate()&maxSeries=30", 10), 10);
}

#[test]
fn messages_leave_out_what_parameters_leave_out() {
    let request = tempopb::QueryRangeRequest {
        query: "{}|rate()".to_owned(),
        start: 1_699_990_000 * SECOND,
        end: 1_699_993_600 * SECOND,
        ..tempopb::QueryRangeRequest::default()
    };
    let asked = |params: &Params| Asked::of_params(params, NOW).unwrap().check(&RULES);
    let checked = asked(&range_parameters(&request)).unwrap();
    assert_eq!((checked.request.step_ns, checked.request.exemplars), (15 * SECOND, 100));
    assert_eq!(checked.request.start_ns, 1_699_989_975 * SECOND);
    // Real times are needed: there is no last hour here.
    let nowhen = tempopb::QueryRangeRequest { start: 0, end: 0, ..request.clone() };
    assert_eq!(asked(&range_parameters(&nowhen)).unwrap_err(), RequestError::Order);
    // Nanoseconds stay nanoseconds, however few they are.
    let early = tempopb::QueryRangeRequest { start: 5, end: 9 * SECOND, step: SECOND, ..request };
    assert_eq!(asked(&range_parameters(&early)).unwrap().request.end_ns, 9 * SECOND);
    let search = tempopb::QueryInstantRequest { query: "{}".to_owned(), start: 1, end: 2 };
    assert_eq!(asked(&instant_parameters(&search)).unwrap_err(), RequestError::NotMetrics);
}
