use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value as Json, json};

use super::*;
use crate::otlp::collector::ExportTraceServiceRequest as Request;
use crate::otlp::common::{AnyValue, KeyValue, any_value::Value};
use crate::otlp::trace::{ResourceSpans, ScopeSpans, Span};
use crate::tempopb::*;

/// Recorded answers by name.
fn recorded(name: &str) -> Json {
    let all: Json = serde_json::from_str(include_str!("../../tests/fixtures/answers.json")).unwrap();
    all[name].clone()
}

fn written(answer: &impl ToJson) -> Json {
    serde_json::from_slice(&to_vec(answer)).unwrap()
}

fn text_of(json: &Json) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

fn number(json: &Json) -> u64 {
    json.as_u64().or_else(|| json.as_str().and_then(|s| s.parse().ok())).unwrap_or_default()
}

fn number32(json: &Json) -> u32 {
    u32::try_from(number(json)).unwrap()
}

fn each<T>(json: &Json, f: impl Fn(&Json) -> T) -> Vec<T> {
    json.as_array().map(|items| items.iter().map(f).collect()).unwrap_or_default()
}

/// Ids from base64, as answers have them, to the hex of OTLP/JSON.
fn hex_ids(json: &mut Json) {
    match json {
        Json::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), &value) {
                    ("traceId" | "spanId" | "parentSpanId", Json::String(id)) => {
                        let bytes = STANDARD.decode(id).unwrap();
                        *value = Json::String(bytes.iter().map(|b| format!("{b:02x}")).collect());
                    }
                    _ => hex_ids(value),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(hex_ids),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

fn trace_of(resource_spans: &Json) -> Trace {
    let mut body = json!({ "resourceSpans": resource_spans });
    hex_ids(&mut body);
    let protobuf = otlp_to_protobuf(body.to_string().as_bytes()).unwrap();
    Trace::decode(Bytes::from(protobuf)).unwrap()
}

fn attributes(json: &Json) -> Vec<KeyValue> {
    let spans = json!([{ "resource": { "attributes": json } }]);
    trace_of(&spans).resource_spans.remove(0).resource.unwrap().attributes
}

fn search_metrics(json: &Json) -> Option<SearchMetrics> {
    Some(SearchMetrics {
        inspected_bytes: number(&json["inspectedBytes"]),
        completed_jobs: number32(&json["completedJobs"]),
        total_jobs: number32(&json["totalJobs"]),
        ..Default::default()
    })
}

fn metadata_metrics(json: &Json) -> Option<MetadataMetrics> {
    Some(MetadataMetrics { inspected_bytes: number(&json["inspectedBytes"]), ..Default::default() })
}

fn span_set(json: &Json) -> SpanSet {
    SpanSet {
        spans: each(&json["spans"], |span| crate::tempopb::Span {
            span_id: text_of(&span["spanID"]),
            name: text_of(&span["name"]),
            start_time_unix_nano: number(&span["startTimeUnixNano"]),
            duration_nanos: number(&span["durationNanos"]),
            attributes: attributes(&span["attributes"]),
        }),
        matched: number32(&json["matched"]),
        attributes: attributes(&json["attributes"]),
    }
}

fn search(json: &Json) -> SearchResponse {
    SearchResponse {
        traces: each(&json["traces"], |trace| TraceSearchMetadata {
            trace_id: text_of(&trace["traceID"]),
            root_service_name: text_of(&trace["rootServiceName"]),
            root_trace_name: text_of(&trace["rootTraceName"]),
            start_time_unix_nano: number(&trace["startTimeUnixNano"]),
            duration_ms: number32(&trace["durationMs"]),
            span_set: trace.get("spanSet").map(span_set),
            span_sets: each(&trace["spanSets"], span_set),
            service_stats: trace["serviceStats"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, stats)| {
                    let (span_count, error_count) = (number32(&stats["spanCount"]), number32(&stats["errorCount"]));
                    (name.clone(), ServiceStats { span_count, error_count })
                })
                .collect(),
        }),
        metrics: search_metrics(&json["metrics"]),
    }
}

