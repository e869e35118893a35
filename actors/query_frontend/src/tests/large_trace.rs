//! Traces that are larger than anybody should hold.

use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use prost::Message;
use serde_json::Value;
use vivace_protocol::tempopb::{PartialStatus, Trace, TraceByIdResponse};

use super::fake::{Frontend, NOW, SPANS_OF_A_PART, Source, World, frontend};
use crate::Config;

const MEGABYTES: u32 = 64;
/// What may be in memory of it, parts of a mebibyte: what is held before it is streamed, and what is on its way.
const HELD_PARTS: usize = 24;

fn id() -> String {
    "09".repeat(16)
}

fn large(megabytes: u32, breaks: Option<&'static str>) -> impl FnOnce(&mut World) {
    move |world| {
        let source = Source { traces: vec![(9, NOW)], megabytes, breaks, ..Source::default() };
        world.recent("single-tenant", source);
    }
}

/// What came, the coverage of the trailer, and why it ended early.
struct Read {
    body: Bytes,
    coverage: Option<String>,
    cut: Option<String>,
}

async fn read(response: Response) -> Read {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["trailer"], "x-vivace-coverage");
    let mut body = response.into_body();
    let (mut all, mut coverage, mut cut) = (BytesMut::new(), None, None);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) => all.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap();
                    coverage = Some(trailers["x-vivace-coverage"].to_str().unwrap().to_owned());
                }
            },
            Err(error) => cut = Some(error.to_string()),
        }
    }
    Read { body: all.freeze(), coverage, cut }
}

async fn asked(frontend: &Frontend, path: &str, accept: &str) -> Read {
    read(frontend.open(&format!("{path}{}", id()), &[("accept", accept)]).await).await
}

fn spans(trace: &Trace) -> u32 {
    let spans = trace.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum::<usize>();
    u32::try_from(spans).unwrap()
}

fn spans_of_json(batches: &Value) -> u32 {
    let scopes = batches.as_array().unwrap().iter().flat_map(|r| r["scopeSpans"].as_array().unwrap());
    u32::try_from(scopes.map(|s| s["spans"].as_array().unwrap().len()).sum::<usize>()).unwrap()
}

#[actix::test]
async fn a_large_trace_is_written_while_it_is_read_in_every_form() {
    let frontend = frontend(Config::default(), false, large(MEGABYTES, None));
    let due = MEGABYTES * SPANS_OF_A_PART;
    let live = frontend.world.lock().live.clone();

    let told = asked(&frontend, "/api/traces/", "application/protobuf").await;
    assert_eq!((told.cut, told.coverage.as_deref()), (None, Some("read=1/1")));
    assert_eq!(spans(&Trace::decode(told.body).unwrap()), due);

    let told = asked(&frontend, "/api/v2/traces/", "application/protobuf").await;
    let answer = TraceByIdResponse::decode(told.body).unwrap();
    assert_eq!((answer.status(), answer.message.as_str()), (PartialStatus::Complete, ""));
    assert_eq!(answer.metrics.unwrap().inspected_bytes, u64::from(MEGABYTES) * (1 << 20) + 20);
    assert_eq!(spans(&answer.trace.unwrap()), due);

    let told = asked(&frontend, "/api/traces/", "application/json").await;
    let answer: Value = serde_json::from_slice(&told.body).unwrap();
    assert_eq!(spans_of_json(&answer["batches"]), due);

    let told = asked(&frontend, "/api/v2/traces/", "application/json").await;
    let answer: Value = serde_json::from_slice(&told.body).unwrap();
    assert_eq!(spans_of_json(&answer["trace"]["resourceSpans"]), due);
    assert!(answer.get("status").is_none_or(|status| status == "COMPLETE"), "{}", answer["status"]);

    assert!(live.most() <= HELD_PARTS, "{} MiB of {MEGABYTES} were in memory at once", live.most());
    frontend.end().await;
}

#[actix::test]
async fn one_that_turns_out_incomplete_is_cut_in_the_first_form_and_marked_in_the_second() {
    let frontend = frontend(Config::default(), false, large(20, Some("the disk is gone")));
    for accept in ["application/json", "application/protobuf"] {
        let told = asked(&frontend, "/api/traces/", accept).await;
        assert!(told.cut.unwrap().contains("the disk is gone"), "{accept}");
        assert!(told.body.len() > 1 << 20, "it had begun");
    }
    let told = asked(&frontend, "/api/v2/traces/", "application/protobuf").await;
    assert_eq!(told.cut, None);
    let coverage = told.coverage.unwrap();
    assert!(coverage.starts_with("read=0/1") && coverage.contains("the disk is gone"), "{coverage}");
    let answer = TraceByIdResponse::decode(told.body).unwrap();
    assert_eq!(answer.status(), PartialStatus::Partial);
    assert!(answer.message.contains("the disk is gone"), "{}", answer.message);
    assert_eq!(spans(&answer.trace.unwrap()), 20 * SPANS_OF_A_PART);
    frontend.end().await;
    let config = Config { require_complete: true, ..Config::default() };
    let strict = super::fake::frontend(config, false, large(20, Some("the disk is gone")));
    let told = asked(&strict, "/api/v2/traces/", "application/json").await;
    assert!(told.cut.is_some());
    strict.end().await;
}

