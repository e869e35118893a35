//! Fuzzing of what receivers hand to the slicer: any bytes are judged as `prost` judges them, and nothing is made up.

use vivace_fuzzkit::{Campaign, likeness};

use super::*;

/// A request with everything that the messages have, and the first resources of a recording.
fn requests() -> Vec<Vec<u8>> {
    let nested = AnyValue {
        value: Some(Value::KvlistValue(KeyValueList {
            values: vec![KeyValue {
                key: "list".to_owned(),
                value: Some(AnyValue {
                    value: Some(Value::ArrayValue(ArrayValue {
                        values: vec![text("one").unwrap(), text("two").unwrap()],
                    })),
                }),
                key_strindex: 0,
            }],
        })),
    };
    let full = Span {
        trace_state: "a=b".to_owned(),
        parent_span_id: vec![3; 8],
        flags: 257,
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_500_000_000,
        attributes: vec![
            attribute("http.route", "/api/{id}"),
            KeyValue { key: "nested".to_owned(), value: Some(nested), key_strindex: 0 },
        ],
        events: vec![span::Event { time_unix_nano: 5, name: "e".to_owned(), ..Default::default() }],
        links: vec![span::Link { trace_id: vec![8; 16], span_id: vec![9; 8], ..Default::default() }],
        status: Some(Status { message: "no".to_owned(), code: 2 }),
        dropped_attributes_count: 7,
        ..span(1, 1)
    };
    let scope = ScopeSpans {
        scope: Some(InstrumentationScope { name: "lib".to_owned(), version: "1".to_owned(), ..Default::default() }),
        spans: vec![full, span(1, 2), span(2, 3)],
        schema_url: "https://schema".to_owned(),
    };
    let resource = Resource { attributes: vec![attribute("service.name", "shop")], ..Default::default() };
    let one = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope.clone(), scope],
        schema_url: "https://r".to_owned(),
    };
    let recording = Request::decode(SAMPLE).unwrap();
    let few = Request { resource_spans: recording.resource_spans.into_iter().take(1).collect() };
    vec![Request { resource_spans: vec![one.clone(), one] }.encode_to_vec(), few.encode_to_vec()]
}

#[test]
fn any_body_is_judged_as_prost_judges_it_and_written_whole() {
    let campaign = Campaign::new(env!("CARGO_MANIFEST_DIR"), "otlp_protobuf").max_bytes(6000).runs(300_000);
    requests().into_iter().fold(campaign, Campaign::seed_input).run(|input| {
        let body = Bytes::copy_from_slice(input);
        assert_verdict(&body);
        match slice(&body, &LIMITS) {
            Ok(sliced) => {
                let spans: usize = sliced.traces().iter().map(|trace| trace.span_count() as usize).sum();
                assert_eq!(spans, sliced.span_count());
                assert_eq!(count_spans(&body), Ok(spans));
                // Every span may repeat its resource and scope, but no byte comes from elsewhere. Repairing a text may
                // triple it, and every group has a few bytes of keys and lengths.
                let bound = (spans + 1) * (3 * input.len() + 64);
                assert!(sliced.push_bytes_len(false) <= bound, "{} of {}", sliced.push_bytes_len(false), input.len());
                // Cutting at any width leaves a request that needs no more cutting.
                let tight = Limits { max_attribute_bytes: 3 };
                let cut = slice(&body, &tight).expect("the limit refuses nothing");
                assert_eq!(cut.span_count(), spans);
                likeness(&format!("{} repaired {}", "t".repeat(sliced.traces().len().min(9)), sliced.repaired() > 0))
            }
            Err(error) => likeness(&format!("{error:?}")),
        }
    });
}

#[test]
fn any_record_value_is_walked_within_its_bytes() {
    let campaign = Campaign::new(env!("CARGO_MANIFEST_DIR"), "push_bytes").runs(2_000_000);
    let values = requests().into_iter().map(|body| encoded(&slice(&body.into(), &LIMITS).unwrap(), true).to_vec());
    values.fold(campaign, Campaign::seed_input).run(|input| {
        let value = Bytes::copy_from_slice(input);
        match PushBytes::walk(&value) {
            Ok(walked) => {
                let decoded = PushBytesRequest::decode(value.clone());
                if let Ok(decoded) = decoded {
                    let traces: Vec<&[u8]> = walked.iter().map(|(_, trace)| &trace[..]).collect();
                    assert_eq!(decoded.traces.iter().map(|trace| &trace[..]).collect::<Vec<_>>(), traces);
                    assert_eq!(decoded.skip_metrics_generation, walked.skip_metrics());
                }
                assert!(walked.iter().map(|(_, trace)| trace.len()).sum::<usize>() <= input.len());
                likeness(&"t".repeat(walked.len().min(30)))
            }
            Err(error) => likeness(&format!("{error:?}")),
        }
    });
}
