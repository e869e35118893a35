//! Fuzzing of OTLP/JSON: any text is refused with its place, or becomes a request that protobuf decodes.

use bytes::Bytes;
use prost::Message as _;
use vivace_fuzzkit::{Campaign, likeness};

use super::{otlp_to_protobuf, to_vec};
use crate::otlp::collector::ExportTraceServiceRequest as Request;
use crate::slicer::{Limits, SliceError, count_spans, slice};
use crate::tempopb::TraceByIdResponse;
use crate::wire::WireError;

/// One span with all that it can have, and all that is easy to get wrong.
const FULL: &str = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"grün\u00fc\ud83d\ude80\n"}},
{"key":"n","value":{"intValue":"-9223372036854775808"}},{"key":"d","value":{"doubleValue":1.5e-3}},{"key":"b","value":{"boolValue":true}},
{"key":"x","value":{"bytesValue":"AAEC/w=="}},{"key":"l","value":{"arrayValue":{"values":[{"intValue":7},{"stringValue":""}]}}},
{"key":"m","value":{"kvlistValue":{"values":[{"key":"k","value":null}]}}}],"droppedAttributesCount":3},"scopeSpans":[{"scope":{"name":"lib",
"version":"1"},"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","parentSpanId":"","name":"GET /cart",
"kind":"SPAN_KIND_SERVER","startTimeUnixNano":"1700000000000000000","endTimeUnixNano":1.7e18,"events":[{"timeUnixNano":"5","name":"e"}],
"links":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","flags":1}],"status":{"code":2,"message":"no"},
"unknown":{"deep":[[[[1,2,{"a":null}]]]]}}],"schemaUrl":"https://s"}],"schemaUrl":"https://r"}]}"#;

const TOKENS: [&str; 34] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "null",
    "true",
    "false",
    "0",
    "-",
    "-0",
    "1e999",
    "1.5",
    "NaN",
    "18446744073709551616",
    "\\u0000",
    "\\ud800",
    "\\udc00",
    "\"resourceSpans\":",
    "\"scopeSpans\":[",
    "\"spans\":[{",
    "\"traceId\":\"",
    "\"stringValue\":",
    "\"arrayValue\":{\"values\":[",
    "\"kvlistValue\":{\"values\":[{",
    "\"intValue\":",
    "\"kind\":",
    "\"\":{",
    "{\"a\":[",
    "\u{feff}",
    "é",
];

#[test]
fn any_text_is_refused_with_its_place_or_becomes_a_request() {
    Campaign::new(env!("CARGO_MANIFEST_DIR"), "otlp_json")
        .seed_input(FULL.as_bytes().to_vec())
        .tokens(&TOKENS)
        .runs(800_000)
        .run(|input| match otlp_to_protobuf(input) {
            Ok(body) => {
                // What is longest in protobuf against JSON: a member such as `"a":1`, and ids and numbers of fixed width.
                assert!(body.len() <= 16 + 8 * input.len(), "{} bytes out of {}", body.len(), input.len());
                let body = Bytes::from(body);
                let sliced = slice(&body, &Limits { max_attribute_bytes: 0 }).err();
                let Ok(request) = Request::decode(body.clone()) else {
                    // JSON nests more loosely than messages do.
                    assert_eq!(sliced, Some(SliceError::Malformed(WireError::TooDeep)), "what is written decodes");
                    return likeness("too deep");
                };
                let spans = request.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).count();
                assert_eq!(count_spans(&body), Ok(spans));
                if let Some(error) = sliced {
                    let deep = error == SliceError::Malformed(WireError::TooDeep);
                    assert!(
                        deep || error.discard_reason().is_some(),
                        "one decodes it and the other does not: {error:?}"
                    );
                }
                // And an answer can be made of it.
                let trace = crate::tempopb::Trace { resource_spans: request.resource_spans };
                let answer = to_vec(&TraceByIdResponse { trace: Some(trace), ..TraceByIdResponse::default() });
                if let Err(error) = serde_json::from_slice::<serde_json::Value>(&answer) {
                    assert!(error.to_string().contains("recursion limit"), "an answer is JSON: {error}");
                }
                likeness(&format!("spans {}", "s".repeat(spans.min(5))))
            }
            Err(error) => {
                assert!(error.offset() <= input.len());
                let text = error.to_string();
                assert!(text.len() <= 4096 + input.len(), "an error of {} bytes", text.len());
                // Without the parts of the input that it repeats, and without the path.
                let what = text.split(['"', '|', '`', '#']).next().unwrap_or_default();
                likeness(what.rsplit(": ").next().unwrap_or_default())
            }
        });
}
