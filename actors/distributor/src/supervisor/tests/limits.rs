//! Who may send how much, and what is done to it.

use std::time::Duration;

use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tonic::Code;
use vivace_log::Log as _;
use vivace_protocol::RpcStatus;
use vivace_protocol::tempopb::PushBytesRequest;
use vivace_runtime::config::GoDuration;

use super::harness::{EXPORT, GOOD_JSON, JSON, PROTOBUF, Setup, frame, good, large, read_answer};
use crate::encoding::Encoding;
use crate::encoding::tests::compress;

#[actix_rt::test]
async fn above_the_rate_clients_hear_when_to_come_again() {
    let limited = || {
        Setup::new().with(|setup| {
            setup.limits.ingestion.rate_limit_bytes = 1;
            setup.limits.ingestion.burst_size_bytes = 10;
        })
    };
    let harness = limited().start().await;
    let message = good().encode_to_vec();
    let text = format!("RATE_LIMITED: batch size ({} bytes) exceeds ingestion limit (", message.len());
    let status = harness.export(&good()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with(&text), "{}", status.message());
    assert_eq!(RpcStatus::decode(status.details()).unwrap().retry_after(), Some(Duration::from_secs(5)));
    let answer = harness.post(&[PROTOBUF], &message).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("5")));
    assert_eq!(answer.status().code, 8);
    let answer = harness.post(&[JSON], GOOD_JSON.as_bytes()).await;
    assert!(answer.text().starts_with(r#"{"code":8,"message":"RATE_LIMITED: "#), "{}", answer.text());
    assert_eq!(harness.metric("tempo_discarded_spans_total{reason=\"rate_limited\",tenant=\"single-tenant\"}"), "7");
    assert!(!harness.registry.render().contains("tempo_distributor_spans_received_total"));
    assert!(harness.metric("tempo_distributor_ingress_bytes_total").parse::<usize>().unwrap() > 2 * message.len());
    harness.stop().await;

    let quiet = limited().with(|setup| setup.limits.ingestion.retry_info_enabled = Some(false)).start().await;
    assert!(quiet.export(&good()).await.unwrap_err().details().is_empty());
    assert_eq!(quiet.post(&[PROTOBUF], &message).await.header("retry-after"), None);
    quiet.stop().await;

    let off = limited().with(|setup| setup.config.retry_after_on_resource_exhausted = GoDuration::ZERO).start().await;
    assert!(off.export(&good()).await.unwrap_err().details().is_empty());
    off.stop().await;
}

#[actix_rt::test]
async fn tenants_are_named_by_exactly_one_good_header() {
    let harness = Setup::new().with(|setup| setup.multitenancy = true).start().await;
    let body = good().encode_to_vec();
    let name = "x-scope-orgid";
    type Case<'a> = (&'a [(&'a str, &'a str)], Code, u16, &'a str);
    let cases: [Case<'_>; 6] = [
        (&[], Code::Unavailable, 503, "no org id"),
        (&[(name, "a"), (name, "b")], Code::Unavailable, 503, "no org id"),
        (&[(name, "")], Code::InvalidArgument, 400, "no org id"),
        (&[(name, "a|b")], Code::InvalidArgument, 400, "multiple org IDs present"),
        (&[(name, "a b")], Code::InvalidArgument, 400, "tenant ID 'a b' contains unsupported character ' '"),
        (&[(name, "..")], Code::InvalidArgument, 400, "tenant ID is '.' or '..'"),
    ];
    for (headers, code, status, text) in cases {
        assert_eq!(harness.refused(headers, frame(0, &body)).await, (code, text.to_owned()));
        let answer = harness.post(&[&[PROTOBUF], headers].concat(), &body).await;
        assert_eq!(
            (answer.status, answer.status().code, answer.status().message.as_str()),
            (status, code as i32, text)
        );
        assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));
        let answer = harness.post(&[&[JSON], headers].concat(), GOOD_JSON.as_bytes()).await;
        assert_eq!(answer.status, status);
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&json["code"], &json["message"]), (&(code as i32).into(), &text.into()));
    }
    harness.call(EXPORT, &[(name, "team-1|team-1")], frame(0, &body)).await.unwrap();
    assert_eq!(harness.post(&[PROTOBUF, (name, "team-2:k=v")], &body).await.status, 200);
    let tenants: Vec<_> = harness.spans_in_log().into_iter().map(|(tenant, _)| tenant).collect();
    assert_eq!(tenants, ["team-1", "team-1", "team-1", "team-2", "team-2", "team-2"]);
    harness.stop().await;
}