#[actix::test]
async fn the_limit_ends_it_while_it_grows() {
    let frontend = frontend(Config::default(), false, large(60, None));
    frontend.world.lock().max_bytes = 30 << 20;
    let told = asked(&frontend, "/api/v2/traces/", "application/protobuf").await;
    let answer = TraceByIdResponse::decode(told.body).unwrap();
    assert_eq!(answer.status(), PartialStatus::Partial);
    assert_eq!(answer.message, "Trace exceeds maximum size of 31457280 bytes, a partial trace is returned");
    let got = spans(&answer.trace.unwrap());
    assert!((30 * SPANS_OF_A_PART..34 * SPANS_OF_A_PART).contains(&got), "{got}");
    let told = asked(&frontend, "/api/traces/", "application/json").await;
    assert_eq!(told.cut.as_deref(), Some("trace exceeds max size (max bytes: 31457280)"));
    // Below what is held there is time for a status.
    frontend.world.lock().max_bytes = 5 << 20;
    let refused = frontend.get(&format!("/api/traces/{}", id())).await;
    assert_eq!((refused.status, refused.text()), (422, "trace exceeds max size (max bytes: 5242880)"));
    frontend.end().await;
}

#[actix::test]
async fn it_can_be_had_in_pages_and_filtered_page_by_page() {
    let frontend = frontend(Config::default(), false, large(MEGABYTES, None));
    let live = frontend.world.lock().live.clone();
    let due = MEGABYTES * SPANS_OF_A_PART;
    let (mut next, mut ids) = (String::new(), Vec::new());
    for page in 0.. {
        let path = format!("/api/v2/traces/{}?page_spans=100&page={next}", id());
        let response = frontend.open(&path, &[("accept", "application/protobuf")]).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-vivace-coverage"]),
            (200, &"read=1/1".parse().unwrap())
        );
        let header = response.headers().get("x-vivace-next-page").map(|next| next.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let answer = TraceByIdResponse::decode(body).unwrap();
        assert_eq!((answer.status(), answer.message.as_str()), (PartialStatus::Complete, ""));
        let trace = answer.trace.unwrap();
        let left = due - page * 100;
        assert_eq!((spans(&trace), header.is_some()), (left.min(100), left > 100));
        let scopes = trace.resource_spans.into_iter().flat_map(|r| r.scope_spans);
        ids.extend(scopes.flat_map(|s| s.spans).map(|s| u64::from_be_bytes(s.span_id.try_into().unwrap())));
        match header {
            Some(header) => next = header,
            None => break,
        }
    }
    assert_eq!(ids, (1..=u64::from(due)).collect::<Vec<_>>());
    assert!(live.most() <= HELD_PARTS, "{} MiB of {MEGABYTES} were in memory at once", live.most());

    let filter = "q=%7B%20span%3Aid%20%3D%20%220000000000000003%22%20%7D";
    let told = frontend.get(&format!("/api/v2/traces/{}?page_spans=9&{filter}", id())).await;
    let answer: Value = serde_json::from_str(told.text()).unwrap();
    assert_eq!(spans_of_json(&answer["trace"]["resourceSpans"]), 1);
    assert_eq!(answer["status"], "PARTIAL");
    for (path, why) in [
        (format!("/api/v2/traces/{}?page_spans=9&{filter}&keep_hierarchy=true", id()), "without keep_hierarchy"),
        (format!("/api/v2/traces/{}?page_spans=9&explain=true", id()), "without explain"),
        (format!("/api/v2/traces/{}?page=9", id()), "invalid page"),
        (format!("/api/traces/{}?page_spans=9", id()), "/api/v2/traces"),
    ] {
        let refused = frontend.get(&path).await;
        assert!(refused.status == 400 && refused.text().contains(why), "{path}: {}", refused.text());
    }
    frontend.end().await;
}

#[actix::test]
async fn a_page_is_no_larger_than_a_trace_may_be() {
    let frontend = frontend(Config::default(), false, large(20, None));
    frontend.world.lock().max_bytes = 5 << 20;
    let response =
        frontend.open(&format!("/api/v2/traces/{}?page_spans=1000", id()), &[("accept", "application/protobuf")]).await;
    assert!(response.headers().contains_key("x-vivace-next-page"));
    let answer = TraceByIdResponse::decode(response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((answer.status(), spans(&answer.trace.unwrap())), (PartialStatus::Complete, 5 * SPANS_OF_A_PART));
    frontend.end().await;
}

#[actix::test]
async fn compressed_it_is_the_same() {
    use std::io::Read as _;
    let frontend = frontend(Config::default(), false, large(18, None));
    let headers = [("accept", "application/protobuf"), ("accept-encoding", "gzip")];
    let response = frontend.open(&format!("/api/traces/{}", id()), &headers).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let told = read(response).await;
    assert_eq!(told.coverage.as_deref(), Some("read=1/1"));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&*told.body).read_to_end(&mut unpacked).unwrap();
    assert_eq!(spans(&Trace::decode(&*unpacked).unwrap()), 18 * SPANS_OF_A_PART);
    frontend.end().await;
}

#[actix::test]
async fn what_needs_all_of_it_says_up_to_which_size_it_goes() {
    let frontend = frontend(Config::default(), false, large(140, None));
    let refused = frontend.get(&format!("/api/v2/traces/{}?q=%7B%7D", id())).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text().starts_with("the trace is larger than 128 MiB"), "{}", refused.text());
    frontend.end().await;
}