#[test]
fn traces_are_written_as_recorded() {
    let v1 = recorded("trace-v1");
    let trace = trace_of(&v1["batches"]);
    assert_eq!(written(&Batches(&trace)), v1);

    let v2 = recorded("trace-v2");
    let answer = TraceByIdResponse {
        trace: Some(trace_of(&v2["trace"]["resourceSpans"])),
        metrics: Some(TraceByIdMetrics {
            inspected_bytes: number(&v2["metrics"]["inspectedBytes"]),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(written(&answer), v2);
    let missing = TraceByIdResponse { metrics: Some(TraceByIdMetrics::default()), ..Default::default() };
    assert_eq!(written(&missing), recorded("trace-v2-missing"));
    let partial =
        TraceByIdResponse { status: PartialStatus::Partial.into(), message: "m".to_owned(), ..Default::default() };
    assert_eq!(to_vec(&partial), br#"{"trace":{},"status":"PARTIAL","message":"m"}"#);
}

#[test]
fn searches_and_tags_are_written_as_recorded() {
    for name in ["search", "search-empty"] {
        assert_eq!(written(&search(&recorded(name))), recorded(name));
    }
    let json = recorded("tags-v1");
    let metrics = metadata_metrics(&json["metrics"]);
    let tags = SearchTagsResponse { tag_names: each(&json["tagNames"], text_of), metrics };
    assert_eq!(written(&tags), json);

    let json = recorded("tags-v2");
    let scope = |scope: &Json| SearchTagsV2Scope { name: text_of(&scope["name"]), tags: each(&scope["tags"], text_of) };
    let metrics = metadata_metrics(&json["metrics"]);
    assert_eq!(written(&SearchTagsV2Response { scopes: each(&json["scopes"], scope), metrics }), json);

    let json = recorded("values-v1");
    let metrics = metadata_metrics(&json["metrics"]);
    assert_eq!(written(&SearchTagValuesResponse { tag_values: each(&json["tagValues"], text_of), metrics }), json);

    let json = recorded("values-v2");
    let value = |value: &Json| TagValue { r#type: text_of(&value["type"]), value: text_of(&value["value"]) };
    let metrics = metadata_metrics(&json["metrics"]);
    assert_eq!(written(&SearchTagValuesV2Response { tag_values: each(&json["tagValues"], value), metrics }), json);
    assert_eq!(to_vec(&SearchTagValuesV2Response::default()), br#"{"tagValues":[]}"#);
}

#[test]
fn metrics_answers_are_written_as_recorded() {
    let json = recorded("instant");
    let series = |series: &Json| InstantSeries {
        labels: attributes(&series["labels"]),
        value: series["value"].as_f64().unwrap_or_default(),
    };
    let metrics = search_metrics(&json["metrics"]);
    let answer = QueryInstantResponse { series: each(&json["series"], series), metrics, ..Default::default() };
    assert_eq!(written(&answer), json);

    let json = recorded("range");
    let timestamp_ms = |at: &Json| i64::try_from(number(&at["timestampMs"])).unwrap();
    let value = |at: &Json| at["value"].as_f64().unwrap_or_default();
    let sample = |at: &Json| Sample { value: value(at), timestamp_ms: timestamp_ms(at) };
    let exemplar =
        |at: &Json| Exemplar { labels: attributes(&at["labels"]), value: value(at), timestamp_ms: timestamp_ms(at) };
    let series = |series: &Json| TimeSeries {
        labels: attributes(&series["labels"]),
        samples: each(&series["samples"], sample),
        exemplars: each(&series["exemplars"], exemplar),
    };
    let metrics = search_metrics(&json["metrics"]);
    let answer = QueryRangeResponse { series: each(&json["series"], series), metrics, ..Default::default() };
    assert_eq!(written(&answer), json);

    let json = recorded("instant-empty");
    let metrics = search_metrics(&json["metrics"]);
    assert_eq!(written(&QueryInstantResponse { metrics, ..Default::default() }), json);
    let json = recorded("range-empty");
    let metrics = search_metrics(&json["metrics"]);
    assert_eq!(written(&QueryRangeResponse { metrics, ..Default::default() }), json);
}

#[test]
fn markup_and_line_ends_are_escaped() {
    let tags = SearchTagsResponse { tag_names: vec!["<a&\"b\">\n\u{1}\u{2028}ä".to_owned()], metrics: None };
    let expected = concat!(r#"{"tagNames":["\u003ca\u0026\"b\"\u003e\n\u0001\u2028"#, "ä", r#""]}"#);
    assert_eq!(String::from_utf8(to_vec(&tags)).unwrap(), expected);
}

#[test]
fn numbers_take_the_forms_of_the_reference() {
    let form = |value: f64| {
        let mut out = Vec::new();
        writer::double(&mut out, value);
        String::from_utf8(out).unwrap()
    };
    let forms = [1.0, 0.1, 1e20, 1e21, 1.5e-7, 1e-6, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(form);
    let expected = [
        "1",
        "0.1",
        "100000000000000000000",
        "1e+21",
        "1.5e-7",
        "0.000001",
        "-0",
        "\"NaN\"",
        "\"Infinity\"",
        "\"-Infinity\"",
    ];
    assert_eq!(forms, expected);

    let value = |value| AnyValue { value: Some(value) };
    let samples = [
        (Value::IntValue(i64::MIN), r#"{"intValue":"-9223372036854775808"}"#),
        (Value::IntValue(0), r#"{"intValue":"0"}"#),
        (Value::BoolValue(false), r#"{"boolValue":false}"#),
        (Value::StringValue(String::new()), r#"{"stringValue":""}"#),
        (Value::BytesValue(vec![0xff, 0xfe]), r#"{"bytesValue":"//4="}"#),
        (Value::ArrayValue(Default::default()), r#"{"arrayValue":{}}"#),
        (Value::KvlistValue(Default::default()), r#"{"kvlistValue":{}}"#),
    ];
    for (sample, expected) in samples {
        let mut out = Vec::new();
        trace::key_value(&mut out, &KeyValue { key: "k".to_owned(), value: Some(value(sample)), key_strindex: 0 });
        assert_eq!(String::from_utf8(out).unwrap(), format!(r#"{{"key":"k","value":{expected}}}"#));
    }
}

#[test]
fn unknown_enum_values_are_written_as_numbers() {
    let span = Span { kind: -3, ..Default::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    let trace = Trace { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] };
    let expected = r#"{"batches":[{"resource":{},"scopeSpans":[{"scope":{},"spans":[{"kind":-3,"status":{}}]}]}]}"#;
    assert_eq!(String::from_utf8(to_vec(&Batches(&trace))).unwrap(), expected);
}

fn ingested(json: &str) -> Result<Request, String> {
    let protobuf = otlp_to_protobuf(json.as_bytes()).map_err(|error| error.to_string())?;
    Ok(Request::decode(Bytes::from(protobuf)).unwrap())
}

fn one_span(fields: &str) -> Result<Span, String> {
    let json = format!(r#" {{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}} "#);
    Ok(ingested(&json)?.resource_spans.remove(0).scope_spans.remove(0).spans.remove(0))
}

#[test]
fn every_way_to_write_a_span_is_understood() {
    let camel = r#"
        "traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174", "parentSpanId": "", "name": "a\u00e4\ud83d\ude00\n",
        "kind": 2, "startTimeUnixNano": "1544712660000000000", "endTimeUnixNano": 1544712661000000000, "flags": 257,
        "droppedAttributesCount": 1, "later": {"a": [1, "x", null, true, -1.5e3]}, "traceState": null,
        "status": {"code": "STATUS_CODE_ERROR", "message": "m"},
        "attributes": [
            {"key": "i", "value": {"intValue": "-7"}}, {"key": "n", "value": {"intValue": 12}}, {"key": "f", "value": {"intValue": 1.5e3}},
            {"key": "d", "value": {"doubleValue": "NaN"}}, {"key": "b", "value": {"bytesValue": "_-8"}}, {"key": "z", "value": {"boolValue": false}},
            {"key": "l", "value": {"arrayValue": {"values": [{"stringValue": ""}, {"kvlistValue": {"values": [{"key": "k"}]}}]}}}
        ],
        "events": [{"timeUnixNano": "5", "name": "e"}], "links": [{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174"}]"#;
    let span = one_span(camel).unwrap();
    assert_eq!(
        (span.trace_id.len(), span.trace_id[0], span.span_id[7], span.parent_span_id.len()),
        (16, 0x5b, 0x74, 0)
    );
    assert_eq!((span.name.as_str(), span.kind, span.flags), ("aä😀\n", 2, 257));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1544712660000000000, 1544712661000000000));
    assert_eq!(span.status.as_ref().unwrap().code, 2);
    let value = |at: usize| span.attributes[at].value.clone().unwrap().value.unwrap();
    assert_eq!([value(0), value(1), value(2)], [Value::IntValue(-7), Value::IntValue(12), Value::IntValue(1500)]);
    assert!(matches!(value(3), Value::DoubleValue(d) if d.is_nan()));
    assert_eq!((value(4), value(5)), (Value::BytesValue(vec![0xff, 0xef]), Value::BoolValue(false)));
    assert_eq!((span.events[0].time_unix_nano, span.links[0].span_id.len()), (5, 8));

    let snake = r#""trace_id": "5b8efff798038103d269b633813fc60c", "span_id": "eee19b7ec3c1b174", "kind": "SPAN_KIND_SERVER",
        "start_time_unix_nano": 1544712660000000000, "dropped_attributes_count": "1""#;
    let snake = one_span(snake).unwrap();
    assert_eq!((snake.trace_id, snake.kind, snake.dropped_attributes_count), (span.trace_id, 2, 1));
}

#[test]
fn wrong_ids_are_refused_in_the_words_of_the_collector() {
    assert_eq!(
        one_span(r#""traceId":"0102030405060708","name":"a""#).unwrap_err(),
        "ID.UnmarshalJSONIter: length mismatch, error found in #10 byte of ...|405060708\",\"name\":\"a|..., bigger context \
         ...|opeSpans\":[{\"spans\":[{\"traceId\":\"0102030405060708\",\"name\":\"a\"}]}]}]} |..."
    );
    let starts = [
        (r#""spanId":"01020304""#, "length mismatch"),
        (r#""parentSpanId":"0102030405060708090a0b0c0d0e0f10""#, "length mismatch"),
        (r#""links":[{"traceId":"01"}]"#, "length mismatch"),
        (r#""spanId":"010203040506070z""#, "encoding/hex: invalid byte: U+007A 'z'"),
        (r#""spanId":"\u0001020304050607080""#, "encoding/hex: invalid byte: U+0001"),
        (r#""spanId":"01020304050607081""#, "encoding/hex: odd length hex string"),
        (r#""spanId":"0102030405060708-""#, "encoding/hex: invalid byte: U+002D '-'"),
    ];
    for (fields, what) in starts {
        let error = one_span(fields).unwrap_err();
        assert!(
            error.starts_with(&format!("ID.UnmarshalJSONIter: {what}, error found in #10 byte of ...|")),
            "{error}"
        );
    }
}

#[test]
fn faults_are_reported_with_their_place() {
    let fault = |fields: &str| one_span(fields).unwrap_err();
    let span = "resourceSpans[0].scopeSpans[0].spans[0]";
    assert_eq!(fault(r#""kind":"SERVER""#), format!("{span}.kind: unknown enum value \"SERVER\" at byte 52"));
    assert_eq!(
        fault(r#""startTimeUnixNano":-1"#),
        format!("{span}.startTimeUnixNano: not an integer in range: \"-1\" at byte 65")
    );
    assert_eq!(
        fault(r#""attributes":[{"key":1}]"#),
        format!("{span}.attributes[0].key: expected a string, found '1' at byte 66")
    );
    assert_eq!(ingested("[]").unwrap_err(), "expected an object, found '[' at byte 0");
    assert_eq!(ingested("{} x").unwrap_err(), "text goes on after the end at byte 3");
    assert_eq!(ingested("{").unwrap_err(), "expected a string, found the end at byte 1");
    assert!(ingested(&"{\"a\":[".repeat(50_000)).unwrap_err().contains("nested too deeply"));
    assert_eq!(otlp_to_protobuf(b"{\"a\xff").unwrap_err().to_string(), "text is not UTF-8 at byte 3");
}

#[test]
fn a_recorded_request_survives_the_way_through_json() {
    let request = Trace::decode(Bytes::from_static(include_bytes!("../../tests/fixtures/otlp-request.pb"))).unwrap();
    let back = trace_of(&written(&request)["resourceSpans"]);
    // Written JSON has every resource, scope and status.
    let mut expected = request;
    for resource_spans in &mut expected.resource_spans {
        resource_spans.resource.get_or_insert_default();
        for scope_spans in &mut resource_spans.scope_spans {
            scope_spans.scope.get_or_insert_default();
            for span in &mut scope_spans.spans {
                span.status.get_or_insert_default();
            }
        }
    }
    assert_eq!(back, expected);
}

proptest! {
    #[test]
    fn strings_are_read_as_any_json_reader_reads_them(text in any::<String>()) {
        let span = one_span(&format!("\"name\":{}", serde_json::to_string(&text).unwrap())).unwrap();
        prop_assert_eq!(&span.name, &text);
        let tags = SearchTagsResponse { tag_names: vec![text.clone()], metrics: None };
        prop_assert_eq!(written(&tags), json!({ "tagNames": [text] }));
    }

    #[test]
    fn doubles_survive(value in any::<f64>()) {
        let mut out = Vec::new();
        writer::double(&mut out, value);
        let text = String::from_utf8(out).unwrap();
        let back: f64 = text.trim_matches('"').parse().unwrap();
        prop_assert!(back.to_bits() == value.to_bits() || (back.is_nan() && value.is_nan()));
    }

    #[test]
    fn any_text_is_read_without_panic_and_only_if_it_is_json(
        text in prop::collection::vec(
            prop_oneof![
                Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just("\"resourceSpans\""), Just("\"spans\""),
                Just("null"), Just("1"), Just("-"), Just("\"\\u12\""), Just("\"\\ud800\""), Just("\"attributes\""), Just("ä"), Just("\""),
            ],
            0..24,
        )
    ) {
        let text = text.concat();
        if otlp_to_protobuf(text.as_bytes()).is_ok() {
            // A lone surrogate, which we read as U+FFFD, is all that the other reader refuses more.
            let theirs = serde_json::from_str::<Json>(&text.replace("\\ud800", ""));
            prop_assert!(theirs.is_ok(), "{} {:?}", text, theirs);
        }
    }

    #[test]
    fn damaged_json_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut json = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","name":"a\u00e4","attributes":[{"key":"k","value":{"intValue":"12"}}]}]}]}]}"#.to_vec();
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok(protobuf) = otlp_to_protobuf(&json) {
            prop_assert!(Request::decode(Bytes::from(protobuf)).is_ok());
        }
        json.truncate(cut.index(json.len()));
        prop_assert!(otlp_to_protobuf(&json).is_err());
    }
}