#[actix_rt::test]
async fn without_multitenancy_the_header_is_not_looked_at() {
    let harness = Setup::new().start().await;
    let answer = harness.post(&[PROTOBUF, ("x-scope-orgid", "a b")], &good().encode_to_vec()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(harness.spans_in_log()[0].0, "single-tenant");
    harness.stop().await;
}

#[actix_rt::test]
async fn a_full_budget_refuses_retryably_with_a_hint() {
    let harness = Setup::new().with(|setup| setup.budget_bytes = 100_000).start().await;
    let other = harness.log.budget().acquire(60_000).unwrap();
    let message = large(50_000).encode_to_vec();
    let status = harness.call(EXPORT, &[], frame(0, &message)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(RpcStatus::decode(status.details()).unwrap().retry_after(), Some(Duration::from_secs(1)));
    let answer = harness.post(&[PROTOBUF], &message).await;
    assert_eq!((answer.status, answer.header("retry-after"), answer.status().code), (503, Some("1"), 14));
    // It fits compressed, but not what comes out.
    let compressed = compress(Encoding::Snappy, &message);
    let answer = harness.post(&[PROTOBUF, ("content-encoding", "snappy")], &compressed).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(harness.metric("vivace_distributor_requests_turned_away_total{reason=\"overloaded\"}"), "3");
    drop(other);
    assert_eq!(harness.post(&[PROTOBUF], &large(30_000).encode_to_vec()).await.status, 200);
    harness.stop().await;
}

#[actix_rt::test]
async fn a_sender_that_stalls_gives_its_room_back() {
    let harness = Setup::new().with(|setup| setup.http.read_timeout = GoDuration::millis(50)).start().await;
    let mut stream = TcpStream::connect(harness.http).await.unwrap();
    let head =
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\ncontent-type: application/json\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    while harness.log.budget().used_bytes() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(harness.log.budget().used_bytes(), 100_000);
    let answer = read_answer(stream).await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("not read in time"), "{}", answer.text());
    assert_eq!(harness.log.budget().used_bytes(), 0);
    harness.stop().await;
}

#[actix_rt::test]
async fn attributes_are_cut_and_metrics_can_be_skipped() {
    let harness = Setup::new().with(|setup| setup.limits.ingestion.max_attribute_bytes = 10).start().await;
    let answer = harness.post(&[PROTOBUF, ("no-generate-metrics", "")], &good().encode_to_vec()).await;
    assert_eq!(answer.status, 200);
    let record = harness.records.lock()[0].clone();
    assert!(PushBytesRequest::decode(record.value).unwrap().skip_metrics_generation);
    let scopes = "tempo_distributor_attributes_truncated_total{tenant=\"single-tenant\",scope=\"resource\"}";
    assert_eq!(harness.metric(scopes), "1");
    harness.call(EXPORT, &[("no-generate-metrics", "1")], frame(0, &good().encode_to_vec())).await.unwrap();
    let record = harness.records.lock()[1].clone();
    assert!(PushBytesRequest::decode(record.value).unwrap().skip_metrics_generation);
    harness.stop().await;
}

#[actix_rt::test]
async fn artificial_delay_holds_answers_back_and_tenants_can_switch_it_off() {
    let delayed = || Setup::new().with(|setup| setup.config.artificial_delay = GoDuration::millis(20));
    let harness = delayed().start().await;
    harness.export(&good()).await.unwrap();
    harness.refused(&[], frame(0, b"\xff")).await;
    assert_eq!(harness.metric("tempo_distributor_added_latency_seconds_count"), "2");
    harness.stop().await;
    let harness =
        delayed().with(|setup| setup.limits.ingestion.artificial_delay = Some(GoDuration::ZERO)).start().await;
    harness.export(&good()).await.unwrap();
    assert!(!harness.registry.render().contains("tempo_distributor_added_latency_seconds_count"));
    harness.stop().await;
}
