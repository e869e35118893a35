//! Metrics over the block that Tempo wrote, against what Tempo answered, and blocks against recent data.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use prost::Message;
use serde_json::Value as Json;
use vivace_protocol::TraceId;
use vivace_protocol::otlp::common::any_value::Value as Any;

use super::*;
use crate::{LiveSource, read, read::tests};

const SECOND: u64 = 1_000_000_000;
/// Tempo hid the newest data, so the effective end was this much after the start.
const EFFECTIVE_SECONDS: u64 = 201;

struct Answer {
    query: String,
    instant: bool,
    series: Vec<Json>,
}

fn answers() -> (u64, Vec<Answer>) {
    let all: Json = serde_json::from_slice(&std::fs::read(tests::fixture("metrics-answers.json")).unwrap()).unwrap();
    let answers = all["answers"].as_array().unwrap().iter().map(|answer| Answer {
        query: answer["query"].as_str().unwrap().to_owned(),
        instant: answer["instant"].as_bool().unwrap(),
        series: answer["series"].as_array().unwrap().clone(),
    });
    (all["start"].as_u64().unwrap() * SECOND, answers.collect())
}

fn job(query: &str, start_ns: u64, instant: bool) -> MetricsJob {
    let end_ns = start_ns + EFFECTIVE_SECONDS * SECOND;
    let step_nanos = 30 * SECOND;
    let (start, end) =
        if instant { (start_ns, end_ns) } else { MetricsRequest::aligned(start_ns, end_ns, step_nanos, end_ns) };
    MetricsJob {
        query: query.to_owned(),
        start_unix_nano: start,
        end_unix_nano: end,
        step_nanos,
        instant,
        exemplars: 100,
        ..MetricsJob::default()
    }
}

/// Runs a job on each source and merges what crosses the wire.
fn run(sources: &[&dyn Fn(&MetricsJob) -> MetricsBatch], job: &MetricsJob) -> MetricsResult {
    let plan = metrics_plan(job).unwrap();
    let mut sum = plan.partial();
    for source in sources {
        let encoded = source(job).encode_to_vec();
        let batch = MetricsBatch::decode(encoded.as_slice()).unwrap();
        merge_metrics(&plan, &mut sum, batch.partial.unwrap()).unwrap();
    }
    plan.finish(sum)
}

fn on_block(block: &Arc<OpenBlock>, job: &MetricsJob) -> MetricsResult {
    run(&[&|job| metrics_block(block, &Share::whole(), job, &|| false).unwrap()], job)
}

/// A value as it stands in an answer.
fn shown(value: &KeyValue) -> String {
    match value.value.as_ref().and_then(|any| any.value.as_ref()).unwrap() {
        Any::StringValue(text) => format!("stringValue {text}"),
        Any::IntValue(value) => format!("intValue {value}"),
        Any::DoubleValue(value) => format!("doubleValue {value}"),
        Any::BoolValue(value) => format!("boolValue {value}"),
        other => panic!("{other:?} in a label"),
    }
}

fn labels(labels: &[KeyValue]) -> Vec<String> {
    labels.iter().map(|label| format!("{}={}", label.key, shown(label))).collect()
}

fn json_labels(series: &Json) -> Vec<String> {
    let label = |label: &Json| {
        let (kind, value) = label["value"].as_object().unwrap().iter().next().unwrap();
        let value = match value {
            Json::String(text) => text.clone(),
            Json::Number(number) => number.as_f64().unwrap().to_string(),
            other => other.to_string(),
        };
        format!("{}={kind} {value}", label["key"].as_str().unwrap())
    };
    series["labels"].as_array().unwrap().iter().map(label).collect()
}

fn json_samples(series: &Json) -> Vec<(i64, f64)> {
    let sample = |sample: &Json| (sample[0].as_str().unwrap().parse().unwrap(), sample[1].as_f64().unwrap());
    series["samples"].as_array().unwrap().iter().map(sample).collect()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

#[test]
fn series_labels_order_and_values_are_those_of_tempo() {
    let block = Arc::new(tests::open_v5());
    let (start, answers) = answers();
    let mut compared = 0;
    for answer in &answers {
        // Where ours differs on purpose, a test of its own says how.
        if answer.query.contains("compare(") || answer.query.contains("sum_over_time(") {
            continue;
        }
        let text = &answer.query;
        let result = on_block(&block, &job(text, start, answer.instant));
        assert_eq!(result.series.len(), answer.series.len(), "{text}");
        if answer.instant {
            let response = instant_response(result);
            for (own, wanted) in response.series.iter().zip(&answer.series) {
                assert_eq!(labels(&own.labels), json_labels(wanted), "{text}");
                assert!(close(own.value, wanted["value"].as_f64().unwrap()), "{text}: {own:?} {wanted}");
                compared += 1;
            }
            continue;
        }
        let response = range_response(result);
        for (own, wanted) in response.series.iter().zip(&answer.series) {
            assert_eq!(labels(&own.labels), json_labels(wanted), "{text}");
            let wanted = json_samples(wanted);
            assert_eq!(own.samples.len(), wanted.len(), "{text}: {own:?}");
            for (sample, (time, value)) in own.samples.iter().zip(wanted) {
                assert_eq!(sample.timestamp_ms, time, "{text}");
                assert!(close(sample.value, value), "{text}: {sample:?} instead of {value}");
                compared += 1;
            }
        }
        // All spans start within one second, that is one slot: two exemplars, as Tempo had.
        let exemplars = |series: &[Json]| -> usize {
            series.iter().filter_map(|series| Some(series.get("exemplars")?.as_array()?.len())).sum()
        };
        if !text.contains("topk") {
            let own: usize = response.series.iter().map(|series| series.exemplars.len()).sum();
            assert_eq!(own, exemplars(&answer.series).max(own.min(2)), "{text}");
        }
    }
    assert!(compared > 500, "{compared}");
}

/// The traces of the block, put together again.
fn traces(block: &OpenBlock) -> Vec<(TraceId, Bytes)> {
    read::rows(block).map(Result::unwrap).collect()
}

/// Tempo loses the sum of an interval as soon as one span lacks the value; ours passes over such spans.
#[test]
fn sum_over_time_is_not_lost_to_spans_without_the_value() {
    let block = Arc::new(tests::open_v5());
    let (start, answers) = answers();
    let query = "{} | sum_over_time(span.messaging.batch.message_count)";
    let theirs: Vec<&Answer> = answers.iter().filter(|answer| answer.query == query).collect();
    assert!(theirs.len() == 2 && theirs.iter().all(|answer| answer.series.is_empty()));
    let memory = crate::live::tests::memory(&traces(&block));
    let spans = memory.traces().iter().flat_map(|trace| &trace.spans);
    let counts = spans.flat_map(|span| &span.attributes).filter(|(key, _)| &**key == "messaging.batch.message_count");
    let wanted: f64 = counts.filter_map(|(_, value)| value.as_f64()).sum();
    assert!(wanted > 1000.0);
    let result = on_block(&block, &job(query, start, true));
    assert_eq!(result.series[0].samples.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [wanted]);
    assert_eq!(on_block(&block, &job(query, start, false)).series[0].samples.len(), 1);
}

/// Tempo counts `nil` as a value of columns that a block reserves for an attribute, whether a span has it or not, and gives
/// these columns totals of all spans. Ours counts what spans have.
#[test]
fn compare_counts_what_tempo_counts_but_no_absent_values() {
    let block = Arc::new(tests::open_v5());
    let (start, answers) = answers();
    for answer in answers.iter().filter(|answer| answer.query.contains("compare(")) {
        let value = |series: &Json| match series.get("value") {
            Some(value) => value.as_f64().unwrap(),
            None => json_samples(series).iter().map(|(_, value)| value).sum(),
        };
        // By side and field: the counts of the values, the total under a name of its own.
        let mut theirs: BTreeMap<(String, String), Vec<(String, f64)>> = BTreeMap::new();
        let mut reserved = HashSet::new();
        for series in &answer.series {
            let labels = json_labels(series);
            let (kind, (field, shown)) = (labels[0].clone(), labels[1].split_once('=').unwrap());
            if !kind.ends_with("_total") && shown == "stringValue nil" {
                reserved.insert(field.to_owned());
            }
            theirs.entry((kind, field.to_owned())).or_default().push((shown.to_owned(), value(series)));
        }
        let result = on_block(&block, &job(&answer.query, start, answer.instant));
        let mut ours: BTreeMap<(String, String), Vec<(String, f64)>> = BTreeMap::new();
        for series in range_response(result).series {
            let shown = labels(&series.labels);
            if shown[0].starts_with("__meta_error") {
                continue;
            }
            let (field, text) = shown[1].split_once('=').unwrap();
            let sum = series.samples.iter().map(|sample| sample.value).sum();
            ours.entry((shown[0].clone(), field.to_owned())).or_default().push((text.to_owned(), sum));
        }
        let known = |field: &String| !reserved.contains(field);
        let keys = |all: &BTreeMap<(String, String), Vec<(String, f64)>>| -> Vec<(String, String)> {
            all.keys().filter(|(_, field)| known(field)).cloned().collect()
        };
        assert_eq!(keys(&ours), keys(&theirs), "{}", answer.query);
        assert!(keys(&ours).len() > 80 && reserved.len() < 15);
        for key in keys(&ours) {
            // Which of equally frequent values are shown is a matter of chance in Tempo, so counts are compared.
            let counts = |all: &BTreeMap<(String, String), Vec<(String, f64)>>| {
                let mut counts: Vec<f64> = all[&key].iter().map(|(_, count)| *count).collect();
                counts.sort_by(f64::total_cmp);
                counts
            };
            assert_eq!(counts(&ours), counts(&theirs), "{key:?}");
        }
        // Of reserved columns the counts of values that are there agree.
        for ((kind, field), values) in &ours {
            let Some(theirs) = theirs.get(&(kind.clone(), field.clone())).filter(|_| !known(field)) else { continue };
            for (value, count) in theirs.iter().filter(|(value, _)| value != "stringValue nil") {
                let own = values.iter().find(|(own, _)| own == value);
                assert!(own.is_none_or(|(_, own)| own == count), "{kind} {field} {value}");
            }
        }
    }
}

#[test]
fn blocks_and_recent_data_and_any_cut_between_them_give_the_same() {
    let block = Arc::new(tests::open_v5());
    let (start, answers) = answers();
    let live = |parity: usize| {
        let traces = traces(&block).into_iter().enumerate().filter(|(number, _)| parity > 1 || number % 2 == parity);
        LiveSource::new(traces.map(|(_, (id, trace))| (id, vec![trace])))
    };
    let (even, odd, all) = (live(0), live(1), live(2));
    let of = |source: &LiveSource, job: &MetricsJob| metrics(source, job, &|| false).unwrap();
    for answer in answers.iter().filter(|answer| answer.query.contains("compare(") == answer.instant) {
        let job = job(&answer.query, start, answer.instant);
        let whole = on_block(&block, &job);
        assert_eq!(run(&[&|job| of(&all, job)], &job), whole, "{}", answer.query);
        assert_same(&run(&[&|job| of(&odd, job), &|job| of(&even, job)], &job), &whole, &answer.query);
        // A cut in time, in the middle of the second that all spans are from.
        let cut = 1_795_178_836 * SECOND + 500_000_000;
        let before = |job: &MetricsJob| {
            metrics_block(&block, &Share::whole(), &MetricsJob { until_unix_nano: cut, ..job.clone() }, &|| false)
                .unwrap()
        };
        let after = |job: &MetricsJob| of(&all, &MetricsJob { after_unix_nano: cut, ..job.clone() });
        assert_same(&run(&[&before, &after], &job), &whole, &answer.query);
    }
}

fn assert_same(own: &MetricsResult, wanted: &MetricsResult, text: &str) {
    assert_eq!(own.series.len(), wanted.series.len(), "{text}");
    for (own, wanted) in own.series.iter().zip(&wanted.series) {
        assert_eq!((&own.labels, own.exemplars.len()), (&wanted.labels, wanted.exemplars.len()), "{text}");
        assert_eq!(own.samples.len(), wanted.samples.len(), "{text}");
        for (own, wanted) in own.samples.iter().zip(&wanted.samples) {
            assert!(own.0 == wanted.0 && close(own.1, wanted.1), "{text}: {own:?} instead of {wanted:?}");
        }
    }
}

#[test]
fn a_window_leaves_spans_out_of_a_job() {
    let block = Arc::new(tests::open_v5());
    let (start, _) = answers();
    let job = MetricsJob { until_unix_nano: start, ..job("{} | count_over_time()", start, true) };
    assert_eq!(on_block(&block, &job).series[0].samples[0].1, 0.0);
}

#[test]
fn every_type_of_value_crosses_the_wire() {
    let values = [
        Value::Nil,
        Value::Int(-5),
        Value::Float(-0.0),
        Value::Duration(7),
        Value::str("x"),
        Value::Bool(false),
        Value::Status(SpanStatus::Error),
        Value::Kind(Kind::Consumer),
        Value::List(vec![Value::Int(1), Value::Int(2)].into()),
    ];
    for own in values {
        let encoded = value_message(&own).encode_to_vec();
        assert_eq!(value(MetricsValue::decode(encoded.as_slice()).unwrap()), own);
    }
}

#[test]
fn what_is_wrong_with_a_job_is_said() {
    let block = Arc::new(tests::open_v5());
    let code = |job: &MetricsJob, stop: bool| metrics_block(&block, &Share::whole(), job, &|| stop).unwrap_err();
    let fine = job("{} | rate()", SECOND, false);
    let not_metrics = code(&MetricsJob { query: "{}".into(), ..fine.clone() }, false);
    assert_eq!((not_metrics.code(), not_metrics.message()), (tonic::Code::InvalidArgument, "not a metrics query"));
    assert_eq!(code(&MetricsJob { query: "{".into(), ..fine.clone() }, false).code(), tonic::Code::InvalidArgument);
    assert_eq!(
        code(&MetricsJob { start_unix_nano: 5, end_unix_nano: 5, ..fine.clone() }, false).code(),
        tonic::Code::InvalidArgument
    );
    assert_eq!(code(&fine, true).code(), tonic::Code::Cancelled);
    let plan = metrics_plan(&fine).unwrap();
    let foreign = merge_metrics(&plan, &mut plan.partial(), vivace::MetricsPartial::default()).unwrap_err();
    assert_eq!(foreign.code(), tonic::Code::Internal);
}
